//! Artifacts on the wire (OC-CTRL-2065, OC-CTRL-2066).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::vocabulary::ArtifactKind;

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
