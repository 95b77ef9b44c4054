//! How workers on other hosts make themselves known, and how they are kept in touch with (LO-API-13).
//!
//! Two kinds of worker register: a plain engine, which announces where a pool's replica listens and is probed from then on, and a
//! host that runs `pool-managerd`, which is given pools to run and says how they are with every heartbeat. A host dials; it is
//! never dialled but for its engines. Times are durations by the clock of whoever sends them: no clock is compared with another.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::engine::DeviceStatus;
use crate::ids::{PoolId, WorkerId};
use crate::pool::{PoolFault, PoolState, ReloadStatus};
use crate::vocabulary::Engine;
use crate::words::wire_words;

/// Version of what a `pool-managerd` and an orchestrator say to each other. Only equal ones work together.
pub const WORKER_PROTOCOL: u32 = 1;

/// Body of `POST /v1/workers/register`; a bearer token is always required. With `worker_id` it is a host's, else an engine's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum WorkerRegistration {
    /// A host with a `pool-managerd`.
    Host(HostRegistration),
    /// An engine that runs already.
    Engine(EngineRegistration),
}

/// An engine announces where a replica of an external pool listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"pool_id": "gpu1", "replica_id": "r0", "engine": "llamacpp", "endpoint": "http://127.0.0.1:18080"}))]
pub struct EngineRegistration {
    /// The pool it serves.
    pub pool_id: String,
    /// Its own name inside the pool.
    pub replica_id: String,
    /// The kind of engine.
    pub engine: Engine,
    /// Where the engine answers: `http://host:port` or `unix:/path`.
    pub endpoint: String,
    /// The engine's own version. Like what follows, it is taken from the engine itself as soon as that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,
    /// The devices it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_mask: Option<String>,
    /// Parallel tasks it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots_total: Option<i32>,
}

/// A host that runs `pool-managerd` asks for the pools that the configuration gives it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"worker_id": "box2", "protocol": 1, "version": "0.1.0", "boot_id": "8f14e45fceea167a", "relay_port": 8085,
    "relay_secret": "c4ca4238a0b923820dcc509a6f75849b", "devices": []}))]
pub struct HostRegistration {
    /// Its name, as the pools' `worker` has it.
    pub worker_id: WorkerId,
    /// What it speaks, [`WORKER_PROTOCOL`].
    pub protocol: u32,
    /// Version of its software.
    pub version: String,
    /// Drawn at its start: tells one life from the next.
    pub boot_id: String,
    /// Port of its relay.
    pub relay_port: u16,
    /// `host` or `host:port` under which its relay is reached. Unset: the address that the registration comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// What its relay wants as a bearer token; drawn at its start.
    pub relay_secret: RelaySecret,
    /// Its GPUs.
    #[serde(default)]
    pub devices: Vec<DeviceStatus>,
}

/// What a relay wants as a bearer token. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct RelaySecret(pub String);

impl fmt::Debug for RelaySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelaySecret(…)")
    }
}

wire_words! {
    /// A registration was taken.
    Registered {
        /// It was.
        Ok = "ok",
    }
}

/// Answer to a registration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"status": "ok"}))]
pub struct WorkerRegistered {
    /// It was taken.
    pub status: Registered,
    /// What a host needs to know; absent for an engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<WorkerTerms>,
}

/// What a host is told that has registered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerTerms {
    /// Goes with every heartbeat; another registration, or the orchestrator's end, makes it void.
    pub session: String,
    /// Version of the orchestrator's software.
    pub version: String,
    /// The pools it is to run, as `[[pools]]` of a configuration.
    #[schema(value_type = Vec<Object>)]
    pub pools: Vec<Value>,
}

/// Body of `POST /v1/workers/{id}/heartbeat`: how a host and its pools stand.
///
/// It is answered at once when there is something to do, else after about a second. A host on which something changes does not wait
/// for the answer and sends another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"session": "1679091c5a880faf", "seq": 7, "taken_through": 0}))]
pub struct Heartbeat {
    /// Of the registration.
    pub session: String,
    /// Greater with each one, also across registrations. What is older than what is known changes nothing.
    pub seq: u64,
    /// All commands up to this number have come, and are done sooner or later.
    pub taken_through: u64,
    /// What came of those that are done; each is told until a heartbeat that told it was answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<CommandDone>,
    /// Its pools.
    #[serde(default)]
    pub pools: Vec<WorkerPool>,
    /// Its GPUs.
    #[serde(default)]
    pub devices: Vec<DeviceStatus>,
    /// Time since they were looked at, in milliseconds; absent when they cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices_age_ms: Option<u64>,
    /// It stops, and its engines with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
}

/// How a pool stands on the host that runs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerPool {
    /// The pool.
    pub pool_id: PoolId,
    /// What its engine is doing.
    pub state: PoolState,
    /// Whether tasks may be given to the engine.
    pub takes_tasks: bool,
    /// The model that is served, or is to be.
    pub model: String,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<WorkerFailure>,
    /// What is being done just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// The share of it that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// Times it was started again after a failure.
    pub restarts: u32,
    /// Time until it is tried again, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_in_ms: Option<u64>,
    /// The engine's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The engine, once prepared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<WorkerEngine>,
    /// The last reload, or the one under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<ReloadStatus>,
    /// Which engine the relay leads to, counted from 1 since the host's start; 0 while there is none.
    #[serde(default)]
    pub engine_number: u64,
    /// Whether it was opened or closed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<WorkerGate>,
    /// Times that a drain came to its deadline.
    #[serde(default)]
    pub cuts: u64,
    /// What is known of the model that was staged last, or that is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<WorkerModel>,
    /// It waits for memory of its devices before its engine is started: the orchestrator decides who has it. Counted from 1 since the
    /// host's start; the answer names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wants_memory: Option<u64>,
    /// What waits for memory takes over an engine of an earlier life, which has its memory already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub takes_over: bool,
    /// Memory of its devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<WorkerMemory>,
}

