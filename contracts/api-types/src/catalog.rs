//! Catalog entries on the wire (LO-API-22).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::vocabulary::{ModelLifecycle, TrustMode};

/// A model in the catalog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"id": "hf:org/repo/file.gguf", "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}))]
pub struct CatalogModel {
    /// Stable id: the normalised reference.
    pub id: String,
    /// Content digest, `sha256:<64 hex>`.
    pub digest: String,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_url: Option<String>,
    /// Free labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Its files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<ModelManifest>,
    /// Signatures over it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<ModelSignature>,
    /// Its bill of materials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbom: Option<Sbom>,
    /// The trust its owner asks for; the strictest of this, the configuration and the request wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_policy: Option<TrustPolicy>,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelManifest {
    /// `sha256:<64 hex>`.
    pub digest: String,
    /// Size in bytes.
    pub size_bytes: i64,
}

/// A signature over a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelSignature {
    /// Who signed.
    pub signer: String,
    /// Signature algorithm.
    pub algo: String,
    /// Whether it was checked and holds.
    pub verified: bool,
    /// When it was made, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

/// A bill of materials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sbom {
    /// Where it is.
    pub uri: String,
    /// `sha256:<64 hex>`.
    pub digest: String,
}

/// What must hold before a model may be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrustPolicy {
    /// Whether a miss is refused or warned about.
    pub mode: TrustMode,
    /// Registries it may come from; empty allows all.
    #[serde(default)]
    pub allowed_registries: Vec<String>,
    /// A valid signature is needed.
    #[serde(default)]
    pub require_signature: bool,
    /// A bill of materials is needed.
    #[serde(default)]
    pub require_sbom: bool,
    /// Roots that signatures must lead to.
    #[serde(default)]
    pub ca_roots: Vec<String>,
}

/// Body of `POST /v1/catalog/models/{id}/state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"state": "Retired", "deadline_ms": 60000}))]
pub struct CatalogStateChange {
    /// The new state.
    pub state: ModelLifecycle,
    /// Time pools serving it have to drain, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<i64>,
}
