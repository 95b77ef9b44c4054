//! What can go wrong, and what to do about it.
//!
//! Clients say what is wrong in prose. What they said here, and in their sources, is recognised by its parts; what is not
//! recognised is passed on, redacted.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::advice::Distribution;
use crate::backend::Backend;
use crate::gpu::NoGpuSupport;
use crate::image::{ImageDigest, ImageRef};
use crate::spec::SpecError;

/// A client could not be used, or failed for no reason that its operation knows.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It is gone, or never was there.
    #[error("{backend} is not installed, or not on the PATH")]
    NotInstalled {
        /// Which.
        backend: Backend,
    },
    /// It could not be started.
    #[error("{backend} could not be started")]
    Start {
        /// Which.
        backend: Backend,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It could not be listened to.
    #[error("what {backend} says could not be read")]
    Talk {
        /// Which.
        backend: Backend,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It took too long and was ended.
    #[error(
        "`{backend} {operation}` did not end within {} s; see whether `{backend} info` answers, and how busy the disk is",
        limit.as_secs()
    )]
    TimedOut {
        /// Which.
        backend: Backend,
        /// Its subcommand.
        operation: String,
        /// How long it had.
        limit: Duration,
    },
    /// Docker's daemon does not run.
    #[error("docker's daemon does not answer; start it with `sudo systemctl start docker`")]
    NoDaemon,
    /// Docker's daemon is not for this user.
    #[error(
        "docker's daemon does not let this user in; `sudo usermod -aG docker $USER`, log in again, or use rootless podman"
    )]
    NotAllowed,
    /// Its answer was not what it should be.
    #[error("{backend} answers something else than expected to `{operation}`")]
    Unreadable {
        /// Which.
        backend: Backend,
        /// Its subcommand.
        operation: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It failed.
    #[error("{backend} failed with exit code {code}: {stderr}")]
    Failed {
        /// Which.
        backend: Backend,
        /// Its exit code.
        code: i32,
        /// What it said, redacted.
        stderr: String,
    },
}

impl ClientError {
    pub(crate) fn start(backend: Backend, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotInstalled { backend },
            _ => Self::Start { backend, source },
        }
    }

    pub(crate) fn failed(backend: Backend, code: i32, stderr: String) -> Self {
        match () {
            () if says(&stderr, &["cannot connect to the docker daemon"]) => Self::NoDaemon,
            () if says(&stderr, &["permission denied", "docker.sock"]) => Self::NotAllowed,
            () => Self::Failed { backend, code, stderr },
        }
    }

    /// What the client said, if it failed for no reason of its own.
    fn said(&self) -> &str {
        match self {
            Self::Failed { stderr, .. } => stderr,
            _ => "",
        }
    }
}

/// Whether the text has all of the parts, whatever their case.
fn says(text: &str, parts: &[&str]) -> bool {
    let text = text.to_ascii_lowercase();
    parts.iter().all(|part| text.contains(part))
}

/// Whether the text has one of the parts.
fn says_any(text: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| says(text, &[part]))
}

/// There is no container runtime to use.
#[derive(Debug)]
pub struct NoRuntime {
    /// What is the matter with each that was tried, in this order.
    pub tried: Vec<Unusable>,
}

impl fmt::Display for NoRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no container runtime can be used")?;
        self.tried
            .iter()
            .try_for_each(|unusable| write!(f, "; {}: {}; {}", unusable.backend, unusable.why, unusable.fix))
    }
}

impl std::error::Error for NoRuntime {}

/// A runtime that cannot be used.
#[derive(Debug)]
pub struct Unusable {
    /// Which.
    pub backend: Backend,
    /// What is the matter.
    pub why: WhyUnusable,
    /// What to do, on this distribution.
    pub fix: String,
}

impl Unusable {
    pub(crate) fn new(backend: Backend, why: WhyUnusable, distribution: Distribution) -> Self {
        let fix = match &why {
            WhyUnusable::NotCompiled => "use a build with it".to_owned(),
            WhyUnusable::NotInstalled => distribution.install_backend(backend),
            WhyUnusable::NotAnswering(ClientError::NoDaemon) => "sudo systemctl enable --now docker".to_owned(),
            WhyUnusable::NotAnswering(ClientError::NotAllowed) => {
                "sudo usermod -aG docker $USER, and log in again".to_owned()
            }
            WhyUnusable::NotAnswering(_) | WhyUnusable::Unreadable(_) => format!("see what `{backend} info` says"),
            WhyUnusable::TooOld { oldest, .. } => format!("install {backend} {oldest} or newer"),
        };
        Self { backend, why, fix }
    }
}

