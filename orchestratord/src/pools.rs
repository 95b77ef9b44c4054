//! The pools of the configuration: which adapter each one gets, and what probes find out about its engine.

pub mod managed;
mod probe;

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use adapter_api::retry::RetryPolicy;
use adapter_api::{WorkerAdapter, WorkerProps};
use adapter_host::{BreakerPolicy, BreakerState, CallPolicy, CallReport};
use api_types::{
    DeterminismLevel, Engine, ModelId, PoolHealth, PoolId, PoolState, PoolStatus, Priority, ReplicaId, Workload,
};
use config_schema::{BearerToken, Config, EngineSource, Pool as PoolConfig, PriorityLimits};
use mock::{Mock, Simulation};
use orchestrator_core::Scheduler;
use orchestrator_core::classes::PerClass;
use orchestrator_core::queue::{FullPolicy, QueueLimits, Weights};
use orchestrator_core::scheduler::{PoolSpec, ReplicaSpec};
use orchestrator_core::throttle::RateLimit;
use pool_managerd::adapter::{adapter_at, no_adapter};
use pool_managerd::pool::{PoolHandle, PoolReport};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::metrics::{Metrics, PoolSeries};
use crate::models::{Barred, model_id};
use crate::narrate;
use crate::wire::{int, long};

pub use probe::{failed, tried, watch};

/// All pools, in configuration order.
pub struct Pools {
    in_order: Vec<Arc<Pool>>,
    by_id: HashMap<PoolId, Arc<Pool>>,
}

/// One pool: an engine, or several that serve the same model.
pub struct Pool {
    /// Its name.
    pub id: PoolId,
    /// Its section of the configuration.
    pub config: PoolConfig,
    /// The model that it serves, or is to: the configured one until somebody has another loaded.
    served: RwLock<Arc<Served>>,
    /// The way to whoever runs its engine, where that is us.
    managed: OnceLock<PoolHandle>,
    /// What log and metrics were told of it last.
    told: Mutex<Option<PoolReport>>,
    /// Ends the drain of an external pool.
    drain: Mutex<CancellationToken>,
    /// The sampler profile in force.
    pub sampler_profile_version: Option<String>,
    /// Its engines, in configuration order; there is at least one.
    replicas: Vec<Arc<Replica>>,
}

/// A model that a pool serves.
#[derive(Clone, Debug)]
pub struct Served {
    /// As tasks name it.
    pub reference: Arc<str>,
    /// As the catalog calls it.
    pub id: ModelId,
}

impl Served {
    fn new(reference: &str) -> Self {
        Self { reference: reference.into(), id: model_id(reference) }
    }
}

/// One engine of a pool.
pub struct Replica {
    /// Its name in the pool.
    pub id: ReplicaId,
    known: Mutex<Known>,
    /// Where its engine has announced that it listens, instead of where the configuration says.
    announced: Mutex<Option<String>>,
    /// Wakes the probe before its time, after an engine was lost.
    pub(crate) nudge: tokio::sync::Notify,
}

/// What is known about a replica's engine.
#[derive(Clone)]
struct Known {
    live: bool,
    /// The engine says that it takes tasks.
    healthy: bool,
    /// It does, and it is given some.
    ready: bool,
    /// Its breaker is half-open: a task that works changes what it may be given.
    on_trial: bool,
    last_error: Option<String>,
    version: Option<Arc<str>>,
    props: Option<WorkerProps>,
    series: PoolSeries,
}

impl Pools {
    /// The pools of a configuration, nothing known about any of them.
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        let in_order: Vec<_> = config.pools.iter().map(|pool| Arc::new(Pool::new(pool, metrics))).collect();
        let by_id = in_order.iter().map(|pool| (pool.id.clone(), Arc::clone(pool))).collect();
        Self { in_order, by_id }
    }

    /// What the scheduler must know of them.
    pub fn specs(&self) -> Vec<PoolSpec> {
        self.in_order.iter().map(|pool| pool.spec()).collect()
    }

    /// In configuration order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.in_order.iter()
    }

    /// One pool.
    pub fn get(&self, id: &str) -> Option<&Arc<Pool>> {
        self.by_id.get(id)
    }

    /// A pool that the scheduler has named.
    pub fn scheduled(&self, id: &PoolId) -> &Arc<Pool> {
        self.by_id.get(id).expect("the scheduler knows the pools of the configuration and no others")
    }
}

