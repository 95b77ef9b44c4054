//! Catalog entries on the wire (LO-API-22).

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::error::ErrorEnvelope;
use crate::vocabulary::{ModelLifecycle, TrustMode};
use crate::words::wire_words;

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
    /// Signature algorithm: `ecdsa-p256-sha256`, `ecdsa-p384-sha384`, `ed25519` or `rsa-pkcs1-sha256`.
    pub algo: String,
    /// Whether it was checked and holds. The server decides; what a client says here is passed over.
    #[serde(default)]
    pub verified: bool,
    /// When it was made, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The signature over the text of the model's digest, `sha256:<64 hex>`, in base64. Without it nothing can be checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// The signer's certificate, PEM, followed by those that lead to one of the `ca_roots`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
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

wire_words! {
    /// What a verification found.
    VerificationOutcome {
        /// Everything that was asked for holds.
        Pass = "pass",
        /// Nothing is wrong, and something that would prove it is missing.
        Warn = "warn",
        /// Something does not hold. Tasks for the model are refused with `UNTRUSTED_ARTIFACT`.
        Fail = "fail",
    }
}

/// The last verification of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verification {
    /// What it found.
    pub outcome: VerificationOutcome,
    /// What was missing or wrong, one sentence each; what was missing and nobody had asked for, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// When it ended, in milliseconds since the Unix epoch.
    pub verified_at_ms: i64,
}

/// What the files of a model say about it; what they do not say is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelFacts {
    /// Kind of file: `gguf` or `safetensors`.
    pub format: String,
    /// Architecture, such as `gemma3` or `llama`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// The model's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Context it was trained for, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctx_max: Option<i64>,
    /// Quantisation, such as `Q4_K_M` or `BF16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quant: Option<String>,
    /// Number of weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<i64>,
    /// Layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<i64>,
    /// Attention heads of a layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<i64>,
    /// Key and value heads of a layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<i64>,
    /// Tokens the vocabulary has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<i64>,
    /// Kind of tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// Whether it brings a chat template.
    #[serde(default)]
    pub chat_template: bool,
    /// Bytes of all tensors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_bytes: Option<i64>,
    /// Bytes one more token of context costs, at 16 bits for keys and values, beyond any sliding window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_bytes_per_token: Option<i64>,
}

/// A model of the catalog as the server knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CatalogRecord {
    /// What was registered.
    #[serde(flatten)]
    pub model: CatalogModel,
    /// Whether tasks may use it.
    pub state: ModelLifecycle,
    /// When pools that serve it stop, after it was retired with a deadline; in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retire_at_ms: Option<i64>,
    /// Where its file or folder is on the server; absent while it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_path: Option<String>,
    /// Bytes of its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// When it was registered, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// When its files were last verified, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified_ms: Option<i64>,
    /// The last verification; absent while there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// What its files say about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<ModelFacts>,
    /// The work under way on it, or the last that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<ModelJob>,
}

/// Which models to list. Filters add up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CatalogQuery {
    /// Only models in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ModelLifecycle>,
    /// Only models with this tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Most models in the answer, 1 to 1000; 100 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One page of models, by id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CatalogList {
    /// The models.
    pub models: Vec<CatalogRecord>,
    /// Where the next page begins; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

wire_words! {
    /// Long work on a model.
    ModelJobKind {
        /// Its files are fetched.
        Pull = "pull",
        /// Its files are read and compared with what is registered.
        Verify = "verify",
    }
}

wire_words! {
    /// How long work on a model stands.
    ModelJobState {
        /// It waits for another process, or for one before it.
        Waiting = "waiting",
        /// It is under way.
        Running = "running",
        /// It is done.
        Done = "done",
        /// It failed; what was fetched is kept, and asking again goes on from there.
        Failed = "failed",
        /// It was canceled; what was fetched is kept, and asking again goes on from there.
        Canceled = "canceled",
    }
}

/// Long work on a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelJob {
    /// The model's id.
    pub model_id: String,
    /// What is done.
    pub kind: ModelJobKind,
    /// How it stands.
    pub state: ModelJobState,
    /// Bytes done, those of an earlier try included.
    pub bytes_done: i64,
    /// Bytes in all; absent until the source has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,
    /// Files done and in all.
    pub files_done: i32,
    /// Files in all.
    pub files_total: i32,
    /// Speed over the last seconds, in bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<i64>,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// When it ended, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<i64>,
    /// Why it failed, with what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorEnvelope>,
}

/// Body of `POST /v1/catalog/models/{id}/pull`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    /// What the file must be, `sha256:<64 hex>`; one that the configuration names must not contradict it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

wire_words! {
    /// Answer to a request whose work goes on after it.
    Accepted {
        /// A job has begun, or was under way.
        Started = "started",
        /// The change is in force.
        Accepted = "accepted",
        /// There was nothing to do.
        Present = "present",
    }
}

/// Answer to a request whose work goes on after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AcceptedStatus {
    /// What became of it.
    pub status: Accepted,
}

/// Body of `POST /v1/catalog/gc`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GcRequest {
    /// Say what would go, and remove nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What garbage collection removed from the models' folder: files that no entry of the catalog names, and partial files
/// that nobody has written to for a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcReport {
    /// What went, or would go.
    pub removed: Vec<GcItem>,
    /// Bytes of it all.
    pub bytes: i64,
    /// Whether it was only asked what would go.
    pub dry_run: bool,
}

/// One file that went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcItem {
    /// Its path below the models' folder.
    pub path: String,
    /// Its size in bytes.
    pub bytes: i64,
}

/// What `GET /v1/catalog/fit` is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FitQuery {
    /// The model: a reference, present or not. Of one that is not present only the header is read.
    pub model_ref: String,
    /// Context of one slot, in tokens; the model's own unless given, at most 8192.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctx: Option<u32>,
    /// Slots; 1 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
}

/// Memory a model needs, and which devices have it. Bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FitReport {
    /// The model's id.
    pub model_id: String,
    /// What its header says.
    pub facts: ModelFacts,
    /// Context of one slot, in tokens.
    pub ctx: i64,
    /// Slots.
    pub slots: i64,
    /// Weights.
    pub weights_bytes: i64,
    /// Keys and values of all slots at that context, at 16 bits.
    pub kv_bytes: i64,
    /// Buffers the engine computes in, estimated.
    pub compute_bytes: i64,
    /// What CUDA takes for itself beside that, typically; on each device.
    #[serde(default)]
    pub overhead_bytes: i64,
    /// All of it, on one device.
    pub total_bytes: i64,
    /// One entry for each device of this host.
    pub devices: Vec<FitDevice>,
    /// Why there are no devices, when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_devices: Option<String>,
}

/// Whether a model fits one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FitDevice {
    /// Index of the device.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its memory in all, in bytes.
    pub vram_total_bytes: i64,
    /// Its memory that is free now, in bytes.
    pub vram_free_bytes: i64,
    /// It fits the device when nothing else is on it.
    pub fits: bool,
    /// It fits now.
    pub fits_now: bool,
    /// Largest context of one slot that fits the empty device, in tokens; absent when not even the weights do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctx_max: Option<i64>,
}
