//! What the daemon tells its log, one function per event: structured fields, and a sentence for people (ORCH-3300).
//!
//! No prompt, output or token is ever among the fields.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use api_types::{
    Engine, ErrorEnvelope, ModelId, ModelJob, ModelLifecycle, MoveReason, PoolId, PoolState, ReloadState, ReloadStatus,
    ReplicaId, TaskId, TaskRequest, Verification, WorkerId,
};
use artifact_store::{PutError, ReadError};
use catalog_core::{CatalogError, Digest};
use model_provisioner::Provisioned;
use narration_core::{Actor, Narration, narrate};
use orchestrator_core::Refusal;
use orchestrator_core::policy::DecisionLog;
use pool_managerd::pool::PoolReport;
use state_db::WriteError;
use tracing::{Level, debug, info};

use crate::parking::Round;
use crate::pools::{Pool, Replica, Served};
use crate::residency::Unloaded;
use crate::task::{Caller, EndedTask, Ending, Task};
use crate::wire::{int, long};

/// An error and what caused it, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

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
        excluded = ?Whys::of(&placement.excluded, |pool| (&pool.pool_id, &pool.reason)),
        outranked = ?Whys::of(&placement.outranked, |pool| (&pool.pool_id, &pool.by)),
        predicted_end_ms = placement.predicted_end_ms,
        pinned = placement.pinned,
        fallback_used = placement.fallback_used,
    );
}

/// Pools that were not chosen, as `pool: reason`.
struct Whys<'a>(Vec<(&'a String, &'a String)>);

impl<'a> Whys<'a> {
    fn of<T>(pools: &'a [T], why: impl Fn(&'a T) -> (&'a String, &'a String)) -> Self {
        Self(pools.iter().map(why).collect())
    }
}

impl fmt::Debug for Whys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().copied()).finish()
    }
}

/// Placement found no pool, or one that then refused. As many as refusals, so logged at debug like them.
pub fn not_placed(request: &TaskRequest, caller: &Caller, decision: &DecisionLog, refusal: &Refusal) {
    debug!(
        human = %format_args!("placement of {} pools gave none: {}", decision.candidates_considered, refusal.message),
        actor = %Actor::Placement,
        action = "place",
        correlation_id = %caller.correlation_id,
        job_id = %request.task_id,
        decision_reason = %refusal.kind,
        candidates_considered = decision.candidates_considered,
        filters_applied = ?decision.filters_applied,
        tie_breakers_applied = ?decision.tie_breakers_applied,
        pinned = decision.pinned,
        fallback_used = decision.fallback_used,
    );
}

/// A waiting task goes to another pool.
pub fn moved(task: &Task, to: &PoolId, reason: MoveReason) {
    let from = task.pool_id();
    let human = format_args!("moves the task from pool {from} to pool {to}: {reason}");
    narrate(Level::INFO, &of_task(task, to, Narration::new(Actor::Placement, "move", human)));
}

/// A worker was lost before the task's first token.
pub fn worker_lost(task: &Task, pool: &Pool, replica: &Replica, error: &ErrorEnvelope) {
    let served = pool.served();
    let human =
        format_args!("replica {} of pool {} was lost before the first token: {}", replica.id, pool.id, error.message);
    narrate(
        Level::WARN,
        &Narration {
            error_kind: Some(&error.code),
            ..about_task(task, pool, &served, &replica.id, Narration::new(Actor::Orchestratord, "worker_lost", human))
        },
    );
}

/// A task whose worker was lost waits again.
pub fn tried_again(task: &Task, pool_id: &PoolId) {
    let human = format_args!("puts the task back to the front of pool {pool_id} after its worker was lost");
    narrate(Level::INFO, &of_task(task, pool_id, Narration::new(Actor::Orchestratord, "requeue", human)));
}

