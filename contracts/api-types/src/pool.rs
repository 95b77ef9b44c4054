//! Pools as clients see them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::ErrorEnvelope;
use crate::vocabulary::Engine;

/// Health of one pool (OC-CTRL-2001).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "live": true, "ready": true, "draining": false,
    "metrics": {"slots_total": 1, "slots_free": 0, "queue_depth": 3},
    "engine_version": "b6891"
}))]
pub struct PoolHealth {
    /// The engine's process answers.
    pub live: bool,
    /// A task submitted now would be taken.
    pub ready: bool,
    /// No new task is taken.
    pub draining: bool,
    /// Measured values by name; what cannot be read is absent.
    #[schema(value_type = Object)]
    pub metrics: BTreeMap<String, Value>,
    /// Why it is not ready, with what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The engine's own version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,
    /// The devices it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_mask: Option<String>,
}

/// One pool of `GET /v1/pools`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolStatus {
    /// The pool's id.
    pub id: String,
    /// The kind of engine.
    pub engine: Engine,
    /// The model it serves.
    pub model: String,
    /// Context of one slot, in tokens; absent until the engine has told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctx: Option<i32>,
    /// How the engine came to be: `external`, or how it was provisioned.
    pub provisioning: String,
    /// Where inference runs: a device mask, or `unverified` for an external engine.
    pub compute: String,
    /// Parallel tasks the engine takes.
    pub slots_total: i32,
    /// Slots not running a task of ours.
    pub slots_free: i32,
    /// Tasks waiting.
    pub queue_depth: i32,
    /// Most tasks that may wait.
    pub queue_capacity: i32,
    /// Video memory in all, in bytes; absent when it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vram_total_bytes: Option<i64>,
    /// Video memory free, in bytes; absent when it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vram_free_bytes: Option<i64>,
    /// Its health.
    pub health: PoolHealth,
}

/// All pools, in configuration order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolList {
    /// The pools.
    pub pools: Vec<PoolStatus>,
}

/// Body of `POST /v1/pools/{id}/drain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"deadline_ms": 60000}))]
pub struct DrainRequest {
    /// Time running tasks have to end, in milliseconds.
    pub deadline_ms: i64,
}

/// Body of `POST /v1/pools/{id}/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"new_model_ref": "hf:org/repo/other.gguf"}))]
pub struct ReloadRequest {
    /// The model to serve instead.
    pub new_model_ref: String,
}

/// `GET /readyz`: 200 when at least one pool is ready and the daemon is not stopping, else 503 with the reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether tasks are taken.
    pub ready: bool,
    /// Pools that are ready.
    pub pools_ready: i32,
    /// Pools configured.
    pub pools_total: i32,
    /// Why not, when not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ErrorEnvelope>,
}
