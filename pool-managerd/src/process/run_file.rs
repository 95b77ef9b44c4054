//! `<run_dir>/<pool>.json`: what of an engine runs, for the daemon that comes after a crash, and for people.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::proc::Identity;

/// The only version that is read and written.
const SCHEMA_VERSION: u64 = 1;

/// The content of a run file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunFile {
    pub(crate) schema_version: u64,
    pub(crate) pool_id: String,
    /// The engine's process id once more, where people and scripts look for it.
    pub(crate) pid: i32,
    pub(crate) program: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// Start times mean something on this start of the host only.
    pub(crate) boot_id: String,
    /// The value by which everything is known that descends from the engine.
    pub(crate) mark: String,
    pub(crate) guard: Identity,
    pub(crate) engine: Identity,
    /// What was found below the guard besides the engine when it was last looked at.
    #[serde(default)]
    pub(crate) others: Vec<Identity>,
}

/// Why a run file says nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadRunFileError {
    #[error("its version is {0}, and only {SCHEMA_VERSION} is known")]
    UnknownVersion(u64),
    #[error("it is damaged")]
    Damaged(#[source] serde_json::Error),
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
}

impl RunFile {
    pub(crate) const VERSION: u64 = SCHEMA_VERSION;

    pub(crate) fn path(run_dir: &Path, pool_id: &str) -> PathBuf {
        run_dir.join(format!("{pool_id}.json"))
    }

    pub(crate) fn read(path: &Path) -> Result<Self, ReadRunFileError> {
        #[derive(Deserialize)]
        struct Header {
            schema_version: u64,
        }
        let text = fs::read(path).map_err(ReadRunFileError::Unreadable)?;
        // The version first: another one may well look different.
        let Header { schema_version } = serde_json::from_slice(&text).map_err(ReadRunFileError::Damaged)?;
        if schema_version != SCHEMA_VERSION {
            return Err(ReadRunFileError::UnknownVersion(schema_version));
        }
        serde_json::from_slice(&text).map_err(ReadRunFileError::Damaged)
    }

    /// Replaces the file as a whole. It need not survive a loss of power, after which nothing of it runs.
    pub(crate) fn write(&self, run_dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(run_dir)?;
        let path = Self::path(run_dir, &self.pool_id);
        let temporary = path.with_added_extension("tmp");
        let written = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            fs::rename(&temporary, &path)
        };
        written().inspect_err(|_| {
            // What is left of it is replaced by the next one at the latest.
            let _ = fs::remove_file(&temporary);
        })
    }

    /// Removes the file, unless a later engine of the pool has written its own.
    pub(crate) fn remove(&self, run_dir: &Path) {
        let path = Self::path(run_dir, &self.pool_id);
        if Self::read(&path).is_ok_and(|now| now.mark == self.mark) {
            // Should it stay, it is stale, and found to be so.
            let _ = fs::remove_file(path);
        }
    }
}