/// A task of an earlier life waits again.
pub fn recovered(task: &Task) {
    let pool_id = task.pool_id();
    let human =
        format_args!("takes the task up again that was accepted before the restart; it waits for pool {pool_id}");
    narrate(Level::INFO, &of_task(task, &pool_id, Narration::new(Actor::Orchestratord, "recover", human)));
}

/// An entry of the journal cannot be read.
pub fn not_recovered(task_id: TaskId, error: &serde_json::Error) {
    // The error's own text could hold a piece of the entry.
    let human = format_args!(
        "cannot read the journal's entry of task {task_id} (column {}); it stays there for a version that can",
        error.column()
    );
    narrate(
        Level::ERROR,
        &Narration { job_id: Some(&task_id), ..Narration::new(Actor::Orchestratord, "recover", human) },
    );
}

/// A batch task did not get into the journal.
pub fn not_journaled(task: &Task, error: &WriteError) {
    let pool_id = task.pool_id();
    let human = format_args!("could not journal the task, so it is not taken: {error}");
    narrate(Level::ERROR, &of_task(task, &pool_id, Narration::new(Actor::Orchestratord, "journal", human)));
}

/// The end of a journaled task is not in the journal: it may run once more after a restart.
pub fn not_recorded(task: &Task, error: &WriteError) {
    let pool_id = task.pool_id();
    let human = format_args!("could not record the task's end, so it may run again after a restart: {error}");
    narrate(Level::ERROR, &of_task(task, &pool_id, Narration::new(Actor::Orchestratord, "record", human)));
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
pub fn dispatched(task: &Task, pool: &Pool, replica: &Replica, queue_time_ms: u64) {
    let served = pool.served();
    let human = format_args!("gives the task to pool {} after {queue_time_ms} ms of waiting", pool.id);
    narrate(
        Level::INFO,
        &Narration {
            queue_time_ms: Some(long(queue_time_ms)),
            ..about_task(task, pool, &served, &replica.id, Narration::new(Actor::Orchestratord, "stream_start", human))
        },
    );
}

/// A reader was so slow that what it should read next is not kept any more.
pub fn reader_cut(task: &Task) {
    let pool_id = task.pool_id();
    let human = "ends a stream whose reader has fallen behind what is kept; it may resume from what still is";
    narrate(
        Level::INFO,
        &of_task(task, &pool_id, Narration::new(Actor::Orchestratord, "reader_cut", format_args!("{human}"))),
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
pub fn pool_ready(pool: &Pool, replica: &Replica, version: &str) {
    let served = pool.served();
    let human = format_args!("pool {} is ready: {} {version} serves {}", pool.id, pool.config.engine, served.reference);
    narrate(
        Level::INFO,
        &Narration {
            engine_version: Some(version),
            ..about_pool(pool, &served, &replica.id, Narration::new(Actor::PoolManager, "ready", human))
        },
    );
}

/// A pool takes no tasks, and why.
pub fn pool_unready(pool: &Pool, replica: &Replica, reason: &str) {
    let served = pool.served();
    let human = format_args!("pool {} is not ready: {reason}", pool.id);
    narrate(Level::WARN, &about_pool(pool, &served, &replica.id, Narration::new(Actor::PoolManager, "unready", human)));
}

/// An engine of an external pool has announced where it listens.
pub fn engine_announced(pool: &Pool, replica: &Replica, endpoint: &str) {
    let served = pool.served();
    let human = format_args!("an engine announces itself as {} of pool {}, at {endpoint}", replica.id, pool.id);
    narrate(
        Level::INFO,
        &about_pool(pool, &served, &replica.id, Narration::new(Actor::Orchestratord, "register_worker", human)),
    );
}

/// A host that runs pools has registered.
pub fn worker_registered(worker: &WorkerId, relay: &str, theirs: &str, ours: &str) {
    if theirs == ours {
        let human = format_args!("worker {worker} has registered; its engines are reached at {relay}");
        narrate(Level::INFO, &Narration::new(Actor::Orchestratord, "register_worker", human));
    } else {
        let human = format_args!(
            "worker {worker} has registered with version {theirs}, and this is {ours}; run the same version on both. Its engines are reached at {relay}"
        );
        narrate(Level::WARN, &Narration::new(Actor::Orchestratord, "register_worker", human));
    }
}

/// Nothing is heard of a host that runs pools.
pub fn worker_away(worker: &WorkerId, silence: Duration) {
    let human = format_args!(
        "worker {worker} has not been heard from for {} s, so its pools take no tasks; is pool-managerd running there, and can it reach this host?",
        silence.as_secs()
    );
    narrate(Level::ERROR, &Narration::new(Actor::Orchestratord, "lose_worker", human));
}

/// A host that runs pools has said that it stops.
pub fn worker_left(worker: &WorkerId) {
    let human = format_args!("worker {worker} stops, and its engines with it");
    narrate(Level::WARN, &Narration::new(Actor::Orchestratord, "lose_worker", human));
}

/// What the engine of a managed pool is doing now.
pub fn pool_state(pool: &Pool, report: &PoolReport) {
    let served = pool.served();
    let mask = pool.config.device_mask();
    let error = report.failure.as_ref().map(ToString::to_string);
    let backoff = report.next_attempt.map(|at| at.saturating_duration_since(tokio::time::Instant::now()));
    let backoff_ms = backoff.map(|wait| long(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)));
    let level = match report.state {
        PoolState::Failed => Level::ERROR,
        PoolState::BackingOff => Level::WARN,
        _ => Level::INFO,
    };
    let id = &pool.id;
    let narrate_as = |human: std::fmt::Arguments<'_>| {
        narrate(
            level,
            &Narration {
                engine_version: report.engine.as_ref().map(|engine| engine.version.as_str()),
                device_mask: mask.as_deref(),
                restart_count: Some(int(report.restarts)),
                backoff_ms,
                last_error: error.as_deref(),
                ..about_pool(
                    pool,
                    &served,
                    &pool.replicas()[0].id,
                    Narration::new(Actor::PoolManager, report.state.as_str(), human),
                )
            },
        );
    };
    match (report.state, &error) {
        (PoolState::BackingOff, Some(error)) => {
            narrate_as(format_args!("pool {id} is tried again in {} ms: {error}", backoff_ms.unwrap_or(0)));
        }
        (PoolState::Failed, Some(error)) => narrate_as(format_args!("pool {id} has failed: {error}")),
        (PoolState::Stopped, Some(error)) => narrate_as(format_args!("pool {id} is stopped after a failure: {error}")),
        (PoolState::Ready, _) => narrate_as(format_args!("pool {id} serves {}", report.model)),
        (state, _) => narrate_as(format_args!("pool {id} is {state} with {}", report.model)),
    }
}

/// A pool starts no more tasks, so that another can be loaded.
pub fn fenced(pool: &Pool) {
    let served = pool.served();
    let human = format_args!(
        "pool {} starts no more tasks until its running ones have ended: another waits for memory",
        pool.id
    );
    let narration = Narration::new(Actor::PoolManager, "fence", human);
    narrate(Level::INFO, &about_pool(pool, &served, &pool.replicas()[0].id, narration));
}

/// A pool's model is loaded.
pub fn loaded(pool: &Pool, took_ms: u64) {
    let served = pool.served();
    let human = format_args!("pool {} was loaded in {took_ms} ms", pool.id);
    let narration = Narration { duration_ms: Some(long(took_ms)), ..Narration::new(Actor::PoolManager, "load", human) };
    narrate(Level::INFO, &about_pool(pool, &served, &pool.replicas()[0].id, narration));
}

/// A pool's engine is unloaded, and why.
pub fn unloads(pool: &Pool, why: Unloaded<'_>) {
    let (served, id) = (pool.served(), &pool.id);
    let narrate_as = |human: std::fmt::Arguments<'_>| {
        let narration = Narration::new(Actor::PoolManager, "unload", human);
        narrate(Level::INFO, &about_pool(pool, &served, &pool.replicas()[0].id, narration));
    };
    match why {
        Unloaded::For(other) => narrate_as(format_args!("pool {id} makes room for pool {other}")),
        Unloaded::Idle => narrate_as(format_args!("pool {id} was idle for long and is unloaded")),
        Unloaded::Unwanted => {
            narrate_as(format_args!("pool {id} is not loaded after all: nobody waits for it any more"));
        }
    }
}

