//! The metrics contract of the daemon (REQUIREMENTS 2.18): names, labels, buckets.
//!
//! Series of a pool are looked up once, when its engine's version is first known, and then cost an atomic addition each.
//! Gauges are set when somebody scrapes. A value that cannot be measured has no series.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use adapter_host::{BreakerState, CallReport};
use api_types::sse::EventName;
use api_types::{Engine, ErrorEnvelope, ModelLifecycle, PolicyLabel, Priority, VerificationOutcome};
use artifact_store::Usage;
use pool_managerd::machine::Why;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::parking::Outcome;
use crate::task::{CancelReason, EndedTask};
use crate::wire::long;

const FIRST_TOKEN_BUCKETS_MS: [f64; 11] =
    [50.0, 100.0, 150.0, 200.0, 300.0, 500.0, 750.0, 1000.0, 1500.0, 2000.0, 3000.0];
const LOAD_BUCKETS_MS: [f64; 9] = [500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0, 40_000.0, 80_000.0, 160_000.0];
const DECODE_BUCKETS_MS: [f64; 10] = [250.0, 500.0, 1000.0, 1500.0, 2000.0, 3000.0, 4000.0, 6000.0, 8000.0, 12000.0];

/// Every name this daemon exposes, without the unit-free suffix games of the text format; the specs are checked against it.
pub const NAMES: &[&str] = &[
    "tasks_enqueued_total",
    "tasks_started_total",
    "tasks_canceled_total",
    "tasks_rejected_total",
    "tokens_in_total",
    "tokens_out_total",
    "queue_depth",
    "latency_first_token_ms",
    "latency_decode_ms",
    "admission_backpressure_events_total",
    "budget_rejections_total",
    "placement_decisions_total",
    "placement_candidates_considered",
    "sse_backpressure_drops_total",
    "pool_ready",
    "active_leases",
    "drain_events_total",
    "pool_restarts_total",
    "pool_preloads_total",
    "pool_unloads_total",
    "pool_load_ms",
    "kv_parked_total",
    "gpu_utilization",
    "vram_used_bytes",
    "sessions_active",
    "adapter_retries_total",
    "adapter_breaker_trips_total",
    "adapter_breaker_state",
    "catalog_verifications_total",
    "model_state",
    "worker_up",
    "worker_heartbeats_total",
    "artifacts",
    "artifacts_bytes",
    "artifacts_dropped_total",
];

/// Models that have a series at most, by the metrics contract.
const MOST_MODELS: usize = 1024;

