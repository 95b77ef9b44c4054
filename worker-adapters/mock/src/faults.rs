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
    /// Metrics.
    Metrics,
    /// Tokenizing and applying the template.
    Tokenize,
}

/// What happens. Tokens are counted as the engine counts them, from the start of the answer; outside a stream a fault that
/// waits for tokens strikes at once.
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
    /// The response head comes late.
    SlowHeaders {
        /// By how much, in milliseconds.
        ms: u64,
    },
    /// A web page with status 200, as from a proxy that is in the way.
    WrongContentType,
    /// The connection is reset.
    Reset {
        /// Tokens before that.
        after_tokens: u32,
    },
    /// Nothing more comes, and the connection stays open.
    Stall {
        /// Tokens before that.
        after_tokens: u32,
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
    /// The engine goes back to loading as soon as the fault is set. Hits no request.
    SlowLoad {
        /// For how long, in milliseconds.
        ms: u64,
    },
}

/// What goes wrong inside a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MidStream {
    /// The connection is reset.
    Reset,
    /// Nothing more comes.
    Stall,
    /// An event breaks off inside a character.
    HalfCharacter,
    /// One event is not JSON.
    MalformedEvent,
    /// The stream ends without its last event.
    CleanEnd,
    /// The engine reports an error.
    ErrorEvent,
    /// The engine dies with this exit code.
    Crash(u8),
}

impl FaultKind {
    /// For a fault inside a stream: what, and after how many tokens.
    pub(crate) const fn mid_stream(&self) -> Option<(MidStream, u32)> {
        match *self {
            Self::Reset { after_tokens } => Some((MidStream::Reset, after_tokens)),
            Self::Stall { after_tokens } => Some((MidStream::Stall, after_tokens)),
            Self::HalfCharacter { after_tokens } => Some((MidStream::HalfCharacter, after_tokens)),
            Self::MalformedEvent { after_tokens } => Some((MidStream::MalformedEvent, after_tokens)),
            Self::CleanEnd { after_tokens } => Some((MidStream::CleanEnd, after_tokens)),
            Self::ErrorEvent { after_tokens } => Some((MidStream::ErrorEvent, after_tokens)),
            Self::Crash { after_tokens, code } => Some((MidStream::Crash(code), after_tokens)),
            Self::Refuse { .. }
            | Self::Hang
            | Self::SlowHeaders { .. }
            | Self::WrongContentType
            | Self::SlowLoad { .. } => None,
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
        let hits = |fault: &Fault| fault.on == route && !matches!(fault.fault, FaultKind::SlowLoad { .. });
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
        ] {
            serde_json::from_str::<Faults>(json).expect_err(json);
        }
    }
}
