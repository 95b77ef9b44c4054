//! The file as a file: who may open it, whether it is ours and sound, and how a new one comes to be.
//!
//! Nothing here writes to a file that already exists: what is refused stays as it was, byte for byte.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::is_damage;
use crate::{AcceptedTask, OpenError, store};

/// The file's name in its directory.
pub(crate) const FILE_NAME: &str = "state.db";
/// "llor", at offset 68 of the file: tells our databases from others.
const APPLICATION_ID: u32 = 0x6c6c_6f72;
/// Version of the tables, at offset 60 of the file. A newer one is refused, never guessed at.
const SCHEMA_VERSION: u32 = 1;

const MAGIC: &[u8] = b"SQLite format 3\0";
const HEADER_LEN: usize = 100;
const PAGE_LEN: u64 = 4096;

const SCHEMA: &str = "
    CREATE TABLE journal (
        number INTEGER PRIMARY KEY,
        task_id BLOB NOT NULL UNIQUE,
        admitted_at_ms INTEGER NOT NULL,
        entry TEXT NOT NULL
    ) STRICT;
    CREATE TABLE history (
        number INTEGER PRIMARY KEY,
        task_id BLOB NOT NULL UNIQUE,
        admitted_at_ms INTEGER NOT NULL,
        ended_at_ms INTEGER NOT NULL,
        state TEXT NOT NULL,
        priority TEXT NOT NULL,
        pool_id TEXT,
        session_id BLOB NOT NULL,
        model_ref TEXT NOT NULL,
        summary TEXT NOT NULL,
        record TEXT NOT NULL
    ) STRICT;
    -- Holds every column that is filtered by: what does not pass is skipped without touching its row.
    CREATE INDEX history_newest ON history
        (admitted_at_ms DESC, task_id DESC, state, priority, pool_id, session_id, model_ref);
    CREATE INDEX history_ended ON history (ended_at_ms);
";

/// What a sound file holds.
pub(crate) struct Found {
    pub(crate) pending: Vec<AcceptedTask>,
    pub(crate) ended: i64,
}

/// Creates `dir` if need be and takes the one lock on its `state.db`. The lock goes with the process, however it ends.
pub(crate) fn lock(dir: &Path) -> Result<File, OpenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed_to("create", dir))?;
    let path = with_suffix(&dir.join(FILE_NAME), ".lock");
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = open.map_err(failed_to("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::InUse { path: dir.join(FILE_NAME), pid: read_pid(&mut file) });
        }
        Err(TryLockError::Error(source)) => return Err(failed_to("lock", &path)(source)),
    }
    write_pid(&mut file).map_err(failed_to("write", &path))?;
    Ok(file)
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes())
}

/// Makes an empty database under another name and renames it, so that a `state.db` that exists is a whole one.
pub(crate) fn create_if_missing(dir: &Path) -> Result<(), OpenError> {
    let path = dir.join(FILE_NAME);
    match fs::symlink_metadata(&path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed_to("read", &path)(source)),
    }
    if fs::metadata(with_suffix(&path, "-wal")).is_ok_and(|log| log.len() > 0) {
        let finding = format!("the file is missing, but its write-ahead log {FILE_NAME}-wal is there");
        return Err(OpenError::Damaged { path, finding });
    }
    let new = with_suffix(&path, ".new");
    build(&new)?;
    fs::rename(&new, &path).map_err(failed_to("rename", &new))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed_to("sync", dir))
}

/// The new database, all of it in the main file and on the disk when this returns.
fn build(new: &Path) -> Result<(), OpenError> {
    for leftover in [new.to_owned(), with_suffix(new, "-journal"), with_suffix(new, "-wal"), with_suffix(new, "-shm")] {
        match fs::remove_file(&leftover) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed_to("remove", &leftover)(error));
            }
            _ => {}
        }
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(new).map_err(failed_to("create", new))?;
    let fill = || {
        let connection = Connection::open_with_flags(new, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // One transaction; the switch to a write-ahead log comes last, so that nothing is ever in one. Nobody sees the file before
        // it is whole and on the disk, so that nothing on the way needs to be.
        connection.execute_batch(&format!(
            "PRAGMA page_size = {PAGE_LEN}; PRAGMA synchronous = OFF; BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION_ID};
            PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        ))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.close().map_err(|(_, error)| error)
    };
    fill().map_err(|source| OpenError::Sqlite { path: new.to_owned(), source })?;
    File::open(new).and_then(|file| file.sync_all()).map_err(failed_to("sync", new))
}

/// Reads the file's identity without the database engine, then all of it with the engine kept from writing.
pub(crate) fn check(path: &Path) -> Result<Found, OpenError> {
    let log = with_suffix(path, "-wal");
    let had_log = log.exists();
    let has_log_entries = fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    check_header(path, has_log_entries)?;
    let checked = check_content(path);
    if checked.is_err() && !had_log {
        // Merely looking makes the engine create an empty log, and an index of it.
        let _ = fs::remove_file(&log).and_then(|()| fs::remove_file(with_suffix(path, "-shm")));
    }
    checked
}

fn check_content(path: &Path) -> Result<Found, OpenError> {
    let refuse = |source: rusqlite::Error| {
        let path = path.to_owned();
        if is_damage(&source) {
            OpenError::Damaged { path, finding: source.to_string() }
        } else {
            OpenError::Sqlite { path, source }
        }
    };
    let connection = open_read_only(path).map_err(refuse)?;
    // A version that was written and not yet moved from the log into the main file counts too.
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(refuse)?;
    check_version(path, version)?;
    let finding: String = connection.query_row("PRAGMA quick_check(1)", (), |row| row.get(0)).map_err(refuse)?;
    if finding != "ok" {
        return Err(OpenError::Damaged { path: path.to_owned(), finding });
    }
    store::read(&connection).map_err(refuse)
}

/// A connection that can change neither the main file nor the log, not even by being closed.
pub(crate) fn open_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

fn check_header(path: &Path, has_log_entries: bool) -> Result<(), OpenError> {
    let (header, len) = read_header(path).map_err(failed_to("read", path))?;
    let damaged = |finding: &str| OpenError::Damaged { path: path.to_owned(), finding: finding.to_owned() };
    if header.is_empty() {
        return Err(damaged("it is empty"));
    }
    if !header.starts_with(MAGIC) {
        return Err(OpenError::NotADatabase { path: path.to_owned() });
    }
    if header.len() < HEADER_LEN {
        return Err(damaged("its header is cut off"));
    }
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (application_id, version) = (number(68), number(60));
    if application_id != APPLICATION_ID {
        return Err(OpenError::NotOurs { path: path.to_owned(), application_id });
    }
    check_version(path, version)?;
    // The engine takes what is missing of the last page for zeros. With a log it may be right: a crash can cut a page
    // that is in the log too.
    if !len.is_multiple_of(PAGE_LEN) && !has_log_entries {
        return Err(damaged("its last page is cut off"));
    }
    Ok(())
}

fn read_header(path: &Path) -> io::Result<(Vec<u8>, u64)> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut header = Vec::with_capacity(HEADER_LEN);
    file.take(HEADER_LEN as u64).read_to_end(&mut header)?;
    Ok((header, len))
}

fn check_version(path: &Path, found: u32) -> Result<(), OpenError> {
    match found {
        SCHEMA_VERSION => Ok(()),
        0 => Err(OpenError::Damaged { path: path.to_owned(), finding: "it has no schema version".to_owned() }),
        _ => Err(OpenError::Newer { path: path.to_owned(), found, supported: SCHEMA_VERSION }),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn failed_to(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}