/// Why a runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WhyUnusable {
    /// This build leaves it out.
    #[error("left out of this build")]
    NotCompiled,
    /// No client.
    #[error("not installed")]
    NotInstalled,
    /// The client, or the daemon behind it, does not work.
    #[error("does not answer ({0})")]
    NotAnswering(ClientError),
    /// It answers something else.
    #[error("its `info` cannot be read ({0})")]
    Unreadable(serde_json::Error),
    /// It cannot do what is needed.
    #[error("version {version} is older than {oldest}")]
    TooOld {
        /// What is there.
        version: String,
        /// What is needed.
        oldest: String,
    },
}

/// Why an image is not here.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Somebody on our side wanted it to end.
    #[error("the pull of {image} was canceled")]
    Canceled {
        /// Which.
        image: ImageRef,
    },
    /// There is no such image.
    #[error("{image} does not exist, or is not for everybody; check its name, and `{backend} login {}` if it is private", image.registry())]
    NotFound {
        /// Which.
        image: ImageRef,
        /// Who said so.
        backend: Backend,
    },
    /// It was built here once, and is gone.
    #[error("{image} is not on this machine, and images of `localhost` can be had from nowhere; build it again")]
    NotBuilt {
        /// Which.
        image: ImageRef,
    },
    /// The registry wants to know who we are.
    #[error("{} lets nobody have {image} without a login; `{backend} login {}`", image.registry(), image.registry())]
    Unauthorized {
        /// Which.
        image: ImageRef,
        /// Who said so.
        backend: Backend,
    },
    /// The registry wants us to wait.
    #[error("{} has had too many requests; try again later, or `{backend} login {}`", image.registry(), image.registry())]
    TooMany {
        /// Which.
        image: ImageRef,
        /// Who said so.
        backend: Backend,
    },
    /// The registry cannot be reached.
    #[error("{} cannot be reached; check the network and the registry's name: {stderr}", image.registry())]
    Unreachable {
        /// Which.
        image: ImageRef,
        /// What the client said.
        stderr: String,
    },
    /// What came is not what was asked for.
    #[error(
        "{image} was asked for, and what came is {found}; do not use it, and check the digest in the configuration"
    )]
    DigestMismatch {
        /// Which.
        image: ImageRef,
        /// What it is instead.
        found: ImageDigest,
    },
    /// The disk is full.
    #[error("the disk is full; free some space where images are kept (`{backend} system prune`)")]
    NoSpace {
        /// Whose images.
        backend: Backend,
    },
    /// The client.
    #[error("could not pull {image}")]
    Client {
        /// Which.
        image: ImageRef,
        /// Why not.
        #[source]
        source: ClientError,
    },
}

impl PullError {
    pub(crate) fn of(image: &ImageRef, backend: Backend, error: ClientError) -> Self {
        let said = error.said();
        let image = image.clone();
        match () {
            () if is_full(said) => Self::NoSpace { backend },
            () if says_any(said, &["toomanyrequests", "too many requests", "rate limit"]) => {
                Self::TooMany { image, backend }
            }
            () if says_any(
                said,
                &["unauthorized", "authentication required", "no basic auth credentials", "invalid username/password"],
            ) =>
            {
                Self::Unauthorized { image, backend }
            }
            // Docker's hub says this of what does not exist as well as of what is private.
            () if says_any(
                said,
                &["manifest unknown", "name unknown", "not found", "access denied", "access to the resource is denied"],
            ) =>
            {
                Self::NotFound { image, backend }
            }
            () if says_any(
                said,
                &[
                    "no such host",
                    "connection refused",
                    "i/o timeout",
                    "no route to host",
                    "network is unreachable",
                    "tls:",
                    "x509:",
                ],
            ) =>
            {
                Self::Unreachable { image, stderr: said.to_owned() }
            }
            () => Self::Client { image, source: error },
        }
    }
}

