//! Reports between hosts. Times are sent as durations: the clocks of two hosts are never compared.

use std::time::Duration;

use api_types::{CloseReason, CommandRefusal, PoolFault, PoolId, PoolState, WorkerEngine, WorkerFailure, WorkerPool};
use tokio::time::Instant;

use super::{EngineIdentity, PoolReport};
use crate::failure::Failure;
use crate::machine::{Conflict, Why};

impl PoolReport {
    /// Of a pool whose host has not been heard from, although it serves this model where it is.
    #[must_use]
    pub fn away(model: &str, message: String) -> Self {
        Self {
            state: PoolState::Away,
            takes_tasks: false,
            model: model.to_owned(),
            failure: Some(Failure::new(PoolFault::WorkerAway, message)),
            activity: None,
            restarts: 0,
            next_attempt: None,
            pid: None,
            engine: None,
            reload: None,
            is_over: false,
        }
    }

    /// Of a pool that nobody has started; `on_call` of one that is loaded when it is asked for.
    #[must_use]
    pub fn stopped(model: &str, on_call: bool) -> Self {
        let state = if on_call { PoolState::Cold } else { PoolState::Stopped };
        Self { state, failure: None, ..Self::away(model, String::new()) }
    }

    /// Of a pool that cannot be started.
    #[must_use]
    pub fn failed(model: &str, failure: Failure) -> Self {
        Self { state: PoolState::Failed, failure: Some(failure), ..Self::away(model, String::new()) }
    }

    /// As another host has told it now.
    #[must_use]
    pub fn told(told: &WorkerPool, now: Instant) -> Self {
        Self {
            state: told.state,
            takes_tasks: told.takes_tasks,
            model: told.model.clone(),
            failure: told.failure.as_ref().map(|failure| Failure {
                fault: failure.fault,
                message: failure.message.clone(),
                fix: failure.fix.clone(),
            }),
            activity: told.activity.clone().map(|activity| (activity, told.progress)),
            restarts: told.restarts,
            next_attempt: told.next_attempt_in_ms.map(|ms| now + Duration::from_millis(ms)),
            pid: told.pid,
            engine: told.engine.as_ref().map(|engine| EngineIdentity {
                version: engine.version.clone(),
                digest: engine.digest.clone(),
                catalog_id: engine.catalog_id.clone(),
            }),
            reload: told.reload.clone(),
            is_over: false,
        }
    }

    /// For another host. What the report does not know is as it is for a pool that has just been taken on.
    #[must_use]
    pub fn to_wire(&self, pool: &PoolId, now: Instant) -> WorkerPool {
        let (activity, progress) = self.activity.clone().unzip();
        let wait = self.next_attempt.map(|at| at.saturating_duration_since(now).as_millis());
        WorkerPool {
            pool_id: pool.clone(),
            state: self.state,
            takes_tasks: self.takes_tasks,
            model: self.model.clone(),
            failure: self.failure.as_ref().map(|failure| WorkerFailure {
                fault: failure.fault,
                message: failure.message.clone(),
                fix: failure.fix.clone(),
            }),
            activity,
            progress: progress.flatten(),
            restarts: self.restarts,
            next_attempt_in_ms: wait.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
            pid: self.pid,
            engine: self.engine.as_ref().map(|engine| WorkerEngine {
                version: engine.version.clone(),
                digest: engine.digest.clone(),
                catalog_id: engine.catalog_id.clone(),
            }),
            reload: self.reload.clone(),
            engine_number: 0,
            gate: None,
            cuts: 0,
            staged: None,
            wants_memory: None,
            takes_over: false,
            memory: None,
        }
    }

    /// Whether another report says the same, but for the time that is left until the next attempt, which two tellings round
    /// differently.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        let about = |report: &Self| Self { next_attempt: None, ..report.clone() };
        self.next_attempt.is_some() == other.next_attempt.is_some() && about(self) == about(other)
    }
}

impl From<Why> for CloseReason {
    fn from(why: Why) -> Self {
        match why {
            Why::Drain => Self::Drain,
            Why::Stop => Self::Stop,
            Why::Reload => Self::Reload,
            Why::Unload => Self::Unload,
        }
    }
}

impl From<CloseReason> for Why {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Drain => Self::Drain,
            CloseReason::Stop => Self::Stop,
            CloseReason::Reload => Self::Reload,
            CloseReason::Unload => Self::Unload,
        }
    }
}

impl From<Conflict> for CommandRefusal {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::Reloading => Self::Reloading,
            Conflict::Draining => Self::Draining,
            Conflict::Starting => Self::Starting,
            Conflict::NotServing => Self::NotServing,
            Conflict::ShuttingDown | Conflict::Away => Self::ShuttingDown,
            Conflict::NotTakenOn => Self::NoSuchPool,
        }
    }
}

impl From<CommandRefusal> for Conflict {
    fn from(refusal: CommandRefusal) -> Self {
        match refusal {
            CommandRefusal::Reloading => Self::Reloading,
            CommandRefusal::Draining => Self::Draining,
            CommandRefusal::Starting => Self::Starting,
            CommandRefusal::NotServing => Self::NotServing,
            // Its own end is not this daemon's.
            CommandRefusal::ShuttingDown => Self::Away,
            CommandRefusal::NoSuchPool => Self::NotTakenOn,
        }
    }
}
