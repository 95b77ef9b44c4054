//! Sessions as clients see them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A session's remaining life and budgets (LO-API-11). A budget that is not configured is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"ttl_ms_remaining": 540000, "turns": 3, "kv_bytes": 0, "kv_warmth": true}))]
pub struct SessionInfo {
    /// Time until it ends, in milliseconds.
    pub ttl_ms_remaining: i64,
    /// Tasks admitted so far.
    pub turns: i32,
    /// KV memory the engine reports for it, in bytes; 0 when the engine does not tell.
    pub kv_bytes: i64,
    /// Whether its last replica still holds its prefix.
    pub kv_warmth: bool,
    /// Tokens left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_budget_remaining: Option<i64>,
    /// Decode time left, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_budget_remaining_ms: Option<i64>,
    /// Cost left, in the operator's own unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_budget_remaining: Option<f64>,
}
