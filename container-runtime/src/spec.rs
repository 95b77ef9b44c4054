//! What a container should be.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::gpu::GpuAccess;
use crate::pull::PulledImage;

/// What widens a mask where NVIDIA's runtime is docker's default.
pub(crate) const VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES";

/// Most processes and threads of a container. An engine with a thread per core and a few per GPU has some hundreds.
const PIDS: u32 = 4096;

/// A container to start (LO-CTR-05).
#[derive(Clone, Debug, Serialize)]
pub struct ContainerSpec {
    /// The pool it serves; part of its name, `llama-orch-<pool>-<generation>`.
    #[serde(skip)]
    pub pool: String,
    /// Which start of the pool this is; part of its name.
    #[serde(skip)]
    pub generation: u64,
    /// Which llama-orch it belongs to: an id of the data directory. [`crate::Runtime::find`] asks for it.
    #[serde(skip)]
    pub instance: String,
    /// What it is an instance of.
    #[serde(serialize_with = "by_digest")]
    pub image: PulledImage,
    /// In place of the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments of the entrypoint. Everybody on the machine can read them; secrets belong into `env`.
    pub command: Vec<String>,
    /// The environment, beside what the image has.
    pub env: BTreeMap<String, EnvValue>,
    /// Which GPUs it sees.
    pub gpus: GpuAccess,
    /// How it is reached.
    pub network: Network,
    /// Files of this machine that it sees.
    pub mounts: Vec<Mount>,
    /// In place of the image's working directory.
    pub workdir: Option<PathBuf>,
    /// Whom its processes are.
    pub run_as: RunAs,
    /// The image's files cannot be changed; `/tmp` still can.
    pub read_only_root: bool,
    /// Size of `/dev/shm`, which engines that run on several GPUs need much of.
    pub shm_bytes: Option<u64>,
    /// Most memory; whoever takes more is killed.
    pub memory_bytes: Option<u64>,
    /// Most processes and threads.
    pub pids_limit: u32,
    /// Limits of its processes. When there are any, podman leaves out those of its own `default_ulimits`.
    pub ulimits: Vec<Ulimit>,
    /// How long an operator's `podman stop` waits. [`crate::ContainerHandle::stop`] is told by its caller.
    #[serde(skip)]
    pub stop_grace: Duration,
    /// A small init reaps lost processes and passes signals on. Left out where the runtime has none.
    pub init: bool,
    /// More labels, for the caller to find again. Names with `llama-orch.` are ours.
    #[serde(skip)]
    pub labels: BTreeMap<String, String>,
}

impl ContainerSpec {
    /// A container with the image's own entrypoint and everything else at its default.
    #[must_use]
    pub fn new(
        pool: &str,
        generation: u64,
        instance: &str,
        image: PulledImage,
        gpus: GpuAccess,
        network: Network,
    ) -> Self {
        Self {
            pool: pool.to_owned(),
            generation,
            instance: instance.to_owned(),
            image,
            entrypoint: None,
            command: Vec::new(),
            env: BTreeMap::new(),
            gpus,
            network,
            mounts: Vec::new(),
            workdir: None,
            run_as: RunAs::Image,
            read_only_root: false,
            shm_bytes: None,
            memory_bytes: None,
            pids_limit: PIDS,
            ulimits: Vec::new(),
            stop_grace: Duration::from_secs(10),
            init: true,
            labels: BTreeMap::new(),
        }
    }

    /// The container's name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("llama-orch-{}-{}", self.pool, self.generation)
    }

    /// SHA-256 of everything that makes a difference to what runs: two specs with the same digest may stand for each other,
    /// so a container with this one's digest can be adopted. Name, owner and labels are not part of it.
    #[must_use]
    pub fn digest(&self) -> String {
        // The fields' order is that of the struct and maps are sorted, so equal specs give equal bytes.
        let text = serde_json::to_vec(self).expect("plain data with text keys can be written");
        format!("sha256:{}", hex(&Sha256::digest(text)))
    }

    /// Whether clients can be told it.
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        if !is_name(&self.pool) {
            return Err(SpecError::Pool { pool: self.pool.clone() });
        }
        let texts = self.command.iter().chain(self.entrypoint.iter().flatten());
        if let Some(argument) = texts.into_iter().find(|text| text.contains('\0')) {
            return Err(SpecError::Argument { argument: argument.clone() });
        }
        if self.entrypoint.as_ref().is_some_and(|words| words.first().is_none_or(String::is_empty)) {
            return Err(SpecError::Entrypoint);
        }
        let is_bad = |(name, value): &(&String, &EnvValue)| !is_variable(name) || value.0.contains('\0');
        if let Some((name, _)) = self.env.iter().find(is_bad) {
            return Err(SpecError::Variable { name: name.clone() });
        }
        if self.env.contains_key(VISIBLE_DEVICES) {
            return Err(SpecError::Mask);
        }
        let labels = self.labels.iter();
        if let Some((name, _)) =
            labels.into_iter().find(|(name, value)| !is_label(name) || value.contains(['\n', '\0']))
        {
            return Err(SpecError::Label { name: name.clone() });
        }
        if let Some(folder) = self.workdir.iter().find(|folder| !is_plain_path(folder)) {
            return Err(SpecError::Path { path: folder.clone() });
        }
        self.mounts.iter().chain(self.gpus.mounts()).try_for_each(Mount::check)
    }
}

