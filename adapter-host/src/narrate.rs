//! What the host says about its calls (ORCH-3604). At debug level, since it happens for every task.

use std::time::Duration;

use adapter_api::{Job, WorkerError};
use tracing::debug;

use crate::HostError;
use crate::task::Task;

const ACTOR: &str = "adapter-host";

/// A submission is over, one way or the other.
pub(crate) fn submitted(task: &Task, job: &Job, took: Duration, error: Option<&HostError>) {
    let engine = task.adapter.engine().as_str();
    let Task { id, pool, replica, .. } = task;
    let correlation_id = &*job.correlation_id;
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match error {
        None => debug!(
            actor = ACTOR, action = "submit", target = engine, pool_id = %pool, replica_id = %replica, task_id = %id,
            correlation_id, took_ms, human = %format_args!("{ACTOR} gave task {id} to {engine} in pool {pool}"),
        ),
        Some(HostError::Canceled) => debug!(
            actor = ACTOR, action = "submit", target = engine, pool_id = %pool, replica_id = %replica, task_id = %id,
            correlation_id, took_ms,
            human = %format_args!("task {id} was canceled before {engine} in pool {pool} had taken it"),
        ),
        Some(HostError::Worker(error)) => debug!(
            actor = ACTOR, action = "submit", target = engine, pool_id = %pool, replica_id = %replica, task_id = %id,
            correlation_id, took_ms, error_code = error.kind().as_str(),
            human = %format_args!("{engine} in pool {pool} did not take task {id}: {error}"),
        ),
    }
}

/// An engine was told to stop a task, or could not be told.
pub(crate) fn canceled(task: &Task, error: Option<&WorkerError>) {
    let engine = task.adapter.engine().as_str();
    let Task { id, pool, replica, .. } = task;
    match error {
        None => debug!(
            actor = ACTOR, action = "cancel", target = engine, pool_id = %pool, replica_id = %replica, task_id = %id,
            human = %format_args!("{ACTOR} canceled task {id} on {engine} in pool {pool}"),
        ),
        Some(error) => debug!(
            actor = ACTOR, action = "cancel", target = engine, pool_id = %pool, replica_id = %replica, task_id = %id,
            error_code = error.kind().as_str(),
            human = %format_args!("{ACTOR} dropped task {id}, and {engine} in pool {pool} could not be told: {error}"),
        ),
    }
}
