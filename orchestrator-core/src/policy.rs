//! Placement: which pool runs a job, and why (ORCH-3900). [`decide`] is the only place in the product that chooses.

mod decide;
mod decision;
mod explain;
mod filter;
mod job;
mod pool;
mod rank;

#[cfg(test)]
mod tests;

pub use decide::decide;
pub use decision::{DecisionLog, Exclusion, MAX_LISTED, NoCapacityReason, Outranked, PlacementDecision, TieBreaker};
pub use explain::explain;
pub use filter::{STALE_AFTER_MS, admits_work, misfit, takes_work};
pub use job::{JobSpec, ModelRequirements};
pub use pool::{ColdStart, Load, PoolSnapshot, Trouble};

/// Everything a decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct PlacementInput<'a> {
    /// The pools as they are now.
    pub pools: &'a [PoolSnapshot],
    /// The job to place.
    pub job: &'a JobSpec,
    /// When.
    pub now_ms: u64,
}
