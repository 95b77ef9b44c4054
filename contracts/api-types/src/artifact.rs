//! Artifacts on the wire (OC-CTRL-2065, OC-CTRL-2066).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::catalog::VerificationOutcome;
use crate::error::ErrorEnvelope;
use crate::ids::{SessionId, TaskId};
use crate::summary::TaskSummary;
use crate::task::TaskRequest;
use crate::vocabulary::{ArtifactKind, DeterminismLevel, Engine};

/// A document to keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"kind": "plan", "content": {"steps": ["read", "write"]}, "tags": ["agent:builder"]}))]
pub struct Artifact {
    /// What it holds.
    pub kind: ArtifactKind,
    /// The document.
    #[schema(value_type = Object)]
    pub content: serde_json::Map<String, Value>,
    /// Free labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Id of the artifact it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Facts about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub metadata: BTreeMap<String, Value>,
}

/// Where a kept document is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactRef {
    /// Hex SHA-256 of the canonical JSON; equal documents share it.
    pub id: String,
    /// What it holds.
    pub kind: ArtifactKind,
    /// `sha256:<64 hex>`.
    pub digest: String,
    /// When it was first kept, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// Free labels.
    pub tags: Vec<String>,
    /// Where to fetch it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_url: Option<String>,
}

/// A kept document with where it comes from and what came from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactRecord {
    /// Where it is.
    #[serde(flatten)]
    pub reference: ArtifactRef,
    /// The document.
    #[schema(value_type = Object)]
    pub content: serde_json::Map<String, Value>,
    /// Facts about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub metadata: BTreeMap<String, Value>,
    /// Id of the artifact it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Those it comes from, its parent first; it ends where one is not kept any more.
    #[serde(default)]
    pub ancestors: Vec<String>,
    /// Those made from it, oldest first; at most 100.
    #[serde(default)]
    pub children: Vec<String>,
}

/// Which artifacts to list. Filters add up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ArtifactQuery {
    /// Only artifacts of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ArtifactKind>,
    /// Only artifacts with this tag, such as `task:<id>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Only artifacts made from this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Most artifacts in the answer, 1 to 1000; 100 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One page of artifacts, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactList {
    /// The artifacts.
    pub artifacts: Vec<ArtifactRef>,
    /// Where the next page begins; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Content of the artifact that every task leaves: `kind` is `trace`, its tags are `sse`, `stream`, `task:<id>` and
/// `session:<id>` (ORCH-3350, ORCH-3352, LO-ART-03). It holds the prompt and the output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProofBundle {
    /// The task's id.
    pub job_id: TaskId,
    /// Its session.
    pub session_id: SessionId,
    /// The request as it was admitted.
    pub request: TaskRequest,
    /// How the task went: state, decision, moves, timings, counts, seed in force, error.
    pub summary: TaskSummary,
    /// The model that ran.
    pub model: BundleModel,
    /// The engine that ran it.
    pub engine: BundleEngine,
    /// The stream as clients got it, byte for byte; the beginning is missing when it was too long to be kept.
    pub transcript: String,
    /// Whether the stream's beginning is missing from `transcript`.
    #[serde(default)]
    pub truncated: bool,
    /// Why the task failed; absent when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorEnvelope>,
}

/// The model of a proof bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BundleModel {
    /// The reference as it was asked for.
    pub model_ref: String,
    /// Its digest, by the catalog or by the engine; absent when neither knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What its last verification found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<VerificationOutcome>,
}

/// The engine of a proof bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BundleEngine {
    /// The kind of engine.
    pub engine: Engine,
    /// Its own version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,
    /// The sampler profile in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler_profile_version: Option<String>,
    /// How the engine came to be: `external`, or how it was provisioned.
    pub provisioning: String,
    /// Where inference ran: a device mask, or `unverified` for an external engine.
    pub compute: String,
    /// Whether the pool promises the same bytes for the same seed.
    pub determinism: DeterminismLevel,
    /// Context of one slot, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctx: Option<i32>,
}
