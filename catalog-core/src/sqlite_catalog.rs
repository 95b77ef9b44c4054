//! The index in a SQLite database, for many models (ORCH-3037.2).

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api_types::ModelId;
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, Params, Transaction, TransactionBehavior};

use crate::json_file::{create_folder, failed_to, lock, sync_folder, with_suffix};
use crate::models_dir::ModelsDir;
use crate::{CatalogEntry, CatalogError, CatalogStore, ListFilter, ModelRef, Page, ResolvedModel};

/// "llom", at offset 68 of the file: tells our indices from other databases.
const APPLICATION_ID: u32 = 0x6c6c_6f6d;
/// Version of the tables, SQLite's `user_version`; any other is refused.
const SCHEMA_VERSION: u64 = 1;
/// How long a change waits for those of other processes.
const PATIENCE: Duration = Duration::from_secs(60);

const MAGIC: &[u8] = b"SQLite format 3\0";

const SCHEMA: &str = "
    CREATE TABLE models (
        id TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        local_path TEXT,
        entry TEXT NOT NULL
    ) STRICT;
    CREATE INDEX models_state ON models (state, id);
    CREATE INDEX models_local_path ON models (local_path);
    CREATE TABLE tags (
        tag TEXT NOT NULL,
        id TEXT NOT NULL REFERENCES models (id) ON DELETE CASCADE,
        PRIMARY KEY (tag, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX tags_id ON tags (id);
    -- The file's own name keeps two files apart that were changed equally often.
    CREATE TABLE changes (file TEXT NOT NULL, revision INTEGER NOT NULL) STRICT;
    INSERT INTO changes VALUES (lower(hex(randomblob(8))), 0);
";

/// An index in `models.db`: the table `models` holds each [`CatalogEntry`] as JSON, with state and path beside it; `tags` its
/// tags.
pub struct SqliteCatalog {
    path: PathBuf,
    /// Two connections, so that reading does not wait for a change to be on the disk.
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    models_dir: ModelsDir,
}

impl SqliteCatalog {
    /// The index in the folder `root`, which is created with mode 0700. Files are only ever removed below `models_dir`.
    ///
    /// # Errors
    /// [`CatalogError`]; an index that is refused is left as it is.
    pub fn open(root: impl Into<PathBuf>, models_dir: impl Into<PathBuf>) -> Result<Self, CatalogError> {
        let root = root.into();
        create_folder(&root)?;
        let path = root.join("models.db");
        create_if_missing(&path)?;
        check(&path)?;
        let connect = |prepare: &str| {
            let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            connection.busy_timeout(PATIENCE)?;
            connection.execute_batch(prepare)?;
            Ok(Mutex::new(connection))
        };
        let writer = connect("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON").map_err(refused(&path))?;
        let reader = connect("PRAGMA query_only = ON").map_err(refused(&path))?;
        Ok(Self { writer, reader, models_dir: ModelsDir::new(&models_dir.into())?, path })
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `change` in a transaction of its own, which no other change can come between.
    fn write<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T, CatalogError>) -> Result<T, CatalogError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = refused(&self.path);
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        let result = change(&transaction)?;
        transaction.commit().map_err(&failed)?;
        Ok(result)
    }

    fn query(
        &self,
        connection: &Connection,
        sql: &str,
        values: impl Params,
    ) -> Result<Vec<CatalogEntry>, CatalogError> {
        let read = || {
            let mut statement = connection.prepare_cached(sql)?;
            statement.query_map(values, |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        };
        let texts = read().map_err(refused(&self.path))?;
        texts.iter().map(|text| self.parse(text)).collect()
    }

    fn parse(&self, text: &str) -> Result<CatalogEntry, CatalogError> {
        serde_json::from_str(text)
            .map_err(|error| CatalogError::Damaged { path: self.path.clone(), problem: error.to_string() })
    }

    fn entry(&self, connection: &Connection, id: &ModelId) -> Result<Option<CatalogEntry>, CatalogError> {
        Ok(self.query(connection, "SELECT entry FROM models WHERE id = ?", [id.as_str()])?.pop())
    }

    fn insert(&self, connection: &Connection, entry: &CatalogEntry) -> Result<(), CatalogError> {
        let text = serde_json::to_string(entry).map_err(io::Error::from).map_err(failed_to("write", &self.path))?;
        let insert = || {
            let local_path = entry.local_path.as_deref().and_then(Path::to_str);
            connection
                .prepare_cached("INSERT OR REPLACE INTO models (id, state, local_path, entry) VALUES (?, ?, ?, ?)")?
                .execute((entry.id.as_str(), entry.lifecycle.as_str(), local_path, text))?;
            connection.prepare_cached("DELETE FROM tags WHERE id = ?")?.execute([entry.id.as_str()])?;
            let mut tags = connection.prepare_cached("INSERT OR IGNORE INTO tags (tag, id) VALUES (?, ?)")?;
            for tag in &entry.tags {
                tags.execute((tag, entry.id.as_str()))?;
            }
            count_change(connection)
        };
        insert().map_err(refused(&self.path))
    }

    fn remove(&self, connection: &Connection, id: &ModelId) -> Result<(), CatalogError> {
        let remove = || {
            connection.prepare_cached("DELETE FROM models WHERE id = ?")?.execute([id.as_str()])?;
            count_change(connection)
        };
        remove().map_err(refused(&self.path))
    }

    /// Entries whose paths are above or below the folder.
    fn overlapping(&self, connection: &Connection, folder: &Path) -> Result<Vec<CatalogEntry>, CatalogError> {
        let Some(text) = folder.to_str() else { return Ok(Vec::new()) };
        let below = "SELECT entry FROM models WHERE local_path >= ?1 || '/' AND local_path < ?1 || '0'";
        let mut found = self.query(connection, below, [text])?;
        for above in folder.ancestors().filter_map(Path::to_str) {
            found.extend(self.query(connection, "SELECT entry FROM models WHERE local_path = ?", [above])?);
        }
        Ok(found)
    }
}

impl CatalogStore for SqliteCatalog {
    fn get(&self, id: &ModelId) -> Result<Option<CatalogEntry>, CatalogError> {
        self.entry(&self.reader(), id)
    }

    fn put(&self, entry: CatalogEntry) -> Result<(), CatalogError> {
        let entry = self.models_dir.checked(entry)?;
        self.write(|index| {
            if self.entry(index, &entry.id)?.as_ref() == Some(&entry) { Ok(()) } else { self.insert(index, &entry) }
        })
    }

    fn update(
        &self,
        id: &ModelId,
        change: &mut dyn FnMut(Option<CatalogEntry>) -> Option<CatalogEntry>,
    ) -> Result<Option<CatalogEntry>, CatalogError> {
        self.write(|index| {
            let before = self.entry(index, id)?;
            let after = change(before.clone()).map(|after| CatalogEntry { id: id.clone(), ..after });
            let after = after.map(|after| self.models_dir.checked(after)).transpose()?;
            match &after {
                _ if after == before => {}
                Some(after) => self.insert(index, after)?,
                None => self.remove(index, id)?,
            }
            Ok(after)
        })
    }

    fn list(&self, filter: &ListFilter) -> Result<Page, CatalogError> {
        let (sql, mut values) = page(filter);
        let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
        values.push(limit.saturating_add(1).into());
        let mut entries = self.query(&self.reader(), sql, rusqlite::params_from_iter(values))?;
        let more = entries.len() > filter.limit;
        entries.truncate(filter.limit);
        Ok(Page { entries, more })
    }

    fn delete(&self, id: &ModelId) -> Result<bool, CatalogError> {
        let removed = self.write(|index| {
            let Some(entry) = self.entry(index, id)? else { return Ok(None) };
            self.remove(index, id)?;
            let others = match ModelsDir::scope(&entry) {
                Some(folder) => self.overlapping(index, &folder)?,
                None => Vec::new(),
            };
            Ok(Some((entry, others)))
        })?;
        let Some((entry, others)) = removed else { return Ok(false) };
        self.models_dir.remove(&entry, &others).map(|()| true)
    }

    fn version(&self) -> Result<String, CatalogError> {
        let sql = "SELECT file || '-' || revision FROM changes";
        self.reader().query_row(sql, (), |row| row.get(0)).map_err(refused(&self.path))
    }

    fn locate(&self, model: &ModelRef) -> Result<Option<ResolvedModel>, CatalogError> {
        let entry = self.get(&model.id())?;
        Ok(self.models_dir.locate(model, entry.as_ref()))
    }
}

fn count_change(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE changes SET revision = revision + 1")?.execute(())?;
    Ok(())
}

/// One page comes off one index in its order: nothing is sorted, and what does not pass is not read.
fn page(filter: &ListFilter) -> (&'static str, Vec<Value>) {
    let after = Value::from(filter.after.as_ref().map_or(String::new(), ToString::to_string));
    let state = filter.state.map(|state| Value::from(state.as_str().to_owned()));
    match (filter.tag.clone().map(Value::from), state) {
        (None, None) => ("SELECT entry FROM models WHERE id > ? ORDER BY id LIMIT ?", vec![after]),
        (None, Some(state)) => {
            ("SELECT entry FROM models WHERE state = ? AND id > ? ORDER BY id LIMIT ?", vec![state, after])
        }
        (Some(tag), state) => (
            "SELECT entry FROM tags CROSS JOIN models ON models.id = tags.id
            WHERE tag = ? AND tags.id > ? AND state = ifnull(?, state) ORDER BY tags.id LIMIT ?",
            vec![tag, after, state.unwrap_or(Value::Null)],
        ),
    }
}

/// Makes an empty database under another name and renames it, so that one that exists is a whole one.
fn create_if_missing(path: &Path) -> Result<(), CatalogError> {
    let _lock = lock(path)?;
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    let new = with_suffix(path, ".new");
    for leftover in [new.clone(), with_suffix(&new, "-journal"), with_suffix(&new, "-wal"), with_suffix(&new, "-shm")] {
        match fs::remove_file(&leftover) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed_to("remove", &leftover)(error));
            }
            _ => {}
        }
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed_to("create", &new))?;
    let fill = || {
        let connection = Connection::open_with_flags(&new, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.execute_batch(&format!(
            "BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        ))?;
        // Last, so that nothing is ever in a log that the rename would leave behind.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.close().map_err(|(_, error)| error)
    };
    fill().map_err(refused(&new))?;
    fs::File::open(&new).and_then(|file| file.sync_all()).map_err(failed_to("sync", &new))?;
    fs::rename(&new, path).map_err(failed_to("rename", &new))?;
    sync_folder(path).map_err(failed_to("sync the folder of", path))
}

/// Looks at what the file is before anything may write to it.
fn check(path: &Path) -> Result<(), CatalogError> {
    let damaged = |problem: &str| CatalogError::Damaged { path: path.to_owned(), problem: problem.to_owned() };
    let mut magic = Vec::new();
    let file = fs::File::open(path).map_err(failed_to("read", path))?;
    file.take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(failed_to("read", path))?;
    if magic != MAGIC {
        return Err(damaged("it is no SQLite database"));
    }
    let look = || {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.busy_timeout(PATIENCE)?;
        let read = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
        Ok((read("application_id")?, read("user_version")?))
    };
    let had_log = with_suffix(path, "-wal").exists();
    let checked =
        look().map_err(refused(path)).and_then(|(application_id, version)| match (application_id, version.into()) {
            (APPLICATION_ID, SCHEMA_VERSION) => Ok(()),
            (APPLICATION_ID, found) => {
                Err(CatalogError::UnknownVersion { path: path.to_owned(), found, known: SCHEMA_VERSION })
            }
            _ => Err(damaged("it is a database of another program")),
        });
    if checked.is_err() && !had_log {
        // Merely looking makes the engine create an empty log, and an index of it.
        let _ = fs::remove_file(with_suffix(path, "-wal"));
        let _ = fs::remove_file(with_suffix(path, "-shm"));
    }
    checked
}

fn refused(path: &Path) -> impl Fn(rusqlite::Error) -> CatalogError {
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            CatalogError::Damaged { path: path.to_owned(), problem: error.to_string() }
        }
        Some(ErrorCode::DiskFull) => failed_to("write", path)(io::Error::new(io::ErrorKind::StorageFull, error)),
        _ => failed_to("use", path)(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::ModelLifecycle;

    /// ORCH-3470: whatever is filtered by, a page comes off an index in its order and nothing is sorted.
    #[test]
    fn every_filter_is_served_by_an_index() {
        let dir = tempfile::tempdir().expect("a folder");
        let index = SqliteCatalog::open(dir.path(), dir.path()).expect("it opens");
        let all = ListFilter { state: None, tag: None, after: Some("a".into()), limit: 10 };
        let state = Some(ModelLifecycle::Active);
        let tag = Some("t".to_owned());
        let filters = [
            all.clone(),
            ListFilter { state, ..all.clone() },
            ListFilter { tag: tag.clone(), ..all.clone() },
            ListFilter { state, tag, ..all },
        ];
        for filter in filters {
            let (sql, mut values) = page(&filter);
            values.push(10.into());
            let reader = index.reader();
            let mut statement = reader.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("it is understood");
            let steps = statement.query_map(rusqlite::params_from_iter(values), |row| row.get(3)).expect("it runs");
            let plan: Vec<String> = steps.map(|step| step.expect("a row")).collect();
            assert!(plan.iter().all(|step| step.starts_with("SEARCH") && step.contains("USING")), "{plan:?}");
        }
    }
}