/// An engine has put away what it holds of sessions, before its unload.
pub fn parked(pool: &Pool, round: &Round) {
    tell_of_kv(pool, "park", "has put away the KV of", round);
}

/// An engine has taken up what was put away.
pub fn unparked(pool: &Pool, round: &Round) {
    tell_of_kv(pool, "unpark", "has taken up the KV of", round);
}

fn tell_of_kv(pool: &Pool, action: &'static str, what: &str, round: &Round) {
    let (served, id, Round { done, bytes, failed, why }) = (pool.served(), &pool.id, round);
    if (*done, *failed) == (0, 0) {
        return;
    }
    let mib = bytes.div_ceil(1 << 20);
    let tell = |level: Level, human: std::fmt::Arguments<'_>| {
        let narration = Narration::new(Actor::PoolManager, action, human);
        narrate(level, &about_pool(pool, &served, &pool.replicas()[0].id, narration));
    };
    match why {
        None => tell(Level::INFO, format_args!("the engine of pool {id} {what} {done} sessions ({mib} MiB)")),
        Some(why) => tell(
            Level::WARN,
            format_args!(
                "the engine of pool {id} {what} {done} sessions ({mib} MiB) and failed for {failed}, which cost a prompt \
                 each: {why}"
            ),
        ),
    }
}