impl Replica {
    fn new(number: usize, pool: &PoolId, metrics: &Metrics) -> Self {
        let series = metrics.unversioned_pool(pool.as_str());
        Self {
            id: ReplicaId::from(format!("r{number}")),
            known: Mutex::new(Known {
                live: false,
                healthy: false,
                ready: false,
                on_trial: false,
                last_error: Some("the engine has not been asked yet; this takes a moment after the start".to_owned()),
                version: None,
                props: None,
                series,
            }),
            announced: Mutex::default(),
            nudge: tokio::sync::Notify::new(),
        }
    }

    /// Its series under the engine's present version.
    pub fn series(&self) -> PoolSeries {
        self.known().series.clone()
    }

    /// The engine's version, once known.
    pub fn engine_version(&self) -> Option<Arc<str>> {
        self.known().version.clone()
    }

    /// Digest of the engine's model file, when the engine tells it.
    pub fn model_digest(&self) -> Option<String> {
        self.known().props.as_ref()?.model_digest.clone()
    }

    /// Whether a task submitted now would be taken.
    pub fn is_ready(&self) -> bool {
        self.known().ready
    }

    /// Another engine takes its place, of which nothing is known yet.
    pub(crate) fn forget(&self) {
        let mut known = self.known();
        (known.live, known.healthy, known.ready, known.on_trial) = (false, false, false, false);
    }

