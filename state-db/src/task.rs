//! What goes into the file and what comes out of it.

use std::fmt;

use api_types::{Priority, SessionId, TaskId, TaskState, TaskSummary};

/// A task that was accepted and has not ended.
#[derive(Clone, PartialEq, Eq)]
pub struct AcceptedTask {
    /// The task's id.
    pub task_id: TaskId,
    /// When it was admitted, in milliseconds since the Unix epoch.
    pub admitted_at_ms: i64,
    /// All that is needed to run it, prompt included, in the caller's own format.
    pub entry: String,
}

/// A task that has ended, on its way into the history.
#[derive(Clone, PartialEq)]
pub struct EndedTask {
    /// What lists show of it, and what they filter by.
    pub summary: TaskSummary,
    /// What else is kept of it, in the caller's own format.
    pub record: String,
}

/// A task of the history.
#[derive(Clone, PartialEq)]
pub struct StoredTask {
    /// What lists show of it.
    pub summary: TaskSummary,
    /// What else was kept of it, as it was given.
    pub record: String,
}

/// Which tasks of the history to read. Filters add up: a task is listed when it passes all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskQuery {
    /// Only tasks older than this one, given by admission time and id: the last one of the page before.
    pub before: Option<(i64, TaskId)>,
    /// Most tasks in the answer.
    pub limit: usize,
    /// Only tasks that ended in one of these states; all when empty.
    pub states: Vec<TaskState>,
    /// Only tasks of this class.
    pub priority: Option<Priority>,
    /// Only tasks placed on this pool.
    pub pool_id: Option<String>,
    /// Only tasks of this session.
    pub session_id: Option<SessionId>,
    /// Only tasks for this model.
    pub model_ref: Option<String>,
    /// Only tasks admitted at this time or later, in milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// Only tasks admitted before this time, in milliseconds since the Unix epoch.
    pub until_ms: Option<i64>,
}

impl fmt::Debug for AcceptedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptedTask")
            .field("task_id", &self.task_id)
            .field("admitted_at_ms", &self.admitted_at_ms)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EndedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndedTask").field("summary", &self.summary).finish_non_exhaustive()
    }
}

impl fmt::Debug for StoredTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredTask").field("summary", &self.summary).finish_non_exhaustive()
    }
}
