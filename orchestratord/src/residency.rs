//! Which models are in the GPUs' memory: carries out what [`orchestrator_core::residency`] plans.
//!
//! Every engine that is started asks here for memory first. A round looks at what was read of the devices, at what tasks wait
//! for and at how the engines stand, has the plan made and does what it says. Rounds follow whatever may change the plan.

mod learned;
mod memory;
mod round;
mod state;

pub use self::round::Unloaded;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api_types::{PoolFault, PoolId, PoolState};
use catalog_core::CatalogError;
use config_schema::Config;
use orchestrator_core::Scheduler;
use orchestrator_core::residency::Stage;
use pool_managerd::failure::Failure;
use pool_managerd::machine::Conflict;
use pool_managerd::pool::{Activity, PoolReport, StagedModel};
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::learned::Learned;
use self::state::{Asking, State};
use crate::app::App;
use crate::narrate;
use crate::pools::{Pool, Pools};

/// Longest time between two rounds.
const ROUND: Duration = Duration::from_millis(500);
/// Shortest time between two rounds.
const GAP: Duration = Duration::from_millis(10);

/// The memory of all devices, and who has it.
pub struct Residency {
    state: Mutex<State>,
    learned: Learned,
    wake: Notify,
    /// Whether there is anything to plan.
    is_used: bool,
}

impl Residency {
    /// Nothing is known yet of any device.
    ///
    /// # Errors
    /// What was learned of earlier loads cannot be read.
    pub fn open(config: &Config, pools: &Pools) -> Result<Self, CatalogError> {
        let state = State::new(pools);
        let is_used = !state.tenants.is_empty();
        let learned = Learned::open(&config.server.data_dir, is_used)?;
        Ok(Self { state: Mutex::new(state), learned, wake: Notify::new(), is_used })
    }

    /// Pools that are loaded on demand take tasks from the beginning.
    pub fn begin(&self, scheduler: &mut Scheduler) {
        for tenant in self.lock().tenants.iter().filter(|tenant| tenant.swappable) {
            // Nothing waits yet that this could move.
            scheduler.set_cold(&tenant.pool.id, Some(tenant.cold_start(tenant.load_guess_ms, 0)), 0);
        }
    }

    /// Something has happened that may change the plan.
    pub fn nudge(&self) {
        if self.is_used {
            self.wake.notify_one();
        }
    }

    /// Waits until a pool's devices have memory for a model. The promise holds until its engine has ended. One that `takes_over` an
    /// engine of an earlier life needs no further memory.
    ///
    /// # Errors
    /// There is none, and none is to be expected.
    pub async fn reserve(
        &self,
        pool: &Pool,
        model: &StagedModel,
        activity: &Activity,
        cancel: &CancellationToken,
        takes_over: bool,
    ) -> Result<(), Failure> {
        let (reply, granted) = oneshot::channel();
        {
            let mut state = self.lock();
            let Some(tenant) = state.tenant_mut(&pool.id) else { return Ok(()) };
            tenant.model = Some(model.clone());
            // Whose engine is there already has its memory.
            tenant.takes_over = takes_over;
            tenant.asking = Some(Asking { reply, activity: activity.clone(), short_since_ms: None });
        }
        self.nudge();
        let called_off = || Failure::new(PoolFault::VramExhausted, "the start was called off");
        tokio::select! {
            granted = granted => granted.unwrap_or_else(|_| Err(called_off())),
            () = cancel.cancelled() => Err(called_off()),
        }
    }

    /// Somebody wants a pool to be loaded although no task waits for it.
    pub fn want(&self, pool: &PoolId) {
        if let Some(tenant) = self.lock().tenant_mut(pool) {
            tenant.wanted = true;
        }
        self.nudge();
    }

    /// What a pool's model needs is known before anybody asks for it.
    pub fn knows(&self, pool: &PoolId, model: StagedModel) {
        if let Some(tenant) = self.lock().tenant_mut(pool) {
            tenant.model.get_or_insert(model);
        }
        self.nudge();
    }

    /// The model that memory was asked for last.
    pub fn model_of(&self, pool: &PoolId) -> Option<StagedModel> {
        self.lock().tenant(pool)?.model.clone()
    }

    /// Share of a pool's load that is done, 0 to 1, by what such loads take; `None` while it does not load.
    pub fn progress(&self, pool: &PoolId, now_ms: u64) -> Option<f64> {
        self.lock().tenant(pool)?.progress(now_ms)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Plans for as long as the daemon runs.
pub async fn run(app: &Arc<App>) {
    if !app.residency.is_used {
        return std::future::pending().await;
    }
    let mut readings = app.manager.readings();
    loop {
        let busy = app.plan_residency();
        app.manager.hurry(busy);
        sleep(GAP).await;
        let news = async {
            tokio::select! {
                () = app.residency.wake.notified() => {}
                Ok(()) = readings.changed() => {}
            }
        };
        // What time alone changes: limits that pass, tasks that grow old.
        let _ = timeout(ROUND, news).await;
    }
}

impl App {
    /// A pool's engine stands otherwise than before. What probes make of it is known to the scheduler already.
    pub fn engine_changed(self: &Arc<Self>, pool: &Pool, report: &PoolReport) {
        let now_ms = self.clock.now_ms();
        let (opens, is_out) = {
            let mut state = self.residency.lock();
            let Some(index) = state.index(&pool.id) else { return };
            if let Some(load) = state.take_report(index, report, now_ms) {
                self.metrics.loaded(pool.id.as_str(), load.took_ms);
                narrate::loaded(pool, load.took_ms);
            }
            let tenant = &state.tenants[index];
            let opens = tenant.swappable && report.takes_tasks && !tenant.unloading && !tenant.fenced;
            let is_out = tenant.swappable && tenant.stage() == Stage::Out;
            (opens, is_out.then(|| tenant.cold_start(tenant.load_guess_ms, now_ms)))
        };
        let is_told = || self.scheduler().pool(&pool.id).is_some_and(|view| view.snapshot.cold.is_some());
        // Whoever sees that it can be loaded may ask for it at once; the next round predicts better.
        if opens || (is_out.is_some() && !is_told()) {
            let actions = self.scheduler().set_cold(&pool.id, is_out, now_ms);
            self.carry_out(actions);
        }
        self.residency.nudge();
    }

    /// Has a pool's engine unloaded as soon as nothing runs on it; a task that asks for it has it loaded again.
    ///
    /// # Errors
    /// [`Conflict`]; nothing is changed.
    pub async fn unload_pool(self: &Arc<Self>, pool: &Pool) -> Result<(), Conflict> {
        let Some(handle) = pool.manager() else { return Ok(()) };
        if matches!(handle.report().state, PoolState::Cold | PoolState::Stopped | PoolState::Failed) {
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        let actions = {
            let mut state = self.residency.lock();
            let Some(tenant) = state.tenant_mut(&pool.id) else { return Ok(()) };
            (tenant.unloading, tenant.wanted, tenant.fenced, tenant.swappable) = (true, false, false, true);
            let cold = tenant.cold_start(tenant.load_guess_ms, now_ms);
            self.scheduler().set_cold(&pool.id, Some(cold), now_ms)
        };
        self.carry_out(actions);
        let unloaded = handle.unload().await;
        if unloaded.is_err() {
            self.unload_refused(&pool.id);
        }
        self.residency.nudge();
        unloaded
    }
}