/// How the reload of a pool stands.
pub fn reload(pool: &Pool, reload: &ReloadStatus) {
    let served = pool.served();
    let level = if reload.state == ReloadState::RolledBack { Level::WARN } else { Level::INFO };
    let (id, new, old) = (&pool.id, &reload.new_model_ref, &reload.old_model_ref);
    let narrate_as = |human: std::fmt::Arguments<'_>| {
        let narration = Narration::new(Actor::PoolManager, "reload", human);
        let narration = about_pool(pool, &served, &pool.replicas()[0].id, narration);
        narrate(level, &Narration { last_error: reload.error.as_deref(), ..narration });
    };
    match (reload.state, &reload.error) {
        (ReloadState::Staging, _) => narrate_as(format_args!("pool {id} is to serve {new} instead of {old}")),
        (ReloadState::Draining, _) => {
            narrate_as(format_args!("pool {id} has {new} and lets its tasks come to their end"));
        }
        (ReloadState::Starting, _) => narrate_as(format_args!("pool {id} starts with {new}")),
        (ReloadState::Done, _) => narrate_as(format_args!("pool {id} serves {new} instead of {old}")),
        (ReloadState::RolledBack, error) => {
            let error = error.as_deref().unwrap_or("it failed");
            narrate_as(format_args!("pool {id} stays with {old}, because of {new}: {error}"));
        }
    }
}

/// An engine has done what it must before it gets tasks.
pub fn self_tested(pool: &Pool, tokens: u32, took: Duration) {
    let served = pool.served();
    let human = format_args!("pool {} has passed its self-test: {tokens} tokens, and a cancel", pool.id);
    narrate(
        Level::INFO,
        &Narration {
            tokens_out: Some(int(tokens)),
            duration_ms: Some(long(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))),
            ..about_pool(pool, &served, &pool.replicas()[0].id, Narration::new(Actor::PoolManager, "self_test", human))
        },
    );
}

