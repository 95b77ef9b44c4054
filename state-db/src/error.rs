//! How opening, writing and reading fail. No text holds anything of a task but its id (LO-ERR-01).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::ErrorCode;

use crate::file::FILE_NAME;

/// Why `state.db` was not opened. A file that is refused for what it is, or for who has it open, is left as it was,
/// and so is its write-ahead log.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by {}; stop it, or give this one another data_dir", .path.display(), process(*.pid))]
    InUse {
        /// The file.
        path: PathBuf,
        /// The other process, if it has said so already.
        pid: Option<u32>,
    },
    /// It is no SQLite file at all.
    #[error("{} is not a database; move the file away, or give another data_dir", .path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// It is a database of another program.
    #[error(
        "{} is a database of another program (application id {application_id:#010x}); move the file away, or give \
         another data_dir", .path.display()
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What it has instead of our application id.
        application_id: u32,
    },
    /// A newer version of this program wrote it.
    #[error(
        "{} has schema version {found}, and this version knows {supported}; use a version that is as new as the file, \
         or move the file away", .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The file's schema version.
        found: u32,
        /// The newest one that is understood here.
        supported: u32,
    },
    /// It is truncated or otherwise corrupt.
    #[error(
        "{} is damaged ({finding}); restore it from a backup, or move it and its -wal and -shm files away to start \
         without it", .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        finding: String,
    },
    /// The operating system refused something.
    #[error("could not {action} {}", .path.display())]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The database engine refused something, and damage is not the reason.
    #[error("could not open {}", .path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: rusqlite::Error,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Why a write was not confirmed. It is not in the file as seen from here; after a crash it may turn out to be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// No room on the disk. Later writes may succeed.
    #[error("the disk that holds {FILE_NAME} is full")]
    DiskFull {
        /// What the database engine said.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The file was damaged after it was opened.
    #[error("{FILE_NAME} is damaged; stop, and restore it from a backup")]
    Damaged {
        /// What the database engine said.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// It did not work for another reason. Later writes may succeed.
    #[error("could not write to {FILE_NAME}")]
    Failed {
        /// What the database engine said.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// A bug in the writer; it goes on with the next write.
    #[error("writing to {FILE_NAME} ended in a panic")]
    Panicked,
    /// [`crate::StateDb::close`] came first.
    #[error("{FILE_NAME} is closed")]
    Closed,
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        let (code, source) = (error.sqlite_error_code(), Arc::new(error));
        match code {
            Some(ErrorCode::DiskFull) => Self::DiskFull { source },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged { source },
            _ => Self::Failed { source },
        }
    }
}

/// Why a read has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file was damaged after it was opened, or holds what this version never wrote.
    #[error("{FILE_NAME} is damaged; stop, and restore it from a backup")]
    Damaged {
        /// What the database engine said.
        #[source]
        source: rusqlite::Error,
    },
    /// It did not work for another reason.
    #[error("could not read from {FILE_NAME}")]
    Failed {
        /// What the database engine said.
        #[source]
        source: rusqlite::Error,
    },
    /// A bug in the reader; it goes on with the next read.
    #[error("reading from {FILE_NAME} ended in a panic")]
    Panicked,
    /// [`crate::StateDb::close`] came first.
    #[error("{FILE_NAME} is closed")]
    Closed,
}

impl From<rusqlite::Error> for ReadError {
    fn from(source: rusqlite::Error) -> Self {
        if is_damage(&source) { Self::Damaged { source } } else { Self::Failed { source } }
    }
}

/// Whether the file's content is to blame: all of it, or a value that has not the type or form it was written with.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(
            error,
            FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..)
        )
}