/// Why a container does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It cannot be told to a client.
    #[error("the container's description is wrong")]
    Spec(#[from] SpecError),
    /// The GPUs cannot be given.
    #[error("the container cannot have its GPUs")]
    NoGpuSupport(#[from] NoGpuSupport),
    /// There is one with this name.
    #[error("there already is a container {name}; adopt it, or remove it with `{backend} rm -f {name}`")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        backend: Backend,
    },
    /// Another program listens there.
    #[error("a port of {name} is taken; `ss -ltnp` shows by whom: {stderr}")]
    PortTaken {
        /// The container's name.
        name: String,
        /// Which port, in the client's words.
        stderr: String,
    },
    /// The image is not here.
    #[error("image {reference} is not on this machine; pull it first")]
    ImageMissing {
        /// Which.
        reference: String,
    },
    /// The disk is full.
    #[error("the disk is full; free some space where containers are kept (`{backend} system prune`)")]
    NoSpace {
        /// Whose containers.
        backend: Backend,
    },
    /// A file to mount is not there.
    #[error("a file or folder that {name} needs is not there: {stderr}")]
    MountMissing {
        /// The container's name.
        name: String,
        /// Which file, in the client's words.
        stderr: String,
    },
    /// The image has no such program.
    #[error("the image has no such program, or it cannot be run: {stderr}")]
    NoProgram {
        /// Which program, in the client's words.
        stderr: String,
    },
    /// The kernel or the runtime does not allow it.
    #[error("the system does not allow it; check limits, SELinux and the pool's `ulimits`: {stderr}")]
    Denied {
        /// What, in the client's words.
        stderr: String,
    },
    /// The client.
    #[error("could not start {name}")]
    Client {
        /// The container's name.
        name: String,
        /// Why not.
        #[source]
        source: ClientError,
    },
}

impl RunError {
    pub(crate) fn of(name: &str, reference: &str, backend: Backend, error: ClientError) -> Self {
        let (name, stderr) = (name.to_owned(), error.said().to_owned());
        match () {
            () if is_full(&stderr) => Self::NoSpace { backend },
            () if says_any(&stderr, &["address already in use", "port is already allocated"]) => {
                Self::PortTaken { name, stderr }
            }
            () if says(&stderr, &["name", "already in use"]) => Self::NameTaken { name, backend },
            () if says_any(
                &stderr,
                &["unresolvable cdi device", "could not select device driver", "nvidia-container-cli"],
            ) =>
            {
                let fix = "see what `llama-orch doctor` says about the NVIDIA container toolkit".to_owned();
                Self::NoGpuSupport(NoGpuSupport { problem: stderr, fix })
            }
            () if says_any(&stderr, &["image not known", "no such image", "unable to find image"]) => {
                Self::ImageMissing { reference: reference.to_owned() }
            }
            () if says(&stderr, &["bind source path does not exist"]) || says(&stderr, &["statfs", "no such file"]) => {
                Self::MountMissing { name, stderr }
            }
            () if says_any(&stderr, &["exec: ", "executable file not found", "exec format error"]) => {
                Self::NoProgram { stderr }
            }
            () if says_any(&stderr, &["operation not permitted", "permission denied"]) => Self::Denied { stderr },
            () => Self::Client { name, source: error },
        }
    }
}

/// Why a container cannot be dealt with.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// It is not there any more.
    #[error("there is no container {name} any more")]
    Gone {
        /// Its name.
        name: String,
    },
    /// It outlived SIGKILL.
    #[error(
        "{name} still runs {} s after SIGKILL; its process hangs in the kernel, mostly in a driver: see `dmesg`, and restart the machine",
        waited.as_secs()
    )]
    StillRunning {
        /// Its name.
        name: String,
        /// How long it had to end.
        waited: Duration,
    },
    /// The client.
    #[error("could not {doing} {name}")]
    Client {
        /// What was to be done.
        doing: &'static str,
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: ClientError,
    },
}

impl ContainerError {
    pub(crate) fn of(doing: &'static str, name: &str, error: ClientError) -> Self {
        if says_any(error.said(), &["no such container", "no container with name or id"]) {
            return Self::Gone { name: name.to_owned() };
        }
        Self::Client { doing, name: name.to_owned(), source: error }
    }
}

/// Whether a signal came too late.
pub(crate) fn is_not_running(error: &ClientError) -> bool {
    says_any(error.said(), &["is not running", "can only kill running containers", "container state improper"])
}

/// Whether an image is not here.
pub(crate) fn is_no_image(error: &ClientError) -> bool {
    says_any(error.said(), &["image not known", "no such image"])
}

fn is_full(text: &str) -> bool {
    says_any(text, &["no space left on device", "disk quota exceeded"])
}