/// The deadline of a drain has passed.
pub fn drain_cut(pool: &Pool, tasks: usize) {
    let served = pool.served();
    let human = format_args!("pool {} was drained: {tasks} tasks that still ran have been ended", pool.id);
    narrate(
        Level::WARN,
        &about_pool(pool, &served, &pool.replicas()[0].id, Narration::new(Actor::PoolManager, "drain_cut", human)),
    );
}

/// An engine that was prepared here is gone.
pub fn engine_removed(removed: &engine_provisioner::Removed) {
    let human = format_args!("removed an engine: {} folders, {} bytes", removed.folders.len(), removed.freed_bytes);
    narrate(Level::INFO, &Narration::new(Actor::PoolManager, "engine_removed", human));
}

/// A setting has no effect in this version.
pub fn ignored(setting: &str) {
    let human = format_args!("{setting} has no effect in this version");
    narrate(Level::WARN, &Narration::new(Actor::Orchestratord, "load_config", human));
}

/// The daemon listens.
pub fn listening(scheme: &str, addr: SocketAddr, pools: usize, config: &str) {
    info!(
        human = %format_args!("orchestratord listens on {scheme}://{addr} with {pools} pools from {config}"),
        actor = %Actor::Orchestratord,
        action = "listen",
        %addr,
        pools,
        config,
    );
}

/// The system allows fewer open files than the configuration allows connections.
pub fn few_open_files(files: u64, connections: usize) {
    let human = format_args!(
        "may open {files} files, too few for {connections} connections; raise the limit or lower server.max_connections"
    );
    narrate(Level::WARN, &Narration::new(Actor::Orchestratord, "listen", human));
}

