//! One task: what was predicted at its admission, and what came of it.

use api_types::{ErrorKind, Priority, TaskState, TaskSummary};
use serde::Serialize;

use super::super::open_loop::{Answer, Reply};
use super::super::task::Task;

/// One task; times in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Record {
    /// When it was to be sent, from the beginning of the load.
    pub(super) at_ms: u64,
    pub(super) priority: Priority,
    pub(super) prompt_tokens: u16,
    pub(super) max_tokens: u16,
    pub(super) deadline_ms: u64,
    /// Why it was refused; the rest is absent then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<ErrorKind>,
    #[serde(flatten)]
    pub(super) course: Option<Course>,
}

/// The course of an admitted task. Moments are milliseconds since the Unix epoch.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Course {
    /// Tasks ahead of it at its admission.
    pub(super) queue_position: i32,
    pub(super) predicted_start_ms: i64,
    pub(super) on_time_probability: Option<f64>,
    pub(super) state: TaskState,
    pub(super) admitted_at_ms: i64,
    pub(super) dispatched_at_ms: Option<i64>,
    pub(super) ended_at_ms: Option<i64>,
    pub(super) queue_time_ms: Option<i64>,
    pub(super) tokens_out: Option<i32>,
}

impl Record {
    /// From what was sent, what was answered, and what the server tells in the end.
    pub(super) fn new(task: &Task, answer: &Answer, summary: Option<TaskSummary>) -> Self {
        let (refused, queue_position) = match answer.reply {
            Reply::Admitted { queue_position } => (None, queue_position),
            Reply::Refused(code) => (Some(code), 0),
        };
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            at_ms: ms(task.at),
            priority: task.priority,
            prompt_tokens: task.prompt_tokens,
            max_tokens: task.max_tokens,
            deadline_ms: ms(task.deadline),
            refused,
            course: summary.map(|summary| Course::new(queue_position, &summary)),
        }
    }
}

impl Course {
    fn new(queue_position: i32, summary: &TaskSummary) -> Self {
        Self {
            queue_position,
            predicted_start_ms: summary.predicted_start_ms,
            on_time_probability: summary.on_time_probability,
            state: summary.state,
            admitted_at_ms: summary.admitted_at_ms,
            dispatched_at_ms: summary.dispatched_at_ms,
            ended_at_ms: summary.ended_at_ms,
            queue_time_ms: summary.queue_time_ms,
            tokens_out: summary.tokens_out,
        }
    }

    /// Whether it ended before its deadline; `None` where something else than the deadline stopped it.
    pub(super) fn was_on_time(&self) -> Option<bool> {
        match self.state {
            TaskState::Completed => Some(true),
            TaskState::Expired => Some(false),
            TaskState::Queued
            | TaskState::Dispatched
            | TaskState::Streaming
            | TaskState::Failed
            | TaskState::Canceled => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Course, ErrorKind, Priority, Record, TaskState};

    /// A batch task at this place of the queue, completed 100 ms after its start, or expired before one.
    pub(in super::super) fn admitted(queue_position: i32, predicted_start_ms: i64, waited_ms: Option<i64>) -> Record {
        let course = Course {
            queue_position,
            predicted_start_ms,
            on_time_probability: Some(0.75),
            state: if waited_ms.is_some() { TaskState::Completed } else { TaskState::Expired },
            admitted_at_ms: 1_000,
            dispatched_at_ms: waited_ms.map(|ms| 1_000 + ms),
            ended_at_ms: Some(1_100 + waited_ms.unwrap_or(0)),
            queue_time_ms: waited_ms,
            tokens_out: None,
        };
        Record { refused: None, course: Some(course), ..refused() }
    }

    /// A batch task that was not admitted.
    pub(in super::super) fn refused() -> Record {
        Record {
            at_ms: 0,
            priority: Priority::Batch,
            prompt_tokens: 16,
            max_tokens: 16,
            deadline_ms: 100,
            refused: Some(ErrorKind::DeadlineUnmet),
            course: None,
        }
    }
}
