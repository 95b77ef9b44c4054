//! The seam between the catalog and whoever brings models here (LO-CAT-11).

use std::path::PathBuf;
use std::sync::Arc;

use api_types::ErrorKind;
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{Digest, ModelRef, StoredFile};

/// Brings the files of models to this machine.
#[async_trait]
pub trait ModelFetcher: Send + Sync {
    /// Brings a model's files below the models' folder, each compared with whatever its source and `expected` say about it.
    /// Files appear under their names whole or not at all. What was fetched before a failure or a cancel is kept, and the
    /// next call goes on from there.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn fetch(
        &self,
        model: &ModelRef,
        expected: Option<&Digest>,
        context: &FetchContext,
    ) -> Result<Fetched, FetchError>;
}

/// What a fetch reports to and is stopped by.
#[derive(Clone)]
pub struct FetchContext {
    /// Told how far it is.
    pub progress: Arc<dyn Progress>,
    /// Stops it.
    pub cancel: CancellationToken,
    /// Whether the operator's own configuration names the model; the outbound policy may want that.
    pub configured: bool,
}

/// Told how far a fetch is. Calls come often and from several tasks: be quick.
pub trait Progress: Send + Sync {
    /// It waits for another process that fetches the same.
    fn waiting(&self) {}
    /// The source has told how much there is in all; `bytes` is `None` when it has not told.
    fn planned(&self, files: usize, bytes: Option<u64>);
    /// So many bytes more are here, those of an earlier try included.
    fn advanced(&self, bytes: u64);
    /// So many bytes turned out to be worthless.
    fn lost(&self, bytes: u64);
    /// One more file is here, whole and verified.
    fn file_done(&self, name: &str);
}

/// A model that has been fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its file or folder.
    pub local_path: PathBuf,
    /// Its files, by name.
    pub files: Vec<StoredFile>,
    /// Where they came from, without credentials.
    pub source_url: Option<String>,
    /// Bytes that came over the network this time.
    pub transferred_bytes: u64,
}

/// Why a model could not be fetched. Messages hold no credentials and say what to do.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The outbound policy does not let it be fetched; the message names the key to change.
    #[error("{0}")]
    Denied(String),
    /// The reference cannot be fetched as it is.
    #[error("{0}")]
    Unsupported(String),
    /// The source has no such model.
    #[error("{0}")]
    NotFound(String),
    /// The source wants credentials, or other ones; the message names the environment variable.
    #[error("{0}")]
    Unauthorized(String),
    /// What came is not what was expected.
    #[error("{file} has the digest {found}, and {expected} was expected; nothing was kept of it")]
    Digest {
        /// The file.
        file: String,
        /// What was expected.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// There is no room for it.
    #[error("{} has {free_bytes} bytes free and {needed_bytes} are needed; make room, or set catalog.models_dir to a larger disk", path.display())]
    NoSpace {
        /// The folder.
        path: PathBuf,
        /// Bytes still to come.
        needed_bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
    },
    /// The source failed again and again; trying again later may help.
    #[error("{0}")]
    Source(String),
    /// A file could not be written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It was canceled.
    #[error("the fetch was canceled; what was fetched is kept")]
    Canceled,
}

impl FetchError {
    /// The public code, which decides HTTP status and `retriable`.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Denied(_) | Self::Digest { .. } => ErrorKind::UntrustedArtifact,
            Self::Unsupported(_) | Self::Unauthorized(_) => ErrorKind::InvalidParams,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::NoSpace { .. } | Self::Io { .. } | Self::Canceled => ErrorKind::Internal,
            Self::Source(_) => ErrorKind::PoolUnready,
        }
    }
}