/// The certificate's files were read again.
pub fn certificate_read(outcome: &anyhow::Result<()>) {
    match outcome {
        Ok(()) => {
            let human = format_args!("serves new connections with the certificate that it has just read");
            narrate(Level::INFO, &Narration::new(Actor::Orchestratord, "reload_certificate", human));
        }
        Err(error) => {
            let human = format_args!("keeps its old certificate: {error:#}");
            narrate(Level::WARN, &Narration::new(Actor::Orchestratord, "reload_certificate", human));
        }
    }
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

/// An artifact cannot be read.
pub fn artifact_unreadable(error: &ReadError) {
    let what = with_causes(error);
    let human = format_args!("{what}");
    narrate(Level::ERROR, &Narration::new(Actor::Orchestratord, "read_artifact", human));
}

/// An artifact cannot be kept.
pub fn artifact_not_kept(error: &PutError) {
    let what = with_causes(error);
    let human = format_args!("{what}");
    narrate(Level::ERROR, &Narration::new(Actor::Orchestratord, "keep_artifact", human));
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

/// A model was registered.
pub fn model_registered(id: &ModelId) {
    about_model(Level::INFO, id, "register", format_args!("registers the model {id}"));
}

/// A model is not known any more.
pub fn model_forgotten(id: &ModelId) {
    about_model(Level::INFO, id, "forget", format_args!("forgets the model {id} and has removed its files"));
}

/// A model is not known any more, and its files are still there.
pub fn model_files_left(id: &ModelId, error: &CatalogError) {
    about_model(
        Level::WARN,
        id,
        "forget",
        format_args!("could not remove files of the model {id}: {}", with_causes(error)),
    );
}

/// A model was retired or taken back.
pub fn model_state(id: &ModelId, state: ModelLifecycle, deadline_ms: Option<i64>) {
    match (state, deadline_ms) {
        (ModelLifecycle::Active, _) => {
            about_model(Level::INFO, id, "activate", format_args!("takes tasks for the model {id} again"));
        }
        (ModelLifecycle::Retired, None) => {
            let human = format_args!("retires the model {id}; what was admitted runs on");
            about_model(Level::INFO, id, "retire", human);
        }
        (ModelLifecycle::Retired, Some(deadline_ms)) => {
            let human = format_args!("retires the model {id}; what was admitted has {deadline_ms} ms");
            about_model(Level::INFO, id, "retire", human);
        }
    }
}

/// The deadline of a retirement has passed.
pub fn retired(id: &ModelId, tasks: usize) {
    let human = format_args!("ends {tasks} tasks of the retired model {id}, whose time is up");
    about_model(Level::INFO, id, "retire", human);
}

/// A model is being fetched.
pub fn pull_started(id: &ModelId) {
    about_model(Level::INFO, id, "pull", format_args!("fetches the model {id}"));
}

/// A model was fetched, or was here (LO-MOD-02).
pub fn pulled(id: &ModelId, provisioned: &Provisioned) {
    let (bytes, took_ms) = (provisioned.transferred_bytes, provisioned.took.as_millis());
    let human = format_args!("has the model {id}: {bytes} bytes came in {took_ms} ms");
    narrate(
        Level::INFO,
        &Narration {
            target: Some(id),
            model_id: Some(id.as_str()),
            model_digest: provisioned.digest.as_ref().map(Digest::as_str),
            duration_ms: Some(long(took_ms)),
            ..Narration::new(Actor::ModelProvisioner, "pull", human)
        },
    );
}

/// A model was verified.
pub fn model_verified(id: &ModelId, verification: &Verification, digest: Option<&Digest>) {
    let level = if verification.findings.is_empty() { Level::INFO } else { Level::WARN };
    let findings = verification.findings.join("; ");
    let human = format_args!("has verified the model {id}: {}. {findings}", verification.outcome);
    narrate(
        level,
        &Narration {
            target: Some(id),
            model_id: Some(id.as_str()),
            model_digest: digest.map(Digest::as_str),
            ..Narration::new(Actor::Catalog, "verify", human)
        },
    );
}

/// Work on a model has failed.
pub fn model_job_failed(job: &ModelJob, error: &ErrorEnvelope) {
    let id = ModelId::from(job.model_id.as_str());
    about_model(Level::WARN, &id, job.kind.as_str(), format_args!("could not {} {id}: {}", job.kind, error.message));
}

fn about_model(level: Level, id: &ModelId, action: &'static str, human: fmt::Arguments<'_>) {
    let narration = Narration::new(Actor::Catalog, action, human);
    narrate(level, &Narration { target: Some(id), model_id: Some(id.as_str()), ..narration });
}

/// A task with no engine in sight.
fn of_task<'a>(task: &'a Task, pool_id: &'a PoolId, narration: Narration<'a>) -> Narration<'a> {
    let request = task.request();
    let placed = Narration {
        target: Some(pool_id),
        pool_id: Some(pool_id),
        engine: Some(request.engine.as_str()),
        model_id: Some(&request.model_ref),
        ..narration
    };
    with_ids(task, placed)
}

fn about_task<'a>(
    task: &'a Task,
    pool: &'a Pool,
    served: &'a Served,
    replica: &'a ReplicaId,
    narration: Narration<'a>,
) -> Narration<'a> {
    with_ids(task, about_pool(pool, served, replica, narration))
}

/// The ids under which a task's lines are found.
fn with_ids<'a>(task: &'a Task, narration: Narration<'a>) -> Narration<'a> {
    let born = task.born();
    Narration {
        correlation_id: Some(&born.caller.correlation_id),
        job_id: Some(&born.request.task_id),
        session_id: Some(&born.request.session_id),
        ..narration
    }
}

fn about_pool<'a>(
    pool: &'a Pool,
    served: &'a Served,
    replica: &'a ReplicaId,
    narration: Narration<'a>,
) -> Narration<'a> {
    Narration {
        target: Some(&pool.id),
        pool_id: Some(&pool.id),
        replica_id: Some(replica),
        engine: Some(pool.config.engine.as_str()),
        model_id: Some(&served.reference),
        ..narration
    }
}
