//! Every way an engine can fail a call.

use api_types::ErrorKind;

/// Failure of a call to an engine (ADAPT-3002). Messages name what failed and never hold a prompt, a token or a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    /// The engine itself says that the request cannot be served as it is: too long, bad grammar, unsupported.
    #[error("the engine refused the request: {0}")]
    Rejected(String),
    /// The engine says that the deadline cannot be met.
    #[error("the deadline cannot be met: {0}")]
    DeadlineUnmet(String),
    /// The engine cannot be reached, or is not ready.
    #[error("the engine is not available: {0}")]
    PoolUnavailable(String),
    /// The engine is up but has no room now.
    #[error("the engine is busy: {0}")]
    Busy(String),
    /// The engine took longer than a time limit.
    #[error("the engine exceeded a time limit: {0}")]
    DecodeTimeout(String),
    /// The engine died, or closed the connection before it had said that it was done.
    #[error("the engine was lost: {0}")]
    WorkerReset(String),
    /// The engine's answer does not follow its own protocol, or reports an error of its own.
    #[error("the engine's answer is not usable: {0}")]
    Adapter(String),
    /// A bug on our side.
    #[error("internal error: {0}")]
    Internal(String),
}

impl WorkerError {
    /// The public code (LO-ERR-06).
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(_) => ErrorKind::InvalidParams,
            Self::DeadlineUnmet(_) => ErrorKind::DeadlineUnmet,
            Self::PoolUnavailable(_) => ErrorKind::PoolUnavailable,
            Self::Busy(_) => ErrorKind::ReplicaExhausted,
            Self::DecodeTimeout(_) => ErrorKind::DecodeTimeout,
            Self::WorkerReset(_) => ErrorKind::WorkerReset,
            Self::Adapter(_) | Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Whether another replica could serve the same task, as long as no token has been seen.
    #[must_use]
    pub const fn is_worker_lost(&self) -> bool {
        matches!(self, Self::PoolUnavailable(_) | Self::WorkerReset(_) | Self::Busy(_))
    }
}
