//! `[catalog]`, `[artifacts]` and `[history]`: what is kept on disk.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use api_types::{TrustMode, words};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Checksum;

words! {
    /// How the model index is kept.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
    CatalogIndex {
        /// JSON files.
        #[default]
        Fs = "fs",
        /// A SQLite database.
        Sqlite = "sqlite",
    }
}

/// `[catalog]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Catalog {
    /// Where model files are kept.
    pub models_dir: PathBuf,
    /// How the index is kept.
    pub index: CatalogIndex,
    /// Whether missing signatures and SBOMs are refused or warned about.
    pub trust: TrustMode,
    /// `[catalog.trust_policy]`.
    pub trust_policy: TrustPolicy,
    /// `[[catalog.models]]`: models that may be fetched although no pool has them.
    pub models: Vec<ConfiguredModel>,
    /// Files of one model that are fetched at once.
    pub parallel_files: NonZeroU32,
    /// Time a source may be silent before the transfer is begun anew, in milliseconds.
    pub stall_timeout_ms: NonZeroU64,
}

/// `[[catalog.models]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfiguredModel {
    /// What is fetched, such as `hf:org/repo/file.gguf`.
    #[serde(rename = "ref")]
    pub reference: String,
    /// What it must be: `sha256:` and 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            models_dir: PathBuf::from("~/.cache/models"),
            index: CatalogIndex::Fs,
            trust: TrustMode::Permissive,
            trust_policy: TrustPolicy::default(),
            models: Vec::new(),
            parallel_files: NonZeroU32::new(4).expect("4 is not zero"),
            stall_timeout_ms: NonZeroU64::new(30_000).expect("30000 is not zero"),
        }
    }
}

impl Catalog {
    /// The stricter of `trust` and `trust_policy.mode`.
    #[must_use]
    pub fn trust_mode(&self) -> TrustMode {
        if [Some(self.trust), self.trust_policy.mode].contains(&Some(TrustMode::Strict)) {
            TrustMode::Strict
        } else {
            TrustMode::Permissive
        }
    }
}

/// `[catalog.trust_policy]`: what trust asks for besides digests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrustPolicy {
    /// The same as `catalog.trust`; the stricter of the two wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<TrustMode>,
    /// Registries that artifacts may come from; empty is any.
    pub allowed_registries: Vec<String>,
    /// PEM files with the roots that signatures are checked against.
    pub ca_roots: Vec<PathBuf>,
    /// Whether a signature must be there.
    pub require_signature: bool,
    /// Whether a software bill of materials must be there.
    pub require_sbom: bool,
}

words! {
    /// Where artifacts are kept.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
    ArtifactBackend {
        /// In files.
        #[default]
        Fs = "fs",
        /// In memory; gone after a restart.
        Memory = "memory",
    }
}

words! {
    /// Which tasks leave a record with prompt and output.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
    ArtifactTasks {
        /// All of them.
        #[default]
        All = "all",
        /// Those that did not complete.
        Failed = "failed",
        /// None.
        Off = "off",
    }
}

/// `[artifacts]`. The oldest go first, never one in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Artifacts {
    /// Where artifacts are kept.
    pub backend: ArtifactBackend,
    /// Their directory. Unset: `artifacts` in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Age after which they are removed, in days; 0 keeps them.
    pub retain_days: u32,
    /// Bytes they may take together; 0 is unlimited.
    pub max_bytes: u64,
    /// Which tasks leave a record with prompt and output.
    pub tasks: ArtifactTasks,
}

impl Default for Artifacts {
    fn default() -> Self {
        Self {
            backend: ArtifactBackend::Fs,
            dir: None,
            retain_days: 30,
            max_bytes: 10 << 30,
            tasks: ArtifactTasks::All,
        }
    }
}

impl Artifacts {
    /// Age after which they are removed; `None` keeps them.
    #[must_use]
    pub fn retain(&self) -> Option<Duration> {
        days(self.retain_days)
    }
}

/// `[history]`: the records of ended tasks, in `state.db` of the data directory. The oldest go first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// Age after which a record is removed, in days; 0 keeps it.
    pub retain_days: u32,
    /// Most records; 0 is unlimited.
    pub max_tasks: u64,
}

impl Default for History {
    fn default() -> Self {
        Self { retain_days: 30, max_tasks: 100_000 }
    }
}

impl History {
    /// Age after which a record is removed; `None` keeps it.
    #[must_use]
    pub fn retain(&self) -> Option<Duration> {
        days(self.retain_days)
    }

    /// Most records; `None` is unlimited.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        (self.max_tasks > 0).then_some(self.max_tasks)
    }
}

fn days(days: u32) -> Option<Duration> {
    (days > 0).then(|| Duration::from_secs(u64::from(days) * 86_400))
}
