//! Asking an engine how it is, over and over, so that readiness is a fact and not a hope.

use std::sync::Arc;
use std::time::Duration;

use adapter_api::{WorkerAdapter, WorkerHealth};
use orchestrator_core::scheduler::ReplicaFacts;
use tokio_util::sync::CancellationToken;

use super::{Pool, Replica};
use crate::app::App;
use crate::narrate;
use crate::wire::int;

/// Gap between two probes of a ready engine; well under the five seconds after which a snapshot is stale.
const READY_GAP: Duration = Duration::from_secs(1);
/// Gap between two probes of an engine that is not ready: somebody may be waiting for it.
const UNREADY_GAP: Duration = Duration::from_millis(250);
/// Longest a probe may take.
const PROBE_LIMIT: Duration = Duration::from_secs(3);

/// Probes one replica of a pool until `stop`.
pub async fn watch(
    app: Arc<App>,
    pool: Arc<Pool>,
    replica: Arc<Replica>,
    adapter: Arc<dyn WorkerAdapter>,
    stop: CancellationToken,
) {
    loop {
        probe(&app, &pool, &replica, adapter.as_ref()).await;
        let gap = if replica.is_ready() { READY_GAP } else { UNREADY_GAP };
        tokio::select! {
            () = stop.cancelled() => return,
            () = replica.nudge.notified() => {}
            () = tokio::time::sleep(gap) => {}
        }
    }
}

/// One probe: health always, identity and limits when the engine has just become ready.
pub async fn probe(app: &Arc<App>, pool: &Arc<Pool>, replica: &Replica, adapter: &dyn WorkerAdapter) {
    let asked = tokio::time::timeout(PROBE_LIMIT, ask(replica, adapter)).await;
    let (health, error) = match asked {
        Ok(Ok(health)) if health.ready => (health, None),
        Ok(Ok(health)) if health.live => (health, Some("the engine is up and still loading its model".to_owned())),
        Ok(Ok(health)) => (health, Some(unreachable(pool, replica))),
        Ok(Err(error)) => (DOWN, Some(error.to_string())),
        Err(_) => (DOWN, Some(format!("the engine did not answer a health check within {PROBE_LIMIT:?}"))),
    };
    take_in(app, pool, replica, health, error);
}

/// A task has lost its engine. No other one is sent after it until a probe, which comes at once, finds that the engine works;
/// else a dead engine would use up one waiting task after the other before its next probe.
pub fn lost(app: &Arc<App>, pool: &Arc<Pool>, replica: &Replica, why: &str) {
    take_in(app, pool, replica, DOWN, Some(format!("a task has lost its engine: {why}")));
    replica.nudge.notify_one();
}

fn take_in(app: &Arc<App>, pool: &Arc<Pool>, replica: &Replica, health: WorkerHealth, error: Option<String>) {
    let facts = pool.learn(app, replica, health, error);
    let actions = app.scheduler().update_replica(&pool.id, &replica.id, &facts, app.clock.now_ms());
    app.carry_out(actions);
}

const DOWN: WorkerHealth = WorkerHealth { live: false, ready: false };

async fn ask(replica: &Replica, adapter: &dyn WorkerAdapter) -> Result<WorkerHealth, adapter_api::WorkerError> {
    let health = adapter.health().await?;
    if health.ready && !replica.is_ready() {
        // It may be another process than before the pause: what was known about it is asked again.
        let (props, version) = (adapter.props().await?, adapter.engine_version().await?);
        let mut known = replica.known();
        known.props = Some(props);
        known.version = Some(version.into());
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
        let mut known = replica.known();
        let was_ready = std::mem::replace(&mut known.ready, health.ready);
        known.live = health.live;
        let news = known.last_error != error;
        known.last_error = error;
        if health.ready && !was_ready {
            let version = known.version.clone().expect("a ready engine has told its version");
            // What waits is counted under the new version from now on.
            known.series.gauges(true, 0, |_| 0);
            known.series = app.metrics.pool(self.config.engine, &version, self.id.as_str(), replica.id.as_str());
            narrate::pool_ready(self, replica, &version);
        } else if news && let Some(error) = &known.last_error {
            narrate::pool_unready(self, replica, error);
        }
        let props = known.props.clone().unwrap_or_default();
        ReplicaFacts {
            ready: health.ready,
            live: health.live,
            slots_total: props.slots_total,
            ctx_max: props.ctx_max.map(|ctx| self.usable_ctx(ctx)),
            engine_version: known.version.as_deref().map(str::to_owned),
            model_aliases: props.model.map(|name| vec![name]),
            ..ReplicaFacts::default()
        }
    }

    /// The engine's context, or the configured one where that is smaller.
    fn usable_ctx(&self, engines: u32) -> i32 {
        let usable = self.config.ctx.map_or(engines, |configured| configured.get().min(engines));
        int(usable)
    }
}