type Text = Arc<str>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplicaClass {
    engine: &'static str,
    engine_version: Text,
    pool_id: Text,
    replica_id: Text,
    priority: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplicaReason {
    engine: &'static str,
    engine_version: Text,
    pool_id: Text,
    replica_id: Text,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Replica {
    engine: &'static str,
    engine_version: Text,
    pool_id: Text,
    replica_id: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolClass {
    engine: &'static str,
    engine_version: Text,
    pool_id: Text,
    priority: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EngineReason {
    engine: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EngineOnly {
    engine: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EnginePolicy {
    engine: &'static str,
    policy: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decision {
    outcome: &'static str,
    pinned: &'static str,
    fallback: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolOnly {
    pool_id: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OneWorker {
    worker_id: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolReason {
    pool_id: Text,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolOutcome {
    pool_id: Text,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplicaDevice {
    engine: &'static str,
    engine_version: Text,
    pool_id: Text,
    replica_id: Text,
    device: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplicaOnly {
    engine: &'static str,
    pool_id: Text,
    replica_id: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verified {
    result: &'static str,
    reason: &'static str,
    engine: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelInState {
    model_id: Text,
    state: &'static str,
}

type HistogramFamily<L> = Family<L, Histogram, fn() -> Histogram>;

/// All series of the daemon.
pub struct Metrics {
    registry: Mutex<Registry>,
    enqueued: Family<ReplicaClass, Counter>,
    started: Family<ReplicaClass, Counter>,
    canceled: Family<ReplicaReason, Counter>,
    rejected: Family<EngineReason, Counter>,
    tokens_in: Family<Replica, Counter>,
    tokens_out: Family<Replica, Counter>,
    queue_depth: Family<PoolClass, Gauge>,
    first_token: HistogramFamily<PoolClass>,
    decode: HistogramFamily<PoolClass>,
    backpressure: Family<EnginePolicy, Counter>,
    budget_rejections: Family<EngineOnly, Counter>,
    decisions: Family<Decision, Counter>,
    candidates: Gauge,
    drops: Family<EngineReason, Counter>,
    pool_ready: Family<PoolOnly, Gauge>,
    active_leases: Family<PoolOnly, Gauge>,
    drains: Family<PoolReason, Counter>,
    unloads: Family<PoolReason, Counter>,
    loads: Family<PoolOnly, Histogram, fn() -> Histogram>,
    kv_parked: Family<PoolOutcome, Counter>,
    restarts: Family<PoolOnly, Counter>,
    preloads: Family<PoolOutcome, Counter>,
    gpu_utilization: Family<ReplicaDevice, Gauge>,
    vram_used: Family<ReplicaDevice, Gauge>,
    sessions: Gauge,
    retries: Family<ReplicaOnly, Counter>,
    trips: Family<ReplicaOnly, Counter>,
    breaker: Family<ReplicaOnly, Gauge>,
    verifications: Family<Verified, Counter>,
    model_state: Family<ModelInState, Gauge>,
    workers: Family<OneWorker, Gauge>,
    heartbeats: Family<OneWorker, Counter>,
    /// Models that have a series.
    models: Mutex<HashSet<Text>>,
    artifacts: Gauge,
    artifacts_bytes: Gauge,
    artifacts_dropped: Counter,
}

/// A device that a replica may use.
#[derive(Clone, Copy, Debug)]
pub struct DeviceOf<'a> {
    /// The kind of engine.
    pub engine: Engine,
    /// The engine's version.
    pub engine_version: &'a str,
    /// The pool.
    pub pool: &'a str,
    /// The replica.
    pub replica: &'a str,
    /// The device's index.
    pub device: u32,
}

/// The series of one pool under one engine version, looked up once.
#[derive(Clone, Debug)]
pub struct PoolSeries {
    by_class: [ClassSeries; 2],
    canceled: [Counter; CancelReason::ALL.len()],
    tokens_in: Counter,
    tokens_out: Counter,
    /// `metrics`, `narration`.
    drops: [Counter; 2],
    ready: Gauge,
    leases: Gauge,
}

#[derive(Clone, Debug)]
struct ClassSeries {
    enqueued: Counter,
    started: Counter,
    queue_depth: Gauge,
    first_token: Histogram,
    decode: Histogram,
}

impl Default for Metrics {
    /// Registers every family.
    fn default() -> Self {
        let metrics = Self::families();
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn families() -> Self {
        Self {
            registry: Mutex::default(),
            enqueued: Family::default(),
            started: Family::default(),
            canceled: Family::default(),
            rejected: Family::default(),
            tokens_in: Family::default(),
            tokens_out: Family::default(),
            queue_depth: Family::default(),
            first_token: Family::new_with_constructor(|| Histogram::new(FIRST_TOKEN_BUCKETS_MS)),
            decode: Family::new_with_constructor(|| Histogram::new(DECODE_BUCKETS_MS)),
            backpressure: Family::default(),
            budget_rejections: Family::default(),
            decisions: Family::default(),
            candidates: Gauge::default(),
            drops: Family::default(),
            pool_ready: Family::default(),
            active_leases: Family::default(),
            drains: Family::default(),
            unloads: Family::default(),
            loads: Family::new_with_constructor(|| Histogram::new(LOAD_BUCKETS_MS)),
            kv_parked: Family::default(),
            restarts: Family::default(),
            preloads: Family::default(),
            gpu_utilization: Family::default(),
            vram_used: Family::default(),
            sessions: Gauge::default(),
            retries: Family::default(),
            trips: Family::default(),
            breaker: Family::default(),
            verifications: Family::default(),
            model_state: Family::default(),
            workers: Family::default(),
            heartbeats: Family::default(),
            models: Mutex::default(),
            artifacts: Gauge::default(),
            artifacts_bytes: Gauge::default(),
            artifacts_dropped: Counter::default(),
        }
    }

    /// The series of a pool whose engine has not told its version: readiness and leases are exported, everything else waits
    /// for the label.
    pub fn unversioned_pool(&self, pool: &str) -> PoolSeries {
        let only = PoolOnly { pool_id: pool.into() };
        PoolSeries {
            by_class: std::array::from_fn(|_| ClassSeries {
                enqueued: Counter::default(),
                started: Counter::default(),
                queue_depth: Gauge::default(),
                first_token: Histogram::new(FIRST_TOKEN_BUCKETS_MS),
                decode: Histogram::new(DECODE_BUCKETS_MS),
            }),
            canceled: Default::default(),
            tokens_in: Counter::default(),
            tokens_out: Counter::default(),
            drops: Default::default(),
            ready: self.pool_ready.get_or_create_owned(&only),
            leases: self.active_leases.get_or_create_owned(&only),
        }
    }

    /// Looks up a pool's series; call again when its engine's version changes.
    pub fn pool(&self, engine: Engine, version: &str, pool: &str, replica: &str) -> PoolSeries {
        let (engine_version, pool_id, replica_id): (Text, Text, Text) = (version.into(), pool.into(), replica.into());
        let name = engine.as_str();
        let class = |priority: Priority| {
            let replica = ReplicaClass {
                engine: name,
                engine_version: Arc::clone(&engine_version),
                pool_id: Arc::clone(&pool_id),
                replica_id: Arc::clone(&replica_id),
                priority: priority.as_str(),
            };
            let pool = PoolClass {
                engine: name,
                engine_version: Arc::clone(&engine_version),
                pool_id: Arc::clone(&pool_id),
                priority: priority.as_str(),
            };
            ClassSeries {
                enqueued: self.enqueued.get_or_create_owned(&replica),
                started: self.started.get_or_create_owned(&replica),
                queue_depth: self.queue_depth.get_or_create_owned(&pool),
                first_token: self.first_token.get_or_create_owned(&pool),
                decode: self.decode.get_or_create_owned(&pool),
            }
        };
        let canceled = CancelReason::ALL.map(|reason| {
            self.canceled.get_or_create_owned(&ReplicaReason {
                engine: name,
                engine_version: Arc::clone(&engine_version),
                pool_id: Arc::clone(&pool_id),
                replica_id: Arc::clone(&replica_id),
                reason: reason.as_str(),
            })
        });
        let replica = Replica {
            engine: name,
            engine_version: Arc::clone(&engine_version),
            pool_id: Arc::clone(&pool_id),
            replica_id: Arc::clone(&replica_id),
        };
        let only = PoolOnly { pool_id: Arc::clone(&pool_id) };
        PoolSeries {
            by_class: [class(Priority::Interactive), class(Priority::Batch)],
            canceled,
            tokens_in: self.tokens_in.get_or_create_owned(&replica),
            tokens_out: self.tokens_out.get_or_create_owned(&replica),
            drops: [EventName::Metrics, EventName::Narration]
                .map(|frame| self.drops.get_or_create_owned(&EngineReason { engine: name, reason: frame.as_str() })),
            ready: self.pool_ready.get_or_create_owned(&only),
            leases: self.active_leases.get_or_create_owned(&only),
        }
    }

    /// A task was refused, or lost its place.
    pub fn rejected(&self, engine: Engine, error: &ErrorEnvelope) {
        let engine = engine.as_str();
        self.rejected.get_or_create(&EngineReason { engine, reason: error.code.as_str() }).inc();
        match error.policy_label {
            Some(label @ (PolicyLabel::Reject | PolicyLabel::DropLru)) => {
                self.backpressure.get_or_create(&EnginePolicy { engine, policy: label.as_str() }).inc();
            }
            Some(PolicyLabel::SessionBudget) => {
                self.budget_rejections.get_or_create(&EngineOnly { engine }).inc();
            }
            Some(PolicyLabel::RateLimit | PolicyLabel::SessionTurns) | None => {}
        }
    }

    /// A placement was decided.
    pub fn decided(&self, assigned: bool, pinned: bool, fallback: bool, candidates: usize) {
        let yes_no = |value| if value { "true" } else { "false" };
        let outcome = if assigned { "assigned" } else { "no_capacity" };
        let labels = Decision { outcome, pinned: yes_no(pinned), fallback: yes_no(fallback) };
        self.decisions.get_or_create(&labels).inc();
        self.candidates.set(long(candidates));
    }

    /// Number of live sessions.
    pub fn sessions(&self, live: usize) {
        self.sessions.set(long(live));
    }

    /// How the calls to a replica go, at a scrape.
    pub fn calls(&self, engine: Engine, pool: &str, replica: &str, calls: &CallReport) {
        let labels = ReplicaOnly { engine: engine.as_str(), pool_id: pool.into(), replica_id: replica.into() };
        self.retries.get_or_create(&labels).inner().store(calls.retries, Ordering::Relaxed);
        self.trips.get_or_create(&labels).inner().store(calls.trips, Ordering::Relaxed);
        self.breaker.get_or_create(&labels).set(match calls.breaker {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen { .. } => 1,
            BreakerState::Open { .. } => 2,
        });
    }

    /// Whether a worker was heard from a moment ago.
    pub fn worker_up(&self, worker: &str, is_up: bool) {
        self.workers.get_or_create(&OneWorker { worker_id: worker.into() }).set(i64::from(is_up));
    }

    /// A worker was heard from.
    pub fn heartbeat(&self, worker: &str) {
        self.heartbeats.get_or_create(&OneWorker { worker_id: worker.into() }).inc();
    }

    /// A pool takes no new tasks.
    pub fn drained(&self, pool: &str, why: Why) {
        self.drains.get_or_create(&PoolReason { pool_id: pool.into(), reason: why.as_str() }).inc();
    }

    /// A pool's engine is unloaded, and why.
    pub fn unloaded(&self, pool: &str, reason: &'static str) {
        self.unloads.get_or_create(&PoolReason { pool_id: pool.into(), reason }).inc();
    }

    /// A pool's engine serves, so long after memory was promised to it.
    pub fn loaded(&self, pool: &str, took_ms: u64) {
        self.loads.get_or_create(&PoolOnly { pool_id: pool.into() }).observe(millis(took_ms));
    }

    /// What became of what a pool's engine held of a session, when it was unloaded or loaded again.
    pub fn kv_parked(&self, pool: &str, outcome: Outcome) {
        self.kv_parked.get_or_create(&PoolOutcome { pool_id: pool.into(), outcome: outcome.label() }).inc();
    }

    /// A pool's engine was started again after a failure, so many times more.
    pub fn restarted(&self, pool: &str, times: u32) {
        self.restarts.get_or_create(&PoolOnly { pool_id: pool.into() }).inc_by(times.into());
    }

    /// An engine with its model came up: `ready`; or did not: `failed`.
    pub fn preloaded(&self, pool: &str, outcome: &'static str) {
        self.preloads.get_or_create(&PoolOutcome { pool_id: pool.into(), outcome }).inc();
    }

    /// Forgets what was measured of devices: what is not measured any more has no series.
    pub fn forget_devices(&self) {
        self.gpu_utilization.clear();
        self.vram_used.clear();
    }

    /// What is measured of a device that a replica may use, at a scrape. What cannot be read is left out.
    pub fn device(&self, replica: &DeviceOf<'_>, utilization_percent: Option<u32>, vram_used_bytes: Option<u64>) {
        let labels = ReplicaDevice {
            engine: replica.engine.as_str(),
            engine_version: replica.engine_version.into(),
            pool_id: replica.pool.into(),
            replica_id: replica.replica.into(),
            device: replica.device.to_string().into(),
        };
        if let Some(percent) = utilization_percent {
            self.gpu_utilization.get_or_create(&labels).set(percent.into());
        }
        if let Some(bytes) = vram_used_bytes {
            self.vram_used.get_or_create(&labels).set(long(bytes));
        }
    }

    /// A model was verified.
    pub fn verified(&self, engine: Engine, outcome: VerificationOutcome) {
        let reason = match outcome {
            VerificationOutcome::Pass => "proven",
            VerificationOutcome::Warn => "unproven",
            VerificationOutcome::Fail => "contradicted",
        };
        let labels = Verified { result: outcome.as_str(), reason, engine: engine.as_str() };
        self.verifications.get_or_create(&labels).inc();
    }

    /// A model's state; `None` when it is forgotten.
    pub fn model_state(&self, model: &str, state: Option<ModelLifecycle>) {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let model_id: Text = model.into();
        if state.is_none() {
            models.remove(&model_id);
        } else if models.len() < MOST_MODELS {
            models.insert(Arc::clone(&model_id));
        }
        let is_counted = models.contains(&model_id);
        for one in ModelLifecycle::ALL {
            let labels = ModelInState { model_id: Arc::clone(&model_id), state: one.as_str() };
            if is_counted {
                self.model_state.get_or_create(&labels).set(i64::from(state == Some(*one)));
            } else {
                self.model_state.remove(&labels);
            }
        }
    }

    /// Sets what is known about the kept artifacts, at a scrape.
    pub fn artifacts(&self, usage: Usage) {
        self.artifacts.set(long(usage.documents));
        self.artifacts_bytes.set(long(usage.bytes));
        self.artifacts_dropped.inner().store(usage.dropped, Ordering::Relaxed);
    }

    /// Prometheus text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        encode(&mut text, &registry).expect("writing to a string cannot fail");
        text
    }

    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // The text format adds `_total` to counters.
        registry.register("tasks_enqueued", "Tasks admitted", self.enqueued.clone());
        registry.register("tasks_started", "Tasks handed to an engine", self.started.clone());
        registry.register("tasks_canceled", "Tasks canceled", self.canceled.clone());
        registry.register("tasks_rejected", "Tasks refused or evicted", self.rejected.clone());
        registry.register("tokens_in", "Prompt tokens, by the engines' count", self.tokens_in.clone());
        registry.register("tokens_out", "Generated tokens, by the engines' count", self.tokens_out.clone());
        registry.register("queue_depth", "Tasks waiting", self.queue_depth.clone());
        registry.register("latency_first_token_ms", "Dispatch to first token, in ms", self.first_token.clone());
        registry.register("latency_decode_ms", "First token to end, in ms", self.decode.clone());
        registry.register("admission_backpressure_events", "Refusals by a full queue", self.backpressure.clone());
        registry.register("budget_rejections", "Refusals by a session's budget", self.budget_rejections.clone());
        registry.register("placement_decisions", "Placement decisions", self.decisions.clone());
        registry.register("placement_candidates_considered", "Pools in the last decision", self.candidates.clone());
        registry.register("sse_backpressure_drops", "Frames left out for slow readers", self.drops.clone());
        registry.register("pool_ready", "1 while the pool takes tasks", self.pool_ready.clone());
        registry.register("active_leases", "Slots running a task", self.active_leases.clone());
        registry.register("drain_events", "Times a pool stopped taking tasks, as wished", self.drains.clone());
        registry.register("pool_restarts", "Starts of an engine after a failure", self.restarts.clone());
        registry.register("pool_unloads", "Engines unloaded to free memory", self.unloads.clone());
        registry.register("pool_load_ms", "Memory promised to tasks taken, in ms", self.loads.clone());
        registry.register("kv_parked", "Sessions' KV put away and taken up again", self.kv_parked.clone());
        registry.register("pool_preloads", "Starts of engines by their outcome", self.preloads.clone());
        registry.register(
            "gpu_utilization",
            "Time in which the GPU computed, in percent",
            self.gpu_utilization.clone(),
        );
        registry.register("vram_used_bytes", "Memory of the GPU in use, by anybody", self.vram_used.clone());
        registry.register("sessions_active", "Sessions that have not expired", self.sessions.clone());
        registry.register("adapter_retries", "Submissions repeated before the first token", self.retries.clone());
        registry.register("adapter_breaker_trips", "Times a breaker opened", self.trips.clone());
        registry.register("adapter_breaker_state", "0 closed, 1 half-open, 2 open", self.breaker.clone());
        registry.register("catalog_verifications", "Verifications of models", self.verifications.clone());
        registry.register("worker_up", "1 for a worker that was heard from a moment ago", self.workers.clone());
        registry.register("worker_heartbeats", "Heartbeats of a worker", self.heartbeats.clone());
        registry.register("model_state", "1 for the state a model is in", self.model_state.clone());
        registry.register("artifacts", "Artifacts kept", self.artifacts.clone());
        registry.register("artifacts_bytes", "Bytes of kept artifacts", self.artifacts_bytes.clone());
        registry.register("artifacts_dropped", "Records of tasks that were not kept", self.artifacts_dropped.clone());
    }
}

impl PoolSeries {
    /// A task was admitted.
    pub fn enqueued(&self, priority: Priority) {
        self.class(priority).enqueued.inc();
    }

    /// A task was handed to the engine.
    pub fn started(&self, priority: Priority) {
        self.class(priority).started.inc();
    }

    /// A frame was left out for a slow reader.
    pub fn dropped_frame(&self, name: EventName) {
        self.drops[usize::from(name == EventName::Narration)].inc();
    }

    /// A task was canceled.
    pub fn canceled(&self, reason: CancelReason) {
        self.canceled[reason as usize].inc();
    }

    /// A task that ran has ended.
    pub fn ended(&self, priority: Priority, ended: &EndedTask) {
        let class = self.class(priority);
        if let Some(first_token_ms) = ended.first_token_ms {
            class.first_token.observe(millis(first_token_ms));
            class.decode.observe(millis(ended.decode_time_ms));
        }
        self.tokens_in.inc_by(ended.tokens_in.map_or(0, u64::from));
        self.tokens_out.inc_by(ended.tokens_out.map_or(0, u64::from));
    }

    /// Sets the gauges, at a scrape.
    pub fn gauges(&self, ready: bool, leases: usize, waiting: impl Fn(Priority) -> usize) {
        self.ready.set(i64::from(ready));
        self.leases.set(long(leases));
        for priority in [Priority::Interactive, Priority::Batch] {
            self.class(priority).queue_depth.set(long(waiting(priority)));
        }
    }

    fn class(&self, priority: Priority) -> &ClassSeries {
        &self.by_class[match priority {
            Priority::Interactive => 0,
            Priority::Batch => 1,
        }]
    }
}

#[expect(clippy::cast_precision_loss, reason = "a histogram of milliseconds needs no exact values above 2^52")]
fn millis(value: u64) -> f64 {
    value as f64
}
