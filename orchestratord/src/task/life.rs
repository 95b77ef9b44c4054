//! Where a task is in its life.

use std::sync::Arc;

use api_types::{ErrorEnvelope, MoveReason, PlacementMove, PoolId, ReplicaId, TaskState};
use orchestrator_core::task::{TaskEvent, next};

use super::EndedTask;

#[derive(Debug)]
pub(super) struct Life {
    pub(super) state: TaskState,
    /// The state it ended from, once it has.
    pub(super) ended_from: Option<TaskState>,
    pub(super) pool_id: PoolId,
    pub(super) replica_id: Option<ReplicaId>,
    pub(super) engine_version: Option<Arc<str>>,
    pub(super) dispatched_ms: Option<u64>,
    pub(super) attempts: u32,
    pub(super) moves: Vec<PlacementMove>,
    pub(super) first_token_ms: Option<u64>,
    pub(super) ended_ms: Option<u64>,
    pub(super) tokens_in: Option<u32>,
    pub(super) tokens_out: Option<u32>,
    pub(super) error: Option<ErrorEnvelope>,
}

impl Life {
    /// The life of a task that waits in a pool.
    pub(super) fn queued(pool_id: PoolId) -> Self {
        Self {
            state: TaskState::Queued,
            ended_from: None,
            pool_id,
            replica_id: None,
            engine_version: None,
            dispatched_ms: None,
            attempts: 0,
            moves: Vec::new(),
            first_token_ms: None,
            ended_ms: None,
            tokens_in: None,
            tokens_out: None,
            error: None,
        }
    }

    pub(super) fn go_to(&mut self, pool_id: PoolId, reason: MoveReason, at_ms: i64) {
        if self.pool_id != pool_id {
            let from = self.pool_id.to_string();
            self.moves.push(PlacementMove { at_ms, from, to: pool_id.to_string(), reason });
            self.pool_id = pool_id;
        }
    }

    pub(super) fn advance(&mut self, event: TaskEvent) -> bool {
        match next(self.state, event) {
            Ok(state) => {
                self.state = state;
                true
            }
            Err(_) => false,
        }
    }

    pub(super) fn numbers(&self, admitted_ms: u64, ended_ms: u64) -> EndedTask {
        let dispatched_ms = self.dispatched_ms.unwrap_or(ended_ms);
        EndedTask {
            state: self.state,
            pool_id: self.pool_id.clone(),
            replica_id: self.replica_id.clone(),
            engine_version: self.engine_version.clone(),
            queue_time_ms: dispatched_ms.saturating_sub(admitted_ms),
            first_token_ms: self.first_token_ms.map(|first| first.saturating_sub(dispatched_ms)),
            decode_time_ms: self.first_token_ms.map_or(0, |first| ended_ms.saturating_sub(first)),
            tokens_in: self.tokens_in,
            tokens_out: self.tokens_out,
        }
    }
}