/// An image is the same by whichever name.
fn by_digest<S: Serializer>(image: &PulledImage, serializer: S) -> Result<S::Ok, S::Error> {
    image.digest.serialize(serializer)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Source: the rule of both clients for names of containers, `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_label(name: &str) -> bool {
    is_name(name) && !name.starts_with("llama-orch.")
}

/// Whether a path can be told inside a mount's comma-separated text.
fn is_plain_path(path: &std::path::Path) -> bool {
    let is_plain = |text: &str| !text.contains([',', '"', '\n', '\r', '\0']);
    path.is_absolute() && path.to_str().is_some_and(is_plain)
}

/// The value of a variable. It is given to clients through their environment, shows in no list of processes, and is masked
/// in the container's log.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvValue(pub(crate) String);

impl EnvValue {
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl From<&str> for EnvValue {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for EnvValue {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// For the digest alone, which everybody who may ask the runtime can read; so a value goes in as its own digest.
impl Serialize for EnvValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&Sha256::digest(&self.0)))
    }
}

/// How a container is reached. Off this machine it is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Network {
    /// In a network of its own, with these of its ports on this machine's 127.0.0.1.
    Loopback(Vec<PortMap>),
    /// In this machine's network; the engine must be told to listen on 127.0.0.1.
    Host,
}

/// A port of this machine that leads to one of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PortMap {
    /// On 127.0.0.1.
    pub host: u16,
    /// In the container.
    pub container: u16,
}

/// A file or folder of this machine that a container sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// On this machine.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// What it may do with it.
    pub access: Access,
}

impl Mount {
    /// One that can only be read, as models are.
    pub fn read_only(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self { source: source.into(), target: target.into(), access: Access::ReadOnly }
    }

    /// One that can be changed, as caches are.
    pub fn read_write(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self { source: source.into(), target: target.into(), access: Access::ReadWrite }
    }

    fn check(&self) -> Result<(), SpecError> {
        match [&self.source, &self.target].into_iter().find(|path| !is_plain_path(path)) {
            Some(path) => Err(SpecError::Path { path: path.clone() }),
            None => Ok(()),
        }
    }
}

/// What a container may do with a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Access {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// Whom a container's processes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum RunAs {
    /// Whom the image says, mostly root. Under rootless podman that is the user outside.
    Image,
    /// The user who runs us, by number. The image must let that user write where it writes.
    Caller,
}

/// A limit of a container's processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ulimit {
    /// As in `nofile`, `memlock`.
    pub name: &'static str,
    /// -1 is none.
    pub soft: i64,
    /// -1 is none.
    pub hard: i64,
}

/// Why a spec cannot be told to a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The pool's name.
    #[error("pool {pool:?} cannot be part of a container's name; use letters, digits, `_`, `.` and `-`")]
    Pool {
        /// Its id.
        pool: String,
    },
    /// An argument with a zero byte.
    #[error("argument {argument:?} has a zero byte; remove it from the pool's flags")]
    Argument {
        /// The argument.
        argument: String,
    },
    /// No program.
    #[error("the entrypoint names no program; leave it out to use the image's own")]
    Entrypoint,
    /// A variable.
    #[error("{name:?} cannot be a variable; names have letters, digits and `_`, and values no zero byte")]
    Variable {
        /// Its name.
        name: String,
    },
    /// The variable that could show it more GPUs than it was given.
    #[error("NVIDIA_VISIBLE_DEVICES is not for a pool's `env`; name the GPUs in the pool's device mask")]
    Mask,
    /// A label.
    #[error("{name:?} cannot be a label; names have letters, digits, `_`, `.` and `-`, and `llama-orch.` is taken")]
    Label {
        /// Its name.
        name: String,
    },
    /// A path.
    #[error("{} cannot be mounted; give an absolute path without commas, quotes and line breaks", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
}
