//! Why a task is on the pool it is on, and how it got there.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::words::wire_words;

/// Why a pool was chosen (LO-PLC-17).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlacementRecord {
    /// The pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selected_pool_id: Option<String>,
    /// How many pools were looked at.
    pub candidates_considered: u32,
    /// The filters that excluded a pool, in the order they acted.
    pub filters_applied: Vec<String>,
    /// The tie-breakers that decided, in the order they acted.
    pub tie_breakers_applied: Vec<String>,
    /// Whether the client pinned the pool.
    pub pinned: bool,
    /// Whether a preference was widened to all pools.
    pub fallback_used: bool,
    /// Pools that could not take the task, in configuration order; the list is bounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<PoolExclusion>,
    /// Pools that could have taken the task and lost, in configuration order; the list is bounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outranked: Vec<PoolOutranked>,
    /// Pools beyond the two lists.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unlisted: u32,
    /// Predicted time from admission to the end on the chosen pool, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_end_ms: Option<i64>,
}

/// A pool that could not take a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"pool_id": "gpu1", "reason": "ctx_too_small"}))]
pub struct PoolExclusion {
    /// The pool.
    pub pool_id: String,
    /// The filter that excluded it.
    pub reason: String,
}

/// A pool that could have taken a task and lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"pool_id": "gpu1", "by": "least_loaded"}))]
pub struct PoolOutranked {
    /// The pool.
    pub pool_id: String,
    /// The tie-breaker that put the chosen pool before it.
    pub by: String,
}

wire_words! {
    /// Why a task left the pool it had.
    MoveReason {
        /// The other pool had a free slot first.
        Idle = "idle",
        /// Its pool stopped taking work.
        Closed = "closed",
        /// Its pool can no longer run it.
        Misfit = "misfit",
        /// Its worker was lost.
        WorkerLost = "worker_lost",
        /// It was taken up again after a restart of the orchestrator.
        Recovered = "recovered",
    }
}

/// One change of a task's pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"at_ms": 1760000000400_i64, "from": "gpu0", "to": "gpu1", "reason": "idle"}))]
pub struct PlacementMove {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The pool it left.
    pub from: String,
    /// The pool it went to.
    pub to: String,
    /// Why.
    pub reason: MoveReason,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}