/// A model on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerModel {
    /// Its reference.
    pub reference: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Memory of devices that it needs for the pool, in bytes, where its files say enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need_bytes: Option<u64>,
}

/// Memory of a pool's devices together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerMemory {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What nobody uses, in bytes.
    pub free_bytes: u64,
    /// What the pool's engine holds, in bytes, where that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_bytes: Option<u64>,
    /// The least compute capability among the devices.
    pub compute_capability: String,
}

/// What went wrong with a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerFailure {
    /// Its kind.
    pub fault: PoolFault,
    /// What happened.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// An engine that was prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerEngine {
    /// Its version.
    pub version: String,
    /// Digest of its program or image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Its entry in the host's catalog of engines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog_id: Option<String>,
}

/// Whether a pool was opened or closed last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerGate {
    /// Times that it was opened or closed.
    pub turn: u64,
    /// Why it was closed; absent when it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<CloseReason>,
}

wire_words! {
    /// Why a pool takes no new tasks.
    CloseReason {
        /// Somebody wants it drained.
        Drain = "drain",
        /// Its engine is to be stopped.
        Stop = "stop",
        /// Another model is to be loaded.
        Reload = "reload",
        /// Its memory is wanted.
        Unload = "unload",
    }
}

wire_words! {
    /// Why something that was asked of a pool is not done.
    CommandRefusal {
        /// Another reload is under way.
        Reloading = "reloading",
        /// It drains or stops.
        Draining = "draining",
        /// It is being started.
        Starting = "starting",
        /// It does not serve.
        NotServing = "not_serving",
        /// The host's daemon ends.
        ShuttingDown = "shutting_down",
        /// The host does not run such a pool.
        NoSuchPool = "no_such_pool",
    }
}

/// A command that was carried out, or was not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandDone {
    /// Its number.
    pub number: u64,
    /// Why it was not carried out; absent when it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<CommandRefusal>,
}

/// Answer to a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"seq": 7, "commands": [{"number": 1, "pool_id": "box2-gpu0", "do": "start"}], "leases": []}))]
pub struct HeartbeatAnswer {
    /// The newest heartbeat that was taken in.
    pub seq: u64,
    /// What is to be done, in order. Each comes again until a heartbeat says that it has come.
    #[serde(default)]
    pub commands: Vec<WorkerCommand>,
    /// Tasks that hold slots of pools; those that are not named have none.
    #[serde(default)]
    pub leases: Vec<PoolLeases>,
}

/// Tasks of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolLeases {
    /// The pool.
    pub pool_id: PoolId,
    /// Those that hold one of its slots.
    pub count: u32,
}

/// Something to do for a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerCommand {
    /// Greater by one with each in a session, from 1.
    pub number: u64,
    /// The pool.
    pub pool_id: PoolId,
    /// What.
    #[serde(flatten)]
    pub order: WorkerOrder,
}

/// What is to be done with a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum WorkerOrder {
    /// Have it serve.
    Start,
    /// Have it take no new tasks.
    Drain {
        /// Time that running tasks have, in milliseconds.
        for_ms: u64,
    },
    /// Have its engine stopped.
    Stop {
        /// Time that running tasks have, in milliseconds.
        for_ms: u64,
    },
    /// Have it serve another model.
    Reload {
        /// Its reference.
        model: String,
    },
    /// A task has lost its engine: ask it at once how it is.
    LookNow,
    /// Have its engine stopped because its memory is wanted; it is started again when somebody asks for it.
    Unload,
    /// The memory that it waits for is its own.
    MemoryGranted {
        /// Of the wish.
        turn: u64,
    },
    /// There is none for it, and none is to be expected soon.
    MemoryRefused {
        /// Of the wish.
        turn: u64,
        /// Why not.
        failure: WorkerFailure,
    },
}

wire_words! {
    /// Whether a worker is there.
    WorkerState {
        /// It was heard from a moment ago.
        Up = "up",
        /// It was heard from, and is not any more.
        Away = "away",
        /// The configuration names it, and it has not registered since the orchestrator's start.
        Unknown = "unknown",
    }
}

/// A host that runs pools for this orchestrator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerStatus {
    /// Its name.
    pub id: WorkerId,
    /// Whether it is there.
    pub state: WorkerState,
    /// Where its relay is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Version of its software.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Time since it was heard from, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ms_ago: Option<i64>,
    /// What an operator should know, with what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complaint: Option<String>,
    /// The pools it runs.
    pub pools: Vec<PoolId>,
    /// Its GPUs, as it told last.
    pub devices: Vec<DeviceStatus>,
}

/// Every worker that the configuration names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerList {
    /// The workers, by name.
    pub workers: Vec<WorkerStatus>,
}
