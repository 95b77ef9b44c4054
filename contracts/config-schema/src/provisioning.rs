//! `[pools.provisioning]`: where a pool's engine comes from.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::PathBuf;

use api_types::words;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::checked::{Checksum, EngineUrl, RepoUrl};

words! {
    /// How the container of an engine is reached. Off this machine it is not.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
    ContainerNetwork {
        /// In a network of its own, with the engine's port on 127.0.0.1.
        #[default]
        Loopback = "loopback",
        /// In the host's network, where the engine listens on 127.0.0.1: for hosts whose containers have no network of their own.
        Host = "host",
    }
}

words! {
    /// How an engine comes to be.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
    ProvisioningMode {
        /// An operator runs it; nothing is provisioned.
        External = "external",
        /// Fetched and built here.
        Source = "source",
        /// A container image.
        Container = "container",
        /// The system's package manager.
        Package = "package",
        /// A ready-made program.
        Binary = "binary",
    }
}

/// `[pools.provisioning]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Provisioning {
    /// How the engine comes to be. Unset: `source` for llamacpp, `container` for vllm, tgi and triton, else `external`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ProvisioningMode>,
    /// The engine version that must run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Instead of `policy.outbound.allow_package_installs`, for this pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_package_installs: Option<bool>,
    /// Instead of `policy.outbound.allow_binary_downloads`, for this pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_binary_downloads: Option<bool>,
    /// Settings of mode `external`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// Settings of mode `source`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceBuild>,
    /// Settings of mode `container`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Settings of mode `package`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// Settings of mode `binary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary: Option<Binary>,
    /// What is fetched for it.
    pub model: Model,
    /// Ports the engine may listen on. Empty: any free port.
    pub ports: Vec<NonZeroU16>,
    /// Environment of the engine's process.
    pub env: BTreeMap<String, String>,
    /// Variables of the daemon's environment that the engine gets too, by name: this is how secrets reach it, which do not
    /// belong into this file. What looks like a secret is otherwise kept from it.
    pub env_from: Vec<String>,
    /// Further arguments of the engine's program.
    pub flags: Vec<String>,
}

/// The table of a pool's mode is not in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mode `{0}` needs its own table `provisioning.{0}`")]
pub struct MissingTable(pub ProvisioningMode);

/// The settings of a pool's mode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EngineSource<'a> {
    /// No engine at all: the simulated one, inside the daemon.
    Simulated,
    /// Attach.
    External(&'a External),
    /// Fetch and build.
    Source(&'a SourceBuild),
    /// Run an image.
    Container(&'a Container),
    /// Install a package.
    Package(&'a Package),
    /// Download a program.
    Binary(&'a Binary),
}

impl Provisioning {
    pub(crate) fn source_for(&self, mode: ProvisioningMode) -> Result<EngineSource<'_>, MissingTable> {
        let table = match mode {
            ProvisioningMode::External => self.external.as_ref().map(EngineSource::External),
            ProvisioningMode::Source => self.source.as_ref().map(EngineSource::Source),
            ProvisioningMode::Container => self.container.as_ref().map(EngineSource::Container),
            ProvisioningMode::Package => self.package.as_ref().map(EngineSource::Package),
            ProvisioningMode::Binary => self.binary.as_ref().map(EngineSource::Binary),
        };
        table.ok_or(MissingTable(mode))
    }
}

/// `[pools.provisioning.external]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Where the engine listens: `http://…`, `https://…` or `unix:/path`.
    pub url: EngineUrl,
    /// Further engines with the same model: replicas of the same pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<EngineUrl>,
    /// Name of the environment variable that holds the key of all these engines, if they want one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
}

impl External {
    /// Every engine of the pool.
    pub fn urls(&self) -> impl Iterator<Item = &EngineUrl> {
        std::iter::once(&self.url).chain(&self.replicas)
    }
}

/// `[pools.provisioning.source]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceBuild {
    /// Repository: `https://…`, `ssh://…`, `git@host:path` or `file:///…`; or an archive, by its ending: `.tar.gz`, `.tgz`,
    /// `.tar.xz`, `.tar.zst`, `.tar` or `.zip`.
    pub repo: RepoUrl,
    /// Tag, branch or commit; of an archive the name of its version.
    #[serde(rename = "ref")]
    #[schemars(length(min = 1))]
    pub reference: String,
    /// What an archive must be: `sha256:` and 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
    /// Whether submodules are fetched too.
    #[serde(default)]
    pub submodules: bool,
    /// `[pools.provisioning.source.build]`.
    #[serde(default)]
    pub build: Build,
}

/// `[pools.provisioning.source.build]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Build {
    /// Arguments for CMake.
    pub cmake_flags: Vec<String>,
    /// CMake's generator, such as `Ninja`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator: Option<String>,
    /// Where builds are kept. Unset: `~/.cache/llama-orch/<engine>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_dir: Option<PathBuf>,
}

/// `[pools.provisioning.container]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// The image, without tag and digest.
    #[schemars(length(min = 1))]
    pub image: String,
    /// Its tag. Alone it can change under you; `digest` is better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Its digest: `sha256:` and 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Checksum>,
    /// How it is reached.
    #[serde(default)]
    pub network: ContainerNetwork,
}

/// `[pools.provisioning.package]`; needs `allow_package_installs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// The package.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The package repository it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

/// `[pools.provisioning.binary]`; needs `allow_binary_downloads`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Binary {
    /// Where the archive or program is: `https://…`, `http://…` or `file:///…`.
    pub url: crate::checked::DownloadUrl,
    /// What it must be: `sha256:` and 64 hex digits.
    pub checksum: Checksum,
    /// Where it is unpacked. Unset: `~/.cache/llama-orch/<engine>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install_dir: Option<PathBuf>,
}

/// `[pools.provisioning.model]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// What is fetched. Unset: the pool's `model`.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Where it is kept. Unset: `catalog.models_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_dir: Option<PathBuf>,
    /// What it must be: `sha256:` and 64 hex digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
}
