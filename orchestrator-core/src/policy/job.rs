//! A job as placement sees it.

use api_types::{DeterminismLevel, Engine, PlacementOverrides, PoolId, Priority, ReplicaId, TaskRequest};
use serde::{Deserialize, Serialize};

/// What a job needs from a pool (LO-PLC-13).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Queue class.
    pub priority: Priority,
    /// Output length that the client expects, in tokens.
    pub expected_tokens: Option<i32>,
    /// Most tokens to generate.
    pub max_tokens: Option<i32>,
    /// The kind of engine that must run it.
    pub engine: Engine,
    /// The model, as the client names it.
    pub model_ref: String,
    /// Context it needs, prompt and output together, in tokens.
    pub required_ctx: i32,
    /// Memory its context needs, in bytes, when that can be told.
    pub est_kv_bytes: Option<i64>,
    /// The client's constraints.
    pub placement: PlacementOverrides,
    /// What the model needs, as far as it is known.
    pub requirements: Option<ModelRequirements>,
    /// The pool that served the session last.
    pub session_affinity_pool: Option<PoolId>,
    /// Its replica that did.
    pub session_affinity_replica: Option<ReplicaId>,
    /// `strict` is feasible on strict pools only; anything else anywhere.
    pub determinism: Option<DeterminismLevel>,
    /// Sampler profile the pool must have.
    pub sampler_profile_version: Option<String>,
}

impl JobSpec {
    /// The part of a request that placement looks at. What the request does not tell (memory, the model's needs, the
    /// session's pool) is left for the caller to add.
    #[must_use]
    pub fn from_request(request: &TaskRequest) -> Self {
        Self {
            priority: request.priority,
            expected_tokens: request.expected_tokens,
            max_tokens: Some(request.max_tokens),
            engine: request.engine,
            model_ref: request.model_ref.trim().to_owned(),
            required_ctx: request.ctx,
            est_kv_bytes: None,
            placement: request.placement.clone().unwrap_or_default(),
            requirements: None,
            session_affinity_pool: None,
            session_affinity_replica: None,
            determinism: request.determinism,
            sampler_profile_version: request.sampler_profile_version.clone(),
        }
    }
}

/// What a model needs, from the catalog and the engine's own answers (LO-PLC-10, OC-CORE-1014).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRequirements {
    /// The catalog's id.
    pub model_id: String,
    /// Content digest.
    pub model_digest: Option<String>,
    /// The model's own context limit, in tokens.
    pub ctx_max: i32,
    /// Normalised quantisation, such as `Q4_K_M`.
    pub quant: Option<String>,
    /// Whether its output is streamed.
    pub streaming: bool,
    /// Abilities the engine must have.
    pub extensions: Vec<String>,
    /// Least video memory in all, in bytes.
    pub min_vram_bytes: Option<i64>,
    /// Least CUDA compute capability.
    pub min_compute_cap: Option<String>,
}
