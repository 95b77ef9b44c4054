//! Ways to fail, on demand.
//!
//! One description for both faces: JSON in a flag, in a file, or posted to `/mock/faults`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Faults in order; a request takes the first one that fits it.
///
/// ```json
/// {"faults": [{"fault": {"reset": {"after_tokens": 3}}, "times": 1}, {"fault": "hang", "on": "health"}]}
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// The faults.
    pub faults: Vec<Fault>,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What happens.
    pub fault: FaultKind,
    /// How many requests it still hits; without it, every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Which requests it hits.
    #[serde(default)]
    pub on: Route,
}

/// The requests a fault can hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// Completions, chats and embeddings.
    #[default]
    Generate,
    /// Health probes.
    Health,
    /// Questions about the engine: properties, models.
    Props,
    /// The slots.
    Slots,
    /// Saving a slot to a file.
    SaveSlot,
    /// Restoring a slot from a file.
    RestoreSlot,
    /// Metrics.
    Metrics,
    /// Tokenizing and applying the template.
    Tokenize,
}

/// What happens. Tokens are counted as the engine counts them, from the start of the answer; outside a stream a fault that
/// waits for tokens strikes at once, and one that waits for the stream's end does not strike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// An HTTP error instead of an answer.
    Refuse {
        /// The status.
        status: u16,
        /// The body; without it the engine's own error object, `""` for none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
    },
    /// The request is read and never answered.
    Hang,
    /// The connection is accepted and the request never read, so that a large one cannot even be sent. Lasts until the faults
    /// are replaced: an engine that reads nothing does not see its client go.
    NoRead,
    /// The response head comes late.
    SlowHeaders {
        /// By how much, in milliseconds.
        ms: u64,
    },
    /// The response head comes byte by byte.
    TrickleHead {
        /// From one byte to the next, in milliseconds.
        ms: u64,
    },
    /// The connection is reset in the middle of the response head.
    HalfHead,
    /// A web page with status 200, as from a proxy that is in the way.
    WrongContentType,
    /// The stream claims to have this length: a short one cuts it off, a long one is not reached before the connection closes.
    WrongLength {
        /// What `Content-Length` says.
        bytes: u64,
    },
    /// The connection is reset.
    Reset {
        /// Tokens before that.
        after_tokens: u32,
    },
    /// Half an event is written and the connection is reset.
    HalfEvent {
        /// Tokens before that.
        after_tokens: u32,
    },
    /// Nothing more comes, and the connection stays open.
    Stall {
        /// Tokens before that.
        after_tokens: u32,
    },
    /// The rest of the response comes byte by byte.
    Trickle {
        /// Tokens before that.
        after_tokens: u32,
        /// From one byte to the next, in milliseconds.
        ms: u64,
    },
    /// An event breaks off inside a character and the connection closes.
    HalfCharacter {
        /// Tokens before that.
        after_tokens: u32,
    },
    /// One event is not JSON; the stream goes on after it.
    MalformedEvent {
        /// Tokens before that.
        after_tokens: u32,
    },
    /// One event has a text of this length; the stream goes on after it. It is made while it is sent and never held whole.
    OversizedLine {
        /// Tokens before that.
        after_tokens: u32,
        /// Length of the text.
        bytes: u64,
    },
    /// The response ends as HTTP wants it, without the event that says the engine is done.
    CleanEnd {
        /// Tokens before that.
        after_tokens: u32,
    },
    /// The engine reports an error inside the stream and ends it.
    ErrorEvent {
        /// Tokens before that.
        after_tokens: u32,
    },
    /// The process exits; the in-process face is lost for good.
    Crash {
        /// Tokens before that.
        after_tokens: u32,
        /// Exit code of the process.
        code: u8,
    },
    /// The process dies of a CUDA error as llama.cpp does: with a report on standard error, and SIGABRT.
    CudaError {
        /// Tokens before that.
        after_tokens: u32,
    },
    /// After the last token the connection is reset instead of the event that says the engine is done.
    ResetBeforeEnd,
    /// The events that end the stream come twice.
    DuplicateEnd,
    /// The stream goes on after its end.
    TokensAfterEnd {
        /// By how many tokens.
        tokens: u32,
    },
    /// The engine's clock jumps during the task, which shows in the timings of its last event.
    ClockJump {
        /// By how much, in milliseconds, negative for back; without it the timings are no numbers at all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ms: Option<i64>,
    },
    /// The engine goes back to loading as soon as the fault is set. Hits no request.
    SlowLoad {
        /// For how long, in milliseconds.
        ms: u64,
    },
    /// A request is answered, refused or never answered, as a seed draws it; a health probe with this looks like an engine that
    /// cannot make up its mind.
    Flaky {
        /// The seed.
        seed: u64,
        /// Whether a health probe may be told that all is well before it is.
        #[serde(default)]
        early: bool,
    },
    /// The process fails while it loads. Hits no request; the in-process face does not load and is not hit either, as with the
    /// following two.
    InLoad {
        /// When so much is loaded; nothing unless it says so.
        #[serde(default)]
        at_percent: u8,
        /// A line that it writes to standard error before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stderr: Option<String>,
        /// How.
        end: Ending,
    },
    /// The process fails once it has loaded, whatever it does at that time. Hits no request.
    InLife {
        /// How long after the fault was set, or after it has loaded, in milliseconds.
        #[serde(default)]
        after_ms: u64,
        /// A line that it writes to standard error before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stderr: Option<String>,
        /// How.
        end: Ending,
    },
    /// The process does not end when it is asked to. Hits no request.
    IgnoreSigterm,
}

