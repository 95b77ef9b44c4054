//! How tasks end, and the frames that say so.

use std::sync::Arc;

use adapter_api::Usage;
use api_types::sse::{EndFrame, ErrorFrame, FinishReason};
use api_types::{ErrorEnvelope, ErrorKind, PoolId, ReplicaId, TaskState};
use orchestrator_core::task::End;

use crate::wire::{int, long};

/// How a task ends, with what its last frame says.
#[derive(Debug, Clone)]
pub enum Ending {
    /// The engine said that it was done.
    Completed {
        /// Why it stopped.
        reason: FinishReason,
        /// What it counted.
        usage: Usage,
    },
    /// Canceled; the stream closes with the counts so far.
    Canceled {
        /// By whom, or why.
        why: CancelReason,
    },
    /// Failed with a typed error; `Expired` when the code is `DEADLINE_UNMET`.
    Failed(ErrorEnvelope),
}

/// Why a task was canceled; the `reason` label of `tasks_canceled_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CancelReason {
    /// `POST /v1/tasks/{id}/cancel`.
    Client,
    /// The last reader went away.
    Disconnect,
    /// Nobody opened the stream in time.
    Unattended,
    /// It could not be journaled, so its client was told that it was not taken.
    NotJournaled,
}

impl CancelReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Client, Self::Disconnect, Self::Unattended, Self::NotJournaled];

    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Disconnect => "disconnect",
            Self::Unattended => "unattended",
            Self::NotJournaled => "not_journaled",
        }
    }

    /// What happened, for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Client => "canceled the task as the client asked",
            Self::Disconnect => "canceled the task because its reader went away",
            Self::Unattended => "canceled the task because nobody opened its stream",
            Self::NotJournaled => "canceled the task because it could not be journaled",
        }
    }
}

/// The numbers of a task that has just ended, for metrics, logs and estimates. Times are milliseconds.
#[derive(Debug, Clone)]
pub struct EndedTask {
    /// The state it ended in.
    pub state: TaskState,
    /// The pool it was on.
    pub pool_id: PoolId,
    /// The replica that ran it; `None` when it never ran.
    pub replica_id: Option<ReplicaId>,
    /// The engine's version, when known.
    pub engine_version: Option<Arc<str>>,
    /// Time it waited.
    pub queue_time_ms: u64,
    /// Time from dispatch to the first token; `None` without one.
    pub first_token_ms: Option<u64>,
    /// Time from the first token to the end.
    pub decode_time_ms: u64,
    /// Prompt tokens by the engine's count.
    pub tokens_in: Option<u32>,
    /// Generated tokens by the engine's count.
    pub tokens_out: Option<u32>,
}

impl Ending {
    /// Failed with the code's own `retriable` value.
    pub fn failed(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Failed(ErrorEnvelope::new(kind, message))
    }

    pub(super) fn kind(&self) -> End {
        match self {
            Self::Completed { .. } => End::Completed,
            Self::Canceled { .. } => End::Canceled,
            Self::Failed(error) if error.code == ErrorKind::DeadlineUnmet => End::Expired,
            Self::Failed(_) => End::Failed,
        }
    }
}

/// The last frame of a task that did not fail.
pub(super) fn end_frame(ended: &EndedTask) -> EndFrame {
    let decode_time_ms = long(ended.decode_time_ms);
    EndFrame {
        // The contract wants a number; an engine that does not count has generated 0 as far as anybody knows.
        tokens_out: ended.tokens_out.map_or(0, int),
        decode_time_ms,
        decode_ms: decode_time_ms,
        canceled: None,
        tokens_in: ended.tokens_in.map(int),
        finish_reason: None,
    }
}

/// The last frame of a task that failed.
pub(super) fn error_frame(error: &ErrorEnvelope) -> ErrorFrame {
    ErrorFrame {
        code: error.code,
        message: error.message.clone(),
        retriable: error.retriable.unwrap_or_else(|| error.code.retriable()),
        retry_after_ms: error.retry_after_ms,
        engine: error.engine,
        policy_label: error.policy_label,
    }
}
