//! Pools whose engines llama-orch runs itself: what the pool manager needs of the daemon, and what the daemon does with what it
//! is told.

mod stage;

use std::sync::Arc;
use std::time::Duration;

use adapter_api::{WorkerAdapter, WorkerHealth};
use api_types::{ErrorEnvelope, ErrorKind, FeedEvent, PoolFault, PoolHealth, PoolId, PoolState, TaskState, Workload};
use async_trait::async_trait;
use config_schema::EngineUrl;
use pool_managerd::adapter::adapter_at;
use pool_managerd::failure::Failure;
use pool_managerd::machine::{Probe, Why};
use pool_managerd::pool::{Activity, Host, PoolReport, StagedModel};
use pool_managerd::selftest::{self, Tested};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Pool, Served, probe};
use crate::app::App;
use crate::narrate;
use crate::wire::{int, long};

/// The daemon, as the pool manager sees it.
pub struct DaemonHost {
    app: Arc<App>,
    /// Where tasks for the engine and questions to it run.
    runtime: tokio::runtime::Handle,
}

impl DaemonHost {
    /// A host that works on the runtime it is made on.
    pub fn new(app: Arc<App>) -> Self {
        Self { app, runtime: tokio::runtime::Handle::current() }
    }

    fn pool(&self, id: &PoolId) -> &Arc<Pool> {
        self.app.pools.scheduled(id)
    }

    /// Tasks of a managed pool are given to this adapter from now on.
    pub(crate) fn bind_adapter(&self, pool: &PoolId, adapter: Arc<dyn WorkerAdapter>) {
        let pool = self.pool(pool);
        let replica = &pool.replicas()[0];
        self.app.host.bind(pool.id.clone(), replica.id.clone(), adapter, pool.call_policy());
        // Whatever is known is of the engine before.
        replica.forget();
        self.app.engine_bound(pool);
    }

    /// Nothing is known of the engine of a managed pool any more.
    pub(crate) fn unbind(&self, pool: &PoolId) {
        let replica = &self.pool(pool).replicas()[0];
        self.app.host.unbind(pool, &replica.id);
        replica.forget();
    }
}

#[async_trait]
impl Host for DaemonHost {
    async fn stage(
        &self,
        pool: &PoolId,
        model: &str,
        activity: &Activity,
        cancel: &CancellationToken,
    ) -> Result<StagedModel, Failure> {
        self.app.stage_model(self.pool(pool), model, activity, cancel).await
    }

    async fn reserve(
        &self,
        pool: &PoolId,
        model: &StagedModel,
        activity: &Activity,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        let takes_over = self.app.manager.takes_over(pool);
        self.app.residency.reserve(self.pool(pool), model, activity, cancel, takes_over).await
    }

    async fn park(&self, pool: &PoolId) {
        self.app.park(self.pool(pool)).await;
    }

    async fn unpark(&self, pool: &PoolId) {
        self.app.unpark(self.pool(pool)).await;
    }

    fn bind(&self, pool: &PoolId, endpoint: &EngineUrl) -> Result<(), Failure> {
        let pool = self.pool(pool);
        let adapter = adapter_at(pool.config.engine, endpoint, None, pool.config.slots)
            .map_err(|reason| Failure::new(PoolFault::Unsupported, reason))?;
        self.bind_adapter(&pool.id, adapter);
        Ok(())
    }

    async fn probe(&self, pool: &PoolId) -> Probe {
        let pool = self.pool(pool);
        match probe::look(&self.app, pool, &pool.replicas()[0]).await {
            WorkerHealth { ready: true, .. } => Probe::Ready,
            WorkerHealth { live: true, .. } => Probe::Loading,
            WorkerHealth { .. } => Probe::Silent,
        }
    }

    async fn self_test(&self, pool: &PoolId) -> Result<(), Failure> {
        let (app, pool) = (Arc::clone(&self.app), Arc::clone(self.pool(pool)));
        // A test that is given up with its engine must not ask the next one, which listens at the same place.
        let tested = AbortOnDropHandle::new(self.runtime.spawn(async move { pool.self_test(&app).await }));
        tested.await.unwrap_or_else(|_| {
            Err(Failure::new(PoolFault::SelfTestFailed, "the self-test panicked; the log says where"))
        })
    }

