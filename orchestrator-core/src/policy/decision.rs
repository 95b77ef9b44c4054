//! What a decision says.

use api_types::{PlacementRecord, PoolExclusion, PoolId, PoolOutranked, words};
use serde::{Deserialize, Serialize};

/// Most pools of a kind that a log lists; the rest is counted.
pub const MAX_LISTED: usize = 8;

/// Where a job goes (LO-PLC-16).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlacementDecision {
    /// To this pool.
    Assigned {
        /// The pool.
        pool_id: PoolId,
        /// Its index in the input.
        index: usize,
        /// Why it.
        reason: DecisionLog,
    },
    /// Nowhere.
    NoCapacity {
        /// What stopped the pool that came closest.
        reason: NoCapacityReason,
        /// How many pools were looked at.
        considered: usize,
        /// Why none.
        log: DecisionLog,
    },
}

/// How a decision came about (LO-PLC-17).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionLog {
    /// The pool chosen.
    pub selected_pool_id: Option<PoolId>,
    /// How many pools were looked at.
    pub candidates_considered: usize,
    /// The filters that excluded a pool, in the order in which they act.
    pub filters_applied: Vec<NoCapacityReason>,
    /// The tie-breakers that put the chosen pool before another, in the order in which they act.
    pub tie_breakers_applied: Vec<TieBreaker>,
    /// Whether the client pinned the pool.
    pub pinned: bool,
    /// Whether a preference was widened to all pools.
    pub fallback_used: bool,
    /// Why pools were not feasible, at most [`MAX_LISTED`] of them, in the input's order.
    pub excluded: Vec<Exclusion>,
    /// Pools excluded beyond that list.
    pub excluded_more: usize,
    /// Why feasible pools were not chosen, at most [`MAX_LISTED`] of them, in the input's order.
    pub outranked: Vec<Outranked>,
    /// Pools outranked beyond that list.
    pub outranked_more: usize,
    /// Predicted time to the job's end on the chosen pool, in milliseconds, when its speed is known.
    pub predicted_end_ms: Option<u64>,
}

impl From<&DecisionLog> for PlacementRecord {
    fn from(log: &DecisionLog) -> Self {
        Self {
            selected_pool_id: log.selected_pool_id.as_ref().map(ToString::to_string),
            candidates_considered: u32::try_from(log.candidates_considered).unwrap_or(u32::MAX),
            filters_applied: log.filters_applied.iter().map(ToString::to_string).collect(),
            tie_breakers_applied: log.tie_breakers_applied.iter().map(ToString::to_string).collect(),
            pinned: log.pinned,
            fallback_used: log.fallback_used,
            excluded: log.excluded.iter().map(Exclusion::record).collect(),
            outranked: log.outranked.iter().map(Outranked::record).collect(),
            unlisted: u32::try_from(log.excluded_more + log.outranked_more).unwrap_or(u32::MAX),
            predicted_end_ms: log.predicted_end_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
        }
    }
}

/// Why one pool was not feasible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exclusion {
    /// The pool.
    pub pool_id: PoolId,
    /// The first filter it failed.
    pub reason: NoCapacityReason,
}

impl Exclusion {
    fn record(&self) -> PoolExclusion {
        PoolExclusion { pool_id: self.pool_id.to_string(), reason: self.reason.to_string() }
    }
}

/// Why one feasible pool was not chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outranked {
    /// The pool.
    pub pool_id: PoolId,
    /// What put the chosen pool before it.
    pub by: TieBreaker,
}

impl Outranked {
    fn record(&self) -> PoolOutranked {
        PoolOutranked { pool_id: self.pool_id.to_string(), by: self.by.to_string() }
    }
}

words! {
    /// Why a pool is not feasible, and why a job has nowhere to go: one closed list (LO-PLC-03), extended by what our own
    /// request fields need (`model_mismatch`, `avoided`, `not_preferred`, `sampler_profile_mismatch`,
    /// `determinism_mismatch`, `queue_full`). The order is that in which filters act: what a pool *is* before what the
    /// client wants of it, before what it can hold, before the state it is in. So the pool that came furthest is the one
    /// whose reason helps most.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    NoCapacityReason {
        /// There is no pool at all.
        NoPools = "no_pools",
        /// Another kind of engine.
        EngineMismatch = "engine_mismatch",
        /// It does not serve the model.
        ModelMismatch = "model_mismatch",
        /// The client avoids it.
        Avoided = "avoided",
        /// The client pinned or prefers others.
        NotPreferred = "not_preferred",
        /// Its device mask is not the one required.
        MaskMismatch = "mask_mismatch",
        /// Another sampler profile.
        SamplerProfileMismatch = "sampler_profile_mismatch",
        /// The task needs a strict pool.
        DeterminismMismatch = "determinism_mismatch",
        /// Its context is too small.
        CtxTooSmall = "ctx_too_small",
        /// It cannot run the quantisation.
        QuantUnsupported = "quant_unsupported",
        /// It lacks an ability.
        MissingExtension = "missing_extension",
        /// Its compute capability is too low.
        ComputeCapability = "compute_capability",
        /// It has too little video memory.
        VramInsufficient = "vram_insufficient",
        /// It cannot take work yet, or no longer.
        NotReady = "not_ready",
        /// It takes no new work.
        Draining = "draining",
        /// It has not been heard from lately.
        StaleSnapshot = "stale_snapshot",
        /// It has no slot at all.
        NoFreeSlots = "no_free_slots",
        /// Its queue is full while another feasible pool's is not.
        QueueFull = "queue_full",
        /// The pinned pool cannot take the job.
        PinnedPoolInfeasible = "pinned_pool_infeasible",
        /// None of the preferred pools can take the job, and no other is allowed.
        NoPreferredFeasible = "no_preferred_feasible",
    }
}

words! {
    /// What decides between feasible pools, in this order (ORCH-3902).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    TieBreaker {
        /// Lowest predicted end; only when every feasible pool has hints.
        PredictedEnd = "predicted_end",
        /// Its model is loaded, and that of the other is not.
        Loaded = "loaded",
        /// It served the session last.
        Affinity = "affinity",
        /// Fewest busy slots and waiting tasks per slot.
        LeastLoaded = "least_loaded",
        /// Most free video memory.
        ResidualVram = "residual_vram",
        /// Highest measured speed.
        PerfTokensPerS = "perf_tokens_per_s",
        /// First by id.
        PoolId = "pool_id",
    }
}
