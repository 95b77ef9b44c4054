//! A copy of a database that others are writing to.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

/// Why a database could not be copied.
#[derive(Debug, thiserror::Error)]
#[error("cannot copy {} to {}", from.display(), to.display())]
pub struct SnapshotError {
    /// The database.
    pub from: PathBuf,
    /// The copy.
    pub to: PathBuf,
    /// Why not.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Copies a database as it stands at one moment, whoever writes to it meanwhile, into a file that does not exist yet. Nobody is
/// held up. When this returns the copy is whole and on the disk.
///
/// # Errors
/// [`SnapshotError`]; what there is of the copy is of no use then.
pub fn snapshot(from: &Path, to: &Path) -> Result<(), SnapshotError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| SnapshotError {
        from: from.to_owned(),
        to: to.to_owned(),
        source,
    };
    // The copy holds prompts: nobody else may read it, not even while it is being written.
    create(to).map_err(|error| failed(error.into()))?;
    copy(from, to).map_err(|error| failed(error.into()))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(|error| failed(error.into()))
}

fn create(to: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map(drop)
}

fn copy(from: &Path, to: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(from, flags)?;
    // An empty file is what it takes for a new one.
    source.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
    let journal_mode: String = source.query_row("PRAGMA journal_mode", (), |row| row.get(0))?;
    let copy = Connection::open_with_flags(to, flags)?;
    copy.pragma_update(None, "journal_mode", journal_mode)?;
    copy.close().map_err(|(_, error)| error)
}
