//! How a hosted call ends when it does not end well.

use adapter_api::WorkerError;

/// Why a task's submission or stream is over before the engine said that it was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Somebody on our side wanted it to end. Not a failure of anything.
    #[error("the task was canceled")]
    Canceled,
    /// The engine, or the way to it, failed.
    #[error("the engine failed the task")]
    Worker(#[source] WorkerError),
}

impl HostError {
    /// The engine's failure, if that is what it was.
    #[must_use]
    pub fn worker(&self) -> Option<&WorkerError> {
        match self {
            Self::Canceled => None,
            Self::Worker(error) => Some(error),
        }
    }
}
