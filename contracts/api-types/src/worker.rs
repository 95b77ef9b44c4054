//! How a worker on another host makes itself known (LO-API-13).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::vocabulary::Engine;

/// Body of `POST /v1/workers/register`; a bearer token is always required.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"pool_id": "gpu1", "replica_id": "r0", "engine": "llamacpp", "endpoint": "http://127.0.0.1:18080"}))]
pub struct WorkerRegistration {
    /// The pool it serves.
    pub pool_id: String,
    /// Its own name inside the pool.
    pub replica_id: String,
    /// The kind of engine.
    pub engine: Engine,
    /// Where the engine answers: `http://host:port` or `unix:/path`.
    pub endpoint: String,
    /// The engine's own version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,
    /// The devices it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_mask: Option<String>,
    /// Parallel tasks it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots_total: Option<i32>,
}