/// How a process fails of its own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It exits with this code.
    Exit(u8),
    /// It ends as C++ does without memory of the host: a report on standard error, and SIGABRT.
    BadAlloc,
    /// It is killed, as by a system without memory.
    Killed,
    /// The GPU fails it: a report on standard error, and SIGABRT.
    CudaError,
    /// The GPU has no memory left for it: a report on standard error, and SIGABRT.
    CudaOutOfMemory,
    /// It goes no further and answers as before.
    Hang,
    /// It stands still as a whole, as after SIGSTOP, and answers nothing.
    Freeze,
    /// Nothing but the line happens.
    Nothing,
}

/// What goes wrong inside a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MidStream {
    /// The connection is reset.
    Reset,
    /// Half an event, and then a reset.
    HalfEvent,
    /// Nothing more comes.
    Stall,
    /// From here on each byte comes so long after the one before.
    Trickle(Duration),
    /// An event breaks off inside a character.
    HalfCharacter,
    /// One event is not JSON.
    MalformedEvent,
    /// One event has a text of so many bytes.
    OversizedLine(u64),
    /// The stream ends without its last event.
    CleanEnd,
    /// The engine reports an error.
    ErrorEvent,
    /// The engine dies.
    Crash(Death),
}

/// How an engine's process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// It exits with this code.
    Exit(u8),
    /// The GPU fails it.
    CudaError,
}

/// What goes wrong at the end of a stream that has gone well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OddEnd {
    /// The connection is reset before the last event.
    Reset,
    /// The last events come twice.
    Twice,
    /// So many tokens come after the last event.
    GoesOn(u32),
    /// The engine's clock has jumped by so many milliseconds, or has stopped being a clock.
    ClockJump(Option<i64>),
}

/// A fault inside an answer, with its moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    /// After so many tokens.
    After(u32, MidStream),
    /// At the end.
    AtEnd(OddEnd),
}

impl FaultKind {
    /// Whether it waits for a request to strike.
    const fn hits_requests(&self) -> bool {
        !matches!(self, Self::SlowLoad { .. } | Self::InLoad { .. } | Self::InLife { .. } | Self::IgnoreSigterm)
    }

    /// For a fault inside an answer: what and when.
    pub(crate) const fn inside(&self) -> Option<Inside> {
        let (after_tokens, fault) = match *self {
            Self::Reset { after_tokens } => (after_tokens, MidStream::Reset),
            Self::HalfEvent { after_tokens } => (after_tokens, MidStream::HalfEvent),
            Self::Stall { after_tokens } => (after_tokens, MidStream::Stall),
            Self::Trickle { after_tokens, ms } => (after_tokens, MidStream::Trickle(Duration::from_millis(ms))),
            Self::HalfCharacter { after_tokens } => (after_tokens, MidStream::HalfCharacter),
            Self::MalformedEvent { after_tokens } => (after_tokens, MidStream::MalformedEvent),
            Self::OversizedLine { after_tokens, bytes } => (after_tokens, MidStream::OversizedLine(bytes)),
            Self::CleanEnd { after_tokens } => (after_tokens, MidStream::CleanEnd),
            Self::ErrorEvent { after_tokens } => (after_tokens, MidStream::ErrorEvent),
            Self::Crash { after_tokens, code } => (after_tokens, MidStream::Crash(Death::Exit(code))),
            Self::CudaError { after_tokens } => (after_tokens, MidStream::Crash(Death::CudaError)),
            Self::ResetBeforeEnd => return Some(Inside::AtEnd(OddEnd::Reset)),
            Self::DuplicateEnd => return Some(Inside::AtEnd(OddEnd::Twice)),
            Self::TokensAfterEnd { tokens } => return Some(Inside::AtEnd(OddEnd::GoesOn(tokens))),
            Self::ClockJump { ms } => return Some(Inside::AtEnd(OddEnd::ClockJump(ms))),
            Self::Refuse { .. }
            | Self::Hang
            | Self::NoRead
            | Self::SlowHeaders { .. }
            | Self::TrickleHead { .. }
            | Self::HalfHead
            | Self::WrongContentType
            | Self::WrongLength { .. }
            | Self::SlowLoad { .. }
            | Self::Flaky { .. }
            | Self::InLoad { .. }
            | Self::InLife { .. }
            | Self::IgnoreSigterm => return None,
        };
        Some(Inside::After(after_tokens, fault))
    }
}

