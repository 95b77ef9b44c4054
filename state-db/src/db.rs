//! The handle, and what opening gives.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use api_types::{Priority, TaskId, TaskSummary};

use crate::file::FILE_NAME;
use crate::reader::Reader;
use crate::store::{Change, Store};
use crate::writer::Writer;
use crate::{AcceptedTask, EndedTask, OpenError, ReadError, Receipt, StoredTask, TaskQuery};
use crate::{file, query};

/// The open file. A cheap handle: clones share the threads, and the last one to go closes the file.
#[derive(Clone)]
pub struct StateDb {
    threads: Arc<Threads>,
}

/// What [`StateDb::open`] gives.
#[derive(Debug)]
pub struct Opened {
    /// The handle.
    pub db: StateDb,
    /// Tasks that were accepted and have not ended, in the order of acceptance.
    pub pending: Vec<AcceptedTask>,
}

/// How much of the history is kept. Tasks that have not ended are always kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Most ended tasks; beyond that, those that ended first are deleted. 0 means no limit.
    pub max_tasks: u64,
    /// How long an ended task is kept, in milliseconds since its end. 0 means no limit.
    pub max_age_ms: u64,
}

impl StateDb {
    /// Opens `state.db` in `dir`, or creates both: the directory with mode 0700, the file with 0600. Deletes what
    /// `retention` does not keep; `now_unix_ms` is the wall clock, in milliseconds since the Unix epoch.
    ///
    /// Reads all of the file to see whether it is sound, and waits for the disk: not for an async thread.
    ///
    /// # Errors
    /// [`OpenError`], and an existing file is left exactly as it was.
    pub fn open(dir: &Path, retention: Retention, now_unix_ms: i64) -> Result<Opened, OpenError> {
        let lock = file::lock(dir)?;
        file::create_if_missing(dir)?;
        let path = dir.join(FILE_NAME);
        let found = file::check(&path)?;
        let failed = |source| OpenError::Sqlite { path: path.clone(), source };
        let mut store = Store::open(&path, lock, found.ended, retention, now_unix_ms).map_err(failed)?;
        if let Err(error) = store.trim() {
            // A full disk must not keep accepted tasks from being run.
            tracing::warn!(%error, "old tasks were not deleted from state.db");
        }
        let readers = [file::open_read_only(&path).map_err(failed)?, file::open_read_only(&path).map_err(failed)?];
        let threads = Threads::spawn(store, readers).map_err(|source| OpenError::Io {
            action: "start a thread for",
            path: path.clone(),
            source,
        })?;
        Ok(Opened { db: Self { threads: Arc::new(threads) }, pending: found.pending })
    }

    /// Puts a task into the journal. The write is queued when this returns, in the order of the calls, whether or not the
    /// receipt is waited for. A task that is in the journal already keeps the entry and the place it has.
    pub fn accept(&self, task: AcceptedTask) -> Receipt {
        self.threads.writer.write(Change::Accept(task), true)
    }

    /// Puts a task into the history and, if it is a batch task, takes it out of the journal, in one transaction; queued like
    /// [`accept`](Self::accept). Nobody waits for the record of an interactive task: it may wait up to 250 ms for company, and
    /// others overtake it. The history has one entry for each id, the one that came last.
    pub fn finish(&self, task: EndedTask) -> Receipt {
        let urgent = task.summary.priority == Priority::Batch;
        self.threads.writer.write(Change::Finish(Box::new(task)), urgent)
    }

    /// One page of the history, newest first: by admission time, then by id, both descending.
    ///
    /// # Errors
    /// [`ReadError`] when the file cannot be read.
    pub async fn tasks(&self, query: TaskQuery) -> Result<Vec<TaskSummary>, ReadError> {
        self.threads.pages.ask(move |connection| query::tasks(connection, &query)).await
    }

    /// One task of the history; none when it has not ended, is no longer kept, or was never there.
    ///
    /// # Errors
    /// [`ReadError`] when the file cannot be read.
    pub async fn task(&self, id: TaskId) -> Result<Option<StoredTask>, ReadError> {
        self.threads.lookups.ask(move |connection| query::task(connection, id)).await
    }

    /// Writes what is queued, closes the file and gives up its lock; waits until that is done, so not for an async
    /// thread. What comes later fails with `Closed`. Also happens when the last handle is dropped.
    pub fn close(&self) {
        self.threads.stop();
    }

    /// Runs something on the writer, inside a transaction of its group.
    #[cfg(test)]
    pub(crate) fn run(&self, hook: impl Fn(&rusqlite::Connection) + Send + 'static) -> Receipt {
        self.threads.writer.write(Change::Run(Box::new(hook)), true)
    }
}

impl fmt::Debug for StateDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateDb").finish_non_exhaustive()
    }
}

struct Threads {
    writer: Writer,
    /// Answers at once.
    lookups: Reader,
    /// Has a thread of its own so that a long page never delays a lookup.
    pages: Reader,
    running: Mutex<Option<Running>>,
}

struct Running {
    readers: [JoinHandle<()>; 2],
    writer: JoinHandle<()>,
}

impl Threads {
    fn spawn(store: Store, readers: [rusqlite::Connection; 2]) -> std::io::Result<Self> {
        let [first, second] = readers;
        let (lookups, lookups_thread) = Reader::spawn("state-db-lookup", first)?;
        let (pages, pages_thread) = Reader::spawn("state-db-pages", second)?;
        let (writer, writer_thread) = Writer::spawn(store)?;
        let running = Running { readers: [lookups_thread, pages_thread], writer: writer_thread };
        Ok(Self { writer, lookups, pages, running: Mutex::new(Some(running)) })
    }

    fn stop(&self) {
        // Held while waiting, so that a second caller returns no earlier than the first.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Running { readers, writer }) = running.take() {
            self.lookups.stop();
            self.pages.stop();
            readers.into_iter().for_each(join);
            // Last, since the last connection to close moves the log into the main file.
            self.writer.stop();
            join(writer);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of state.db ended in a panic");
    }
}
