//! The index as a file: whose it is, and how a new one comes to be.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::{Index, SCHEMA};
use crate::error::OpenError;

/// The file's name in its directory.
const FILE_NAME: &str = "index.db";
/// "llar", at offset 68 of the file.
const APPLICATION_ID: u32 = 0x6c6c_6172;
/// Version of the tables. Another one is refused, never guessed at.
const SCHEMA_VERSION: u32 = 1;

/// What opening gives.
pub(crate) struct Opened {
    pub(crate) index: Index,
    pub(crate) path: PathBuf,
}

/// Opens the index of a directory. Where it is missing `fill` fills a new one, which comes to its place whole or not at all.
pub(crate) fn open(dir: &Path, fill: impl FnOnce(&mut Index) -> Result<(), OpenError>) -> Result<Opened, OpenError> {
    let path = dir.join(FILE_NAME);
    if !path.try_exists().map_err(failed_to("read", &path))? {
        create(dir, &path, fill)?;
    }
    let failed = |source| OpenError::Index { path: path.clone(), source };
    let connection = connect(&path).map_err(failed)?;
    let application_id = number(&connection, "application_id").map_err(failed)?;
    let schema = number(&connection, "user_version").map_err(failed)?;
    if (application_id, schema) != (APPLICATION_ID, SCHEMA_VERSION) {
        return Err(OpenError::Unknown { path, application_id, schema });
    }
    // What is in the index has its file, so each commit waits for the disk before files come to their places.
    let settings = "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
        PRAGMA cache_size = -2048; PRAGMA temp_store = MEMORY;";
    connection.execute_batch(settings).map_err(failed)?;
    let index = Index::new(connection).map_err(failed)?;
    Ok(Opened { index, path })
}

/// An index that is gone with the process.
pub(crate) fn in_memory() -> rusqlite::Result<Index> {
    let connection = Connection::open_in_memory()?;
    connection.execute_batch(SCHEMA)?;
    Index::new(connection)
}

fn create(dir: &Path, path: &Path, fill: impl FnOnce(&mut Index) -> Result<(), OpenError>) -> Result<(), OpenError> {
    let new = dir.join(format!("{FILE_NAME}.new"));
    for leftover in [new.clone(), dir.join(format!("{FILE_NAME}.new-journal"))] {
        match fs::remove_file(&leftover) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed_to("remove", &leftover)(error));
            }
            _ => {}
        }
    }
    let failed = |source| OpenError::Index { path: new.clone(), source };
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed_to("create", &new))?;
    let connection = connect(&new).map_err(failed)?;
    let prepare = format!(
        "PRAGMA page_size = 4096; PRAGMA synchronous = OFF; PRAGMA application_id = {APPLICATION_ID};
        PRAGMA user_version = {SCHEMA_VERSION}; {SCHEMA}"
    );
    connection.execute_batch(&prepare).map_err(failed)?;
    let mut index = Index::new(connection).map_err(failed)?;
    fill(&mut index)?;
    index.connection.close().map_err(|(_, error)| failed(error))?;
    File::open(&new).and_then(|file| file.sync_all()).map_err(failed_to("sync", &new))?;
    fs::rename(&new, path).map_err(failed_to("rename", &new))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed_to("sync", dir))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0)).map(i32::cast_unsigned)
}

pub(crate) fn failed_to(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}
