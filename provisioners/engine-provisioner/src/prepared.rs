//! What preparing an engine yields (ORCH-3432).

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use api_types::Engine;
use catalog_core::Digest;
use config_schema::ProvisioningMode;

/// An engine that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedEngine {
    /// Which engine it is.
    pub engine: Engine,
    /// Its version; for an engine built here what it was built from, and how.
    pub engine_version: String,
    /// What it was built from: a tag, branch or commit.
    pub build_ref: Option<String>,
    /// Digest of its program or image.
    pub engine_digest: Option<Digest>,
    /// How it came to be.
    pub provisioning_mode: ProvisioningMode,
    /// What is started.
    pub artifact: EngineArtifact,
    /// The pool's own flags, in their normal form.
    pub args: Vec<String>,
    /// Environment of its process, beside what it inherits.
    pub env: BTreeMap<String, String>,
    /// Ports it may listen on; any free one when empty.
    pub ports: Vec<NonZeroU16>,
    /// Its working directory.
    pub workdir: PathBuf,
    /// The pool's devices, as the configuration names them.
    pub device_mask: String,
    /// Flags it was built with.
    pub build_flags: Vec<String>,
    /// Its entry in the catalog of engines.
    pub engine_catalog_id: Option<String>,
}

/// What is started: a program or a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineArtifact {
    /// A program of this host.
    Program(PathBuf),
    /// An image that is here.
    Image(ImageRef),
}

/// An image (ORCH-3802).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef {
    /// Its name, without tag and digest.
    pub image: String,
    /// Its tag, for people.
    pub tag: Option<String>,
    /// Its digest, which decides.
    pub digest: Digest,
}

impl PreparedEngine {
    /// The program, when it is one.
    #[must_use]
    pub fn binary_path(&self) -> Option<&Path> {
        match &self.artifact {
            EngineArtifact::Program(path) => Some(path),
            EngineArtifact::Image(_) => None,
        }
    }

    /// The image, when it is one.
    #[must_use]
    pub const fn image_ref(&self) -> Option<&ImageRef> {
        match &self.artifact {
            EngineArtifact::Program(_) => None,
            EngineArtifact::Image(image) => Some(image),
        }
    }
}
