//! Why an engine is not prepared, and what to do about it (LO-ENG-15).

use std::io;
use std::path::{Path, PathBuf};

use api_types::{Engine, PoolFault};
use catalog_core::{CatalogError, FetchError};
use container_runtime::{NoRuntime, PullError};

use crate::cmake::Diagnosis;
use crate::launch::LaunchError;
use crate::tools::Tool;
use crate::unpack::UnpackError;

/// Why an engine is not prepared. [`fault`](Self::fault) is its kind, [`fix`](Self::fix) what to do.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It cannot be prepared in this way.
    #[error("{what}")]
    Unsupported {
        /// What cannot be done.
        what: String,
        /// What to do instead.
        fix: String,
    },
    /// Programs are not installed.
    #[error("{} not installed, and {needed_for} needs {}{}", listed(tools), if tools.len() == 1 { "it" } else { "them" }, places(looked_at))]
    MissingTools {
        /// The programs.
        tools: Vec<Tool>,
        /// What needs them.
        needed_for: String,
        /// Where they were looked for, beside the path.
        looked_at: Vec<PathBuf>,
        /// How to install them.
        fix: String,
    },
    /// CUDA is not here, or does not fit.
    #[error("{what}")]
    NoCuda {
        /// What is wrong.
        what: String,
        /// What to do.
        fix: String,
    },
    /// The policy is against it.
    #[error("{what}")]
    NotAllowed {
        /// What is not allowed.
        what: String,
        /// What to do.
        fix: String,
    },
    /// A file could not be fetched.
    #[error("{what} cannot be fetched: {source}")]
    Fetch {
        /// The file.
        what: String,
        /// Why not.
        #[source]
        source: FetchError,
    },
    /// Git failed.
    #[error("git cannot {action}: {detail}")]
    Git {
        /// What it was to do.
        action: String,
        /// What it said.
        detail: String,
        /// What to do.
        fix: Option<String>,
    },
    /// An archive cannot be unpacked.
    #[error("{} cannot be unpacked: {source}", path.display())]
    Unpack {
        /// The archive.
        path: PathBuf,
        /// Why not.
        #[source]
        source: UnpackError,
    },
    /// The build failed.
    #[error("{stage} failed{}: {detail} (the log is {})", diagnosed(diagnosis.as_ref()), log.display())]
    Build {
        /// `configuring` or `building`.
        stage: &'static str,
        /// The last lines that tell of an error.
        detail: String,
        /// The whole output.
        log: PathBuf,
        /// What is known of this kind of failure.
        diagnosis: Option<Diagnosis>,
    },
    /// The program is not where it must be.
    #[error("{} has no {wanted}", place.display())]
    NoProgram {
        /// Where it was looked for.
        place: PathBuf,
        /// What was looked for.
        wanted: String,
    },
    /// The program does not run.
    #[error("{} does not run: {detail}", program.display())]
    BadProgram {
        /// The program.
        program: PathBuf,
        /// What it did.
        detail: String,
        /// The kind of trouble.
        fault: PoolFault,
        /// What to do.
        fix: String,
    },
    /// It is another version than the pool's.
    #[error("{engine} has the version {found}, and provisioning.version wants {wanted}")]
    OtherVersion {
        /// The engine.
        engine: Engine,
        /// What was prepared.
        found: String,
        /// What the configuration wants.
        wanted: String,
    },
    /// There is no room.
    #[error("{} is full: {needed_bytes} bytes are needed, {free_bytes} are free", path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// Bytes needed.
        needed_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
    },
    /// The pool's flags or environment do not do.
    #[error("{0}")]
    Launch(#[from] LaunchError),
    /// No program that runs containers can be used.
    #[error("{0}")]
    NoRuntime(#[source] NoRuntime),
    /// Containers of this pool would not run.
    #[error("{what}")]
    Container {
        /// What is wrong.
        what: String,
        /// The kind of trouble.
        fault: PoolFault,
        /// What to do.
        fix: String,
    },
    /// The image could not be brought.
    #[error("{0}")]
    Pull(#[source] PullError),
    /// The package manager failed.
    #[error("{command} failed: {detail}")]
    Package {
        /// What was run.
        command: String,
        /// What it said.
        detail: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The catalog of engines cannot be used.
    #[error("the catalog of engines cannot be used: {0}")]
    Catalog(#[from] CatalogError),
    /// Somebody stopped it.
    #[error("the preparation was canceled; what was done is kept")]
    Canceled,
}

impl EngineError {
    /// The kind of trouble.
    #[must_use]
    pub fn fault(&self) -> PoolFault {
        match self {
            Self::Unsupported { .. } | Self::Launch(_) | Self::OtherVersion { .. } => PoolFault::Unsupported,
            Self::MissingTools { tools, .. } if tools.contains(&Tool::Nvcc) => PoolFault::NoCuda,
            Self::MissingTools { .. } => PoolFault::MissingTool,
            Self::NoCuda { .. } => PoolFault::NoCuda,
            Self::NotAllowed { .. } | Self::Fetch { source: FetchError::Denied(_), .. } => PoolFault::NotAllowed,
            Self::Fetch { source: FetchError::NoSpace { .. }, .. } | Self::NoSpace { .. } => PoolFault::DiskFull,
            Self::Fetch { source: FetchError::Io { source, .. }, .. } | Self::Io { source, .. } if is_full(source) => {
                PoolFault::DiskFull
            }
            Self::Unpack { source: UnpackError::Io(error), .. } if is_full(error) => PoolFault::DiskFull,
            Self::Fetch { .. } | Self::Git { .. } | Self::Unpack { .. } => PoolFault::FetchFailed,
            Self::Build { diagnosis: Some(diagnosis), .. } => diagnosis.fault,
            Self::Build { .. } | Self::NoProgram { .. } | Self::Package { .. } => PoolFault::BuildFailed,
            Self::BadProgram { fault, .. } | Self::Container { fault, .. } => *fault,
            Self::NoRuntime(_) => PoolFault::MissingTool,
            Self::Pull(PullError::NoSpace { .. }) => PoolFault::DiskFull,
            Self::Pull(_) => PoolFault::FetchFailed,
            Self::Io { .. } | Self::Catalog(_) => PoolFault::SpawnFailed,
            Self::Canceled => PoolFault::Killed,
        }
    }

    /// What to do: a command where there is one.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Unsupported { fix, .. }
            | Self::MissingTools { fix, .. }
            | Self::NoCuda { fix, .. }
            | Self::NotAllowed { fix, .. }
            | Self::Container { fix, .. }
            | Self::BadProgram { fix, .. } => Some(fix.clone()),
            Self::NoRuntime(error) => error.tried.first().map(|unusable| unusable.fix.clone()),
            Self::Git { fix, .. } => fix.clone(),
            Self::Launch(error) => Some(error.advice().to_owned()),
            Self::Build { diagnosis: Some(diagnosis), .. } => Some(diagnosis.fix.to_owned()),
            Self::Build { log, .. } => Some(format!("less {}", log.display())),
            Self::NoSpace { .. } => Some(MAKE_ROOM.to_owned()),
            Self::Fetch { source: FetchError::NoSpace { .. }, .. } => Some(MAKE_ROOM.to_owned()),
            Self::Io { source, .. } | Self::Unpack { source: UnpackError::Io(source), .. } if is_full(source) => {
                Some(MAKE_ROOM.to_owned())
            }
            Self::Fetch { source: FetchError::Digest { .. }, .. } => {
                Some("check the `checksum` of the pool's provisioning against what its publisher says".to_owned())
            }
            Self::OtherVersion { .. } => {
                Some("correct provisioning.version, or point the pool at an engine of that version".to_owned())
            }
            Self::NoProgram { .. } => {
                Some("point the pool at an archive or a version that holds the engine's server".to_owned())
            }
            Self::Fetch { .. }
            | Self::Unpack { .. }
            | Self::Pull(_)
            | Self::Package { .. }
            | Self::Io { .. }
            | Self::Catalog(_)
            | Self::Canceled => None,
        }
    }

    /// The error for a file that something could not be done with.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

const MAKE_ROOM: &str = "make room with `llama-orch engines rm`, or set engines.cache_dir to a larger disk";

/// Whether a write failed because there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

fn listed(tools: &[Tool]) -> String {
    let names: Vec<_> = tools.iter().map(|tool| tool.as_str()).collect();
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

fn places(looked_at: &[PathBuf]) -> String {
    let places: Vec<_> = looked_at.iter().map(|path| path.display().to_string()).collect();
    if places.is_empty() { String::new() } else { format!(" (looked for it on the path and at {})", places.join(", ")) }
}

fn diagnosed(diagnosis: Option<&Diagnosis>) -> String {
    diagnosis.map_or_else(String::new, |diagnosis| format!(", {}", diagnosis.cause))
}
