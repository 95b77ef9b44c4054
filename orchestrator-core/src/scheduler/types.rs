//! What goes into the scheduler and what comes out.

use api_types::{DeterminismLevel, Engine, PoolId, ReplicaId, TaskId};

use crate::Refusal;
use crate::classes::PerClass;
use crate::estimate::{PoolSpeed, Prompt};
use crate::policy::{DecisionLog, JobSpec, PoolSnapshot};
use crate::queue::QueueLimits;
use crate::residency::Waiters;
use crate::task::End;
use crate::throttle::RateLimit;

/// A pool as the operator configured it.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    /// The pool.
    pub pool_id: PoolId,
    /// The engines that run its tasks.
    pub replicas: Vec<ReplicaSpec>,
    /// Whether replicas with another engine version than the first ready one are left alone (ORCH-3046).
    pub require_same_engine_version: bool,
    /// The kind of engine.
    pub engine: Engine,
    /// Names under which it serves its model, the configured reference first.
    pub models: Vec<String>,
    /// How much may wait, and who comes first.
    pub queue: QueueLimits,
    /// Most tasks of a class admitted per second.
    pub rate_limits: PerClass<Option<RateLimit>>,
    /// What it promises about equal requests. The scheduler does not tie slots to it; the configuration does.
    pub determinism: DeterminismLevel,
    /// The sampler profile in force.
    pub sampler_profile_version: Option<String>,
    /// The devices it may use.
    pub device_mask: Option<String>,
    /// Configured context of one slot, in tokens, until a probe tells.
    pub ctx_max: Option<i32>,
}

/// A replica as the operator configured it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSpec {
    /// Its name, unique in its pool.
    pub replica_id: ReplicaId,
    /// Tasks it may run at the same time; an engine that takes fewer lowers it.
    pub slots: u32,
}

/// What a probe found out about a replica. `None` leaves the last known value in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicaFacts {
    /// A task submitted now would be taken.
    pub ready: bool,
    /// Its process answers.
    pub live: bool,
    /// Tasks the engine runs at the same time; what the operator configured remains the limit.
    pub slots_total: Option<u32>,
    /// Context of one slot that a task can really use, in tokens.
    pub ctx_max: Option<i32>,
    /// The engine's own version.
    pub engine_version: Option<String>,
    /// Further names of the model it serves, by the engine itself.
    pub model_aliases: Option<Vec<String>>,
    /// Video memory in all, in bytes.
    pub vram_total_bytes: Option<i64>,
    /// Video memory free, in bytes.
    pub vram_free_bytes: Option<i64>,
    /// CUDA compute capability.
    pub compute_capability: Option<String>,
    /// Additional abilities by name.
    pub features: Option<Vec<String>>,
}

/// A task that asks to be taken.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTask {
    /// Chosen by the client.
    pub id: TaskId,
    /// What it needs; its queue class is the job's `priority`.
    pub job: JobSpec,
    /// Its input.
    pub prompt: Prompt,
    /// Time from now to the end that it has, in milliseconds.
    pub deadline_ms: i64,
}

/// A task that was taken. It waits in its pool's queue until [`super::Scheduler::next_dispatch`] hands it out.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// The pool.
    pub pool_id: PoolId,
    /// Tasks that start before it; 0 means it is next (LO-ADM-05).
    pub queue_position: usize,
    /// Predicted wait until it starts, in milliseconds.
    pub predicted_start_ms: u64,
    /// Whether the prediction rests on observed tasks; if not it is a rough guess.
    pub prediction_is_measured: bool,
    /// How long a client should wait before it submits more, in milliseconds; 0 while the queue has room.
    pub backoff_ms: u64,
    /// Probability that it ends before its deadline.
    pub on_time_probability: f64,
    /// Why this pool.
    pub decision: DecisionLog,
    /// The task that lost its place to it; its stream ends with `QUEUE_FULL_DROP_LRU` (LO-ADM-04).
    pub evicted: Option<TaskId>,
}

