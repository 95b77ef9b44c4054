//! A runtime that was found.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::advice::Distribution;
use crate::backend::Backend;
use crate::client::{self, Answer};
use crate::error::ClientError;
use crate::executor::{Call, Executor};

/// What is known about a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// Whose it is.
    pub backend: Backend,
    /// The version; docker's is its daemon's.
    pub version: String,
    /// Whether root in a container is somebody else outside.
    pub rootless: bool,
    /// How resources are limited.
    pub cgroups: CgroupVersion,
    /// Whether SELinux confines containers.
    pub selinux: bool,
    /// Whether there is an init for `--init`. Podman's is a package of its own, `catatonit`.
    pub init: bool,
    /// Where images are kept.
    pub storage: Option<PathBuf>,
    /// Whether devices can be given by CDI.
    pub cdi: CdiSupport,
    /// Whether docker knows NVIDIA's runtime, which is behind `--gpus`.
    pub nvidia_runtime: bool,
}

/// Which generation of control groups the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// The first.
    V1,
    /// The second.
    V2,
}

/// Whether a runtime can give devices by the Container Device Interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CdiSupport {
    /// It looks into these folders, later ones first.
    Folders(Vec<PathBuf>),
    /// It cannot.
    Unsupported {
        /// Why not.
        why: &'static str,
    },
}

/// Deadlines of the calls.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For finding out what is there. Podman's first call on a machine sets its storage up.
    pub detect: Duration,
    /// For questions.
    pub ask: Duration,
    /// For starting a container. A rootless podman may have to copy an image's files once.
    pub start: Duration,
    /// For the end of a container after SIGKILL, and for its removal.
    pub end: Duration,
    /// For a runtime to notice the end of a container that the kernel has told us of. Podman looks four times a second.
    pub notice: Duration,
    /// For pulling an image. The largest have 20 GB, and podman says nothing while it downloads.
    pub pull: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            detect: Duration::from_secs(30),
            ask: Duration::from_secs(30),
            start: Duration::from_secs(300),
            end: Duration::from_secs(30),
            notice: Duration::from_secs(10),
            pull: Duration::from_secs(4 * 3600),
        }
    }
}

/// A container runtime that answers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runtime(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) info: RuntimeInfo,
    pub(crate) distribution: Distribution,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) limits: Limits,
}

impl Runtime {
    /// What is known about it.
    #[must_use]
    pub fn info(&self) -> &RuntimeInfo {
        &self.0.info
    }

    pub(crate) fn backend(&self) -> Backend {
        self.0.info.backend
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn command<const N: usize>(&self, args: [&str; N]) -> Call {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Call { program: self.backend().program().to_owned(), args, env: Vec::new() }
    }

    /// Runs a client to its end, whatever it says.
    pub(crate) async fn answer(&self, call: &Call, limit: Duration) -> Result<Answer, ClientError> {
        client::answer(&*self.0.executor, self.backend(), call, limit).await
    }

    /// What a client says when it succeeds.
    pub(crate) async fn ask(&self, call: &Call, limit: Duration) -> Result<String, ClientError> {
        self.answer(call, limit).await?.success(self.backend())
    }
}
