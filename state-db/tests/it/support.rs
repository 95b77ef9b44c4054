//! Databases in temporary directories, and tasks to put into them.

use std::path::{Path, PathBuf};
use std::process::Command;

use api_types::{Engine, Priority, SessionId, TaskId, TaskState, TaskSummary, Workload};
use state_db::{AcceptedTask, EndedTask, OpenError, Opened, Retention, StateDb, TaskQuery, WriteError};
use tempfile::TempDir;

/// Everything, as one page.
pub(crate) const ALL: TaskQuery = TaskQuery {
    before: None,
    limit: usize::MAX,
    states: Vec::new(),
    priority: None,
    pool_id: None,
    session_id: None,
    model_ref: None,
    since_ms: None,
    until_ms: None,
};

/// A directory for a database.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir().join("state.db")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir().join("state.db-wal")
    }

    pub(crate) fn open(&self) -> Opened {
        self.open_keeping(Retention::default(), 0)
    }

    pub(crate) fn open_keeping(&self, retention: Retention, now_unix_ms: i64) -> Opened {
        StateDb::open(self.dir(), retention, now_unix_ms).expect("it opens")
    }

    pub(crate) fn refusal(&self) -> OpenError {
        StateDb::open(self.dir(), Retention::default(), 0).expect_err("it is refused")
    }
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

/// The same id for the same number; greater for a greater one.
pub(crate) fn id(number: u128) -> TaskId {
    format!("{number:032x}").parse().expect("it is a UUID")
}

pub(crate) fn number(id: TaskId) -> u128 {
    id.0.as_u128()
}

pub(crate) fn session(number: u128) -> SessionId {
    format!("{number:032x}").parse().expect("it is a UUID")
}

pub(crate) fn accepted(number: u128, entry: &str) -> AcceptedTask {
    AcceptedTask { task_id: id(number), admitted_at_ms: 1_000, entry: entry.to_owned() }
}

pub(crate) fn ended(number: u128, record: &str) -> EndedTask {
    EndedTask { summary: summary(number), record: record.to_owned() }
}

pub(crate) fn summary(number: u128) -> TaskSummary {
    TaskSummary {
        task_id: id(number),
        correlation_id: "c".to_owned(),
        session_id: session(1),
        state: TaskState::Completed,
        workload: Workload::Completion,
        model_ref: "hf:a/b".to_owned(),
        engine: Engine::Mock,
        engine_version: None,
        priority: Priority::Batch,
        seed: 7,
        deadline_ms: 60_000,
        max_tokens: 16,
        input_tokens: None,
        pool_id: Some("gpu0".to_owned()),
        replica_id: None,
        queue_position: None,
        predicted_start_ms: 0,
        on_time_probability: Some(0.25),
        admitted_at_ms: 1_000,
        dispatched_at_ms: Some(1_500),
        ended_at_ms: Some(2_000),
        queue_time_ms: None,
        first_token_ms: None,
        decode_time_ms: None,
        tokens_in: None,
        tokens_out: Some(3),
        placement: None,
        moves: Vec::new(),
        attempts: 1,
        recovered: false,
        error: None,
    }
}

pub(crate) fn accept(db: &StateDb, task: AcceptedTask) -> Result<(), WriteError> {
    wait(db.accept(task))
}

pub(crate) fn finish(db: &StateDb, task: EndedTask) -> Result<(), WriteError> {
    wait(db.finish(task))
}

/// The ids of a list of summaries, as numbers.
pub(crate) fn numbers(tasks: &[TaskSummary]) -> Vec<u128> {
    tasks.iter().map(|task| number(task.task_id)).collect()
}

/// A command that runs one test of this program in a process of its own.
pub(crate) fn this_test(name: &str) -> Vec<std::ffi::OsString> {
    let program = std::env::current_exe().expect("it runs");
    [program.as_os_str(), name.as_ref(), "--exact".as_ref(), "--nocapture".as_ref()].map(Into::into).to_vec()
}

/// The same as a process.
pub(crate) fn command(words: &[std::ffi::OsString]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}