    fn open(&self, pool: &PoolId, model: &str) {
        let pool = self.pool(pool);
        self.app.engine_serves(pool);
        pool.serve(model);
        let now_ms = self.app.clock.now_ms();
        let mut scheduler = self.app.scheduler();
        let mut actions = scheduler.serve_models(&pool.id, vec![model.to_owned()], now_ms);
        actions.extend(scheduler.undrain(&pool.id, now_ms));
        drop(scheduler);
        self.app.carry_out(actions);
    }

    fn close(&self, pool: &PoolId, why: Why) {
        self.app.close_pool(self.pool(pool), why);
    }

    fn cut(&self, pool: &PoolId) {
        self.app.cut_pool(self.pool(pool));
    }

    fn changed(&self, pool: &PoolId, report: &PoolReport) {
        let pool = self.pool(pool);
        pool.tell_of_change(&self.app, report);
        probe::look_again(&self.app, pool, &pool.replicas()[0]);
        self.app.engine_may_be_gone(pool, report);
        self.app.engine_changed(pool, report);
        self.app.feed.tell(FeedEvent::Pool, || pool.status(&self.app));
    }
}

impl App {
    /// A pool takes no new tasks; those that wait go elsewhere where they can.
    pub fn close_pool(self: &Arc<Self>, pool: &Pool, why: Why) {
        if why == Why::Unload {
            // Its tasks wait for the next load; that it starts none is known to the scheduler.
            return;
        }
        self.metrics.drained(pool.id.as_str(), why);
        let actions = self.scheduler().drain(&pool.id, self.clock.now_ms());
        self.carry_out(actions);
    }

    /// Closes a pool whose engine somebody else runs, and ends what still runs on it when the time is over.
    pub fn drain_external(self: &Arc<Self>, pool: &Arc<Pool>, for_ms: u64) {
        self.close_pool(pool, Why::Drain);
        self.feed.tell(FeedEvent::Pool, || pool.status(self));
        let (app, pool) = (Arc::clone(self), Arc::clone(pool));
        let drain = pool.begin_drain();
        tokio::spawn(async move {
            tokio::select! {
                () = drain.cancelled() => {}
                () = app.manager.registry().idle(&pool.id) => {}
                () = tokio::time::sleep(Duration::from_millis(for_ms)) => app.cut_pool(&pool),
            }
        });
    }

    /// Opens such a pool again.
    pub fn undrain_external(self: &Arc<Self>, pool: &Pool) {
        drop(pool.begin_drain());
        let actions = self.scheduler().undrain(&pool.id, self.clock.now_ms());
        self.carry_out(actions);
        self.feed.tell(FeedEvent::Pool, || pool.status(self));
    }

    /// Ends what still runs on a pool whose drain has come to its deadline (ORCH-3505).
    pub fn cut_pool(self: &Arc<Self>, pool: &Pool) {
        let runs_there =
            |task: &&Arc<crate::task::Task>| task.state() != TaskState::Queued && task.pool_id() == pool.id;
        let living = self.tasks.living();
        let left: Vec<_> = living.iter().filter(runs_there).collect();
        narrate::drain_cut(pool, left.len());
        let error = ErrorEnvelope {
            retry_after_ms: Some(1000),
            pool_id: Some(pool.id.to_string()),
            ..ErrorEnvelope::new(
                ErrorKind::PoolUnready,
                "the pool was drained and the task did not end by the deadline; submit it again, another pool may take it",
            )
        };
        self.fail_all(left, &error);
    }
}

/// Whether a pool that stands so has a process of its engine.
pub const fn has_process(state: PoolState) -> bool {
    !matches!(
        state,
        PoolState::Cold
            | PoolState::Stopped
            | PoolState::Preparing
            | PoolState::BackingOff
            | PoolState::Failed
            | PoolState::Away
    )
}

