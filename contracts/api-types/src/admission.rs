//! What a client learns about a task: its admission, its state, the list of recent ones.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ErrorEnvelope;
use crate::ids::{SessionId, TaskId};
use crate::vocabulary::{Engine, Priority, Workload};
use crate::words::wire_words;

/// Answer to an admitted task. Numbers that are not known yet are 0 or null, never absent (OC-CTRL-2050.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "task_id": "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10",
    "queue_position": 2,
    "predicted_start_ms": 1800,
    "backoff_ms": 0
}))]
pub struct AdmissionResponse {
    /// The task's id, as sent.
    pub task_id: TaskId,
    /// Tasks ahead of this one; 0 means it is next or already running (LO-ADM-05).
    pub queue_position: i32,
    /// Predicted wait before the first token's work starts, in milliseconds from now.
    pub predicted_start_ms: i64,
    /// How long a client should wait before it submits more, in milliseconds; 0 while there is room.
    pub backoff_ms: i64,
}

wire_words! {
    /// Where a task is in its life. `queued → dispatched → streaming →` one of the four ends.
    TaskState {
        /// Waiting for a slot.
        Queued = "queued",
        /// Handed to an engine; no token yet.
        Dispatched = "dispatched",
        /// Tokens are arriving.
        Streaming = "streaming",
        /// Ended as the engine meant it to.
        Completed = "completed",
        /// Ended with a typed error.
        Failed = "failed",
        /// Canceled by the client, by a lost client, or because nobody came for the stream.
        Canceled = "canceled",
        /// Ended because its deadline passed.
        Expired = "expired",
    }
}

/// One task, as `GET /v1/tasks/{id}` shows it. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskSummary {
    /// The task's id.
    pub task_id: TaskId,
    /// The id under which its log lines are found.
    pub correlation_id: String,
    /// The session it belongs to.
    pub session_id: SessionId,
    /// Where it is in its life.
    pub state: TaskState,
    /// What was asked of the model.
    pub workload: Workload,
    /// The model.
    pub model_ref: String,
    /// The kind of engine.
    pub engine: Engine,
    /// The engine's own version, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,
    /// Queue class.
    pub priority: Priority,
    /// Seed in force, given or drawn.
    pub seed: i64,
    /// Pool it was placed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_id: Option<String>,
    /// Replica that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_id: Option<String>,
    /// Tasks ahead of it now; absent once it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<i32>,
    /// Wait predicted at admission, in milliseconds.
    pub predicted_start_ms: i64,
    /// When it was admitted.
    pub admitted_at_ms: i64,
    /// When it was handed to an engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatched_at_ms: Option<i64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<i64>,
    /// Time in the queue, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_time_ms: Option<i64>,
    /// Time from dispatch to the first token, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<i64>,
    /// Time from the first token to the end, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode_time_ms: Option<i64>,
    /// Prompt tokens, as the engine counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_in: Option<i32>,
    /// Generated tokens, as the engine counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_out: Option<i32>,
    /// Why the pool was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementRecord>,
    /// The error it ended with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorEnvelope>,
}

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
}

/// Recent tasks, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskList {
    /// The tasks.
    pub tasks: Vec<TaskSummary>,
}
