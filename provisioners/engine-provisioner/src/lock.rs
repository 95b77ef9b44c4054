//! Locks between processes, and between tasks of one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::EngineError;
use crate::progress::EngineProgress;

/// How often somebody else's lock is looked at.
const POLL: Duration = Duration::from_millis(100);

/// A lock that is held until it is dropped, and until every program that was started with it has ended.
pub(crate) struct Lock(File);

impl Lock {
    /// Takes it; `None` while somebody else has it.
    pub(crate) fn try_take(path: &Path) -> Result<Option<Self>, EngineError> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).map_err(EngineError::io("create", folder))?;
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = opened.map_err(EngineError::io("open", path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(EngineError::io("lock", path)(error)),
        }
    }

    /// Takes it as soon as nobody else has it.
    pub(crate) async fn take(
        path: &Path,
        progress: &dyn EngineProgress,
        cancel: &CancellationToken,
    ) -> Result<Self, EngineError> {
        let mut told = false;
        loop {
            if let Some(lock) = Self::try_take(path)? {
                return Ok(lock);
            }
            if !std::mem::replace(&mut told, true) {
                progress.waiting();
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(EngineError::Canceled),
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// A handle for a program that shall hold it, too.
    pub(crate) fn share(&self) -> Option<File> {
        self.0.try_clone().ok()
    }
}