impl Pool {
    /// Tests the engine that is bound to it. One that generates no text is only asked how it is.
    async fn self_test(&self, app: &App) -> Result<(), Failure> {
        if !self.workloads().contains(&Workload::Completion) {
            return Ok(());
        }
        let begun = Instant::now();
        let (served, replica) = (self.served(), &self.replicas()[0].id);
        let (host, pool, engine) = (&app.host, &self.id, self.config.engine);
        let tokens = selftest::run(Tested { host, pool, replica, engine, model: &served.reference }).await?;
        narrate::self_tested(self, tokens, begun.elapsed());
        Ok(())
    }

    /// Whether whoever runs its engine lets it have tasks.
    pub(super) fn is_let(&self) -> bool {
        match self.managed.get() {
            Some(handle) => handle.watch().borrow().takes_tasks,
            None => !self.config.is_managed(),
        }
    }

    /// Another drain, or none, takes the place of the one under way.
    fn begin_drain(&self) -> CancellationToken {
        let mut drain = self.drain.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        drain.cancel();
        *drain = CancellationToken::new();
        drain.clone()
    }

    /// Another model is served from now on.
    fn serve(&self, model: &str) {
        *self.served.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(Served::new(model));
    }

    /// Whether what its engine says of itself is news: not while whoever runs it brings it up or takes it down, and says so.
    pub(super) fn is_watched(&self) -> bool {
        self.report().is_none_or(|report| report.state == PoolState::Ready)
    }

    /// How a managed pool stands.
    pub fn report(&self) -> Option<PoolReport> {
        Some(self.managed.get()?.report())
    }

    /// Adds to its health what is known of its engine's process.
    pub(super) fn with_report(&self, health: PoolHealth) -> PoolHealth {
        let Some(report) = self.report() else {
            return health;
        };
        let wait = report.next_attempt.map(|at| at.saturating_duration_since(Instant::now()));
        let (activity, progress) = report.activity.clone().unzip();
        let has_process = has_process(report.state);
        PoolHealth {
            live: health.live && has_process,
            draining: health.draining || report.state == PoolState::Draining,
            last_error: report.failure.as_ref().map(ToString::to_string).or_else(|| {
                // Between two states the engine may not answer, and that is as it must be.
                health.last_error.filter(|_| report.state == PoolState::Ready)
            }),
            engine_version: health.engine_version.or_else(|| Some(report.engine.as_ref()?.version.clone())),
            state: Some(report.state),
            activity,
            progress: progress.flatten(),
            fault: report.fault(),
            fix: report.failure.and_then(|failure| failure.fix),
            restarts: Some(int(report.restarts)),
            next_attempt_ms: wait.map(|wait| long(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))),
            pid: report.pid.map(int),
            reload: report.reload,
            ..health
        }
    }

    /// Tells log and metrics what has become of its engine.
    fn tell_of_change(&self, app: &App, report: &PoolReport) {
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = told.replace(report.clone());
        drop(told);
        self.tell_of_reload(before.as_ref(), report);
        let before_state = before.as_ref().map(|before| before.state);
        if before_state == Some(report.state) && before.as_ref().is_some_and(|before| before.failure == report.failure)
        {
            return;
        }
        match report.state {
            PoolState::Ready if before_state != Some(PoolState::Draining) => {
                app.metrics.preloaded(self.id.as_str(), "ready");
            }
            PoolState::BackingOff | PoolState::Failed => {
                app.metrics.preloaded(self.id.as_str(), "failed");
            }
            _ => {}
        }
        let restarts_before = before.map_or(0, |before| before.restarts);
        app.metrics.restarted(self.id.as_str(), report.restarts.saturating_sub(restarts_before));
        narrate::pool_state(self, report);
    }

    /// Tells the log what has become of a reload.
    fn tell_of_reload(&self, before: Option<&PoolReport>, report: &PoolReport) {
        let Some(reload) = &report.reload else { return };
        let known = before.and_then(|before| before.reload.as_ref());
        if known != Some(reload) {
            narrate::reload(self, reload);
        }
    }
}