impl MidStream {
    /// Whether the stream goes on after it.
    #[must_use]
    pub const fn goes_on(self) -> bool {
        matches!(self, Self::MalformedEvent | Self::OversizedLine(_) | Self::Trickle(_))
    }
}

impl OddEnd {
    /// What a jump of the clock adds to every time, in milliseconds; not a number when it is no clock any more.
    #[expect(clippy::cast_precision_loss, reason = "nonsense need not be exact")]
    pub(crate) fn clock_jump_ms(self) -> f64 {
        match self {
            Self::ClockJump(ms) => ms.map_or(f64::NAN, |ms| ms as f64),
            Self::Reset | Self::Twice | Self::GoesOn(_) => 0.0,
        }
    }
}

impl Inside {
    /// What strikes outside a stream, where there are no tokens to wait for.
    pub(crate) const fn at_once(self) -> Option<MidStream> {
        match self {
            Self::After(_, fault) => Some(fault),
            Self::AtEnd(_) => None,
        }
    }
}

impl Faults {
    /// One fault for every generating request.
    #[must_use]
    pub fn always(fault: FaultKind) -> Self {
        Self { faults: vec![Fault { fault, times: None, on: Route::Generate }] }
    }

    /// One fault for the next `times` generating requests.
    #[must_use]
    pub fn next(times: u32, fault: FaultKind) -> Self {
        Self { faults: vec![Fault { fault, times: Some(times), on: Route::Generate }] }
    }

    /// Takes the fault that hits a request, counting it down.
    pub(crate) fn take(&mut self, route: Route) -> Option<FaultKind> {
        let hits = |fault: &Fault| fault.on == route && fault.fault.hits_requests();
        let index = self.faults.iter().position(hits)?;
        let fault = &mut self.faults[index];
        let Some(times) = &mut fault.times else { return Some(fault.fault.clone()) };
        *times = times.saturating_sub(1);
        if *times == 0 { Some(self.faults.remove(index).fault) } else { Some(fault.fault.clone()) }
    }

    /// How much longer the engine loads.
    pub(crate) fn slow_load(&self) -> Duration {
        self.faults
            .iter()
            .map(|fault| match fault.fault {
                FaultKind::SlowLoad { ms } => Duration::from_millis(ms),
                _ => Duration::ZERO,
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{FaultKind, Faults, Route};

    /// ORCH-3058: faults are counted down, in order, per route.
    #[test]
    fn a_limited_fault_ends() {
        let json = r#"{"faults":[{"fault":{"refuse":{"status":503}},"times":2},{"fault":"hang","on":"health"},
            {"fault":{"stall":{"after_tokens":4}}}]}"#;
        let mut faults: Faults = serde_json::from_str(json).expect("parses");
        let refuse = Some(FaultKind::Refuse { status: 503, body: None });
        let stall = Some(FaultKind::Stall { after_tokens: 4 });
        let taken: Vec<_> = (0..4).map(|_| faults.take(Route::Generate)).collect();
        assert_eq!(taken, [refuse.clone(), refuse, stall.clone(), stall]);
        assert_eq!(faults.take(Route::Health), Some(FaultKind::Hang));
        assert_eq!(faults.take(Route::Slots), None);
    }

    #[test]
    fn a_misspelt_fault_is_refused() {
        for json in [
            r#"{"faults":[{"fault":"hangs"}]}"#,
            r#"{"faults":[{"fault":{"stall":{"after":1}}}]}"#,
            r#"{"faults":[{"fault":"hang","time":1}]}"#,
            r#"{"faults":[{"fault":{"oversized_line":{"after_tokens":1}}}]}"#,
            r#"{"faults":[{"fault":{"clock_jump":{"by":1}}}]}"#,
            r#"{"faults":[{"fault":"trickle"}]}"#,
        ] {
            serde_json::from_str::<Faults>(json).expect_err(json);
        }
    }
}
