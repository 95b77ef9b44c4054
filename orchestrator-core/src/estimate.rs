//! Predictions that learn from finished tasks: how long a task takes, when a waiting one starts, whether it ends in time.
//!
//! Everything here is arithmetic on what was observed, so equal histories give equal predictions. Where nothing was
//! observed yet, the answer says so ([`Estimate::measured`]) instead of passing a guess off as knowledge.

mod accuracy;
mod demand;
mod fit;
mod speed;
mod wait;

pub use accuracy::{Accuracy, Situation};
pub use demand::{Demand, Prompt};
pub use speed::{Estimate, Observation, PoolSpeed, UNMEASURED_TASK_MS};
pub use wait::{Waiting, predict_start_ms};

/// Shortest and longest wait that a client is told, in milliseconds.
const BACKOFF_MS: std::ops::RangeInclusive<u64> = 100..=60_000;

/// How long a client should wait before it submits more to a full queue, in milliseconds: until the next waiting task is
/// predicted to start and to leave its place.
#[must_use]
pub fn backoff_ms(next_start_ms: u64) -> u64 {
    next_start_ms.clamp(*BACKOFF_MS.start(), *BACKOFF_MS.end())
}

#[cfg(test)]
mod tests;
