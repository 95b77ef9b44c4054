//! Asking an engine how it is, over and over, so that readiness is a fact and not a hope.

use std::sync::Arc;
use std::time::Duration;

use adapter_api::{WorkerError, WorkerHealth, WorkerProps};
use adapter_host::BreakerState;
use api_types::FeedEvent;
use orchestrator_core::scheduler::ReplicaFacts;
use tokio_util::sync::CancellationToken;

use super::{Pool, Replica};
use crate::app::App;
use crate::narrate;
use crate::wire::{int, long};

/// Gap between two probes of a ready engine; well under the five seconds after which a snapshot is stale.
const READY_GAP: Duration = Duration::from_secs(1);
/// Gap between two probes of an engine that is not ready: somebody may be waiting for it.
const UNREADY_GAP: Duration = Duration::from_millis(250);
/// Longest a probe may take.
const PROBE_LIMIT: Duration = Duration::from_secs(3);

/// Probes one replica of a pool until `stop`.
pub async fn watch(app: Arc<App>, pool: Arc<Pool>, replica: Arc<Replica>, stop: CancellationToken) {
    loop {
        look(&app, &pool, &replica).await;
        let gap = if replica.is_ready() { READY_GAP } else { UNREADY_GAP };
        tokio::select! {
            () = stop.cancelled() => return,
            () = replica.nudge.notified() => {}
            () = tokio::time::sleep(gap) => {}
        }
    }
}

/// One probe: health always, identity and limits when the engine has just become ready.
pub(super) async fn look(app: &Arc<App>, pool: &Arc<Pool>, replica: &Replica) -> WorkerHealth {
    let asked = tokio::time::timeout(PROBE_LIMIT, ask(app, pool, replica)).await;
    let (health, error) = match asked {
        Ok(Ok(health)) if health.ready => (health, None),
        Ok(Ok(health)) if health.live => (health, Some("the engine is up and still loading its model".to_owned())),
        Ok(Ok(health)) => (health, Some(unreachable(pool, replica))),
        Ok(Err(error)) => (DOWN, Some(error.to_string())),
        Err(_) => (DOWN, Some(format!("the engine did not answer a health check within {PROBE_LIMIT:?}"))),
    };
    take_in(app, pool, replica, health, error);
    health
}

/// An engine has failed a task. Whether it may have others is decided at once, before the task's slot is free.
pub fn failed(app: &Arc<App>, pool: &Arc<Pool>, replica: &Replica, error: &WorkerError) {
    if breaker(app, pool, replica) != BreakerState::Closed {
        return look_again(app, pool, replica);
    }
    // No other task is sent after a lost one until a probe, which comes at once, finds that the engine works; else a dead engine
    // would use up one waiting task after the other before its next probe.
    if error.is_worker_lost() && !matches!(error, WorkerError::Busy(_)) {
        take_in(app, pool, replica, DOWN, Some(format!("a task has lost its engine: {error}")));
        replica.nudge.notify_one();
        if let Some(manager) = pool.manager() {
            manager.look_now();
        }
    }
}

/// An engine works on a task. If that was its trial, it may have others from now on.
pub fn tried(app: &Arc<App>, pool: &Arc<Pool>, replica: &Replica) {
    if replica.known().on_trial {
        look_again(app, pool, replica);
    }
}

fn breaker(app: &App, pool: &Pool, replica: &Replica) -> BreakerState {
    app.host.calls(&pool.id, &replica.id).map_or(BreakerState::Closed, |calls| calls.breaker)
}

/// Our tasks on a replica.
fn running(app: &App, pool: &Pool, replica: &Replica) -> u32 {
    let scheduler = app.scheduler();
    scheduler.replicas(&pool.id).find(|view| *view.replica_id == replica.id).map_or(0, |view| view.active_leases)
}

/// Takes in what the breaker says now; the engine is not asked.
pub(super) fn look_again(app: &Arc<App>, pool: &Arc<Pool>, replica: &Replica) {
    let (health, error) = {
        let known = replica.known();
        (WorkerHealth { live: known.live, ready: known.healthy }, known.last_error.clone())
    };
    take_in(app, pool, replica, health, error);
}

