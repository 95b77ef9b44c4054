//! How opening, keeping and reading fail. No text holds anything of a document but its id.

use std::io;
use std::path::PathBuf;

use crate::key::Key;

/// Why the store was not opened. What is refused is left as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another process; stop it, or give this one another artifacts.dir", .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The index is not one of ours, or of a version that is not known here.
    #[error(
        "{} is no index that this version knows (application {application_id:#010x}, schema {schema}); use the version \
         that wrote it, or move the file away: it is made again from the artifacts", .path.display()
    )]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        application_id: u32,
        /// Its schema version.
        schema: u32,
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
    /// The index cannot be read.
    #[error("could not open {}; move the file away if it is damaged: it is made again from the artifacts", .path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What the database engine said.
        #[source]
        source: rusqlite::Error,
    },
}

/// Why a document was not kept.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// What it was made from is not there.
    #[error("no artifact {parent} is kept")]
    NoParent {
        /// The parent's id.
        parent: String,
    },
    /// It has too many labels, or one that is empty or too long.
    #[error("an artifact has at most {most} tags, of 1 to {longest} bytes")]
    Tags {
        /// Most of them.
        most: usize,
        /// Bytes of the longest.
        longest: usize,
    },
    /// JSON cannot hold it.
    #[error("the artifact cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    /// Its file cannot be written.
    #[error("could not write an artifact")]
    Io(#[source] io::Error),
    /// Its entry cannot be written.
    #[error("could not write to the index of artifacts")]
    Index(#[source] rusqlite::Error),
}

/// Why a document was not read or removed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its file is not what was written. It is set aside and its entry is removed, so that it can be kept anew.
    #[error("artifact {key} was damaged on the disk; what is left of it is beside its place, as {key}.json.damaged")]
    Damaged {
        /// Its id.
        key: Key,
    },
    /// Its file is gone; its entry is removed.
    #[error("the file of artifact {key} is gone")]
    Lost {
        /// Its id.
        key: Key,
    },
    /// Its file cannot be read or removed.
    #[error("could not read or remove artifact {key}")]
    Io {
        /// Its id.
        key: Key,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The index cannot be read.
    #[error("could not read the index of artifacts")]
    Index(#[source] rusqlite::Error),
}
