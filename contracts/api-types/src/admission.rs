//! What a client learns when its task is taken.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::TaskId;

/// Answer to an admitted task. Numbers that are not known yet are 0 or null, never absent (OC-CTRL-2050.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "task_id": "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10",
    "queue_position": 2,
    "predicted_start_ms": 1800,
    "backoff_ms": 0,
    "tokens_budget_remaining": 1500,
    "time_budget_remaining_ms": null,
    "cost_budget_remaining": null
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
    /// Tokens the session may still generate; null while no such budget is configured.
    #[serde(default)]
    #[schema(required)]
    pub tokens_budget_remaining: Option<i64>,
    /// Decode time the session has left, in milliseconds; null while no such budget is configured.
    #[serde(default)]
    #[schema(required)]
    pub time_budget_remaining_ms: Option<i64>,
    /// Cost the session has left, in the operator's own unit; null while no such budget is configured.
    #[serde(default)]
    #[schema(required)]
    pub cost_budget_remaining: Option<f64>,
}
