//! What went wrong with an engine, from how its process ended and what it said.
//!
//! Pure: equal inputs give equal answers. What engines print is a table with its sources (`diagnose/patterns.rs`); what it means, in
//! words and with what to do about it, stands in `diagnose/cause.rs`. A line that names a cause beats one that names a symptom ("failed to load
//! model"), and of causes the first that was printed beats its consequences. How the process ended decides where nothing was
//! said, and always where the kernel ended it: a killed process says nothing about that.

mod cause;
mod patterns;

use std::sync::Arc;

use crate::failure::Failure;
use crate::logs::{LogLine, Source};
use crate::process::{Ended, Exit};
use cause::Cause;
use patterns::{Pattern, Weight};

/// Lines before the end that count when an engine dies in service: older ones it has survived.
const LAST_LINES: usize = 120;

/// After this line, memory that was refused before it was not needed. Source: llama.cpp `src/llama-context.cpp`.
const RECOVERED: &str = "retrying without pipeline parallelism";

/// What an engine was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It had not been ready yet.
    Loading,
    /// It was ready, or had been.
    Serving,
}

/// What is known of the engine besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What people call it, such as `llama-server`.
    pub engine: String,
    /// Its port.
    pub port: Option<u16>,
}

/// Something an engine says that matters while its process lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What it says.
    pub diagnosis: Failure,
    /// The engine will never serve again, whether it ends by itself or not. Without this it may recover: an allocation that was
    /// refused is tried again in another size.
    pub lost: bool,
}

/// Tells why an engine ended, given the end of its log.
#[must_use]
pub fn diagnose(phase: Phase, ended: &Ended, tail: &[Arc<LogLine>], facts: &Facts) -> Failure {
    let exit = Outcome::of(ended.exit);
    if let Some(cause) = exit.settled(ended) {
        return cause.diagnosis("", facts);
    }
    let lines = relevant(phase, tail);
    if let Some((cause, line)) = first(&lines, Weight::Cause) {
        return cause.diagnosis(line, facts);
    }
    if ended.oom_killed && lines.iter().any(|line| patterns::tells_of_a_killed_child(line)) {
        return Cause::HostOomKilledChild.diagnosis("", facts);
    }
    if let Some((cause, line)) = first(&lines, Weight::Symptom) {
        return cause.diagnosis(line, facts);
    }
    let last = lines.iter().rev().find(|line| !line.trim().is_empty());
    exit.cause(phase).diagnosis(last.copied().unwrap_or_default(), facts)
}

/// Tells what a line means for an engine whose process lives; `None` for nearly all lines.
#[must_use]
pub fn diagnose_line(text: &str) -> Option<Alarm> {
    let pattern = patterns::find(text)?;
    let lost = pattern.cause.is_lost()?;
    Some(Alarm { diagnosis: pattern.cause.diagnosis(text, &Facts::default()), lost })
}

/// Tells why an engine is lost whose process lives, given the end of its log; `None` if it has not said so.
#[must_use]
pub fn diagnose_living(tail: &[Arc<LogLine>]) -> Option<Failure> {
    let engine = tail.iter().filter(|line| line.source != Source::Note);
    let lost = engine.filter_map(|line| {
        let pattern = patterns::find(&line.text)?;
        (pattern.cause.is_lost() == Some(true)).then_some((pattern, line))
    });
    let lost: Vec<_> = lost.collect();
    let (pattern, line) = lost.iter().find(|(pattern, _)| pattern.weight == Weight::Cause).or_else(|| lost.first())?;
    Some(pattern.cause.diagnosis(&line.text, &Facts::default()))
}

/// Whether the line looks like the cause of a failure, or like a symptom.
pub(crate) fn is_notable(text: &str) -> bool {
    patterns::find(text).is_some()
}

/// How a process ended, seen through shells and container runtimes, which report a signal as 128 and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Code(i32),
    Signal(i32),
    Lost,
}

impl Outcome {
    fn of(exit: Exit) -> Self {
        match exit {
            Exit::Code(code @ (132 | 134 | 135 | 136 | 137 | 139 | 143)) => Self::Signal(code - 128),
            Exit::Code(code) => Self::Code(code),
            Exit::Signal(signal) => Self::Signal(signal),
            Exit::Lost => Self::Lost,
        }
    }

    /// What the end alone settles, whatever was said before it.
    fn settled(self, ended: &Ended) -> Option<Cause> {
        match self {
            Self::Signal(signal::KILL) if ended.oom_killed => Some(Cause::HostOomKilled),
            Self::Signal(signal::KILL) => Some(Cause::Killed),
            Self::Signal(signal::ILL) => Some(Cause::IllegalInstruction),
            Self::Signal(signal::TERM | signal::INT | signal::HUP) => Some(Cause::AskedToEnd),
            Self::Lost => Some(Cause::GuardLost),
            Self::Signal(_) | Self::Code(_) => None,
        }
    }

    /// What it comes to when nothing else is known.
    fn cause(self, phase: Phase) -> Cause {
        match (self, phase) {
            (Self::Signal(signal), _) => Cause::Crashed(signal),
            (Self::Code(code), Phase::Loading) => Cause::ExitedDuringLoad(code),
            (Self::Code(code), Phase::Serving) => Cause::Exited(code),
            (Self::Lost, _) => Cause::GuardLost,
        }
    }
}

/// Numbers of signals on Linux. Source: signal(7).
mod signal {
    pub(super) const HUP: i32 = 1;
    pub(super) const INT: i32 = 2;
    pub(super) const ILL: i32 = 4;
    pub(super) const KILL: i32 = 9;
    pub(super) const TERM: i32 = 15;
}

fn relevant(phase: Phase, tail: &[Arc<LogLine>]) -> Vec<&str> {
    let skipped = match phase {
        Phase::Loading => 0,
        Phase::Serving => tail.len().saturating_sub(LAST_LINES),
    };
    let engine = tail[skipped..].iter().filter(|line| line.source != Source::Note);
    engine.map(|line| line.text.as_str()).collect()
}

/// The first line of this weight, and what it means.
fn first<'a>(lines: &[&'a str], weight: Weight) -> Option<(Cause, &'a str)> {
    let recovered = lines.iter().rposition(|line| line.contains(RECOVERED));
    let is_recovered = |index: usize, pattern: &Pattern| {
        pattern.cause.is_vram() && recovered.is_some_and(|recovered| index < recovered)
    };
    lines.iter().enumerate().find_map(|(index, line)| {
        let pattern = patterns::find(line)?;
        (pattern.weight == weight && !is_recovered(index, pattern)).then_some((pattern.cause, *line))
    })
}

#[cfg(test)]
mod tests;
