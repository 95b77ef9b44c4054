//! What the server can do, for clients that size themselves by it (ORCH-3093, ORCH-3096).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::vocabulary::{Engine, Workload};

/// Answer to `GET /v1/capabilities`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"api_version": "1.0.0", "engines": [{
    "engine": "llamacpp", "engine_version": "b6891", "sampler_profile_version": "v1", "ctx_max": 8192,
    "max_tokens_out": 8191, "concurrency": 2, "supported_workloads": ["completion", "embedding"],
    "pool_id": "gpu0", "model_ref": "hf:org/repo/file.gguf", "slots_total": 2, "ready": true,
    "rate_limits": {}, "features": {}
}]}))]
pub struct Capabilities {
    /// Version of this interface.
    pub api_version: String,
    /// One entry per pool.
    pub engines: Vec<EngineCapability>,
}

/// What one pool can do. Values come from the engine's own answers; one that the engine has not told yet is 0 or empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EngineCapability {
    /// The kind of engine.
    pub engine: Engine,
    /// Its own version.
    pub engine_version: String,
    /// The sampler profile in force.
    pub sampler_profile_version: String,
    /// Largest context a task may ask for, in tokens.
    pub ctx_max: i32,
    /// Most tokens a task may ask to generate.
    pub max_tokens_out: i32,
    /// Tasks it runs at the same time.
    pub concurrency: i32,
    /// What it can be asked.
    pub supported_workloads: Vec<Workload>,
    /// The pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_id: Option<String>,
    /// The model it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_ref: Option<String>,
    /// Whether a task would be taken now.
    #[serde(default)]
    pub ready: bool,
    /// Slots in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots_total: Option<i32>,
    /// The tokenizer's name, when the engine tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_name: Option<String>,
    /// Throttles in force, by name.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub rate_limits: BTreeMap<String, Value>,
    /// Additional abilities, by name.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub features: BTreeMap<String, Value>,
}
