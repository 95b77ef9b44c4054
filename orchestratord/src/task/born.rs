//! What a task is born with and keeps.

use std::sync::Arc;

use api_types::{AdmissionResponse, InputTokens, PlacementRecord, PoolId, TaskRequest};
use auth_min::Identity;

use crate::wire::{int, long};

/// Identifiers of events that one life of the daemon has to itself.
const IDS_PER_LIFE: u32 = 1_000_000;
/// Most lives that are told apart.
const MOST_LIVES: u64 = 4_000;

/// Who sent a request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The id under which log lines are found; the client's, or a fresh one.
    pub correlation_id: Arc<str>,
    /// Who calls, as logs may show it.
    pub identity: Identity,
}

/// What a task is born with.
pub struct NewTask {
    /// The client's request.
    pub request: Arc<TaskRequest>,
    /// Who submitted it, and the id under which its log lines are found.
    pub caller: Caller,
    /// Seed in force.
    pub seed: u32,
    /// The answer to its admission, given again for a safe retry.
    pub admission: AdmissionResponse,
    /// Why its pool was chosen.
    pub placement: PlacementRecord,
    /// The pool.
    pub pool_id: PoolId,
    /// Probability, as estimated then, that it ends before its deadline.
    pub on_time_probability: f64,
    /// Length of its input.
    pub input_tokens: Option<InputTokens>,
    /// Decode time reserved for it, in milliseconds; `None` when its session has no time budget.
    pub decode_allowance_ms: Option<u64>,
    /// Tokens its session had used; `None` without budgets.
    pub tokens_used: Option<u64>,
    /// Monotonic time of its admission to this life of the daemon.
    pub admitted_ms: u64,
    /// Wall time of its admission, in milliseconds since the Unix epoch.
    pub admitted_at_ms: i64,
    /// Monotonic time at which it must have ended.
    pub deadline_at_ms: u64,
    /// Whether it was admitted to an earlier life of the daemon.
    pub recovered: bool,
}

impl NewTask {
    /// Number of its stream's first event. No id of an earlier life may mean something else in this one; one life lasts
    /// longer than a second.
    pub(super) fn first_event_id(&self) -> u32 {
        if !self.recovered {
            return 0;
        }
        let age_ms = (long(self.deadline_at_ms) - long(self.admitted_ms) - self.request.deadline_ms).unsigned_abs();
        int((age_ms / 1000 + 1).min(MOST_LIVES)).unsigned_abs() * IDS_PER_LIFE
    }
}
