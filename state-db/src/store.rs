//! What a write does to the tables, inside one transaction.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use api_types::{Priority, TaskId};
use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, Params, Transaction, TransactionBehavior, params};

use crate::file::Found;
use crate::{AcceptedTask, EndedTask, Retention};

/// Tasks beyond the limits that one transaction deletes at most, on top of one for each that it adds.
const TRIMMED_AT_ONCE: i64 = 256;

/// One change of the tables.
pub(crate) enum Change {
    Accept(AcceptedTask),
    Finish(Box<EndedTask>),
    /// Whatever a test wants to happen in the middle of a transaction.
    #[cfg(test)]
    Run(Box<dyn Fn(&Connection) + Send>),
}

/// The one connection that writes.
pub(crate) struct Store {
    connection: Connection,
    /// Tasks in the history.
    ended: i64,
    retention: Retention,
    opened: Instant,
    opened_unix_ms: i64,
    /// Given up after the connection is closed.
    _lock: File,
}

impl Store {
    pub(crate) fn open(
        path: &Path,
        lock: File,
        ended: i64,
        retention: Retention,
        now_unix_ms: i64,
    ) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        // Confirmed means on the disk, also when the power goes: a commit waits for one fsync of the log.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cell_size_check", true)?;
        Ok(Self { connection, ended, retention, opened: Instant::now(), opened_unix_ms: now_unix_ms, _lock: lock })
    }

    /// Makes all the changes, in order, or none of them.
    pub(crate) fn write(&mut self, changes: &[Change]) -> rusqlite::Result<()> {
        let now = self.now_unix_ms();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut added = 0;
        let mut replaced = 0;
        for change in changes {
            match change {
                Change::Accept(task) => accept(&transaction, task)?,
                Change::Finish(task) => {
                    replaced += finish(&transaction, task)?;
                    added += 1;
                }
                #[cfg(test)]
                Change::Run(hook) => hook(&transaction),
            }
        }
        let mut ended = self.ended + added - replaced;
        // What only accepts must not fail because of the history.
        if added > 0 || changes.is_empty() {
            ended -= trim(&transaction, self.retention, ended, now, added + TRIMMED_AT_ONCE)?;
        }
        transaction.commit()?;
        self.ended = ended;
        Ok(())
    }

    /// Deletes ended tasks beyond the limits until none is left.
    pub(crate) fn trim(&mut self) -> rusqlite::Result<()> {
        loop {
            let before = self.ended;
            self.write(&[])?;
            if self.ended == before {
                return Ok(());
            }
        }
    }

    fn now_unix_ms(&self) -> i64 {
        let elapsed = self.opened.elapsed();
        self.opened_unix_ms.saturating_add(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }
}

/// What a file holds that was just opened.
pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Found> {
    let mut statement = connection.prepare("SELECT task_id, admitted_at_ms, entry FROM journal ORDER BY number")?;
    let tasks = statement.query_map((), |row| {
        Ok(AcceptedTask { task_id: TaskId(row.get(0)?), admitted_at_ms: row.get(1)?, entry: row.get(2)? })
    })?;
    let pending = tasks.collect::<Result<_, _>>()?;
    let ended = connection.query_row("SELECT count(*) FROM history", (), |row| row.get(0))?;
    Ok(Found { pending, ended })
}

/// A task that is in the journal already keeps its entry and its place.
fn accept(transaction: &Transaction<'_>, task: &AcceptedTask) -> rusqlite::Result<()> {
    let sql =
        "INSERT INTO journal (task_id, admitted_at_ms, entry) VALUES (?1, ?2, ?3) ON CONFLICT (task_id) DO NOTHING";
    transaction.prepare_cached(sql)?.execute(params![task.task_id.0, task.admitted_at_ms, task.entry])?;
    Ok(())
}

/// Returns how many tasks of the history it took the place of: 0 or 1.
fn finish(transaction: &Transaction<'_>, task: &EndedTask) -> rusqlite::Result<i64> {
    let EndedTask { summary, record } = task;
    let id = summary.task_id.0;
    if summary.priority == Priority::Batch {
        transaction.prepare_cached("DELETE FROM journal WHERE task_id = ?1")?.execute([id])?;
    }
    let text = serde_json::to_string(summary).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let sql =
        "INSERT INTO history (task_id, admitted_at_ms, ended_at_ms, state, priority, pool_id, session_id, model_ref,
        summary, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let mut insert = transaction.prepare_cached(sql)?;
    let mut insert = || {
        insert.execute(params![
            id,
            summary.admitted_at_ms,
            summary.ended_at_ms.unwrap_or(summary.admitted_at_ms),
            summary.state.as_str(),
            summary.priority.as_str(),
            summary.pool_id,
            summary.session_id.0,
            summary.model_ref,
            text,
            record,
        ])
    };
    // An id that comes again is rare, and looking for it first would cost as much as the rest.
    match insert() {
        Ok(_) => Ok(0),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            let replaced = delete(transaction.prepare_cached("DELETE FROM history WHERE task_id = ?1")?, [id])?;
            insert().map(|_| replaced)
        }
        Err(error) => Err(error),
    }
}

/// Deletes up to `limit` of the tasks that ended first: those that are too old, else those that are too many.
fn trim(tx: &Transaction<'_>, keep: Retention, ended: i64, now_unix_ms: i64, limit: i64) -> rusqlite::Result<i64> {
    let mut deleted = 0;
    if keep.max_age_ms > 0 {
        let sql = "DELETE FROM history WHERE number IN
            (SELECT number FROM history WHERE ended_at_ms < ?1 ORDER BY ended_at_ms LIMIT ?2)";
        let oldest = now_unix_ms.saturating_sub_unsigned(keep.max_age_ms);
        deleted += delete(tx.prepare_cached(sql)?, params![oldest, limit])?;
    }
    let too_many = (ended - deleted).saturating_sub_unsigned(keep.max_tasks);
    if keep.max_tasks > 0 && too_many > 0 {
        let sql =
            "DELETE FROM history WHERE number IN (SELECT number FROM history ORDER BY ended_at_ms, number LIMIT ?1)";
        deleted += delete(tx.prepare_cached(sql)?, [too_many.min(limit)])?;
    }
    Ok(deleted)
}

fn delete(mut statement: CachedStatement<'_>, parameters: impl Params) -> rusqlite::Result<i64> {
    statement.execute(parameters).map(|rows| i64::try_from(rows).unwrap_or(i64::MAX))
}
