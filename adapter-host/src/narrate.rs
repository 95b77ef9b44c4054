//! What the host says about its calls (ORCH-3604): at debug level what happens for every task.

use std::time::Duration;

use adapter_api::{Job, WorkerError};
use tracing::{debug, info, warn};

use crate::HostError;
use crate::binding::Binding;
use crate::task::Task;

const ACTOR: &str = "adapter-host";

/// A submission is over, one way or the other.
pub(crate) fn submitted(task: &Task, job: &Job, took: Duration, error: Option<&HostError>) {
    let (id, Binding { pool, replica, adapter, .. }) = (task.id, &**task.binding());
    let engine = adapter.engine().as_str();
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
    let (id, Binding { pool, replica, adapter, .. }) = (task.id, &**task.binding());
    let engine = adapter.engine().as_str();
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

/// A submission failed for a passing reason and is repeated.
pub(crate) fn retried(task: &Task, job: &Job, error: &WorkerError) {
    let (id, Binding { pool, replica, adapter, .. }) = (task.id, &**task.binding());
    let engine = adapter.engine().as_str();
    info!(
        actor = ACTOR, action = "retry", target = engine, pool_id = %pool, replica_id = %replica, task_id = %id,
        correlation_id = &*job.correlation_id, error_code = error.kind().as_str(),
        human = %format_args!("{ACTOR} offers task {id} to {engine} in pool {pool} again: {error}"),
    );
}

/// An engine was still busy when the wait for it was over.
pub(crate) fn not_settled(task: &Task, limit: Duration) {
    let (id, Binding { pool, replica, adapter, .. }) = (task.id, &**task.binding());
    let engine = adapter.engine().as_str();
    warn!(
        actor = ACTOR, action = "settle", target = engine, pool_id = %pool, replica_id = %replica, task_id = %id,
        human = %format_args!(
            "{engine} in pool {pool} is still busy {} s after task {id} was dropped; its slot is used again",
            limit.as_secs()
        ),
    );
}

/// A breaker opened.
pub(crate) fn opened(binding: &Binding, error: &WorkerError) {
    let Binding { pool, replica, adapter, policy, .. } = binding;
    let engine = adapter.engine().as_str();
    warn!(
        actor = ACTOR, action = "breaker_open", target = engine, pool_id = %pool, replica_id = %replica,
        error_code = error.kind().as_str(),
        human = %format_args!(
            "{ACTOR} sends nothing to replica {replica} of pool {pool} for {} ms, it keeps failing: {error}",
            policy.breaker.cool_down.as_millis()
        ),
    );
}

/// One task may try an engine whose breaker was open.
pub(crate) fn half_open(binding: &Binding) {
    let Binding { pool, replica, adapter, .. } = binding;
    info!(
        actor = ACTOR, action = "breaker_try", target = adapter.engine().as_str(), pool_id = %pool,
        replica_id = %replica, human = %format_args!("{ACTOR} tries replica {replica} of pool {pool} with one task"),
    );
}

/// A breaker closed.
pub(crate) fn closed(binding: &Binding) {
    let Binding { pool, replica, adapter, .. } = binding;
    info!(
        actor = ACTOR, action = "breaker_close", target = adapter.engine().as_str(), pool_id = %pool,
        replica_id = %replica, human = %format_args!("replica {replica} of pool {pool} works again"),
    );
}
