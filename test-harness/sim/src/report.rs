//! What came of a scenario, as numbers and as text.

mod measure;
mod statistics;
mod swap;
mod text;

use std::collections::BTreeMap;

use api_types::Priority;
use serde::Serialize;

pub use swap::{ColdStarts, Swap, Swapping, Waits};

/// What came of a scenario. Rates and utilisation are those of the time in which tasks were submitted; everything else is
/// about all tasks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: &'static str,
    /// What it shows.
    pub shows: &'static str,
    /// The seed.
    pub seed: u64,
    /// Tasks submitted.
    pub tasks: usize,
    /// Virtual time, in milliseconds.
    pub simulated_ms: u64,
    /// Events; every promise of the scheduler was checked after each.
    pub events: u64,
    /// Digest of everything the scheduler said: equal stories are equal in every answer.
    pub story: String,
    /// How tasks ended.
    pub ends: Ends,
    /// Refusals by error code and policy; a client that comes back may be refused again.
    pub refusals: BTreeMap<String, u64>,
    /// Changes of pool.
    pub moves: Moves,
    /// Tasks that were started again after their worker was lost.
    pub retried: usize,
    /// Completed tasks per second.
    pub tasks_per_s: f64,
    /// Generated tokens per second, of all tasks that ended.
    pub tokens_per_s: f64,
    /// Completed tasks against what all slots, always busy, would complete of the same kind. Where there is always work.
    pub share_of_ideal: Option<f64>,
    /// By class.
    pub classes: Vec<Class>,
    /// By pool.
    pub pools: Vec<Pool>,
    /// Predicted against actual starts, of tasks that waited and whose prediction rested on measurements.
    pub starts: StartErrors,
    /// The same by how many tasks stood ahead.
    pub starts_by_depth: Vec<(&'static str, StartErrors)>,
    /// `on_time_probability` at the admission against what came of it; empty deciles are left out.
    pub on_time: Vec<Decile>,
    /// The same at the last start.
    pub on_time_at_start: Vec<Decile>,
    /// Where models are swapped: what that came to, beside other ways to do it.
    pub swap: Option<Swap>,
}

/// How tasks ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ends {
    /// As the engine meant it to.
    pub completed: usize,
    /// With their worker, after the first token.
    pub failed: usize,
    /// With their worker, for the second time.
    pub lost_twice: usize,
    /// By their client.
    pub canceled: usize,
    /// At their deadline.
    pub expired: usize,
    /// By a newcomer, out of a full queue.
    pub evicted: usize,
    /// Because no pool could run them any more.
    pub turned_out: usize,
    /// Refused until the client gave up.
    pub gave_up: usize,
}

/// Changes of pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Moves {
    /// To a pool that had a free slot.
    pub idle: u32,
    /// Away from a pool that had closed.
    pub closed: u32,
    /// After a lost worker.
    pub lost: u32,
}

/// One class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class {
    /// The class.
    pub class: Priority,
    /// Tasks submitted.
    pub submitted: usize,
    /// Share of them that completed.
    pub completed: f64,
    /// Times from admission to first start.
    pub wait: Times,
    /// Times from admission to the end of those that completed.
    pub turnaround: Times,
    /// Longest wait as a multiple of the mean.
    pub max_over_mean: f64,
    /// Jain's index of the tokens that each client got, of the source whose clients fared least alike: 1 when all got the
    /// same.
    pub jain: f64,
    /// Of the tasks that were next when they came and had to wait.
    pub next: Option<Next>,
}

/// Tasks that were next when they came and had to wait.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Next {
    /// How many they were.
    pub tasks: usize,
    /// Their wait as a share of what was really left of the running task that would end first, at the 99th percentile.
    pub wait_over_remainder_p99: f64,
}

/// Quantiles of times, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// Median.
    pub p50: f64,
    /// One in ten takes longer.
    pub p90: f64,
    /// One in a hundred takes longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// One pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pool {
    /// Its name.
    pub id: &'static str,
    /// Slots.
    pub slots: u32,
    /// Share of its slots' time that was leased.
    pub utilisation: f64,
    /// Share of all tasks that started which ran here last.
    pub share: f64,
    /// Generated tokens per second.
    pub tokens_per_s: f64,
}

/// How far off predicted starts were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StartErrors {
    /// Tasks.
    pub tasks: usize,
    /// Median of the error as a share of the actual wait.
    pub median: f64,
    /// One in ten is further off.
    pub p90: f64,
    /// Median of predicted over actual wait.
    pub bias: f64,
    /// Median of the error of a forecast that knows the true speeds and the true distribution of lengths, but neither the
    /// lengths nor who comes or goes later. Where nobody overtakes, no estimate can be much better.
    pub informed: f64,
}

/// Predictions of about the same probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Decile {
    /// Its place: 0 is "less than 0.1".
    pub decile: usize,
    /// Tasks that then completed or met their deadline; others were cut short and tell nothing.
    pub tasks: usize,
    /// Mean of what was predicted.
    pub predicted: f64,
    /// Share that completed.
    pub observed: f64,
}
