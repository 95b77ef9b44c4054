//! What the daemon tells its log, one function per event: structured fields, and a sentence for people (ORCH-3300).
//!
//! No prompt, output or token is ever among the fields.

use std::net::SocketAddr;

use api_types::{Engine, ErrorEnvelope};
use narration_core::{Actor, Narration, narrate};
use tracing::{Level, info};

use crate::pools::Pool;
use crate::task::{EndedTask, Ending, Task};
use crate::wire::{int, long};

/// A task was admitted (OC-CTRL-2050.2) and placed (LO-OBS-01).
pub fn admitted(task: &Task) {
    let born = task.born();
    let (request, admission, placement) = (&born.request, &born.admission, &born.placement);
    let human = format_args!("admits the {} task with {} ahead of it", request.priority, admission.queue_position);
    narrate(
        Level::INFO,
        &Narration {
            correlation_id: Some(&born.caller.correlation_id),
            job_id: Some(&request.task_id),
            session_id: Some(&request.session_id),
            pool_id: Some(&born.pool_id),
            identity: Some(&born.caller.identity),
            engine: Some(request.engine.as_str()),
            model_id: Some(&request.model_ref),
            ctx: Some(request.ctx),
            seed: Some(i64::from(born.seed)),
            queue_position: Some(admission.queue_position),
            predicted_start_ms: Some(admission.predicted_start_ms),
            ..Narration::new(Actor::Orchestratord, "admit", human)
        },
    );
    info!(
        human = %format_args!("placement chose pool {} of {}", born.pool_id, placement.candidates_considered),
        actor = %Actor::Placement,
        action = "place",
        target = %born.pool_id,
        correlation_id = %born.caller.correlation_id,
        job_id = %request.task_id,
        pool_id = %born.pool_id,
        decision_reason = "assigned",
        candidates_considered = placement.candidates_considered,
        filters_applied = ?placement.filters_applied,
        tie_breakers_applied = ?placement.tie_breakers_applied,
        pinned = placement.pinned,
        fallback_used = placement.fallback_used,
    );
}

/// A task was refused. Refusals can be many and are counted in the metrics, so they are logged at debug.
pub fn refused(engine: Engine, refusal: &ErrorEnvelope) {
    let human = format_args!("refuses a task: {}", refusal.message);
    narrate(
        Level::DEBUG,
        &Narration {
            engine: Some(engine.as_str()),
            error_kind: Some(&refusal.code),
            retry_after_ms: refusal.retry_after_ms,
            ..Narration::new(Actor::Orchestratord, "refuse", human)
        },
    );
}

/// An engine takes a task.
pub fn dispatched(task: &Task, pool: &Pool, queue_time_ms: u64) {
    let human = format_args!("gives the task to pool {} after {queue_time_ms} ms of waiting", pool.id);
    narrate(
        Level::INFO,
        &Narration {
            queue_time_ms: Some(long(queue_time_ms)),
            ..about_task(task, pool, Narration::new(Actor::Orchestratord, "stream_start", human))
        },
    );
}

/// A task has ended (ORCH-3027).
pub fn ended(task: &Task, ending: &Ending, ended: &EndedTask) {
    let born = task.born();
    let (action, sentence, error) = match ending {
        Ending::Completed { .. } => ("stream_end", "completed the task", None),
        Ending::Canceled { why } => ("cancel", why.sentence(), None),
        Ending::Failed(error) => ("stream_end", error.message.as_str(), Some(&error.code)),
    };
    let human = format_args!("pool {}: {sentence}", ended.pool_id);
    narrate(
        Level::INFO,
        &Narration {
            correlation_id: Some(&born.caller.correlation_id),
            job_id: Some(&born.request.task_id),
            session_id: Some(&born.request.session_id),
            engine: Some(born.request.engine.as_str()),
            engine_version: ended.engine_version.as_deref(),
            model_id: Some(&born.request.model_ref),
            pool_id: Some(&ended.pool_id),
            replica_id: ended.replica_id.as_ref().map(|replica| replica as _),
            error_kind: error.map(|code| code as _),
            queue_position: Some(born.admission.queue_position),
            predicted_start_ms: Some(born.admission.predicted_start_ms),
            queue_time_ms: Some(long(ended.queue_time_ms)),
            decode_time_ms: Some(long(ended.decode_time_ms)),
            tokens_in: ended.tokens_in.map(int),
            tokens_out: ended.tokens_out.map(int),
            ..Narration::new(Actor::Orchestratord, action, human)
        },
    );
}

/// A pool takes tasks from now on.
pub fn pool_ready(pool: &Pool, version: &str) {
    let human =
        format_args!("pool {} is ready: {} {version} serves {}", pool.id, pool.config.engine, pool.config.model);
    narrate(
        Level::INFO,
        &Narration {
            engine_version: Some(version),
            ..about_pool(pool, Narration::new(Actor::PoolManager, "ready", human))
        },
    );
}

/// A pool takes no tasks, and why.
pub fn pool_unready(pool: &Pool, reason: &str) {
    let human = format_args!("pool {} is not ready: {reason}", pool.id);
    narrate(Level::WARN, &about_pool(pool, Narration::new(Actor::PoolManager, "unready", human)));
}

/// A setting has no effect in this version.
pub fn ignored(setting: &str) {
    let human = format_args!("{setting} has no effect in this version");
    narrate(Level::WARN, &Narration::new(Actor::Orchestratord, "load_config", human));
}

/// The daemon listens.
pub fn listening(addr: SocketAddr, pools: usize, config: &str) {
    info!(
        human = %format_args!("orchestratord listens on http://{addr} with {pools} pools from {config}"),
        actor = %Actor::Orchestratord,
        action = "listen",
        %addr,
        pools,
        config,
    );
}

/// The daemon was told to stop.
pub fn stopping(running: usize, grace_ms: u64) {
    let human = format_args!("stops; {running} running tasks have {grace_ms} ms to end");
    narrate(Level::INFO, &Narration::new(Actor::Orchestratord, "stop", human));
}

/// The grace is over.
pub fn cut(tasks: usize) {
    let human = format_args!("ended {tasks} tasks that were still running when the grace was over");
    narrate(Level::WARN, &Narration::new(Actor::Orchestratord, "cut", human));
}

/// A runner ended without ending its task, which only a bug can do.
pub fn runner_failed(task: &Task) {
    let human = format_args!("lost a task's runner; please report this with the lines before it");
    narrate(
        Level::ERROR,
        &Narration {
            correlation_id: Some(&task.born().caller.correlation_id),
            job_id: Some(&task.born().request.task_id),
            ..Narration::new(Actor::Orchestratord, "runner_failed", human)
        },
    );
}

fn about_task<'a>(task: &'a Task, pool: &'a Pool, narration: Narration<'a>) -> Narration<'a> {
    let born = task.born();
    Narration {
        correlation_id: Some(&born.caller.correlation_id),
        job_id: Some(&born.request.task_id),
        session_id: Some(&born.request.session_id),
        ..about_pool(pool, narration)
    }
}

fn about_pool<'a>(pool: &'a Pool, narration: Narration<'a>) -> Narration<'a> {
    Narration {
        target: Some(&pool.id),
        pool_id: Some(&pool.id),
        replica_id: Some(&pool.replica_id),
        engine: Some(pool.config.engine.as_str()),
        model_id: Some(&pool.config.model),
        ..narration
    }
}