    /// Its engine has announced where it listens.
    pub(crate) fn announced_at(&self, address: String) {
        *self.announced.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// What watchers are told of when it changes.
    fn outside(&self) -> (bool, bool, Option<String>) {
        let known = self.known();
        (known.live, known.ready, known.last_error.clone())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    fn new(config: &PoolConfig, metrics: &Metrics) -> Self {
        let engines = match config.engine_source() {
            Ok(EngineSource::External(external)) => external.urls().count(),
            _ => 1,
        };
        Self {
            id: config.id.clone(),
            config: config.clone(),
            served: RwLock::new(Arc::new(Served::new(&config.model))),
            managed: OnceLock::new(),
            told: Mutex::default(),
            drain: Mutex::default(),
            sampler_profile_version: config.sampler_profile_version.clone(),
            replicas: (0..engines).map(|number| Arc::new(Replica::new(number, &config.id, metrics))).collect(),
        }
    }

    /// The model that it serves, or is to.
    pub fn served(&self) -> Arc<Served> {
        Arc::clone(&self.served.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The way to whoever runs its engine, where that is us.
    pub fn manager(&self) -> Option<&PoolHandle> {
        self.managed.get()
    }

    /// Its engine is run by us, and this is the way to whoever does. A second one is passed over.
    pub fn managed_by(&self, handle: PoolHandle) {
        let _ = self.managed.set(handle);
    }

    /// Makes the adapters for its engines, in the order of [`Pool::replicas`]; a managed pool has none before its engine runs.
    ///
    /// # Errors
    /// A sentence for `last_error`: what this version cannot do, or what is wrong with an address.
    pub fn adapters(&self, engine_key: Option<&BearerToken>) -> Result<Vec<Arc<dyn WorkerAdapter>>, String> {
        let source = self.config.engine_source().map_err(|missing| missing.to_string())?;
        match (self.config.engine, source) {
            (Engine::Mock, EngineSource::Simulated) => {
                Ok(vec![Arc::new(Mock::new(Simulation::new(self.simulation())))])
            }
            (engine, EngineSource::External(external)) => {
                external.urls().map(|url| adapter_at(engine, url, engine_key, self.config.slots)).collect()
            }
            (engine, EngineSource::Simulated) => Err(no_adapter(engine)),
            _ => Ok(Vec::new()),
        }
    }

    /// How its engines are given tasks.
    pub fn call_policy(&self) -> CallPolicy {
        let calls = &self.config.calls;
        CallPolicy {
            breaker: BreakerPolicy {
                failures: calls.breaker_failures,
                window: calls.breaker_window(),
                cool_down: calls.breaker_cool_down(),
            },
            retry: RetryPolicy { retries: calls.retries, ..RetryPolicy::default() },
        }
    }

    /// Its engines, in configuration order.
    pub fn replicas(&self) -> &[Arc<Replica>] {
        &self.replicas
    }

    /// A replica that the scheduler has named.
    pub fn scheduled(&self, id: &ReplicaId) -> &Arc<Replica> {
        let found = self.replicas.iter().find(|replica| replica.id == *id);
        found.expect("the scheduler knows the replicas of the configuration and no others")
    }

    /// The replica that stands for the pool: the first ready one, else the first.
    pub fn first(&self) -> &Arc<Replica> {
        self.replicas.iter().find(|replica| replica.is_ready()).unwrap_or(&self.replicas[0])
    }

    /// The address of a replica's engine, if it has one.
    fn address(&self, replica: &Replica) -> Option<String> {
        let announced = replica.announced.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if announced.is_some() {
            return announced;
        }
        let Ok(EngineSource::External(external)) = self.config.engine_source() else { return None };
        let number = self.replicas.iter().position(|other| other.id == replica.id)?;
        external.urls().nth(number).map(ToString::to_string)
    }

    /// Whether a task submitted now would be taken by one of its engines.
    pub fn is_ready(&self) -> bool {
        self.replicas.iter().any(|replica| replica.is_ready())
    }

    /// Whether a task submitted now would be taken: an engine is ready or would be loaded, and its model may be used.
    pub fn takes_tasks(&self, app: &App) -> bool {
        let is_cold = || app.scheduler().pool(&self.id).is_some_and(|view| view.snapshot.cold.is_some());
        (self.is_ready() || is_cold()) && app.models.standing(&self.served().id).barred.is_none()
    }

    /// Whether its engine is up and still loads its model, or is being brought up.
    pub fn is_loading(&self) -> bool {
        let comes_up = self.report().is_some_and(|it| matches!(it.state, PoolState::Preparing | PoolState::Starting));
        !self.is_ready() && (comes_up || self.replicas.iter().any(|replica| replica.known().live))
    }

    /// What its engines told about themselves, once one has.
    pub fn props(&self) -> Option<WorkerProps> {
        self.first().known().props.clone()
    }

    /// What the engine can be asked: what it told, else what engines of its kind can.
    pub fn workloads(&self) -> Vec<Workload> {
        match self.props() {
            Some(props) if !props.workloads.is_empty() => props.workloads,
            _ => vec![Workload::Completion],
        }
    }

    /// What is wrong with it: of its first replica that has something to complain about.
    fn last_error(&self, app: &App, scheduler: &Scheduler) -> Option<String> {
        let complaint = |replica: &Arc<Replica>| {
            let known = replica.known().last_error.clone();
            let error = known.or_else(|| breaker_complaint(&app.host.calls(&self.id, &replica.id)?))?;
            Some(if self.replicas.len() > 1 { format!("replica {}: {error}", replica.id) } else { error })
        };
        let odd = || {
            let odd = scheduler.replicas(&self.id).find(|replica| replica.odd_version)?;
            Some(format!(
                "replica {} runs another engine version than the first ready one and gets no tasks; run the same version \
                 everywhere, or set require_same_engine_version = false",
                odd.replica_id
            ))
        };
        self.replicas.iter().find_map(complaint).or_else(odd)
    }

    /// Its health for the outside.
    pub fn health(&self, app: &App) -> PoolHealth {
        let served = self.served();
        let barred = app.models.standing(&served.id).barred;
        let scheduler = app.scheduler();
        let view = scheduler.pool(&self.id).expect("the scheduler knows every configured pool");
        let mut metrics = std::collections::BTreeMap::from([
            ("slots_total".to_owned(), json!(view.snapshot.slots_total)),
            ("slots_free".to_owned(), json!(view.snapshot.slots_free)),
            ("queue_depth".to_owned(), json!(view.snapshot.queued)),
            ("active_leases".to_owned(), json!(view.active_leases)),
            ("settling".to_owned(), json!(self.settling(app))),
        ]);
        if self.replicas.len() > 1 {
            let state = |replica: orchestrator_core::scheduler::ReplicaView<'_>| {
                (
                    replica.replica_id.to_string(),
                    json!({"ready": replica.ready, "active_leases": replica.active_leases}),
                )
            };
            let replicas: serde_json::Map<_, _> = scheduler.replicas(&self.id).map(state).collect();
            metrics.insert("replicas".to_owned(), replicas.into());
        }
        if let Some(cold) = view.snapshot.cold {
            metrics.insert("ready_in_ms".to_owned(), json!(cold.wait_ms(app.clock.now_ms())));
        }
        if let Some(speed) = view.snapshot.perf_tokens_per_s {
            metrics.insert("perf_tokens_per_s".to_owned(), json!(speed));
        }
        if let Some(latency) = view.snapshot.first_token_ms {
            metrics.insert("first_token_ms".to_owned(), json!(latency));
        }
        let trouble = view.snapshot.trouble.as_ref().map(|trouble| trouble.text.as_ref().to_owned());
        let health = PoolHealth {
            live: self.replicas.iter().any(|replica| replica.known().live),
            ready: self.is_ready() && barred.is_none() && !view.snapshot.draining,
            // Of a managed pool its state says it: one that is stopped takes no tasks either, and has none to end.
            draining: (view.snapshot.draining && !self.config.is_managed())
                || matches!(barred, Some(Barred::Retired { .. })),
            metrics,
            last_error: barred.map(|why| why.refusal(&served.id).message).or_else(|| self.last_error(app, &scheduler)),
            engine_version: self.first().engine_version().as_deref().map(str::to_owned),
            device_mask: view.snapshot.device_mask.clone(),
            state: (!self.config.is_managed()).then_some(PoolState::External),
            ..PoolHealth::default()
        };
        let health = self.with_report(health);
        match health.state {
            // How long it is not heard from is of this moment.
            Some(PoolState::Away) => {
                PoolHealth { last_error: app.workers.complaint(&self.id).or(health.last_error), ..health }
            }
            // What keeps it from ever being loaded.
            Some(PoolState::Cold) => PoolHealth { last_error: health.last_error.or(trouble), ..health },
            _ => health,
        }
    }

    /// Tasks that were given up and that its engines may still work on; their slots are not free yet.
    fn settling(&self, app: &App) -> usize {
        let calls = self.replicas.iter().filter_map(|replica| app.host.calls(&self.id, &replica.id));
        calls.map(|calls| calls.settling).sum()
    }

    /// The whole pool for the outside.
    pub fn status(&self, app: &App) -> PoolStatus {
        let health = self.health(app);
        let scheduler = app.scheduler();
        let snapshot = scheduler.pool(&self.id).expect("the scheduler knows every configured pool").snapshot;
        // Of a managed pool that is not up nobody tells the scheduler anything.
        let memory = app.memory_of(&self.id);
        let measured = |now: Option<u64>, told: i64| match now {
            Some(bytes) => Some(long(bytes)),
            None => (snapshot.vram_total_bytes > 0).then_some(told),
        };
        PoolStatus {
            id: self.id.to_string(),
            worker: self.config.worker.clone(),
            engine: self.config.engine,
            model: self.served().reference.as_ref().to_owned(),
            ctx: snapshot.ctx_max_supported,
            provisioning: self.config.mode().to_string(),
            compute: self.compute(),
            slots_total: snapshot.slots_total,
            slots_free: snapshot.slots_free,
            queue_depth: snapshot.queued,
            queue_capacity: snapshot.queue_capacity,
            vram_total_bytes: measured(memory.as_ref().map(|memory| memory.total_bytes), snapshot.vram_total_bytes),
            vram_free_bytes: measured(memory.as_ref().map(|memory| memory.free_bytes), snapshot.vram_free_bytes),
            health,
        }
    }

    /// Where inference runs: a device mask, or `unverified` for an engine that somebody else runs.
    pub fn compute(&self) -> String {
        let mask = self.config.device_mask().filter(|_| self.config.is_managed());
        mask.unwrap_or_else(|| "unverified".to_owned())
    }

    fn simulation(&self) -> mock::Config {
        let defaults = mock::Config::default();
        mock::Config {
            model: self.config.model.clone(),
            slots: self.config.slots,
            ctx: self.config.ctx.map_or(defaults.ctx, NonZeroU32::get),
            ..defaults
        }
    }

    fn spec(&self) -> PoolSpec {
        let config = &self.config;
        PoolSpec {
            pool_id: self.id.clone(),
            replicas: self.replicas.iter().map(|replica| replica_spec(replica, config.slots)).collect(),
            require_same_engine_version: config.require_same_engine_version,
            engine: config.engine,
            models: vec![config.model.clone()],
            queue: queue_limits(config),
            rate_limits: per_class(config, |limits| limits.rate_limit().map(rate_limit)),
            determinism: config.determinism(),
            sampler_profile_version: config.sampler_profile_version.clone(),
            device_mask: config.device_mask(),
            ctx_max: config.ctx.map(|ctx| int(ctx.get())),
        }
    }

    /// Whether tasks on it must not use the engine's prompt cache.
    pub fn is_strict(&self) -> bool {
        self.config.determinism() == DeterminismLevel::Strict
    }

    /// It can never work as it is configured.
    pub fn cannot_work(&self, reason: &str) {
        narrate::pool_unready(self, &self.replicas[0], reason);
        for replica in &self.replicas {
            replica.known().last_error = Some(reason.to_owned());
        }
    }
}

/// Why an engine that is well is given no tasks, or one only.
fn breaker_complaint(calls: &CallReport) -> Option<String> {
    let until = match calls.breaker {
        BreakerState::Closed => return None,
        BreakerState::HalfOpen { .. } => "until one that tries it has worked".to_owned(),
        BreakerState::Open { until } => {
            let wait = until.saturating_duration_since(tokio::time::Instant::now());
            format!("for {} ms more", wait.as_millis())
        }
    };
    let why = calls.tripped_by.as_ref().map_or_else(String::new, |error| format!("; the last failure: {error}"));
    Some(format!("the breaker is open: too many tasks failed, so the engine gets none {until}{why}"))
}

fn replica_spec(replica: &Replica, slots: NonZeroU32) -> ReplicaSpec {
    ReplicaSpec { replica_id: replica.id.clone(), slots: slots.get() }
}

/// A limit of each class, where the configuration has one.
fn per_class<T>(config: &PoolConfig, limit: impl Fn(&PriorityLimits) -> Option<T>) -> PerClass<Option<T>> {
    let of = |class| config.admission.limits(class).and_then(&limit);
    PerClass { interactive: of(Priority::Interactive), batch: of(Priority::Batch) }
}

fn queue_limits(config: &PoolConfig) -> QueueLimits {
    let weights = per_class(config, |limits| limits.weight);
    QueueLimits {
        capacity: config.queue.capacity.get(),
        class_capacity: per_class(config, |limits| limits.queue_capacity.map(NonZeroUsize::get)),
        full_policy: match config.queue.full_policy {
            config_schema::FullPolicy::Reject => FullPolicy::Reject,
            config_schema::FullPolicy::DropLru => FullPolicy::DropLru,
        },
        weights: weights.interactive.zip(weights.batch).map(|(interactive, batch)| Weights { interactive, batch }),
    }
}

/// A throttle as core takes it.
pub(crate) fn rate_limit(limit: config_schema::RateLimit) -> RateLimit {
    RateLimit { rate_per_s: limit.per_second, burst: limit.burst.get() }
}
