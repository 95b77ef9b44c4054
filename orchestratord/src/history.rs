//! Looking at tasks: those the daemon holds in memory, and those of the history in `state.db`.

use std::cmp::Reverse;
use std::collections::HashSet;

use api_types::{ErrorEnvelope, ErrorKind, TaskId, TaskList, TaskQuery, TaskState, TaskSummary};
use state_db::ReadError;

use crate::app::App;
use crate::page;
use crate::task::Task;

/// One task, wherever it is.
///
/// # Errors
/// `NOT_FOUND`, or `INTERNAL` when the history cannot be read.
pub async fn find(app: &App, id: TaskId) -> Result<TaskSummary, ErrorEnvelope> {
    if let Some(task) = app.tasks.get(id) {
        return Ok(summary(app, &task));
    }
    let stored = app.db.task(id).await.map_err(|error| unreadable(&error))?;
    stored.map(|stored| stored.summary).ok_or_else(|| unknown(id))
}

/// There is no such task.
pub fn unknown(id: TaskId) -> ErrorEnvelope {
    ErrorEnvelope::new(
        ErrorKind::NotFound,
        format!("no task {id} is known; it was never submitted here, or it ended too long ago"),
    )
}

/// One page of tasks, newest first. Tasks in memory win over their records, which may be a moment behind.
///
/// # Errors
/// `INVALID_PARAMS` for a page size or a cursor that is none, `INTERNAL` when the history cannot be read.
pub async fn list(app: &App, query: TaskQuery) -> Result<TaskList, ErrorEnvelope> {
    let limit = page::length(query.limit)?;
    let before = query.cursor.as_deref().map(read_cursor).transpose()?;
    // Those in memory come first: a task that ends meanwhile is then in either of the two.
    let held = app.tasks.all();
    let mut tasks: Vec<TaskSummary> =
        held.iter().map(|task| summary(app, task)).filter(|task| matches(task, &query, before)).collect();
    let asked = state_db::TaskQuery {
        before,
        // The page may be full of tasks that memory knows better, so there must be enough beyond them.
        limit: limit + 1 + held.len(),
        states: query.state.clone(),
        priority: query.priority,
        pool_id: query.pool_id.as_ref().map(ToString::to_string),
        session_id: query.session_id,
        model_ref: query.model_ref.clone(),
        since_ms: query.since_ms,
        until_ms: query.until_ms,
    };
    let ids: HashSet<TaskId> = held.iter().map(|task| task.id()).collect();
    let ended = app.db.tasks(asked).await.map_err(|error| unreadable(&error))?;
    tasks.extend(ended.into_iter().filter(|task| !ids.contains(&task.task_id)));
    tasks.sort_unstable_by_key(|task| Reverse((task.admitted_at_ms, task.task_id)));
    let is_last = tasks.len() <= limit;
    tasks.truncate(limit);
    let next_cursor = tasks.last().filter(|_| !is_last).map(write_cursor);
    Ok(TaskList { tasks, next_cursor })
}

/// One task of those in memory.
pub fn summary(app: &App, task: &Task) -> TaskSummary {
    let position = (task.state() == TaskState::Queued).then(|| app.scheduler().queue_position(task.id())).flatten();
    task.view(&app.clock, position)
}

fn matches(task: &TaskSummary, query: &TaskQuery, before: Option<(i64, TaskId)>) -> bool {
    before.is_none_or(|before| (task.admitted_at_ms, task.task_id) < before)
        && (query.state.is_empty() || query.state.contains(&task.state))
        && query.priority.is_none_or(|priority| task.priority == priority)
        && query.pool_id.as_ref().is_none_or(|pool| task.pool_id.as_deref() == Some(pool.as_str()))
        && query.session_id.is_none_or(|session| task.session_id == session)
        && query.model_ref.as_ref().is_none_or(|model| task.model_ref == *model)
        && query.since_ms.is_none_or(|since| task.admitted_at_ms >= since)
        && query.until_ms.is_none_or(|until| task.admitted_at_ms < until)
}

/// A cursor is the last task of its page.
fn write_cursor(task: &TaskSummary) -> String {
    format!("{:x}.{}", task.admitted_at_ms, task.task_id)
}

fn read_cursor(cursor: &str) -> Result<(i64, TaskId), ErrorEnvelope> {
    let parts = cursor.split_once('.');
    let read = parts.and_then(|(at, id)| Some((i64::from_str_radix(at, 16).ok()?, id.parse().ok()?)));
    read.ok_or_else(|| {
        let message = "`cursor` is the `next_cursor` of an earlier page, unchanged; leave it out to begin anew";
        ErrorEnvelope::new(ErrorKind::InvalidParams, message)
    })
}

/// `state.db` does not answer.
pub fn unreadable(error: &ReadError) -> ErrorEnvelope {
    ErrorEnvelope::new(
        ErrorKind::Internal,
        format!("the task history cannot be read: {error}; the operator must look at server.data_dir"),
    )
}