fn take_in(app: &Arc<App>, pool: &Arc<Pool>, replica: &Replica, health: WorkerHealth, error: Option<String>) {
    let before = replica.outside();
    let facts = pool.learn(app, replica, health, error);
    let actions = app.scheduler().update_replica(&pool.id, &replica.id, &facts, app.clock.now_ms());
    app.carry_out(actions);
    if replica.outside() != before {
        app.feed.tell(FeedEvent::Pool, || pool.status(app));
    }
}

const DOWN: WorkerHealth = WorkerHealth { live: false, ready: false };

async fn ask(app: &App, pool: &Pool, replica: &Replica) -> Result<WorkerHealth, WorkerError> {
    let health = app.host.probe(&pool.id, &replica.id).await?;
    let was_healthy = replica.known().healthy;
    if health.ready && !was_healthy {
        // It may be another process than before the pause: what was known about it is asked again.
        let (props, version) = app.host.describe(&pool.id, &replica.id).await?;
        let mut known = replica.known();
        known.props = Some(WorkerProps::clone(&props));
        known.version = Some(version);
    }
    Ok(health)
}

fn unreachable(pool: &Pool, replica: &Replica) -> String {
    match pool.address(replica) {
        Some(url) => format!(
            "the engine at {url} does not answer; start it, or correct provisioning.external of pool {}",
            pool.id
        ),
        None => "the engine does not answer".to_owned(),
    }
}

impl Pool {
    /// Takes in what a probe found, tells the log about changes, and returns what the scheduler should know.
    fn learn(&self, app: &App, replica: &Replica, health: WorkerHealth, error: Option<String>) -> ReplicaFacts {
        let breaker = breaker(app, self, replica);
        let running = running(app, self, replica);
        let mut known = replica.known();
        let ready = health.ready && self.is_let() && !matches!(breaker, BreakerState::Open { .. });
        let was_ready = std::mem::replace(&mut known.ready, ready);
        known.live = health.live;
        known.healthy = health.ready;
        known.on_trial = matches!(breaker, BreakerState::HalfOpen { .. });
        let news = known.last_error != error;
        known.last_error = error;
        if ready && !was_ready {
            let version = known.version.clone().expect("a ready engine has told its version");
            // What waits is counted under the new version from now on.
            known.series.gauges(true, 0, |_| 0);
            known.series = app.metrics.pool(self.config.engine, &version, self.id.as_str(), replica.id.as_str());
            narrate::pool_ready(self, replica, &version);
        } else if news
            && self.is_watched()
            && let Some(error) = &known.last_error
        {
            narrate::pool_unready(self, replica, error);
        }
        let props = known.props.clone().unwrap_or_default();
        let memory = app.memory_of(&self.id);
        ReplicaFacts {
            ready,
            live: health.live,
            slots_total: Some(match breaker {
                // One more task than those that are there, unless that one is there already.
                BreakerState::HalfOpen { tried } => (running + u32::from(!tried)).max(1),
                BreakerState::Closed | BreakerState::Open { .. } => {
                    props.slots_total.unwrap_or(self.config.slots.get())
                }
            }),
            ctx_max: props.ctx_max.map(|ctx| self.usable_ctx(ctx)),
            engine_version: known.version.as_deref().map(str::to_owned),
            model_aliases: props.model.map(|name| vec![name]),
            vram_total_bytes: memory.as_ref().map(|memory| long(memory.total_bytes)),
            vram_free_bytes: memory.as_ref().map(|memory| long(memory.free_bytes)),
            compute_capability: memory.map(|memory| memory.compute_capability),
            ..ReplicaFacts::default()
        }
    }

    /// The engine's context, or the configured one where that is smaller.
    fn usable_ctx(&self, engines: u32) -> i32 {
        let usable = self.config.ctx.map_or(engines, |configured| configured.get().min(engines));
        int(usable)
    }
}