/// A task that was not taken, and how placement went if it came to that.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// Why.
    pub refusal: Refusal,
    /// How placement went.
    pub decision: Option<Box<DecisionLog>>,
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, decision: None }
    }
}

/// A task to hand to an engine now. Its slot is leased until [`super::Scheduler::finish`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// The task.
    pub task_id: TaskId,
    /// The pool that runs it.
    pub pool_id: PoolId,
    /// The replica that runs it.
    pub replica_id: ReplicaId,
    /// The pool it was waiting at, when it was taken over by one that became idle.
    pub moved_from: Option<PoolId>,
    /// How often it was dispatched before.
    pub attempt: u32,
}

/// What a cancel met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canceled {
    /// It was waiting, is forgotten now and will never be dispatched.
    Queued,
    /// It is running; stop the engine. Its slot stays leased until `finish`.
    Running,
    /// No such task.
    Unknown,
}

/// How a task that was dispatched ended, and what was measured. Measurements of ours and of the engine both fit; `None`
/// where nobody can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How.
    pub end: End,
    /// Prompt tokens that the engine read.
    pub tokens_in: Option<u32>,
    /// Tokens that it generated.
    pub tokens_out: Option<u32>,
    /// Time from dispatch to the first token, in milliseconds.
    pub first_token_ms: Option<u64>,
    /// Time from the first token to the end, in milliseconds.
    pub decode_ms: Option<u64>,
}

impl Outcome {
    /// An end with nothing measured.
    #[must_use]
    pub const fn unmeasured(end: End) -> Self {
        Self { end, tokens_in: None, tokens_out: None, first_token_ms: None, decode_ms: None }
    }
}

/// What became of a task whose worker was lost. In every case its slot is free again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requeued {
    /// It waits again, at the front of its class, and the session's cache is lost.
    Again {
        /// The pool it waits at now.
        pool_id: PoolId,
        /// Tasks that start before it.
        queue_position: usize,
    },
    /// It has streamed, or was retried already: it is forgotten, and its stream must end with an error.
    GivenUp,
    /// It was canceled while it ran: it is forgotten, and its stream must end as canceled.
    Canceled,
    /// No such task, or it was not running.
    Unknown,
}

/// Something that happened to a waiting task because its pool changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It waits at another pool now.
    Moved {
        /// The task.
        task: TaskId,
        /// Where it waited.
        from: PoolId,
        /// Where it waits.
        to: PoolId,
        /// Whether its old pool can no longer run it, rather than not at this time.
        misfit: bool,
    },
    /// No pool can ever run it any more: it is forgotten, and its stream must end with this error.
    Rejected {
        /// The task.
        task: TaskId,
        /// Why.
        refusal: Refusal,
    },
}

/// What is asked of a pool: what the memory of its devices is planned by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolDemand {
    /// Slots in use by our tasks.
    pub running: usize,
    /// Predicted time until those tasks have ended, in milliseconds.
    pub running_ms: u64,
    /// Predicted time until those and all that wait have ended, in milliseconds.
    pub backlog_ms: u64,
    /// Tasks that wait.
    pub waiting: PerClass<Waiters>,
    /// When a task was admitted, began or ended last, in milliseconds.
    pub last_used_ms: u64,
    /// Usual time between two admissions, in milliseconds, once known.
    pub gap_ms: Option<u64>,
}

/// A pool as it is now.
#[derive(Clone, Copy, Debug)]
pub struct PoolView<'a> {
    /// What placement sees: slots, queue, memory, health.
    pub snapshot: &'a PoolSnapshot,
    /// A process of it answers.
    pub live: bool,
    /// Slots in use by our tasks.
    pub active_leases: usize,
    /// What was learned about its speed.
    pub speed: &'a PoolSpeed,
    /// How much may wait, and who comes first.
    pub queue: &'a QueueLimits,
}

/// A replica as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaView<'a> {
    /// The replica.
    pub replica_id: &'a ReplicaId,
    /// It takes tasks.
    pub ready: bool,
    /// It is ready, but runs another engine version than the rest of its set, and is left alone.
    pub odd_version: bool,
    /// Slots in use by our tasks.
    pub active_leases: u32,
}
