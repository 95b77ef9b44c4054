//! Whether an engine that keeps failing is left alone for a while. A pure state machine: time comes in as a value.
//!
//! Only tasks open and close it. A healthy probe proves that an engine answers, not that it decodes.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use adapter_api::WorkerError;
use tokio::time::Instant;

/// When a breaker opens and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failed tasks that open it.
    pub failures: NonZeroU32,
    /// Time within which they must come.
    pub window: Duration,
    /// Time for which it stays open before one task may try the engine.
    pub cool_down: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            failures: NonZeroU32::new(5).expect("5 is not zero"),
            window: Duration::from_secs(30),
            cool_down: Duration::from_secs(5),
        }
    }
}

/// What a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Every task.
    Closed,
    /// One task, whose fate decides.
    HalfOpen {
        /// It is on its way.
        tried: bool,
    },
    /// No task.
    Open {
        /// When it will be half-open.
        until: Instant,
    },
}

/// The breaker of one engine.
#[derive(Debug)]
pub(crate) struct Breaker {
    policy: BreakerPolicy,
    state: State,
}

#[derive(Debug)]
enum State {
    /// With the failures that still count, oldest first.
    Closed(VecDeque<Instant>),
    HalfOpen {
        tried: bool,
    },
    Open {
        until: Instant,
    },
}

/// Leave for one task. What becomes of the task is told to the breaker that gave it, once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// One of many.
    Usual,
    /// The one task of a half-open breaker.
    Trial,
}

impl Breaker {
    pub(crate) const fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: State::Closed(VecDeque::new()) }
    }

    pub(crate) fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            State::Closed(_) => BreakerState::Closed,
            State::HalfOpen { tried } => BreakerState::HalfOpen { tried },
            State::Open { until } if until <= now => BreakerState::HalfOpen { tried: false },
            State::Open { until } => BreakerState::Open { until },
        }
    }

    /// Leave for a task, or what stands in its way.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<Leave, BreakerState> {
        match self.state(now) {
            BreakerState::Closed => Ok(Leave::Usual),
            BreakerState::HalfOpen { tried: false } => {
                self.state = State::HalfOpen { tried: true };
                Ok(Leave::Trial)
            }
            state => Err(state),
        }
    }

    /// The engine worked on a task. Whether that closed the breaker.
    pub(crate) fn worked(&mut self, leave: &Leave) -> bool {
        let closes = *leave == Leave::Trial;
        if closes {
            self.state = State::Closed(VecDeque::new());
        }
        closes
    }

    /// The engine failed a task. Whether that opened the breaker.
    pub(crate) fn failed(&mut self, leave: &Leave, now: Instant) -> bool {
        let opens = match (&mut self.state, leave) {
            (_, Leave::Trial) => true,
            (State::Closed(failures), Leave::Usual) => {
                failures.push_back(now);
                while failures.front().is_some_and(|first| now.saturating_duration_since(*first) > self.policy.window) {
                    failures.pop_front();
                }
                failures.len() >= self.policy.failures.get() as usize
            }
            // It was taken before the breaker opened, and says nothing new.
            (State::HalfOpen { .. } | State::Open { .. }, Leave::Usual) => false,
        };
        if opens {
            self.state = State::Open { until: now + self.policy.cool_down };
        }
        opens
    }

    /// A task was over without a word on the engine: a trial may be made again.
    pub(crate) fn withdrawn(&mut self, leave: &Leave) {
        if *leave == Leave::Trial {
            self.state = State::HalfOpen { tried: false };
        }
    }
}

/// Whether an error is the engine's failure, rather than the request's, a lack of room, or ours.
pub(crate) const fn is_failure(error: &WorkerError) -> bool {
    match error {
        WorkerError::PoolUnavailable(_)
        | WorkerError::DecodeTimeout(_)
        | WorkerError::WorkerReset(_)
        | WorkerError::Adapter(_) => true,
        WorkerError::Rejected(_) | WorkerError::DeadlineUnmet(_) | WorkerError::Busy(_) | WorkerError::Internal(_) => {
            false
        }
    }
}

#[cfg(test)]
mod tests;
