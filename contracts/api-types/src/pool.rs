//! Pools as clients see them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::ErrorEnvelope;
use crate::ids::WorkerId;
use crate::vocabulary::Engine;
use crate::words::wire_words;

wire_words! {
    /// What the engine of a pool is doing.
    PoolState {
        /// Somebody else runs the engine; it is asked how it is, and nothing else.
        External = "external",
        /// There is no engine, and none is wanted: nobody has asked for one, or somebody had it stopped.
        Stopped = "stopped",
        /// Its model is not loaded, and is when a task asks for it.
        Cold = "cold",
        /// Devices, engine and model are made ready, and there is memory for them.
        Preparing = "preparing",
        /// The engine's process is up and loads its model.
        Starting = "starting",
        /// It takes tasks.
        Ready = "ready",
        /// It takes no new tasks, and finishes those that run.
        Draining = "draining",
        /// The engine's process has been asked to end.
        Stopping = "stopping",
        /// It failed and is started again after a pause.
        BackingOff = "backing_off",
        /// It failed too often and rests for longer, or in a way that no further attempt would change.
        Failed = "failed",
        /// The host that runs it has not been heard from, so nothing is known of it.
        Away = "away",
    }
}

wire_words! {
    /// What went wrong with a pool's engine.
    PoolFault {
        /// No NVIDIA driver, or none that works.
        NoDriver = "no_driver",
        /// The driver finds no GPU, or not the one that the pool is to use.
        NoDevice = "no_device",
        /// The driver has stopped to answer.
        DriverLost = "driver_lost",
        /// A GPU reports errors of its memory or of its bus.
        DeviceError = "device_error",
        /// CUDA cannot be used, or an engine was built without it.
        NoCuda = "no_cuda",
        /// A program that is needed is not installed.
        MissingTool = "missing_tool",
        /// The policy does not allow what the provisioning needs.
        NotAllowed = "not_allowed",
        /// The engine could not be fetched.
        FetchFailed = "fetch_failed",
        /// The engine could not be built.
        BuildFailed = "build_failed",
        /// This version cannot run such an engine.
        Unsupported = "unsupported",
        /// The model is not here and could not be fetched, or may not be used.
        ModelUnavailable = "model_unavailable",
        /// The engine cannot load the model.
        ModelUnusable = "model_unusable",
        /// No space left on a disk.
        DiskFull = "disk_full",
        /// The port is in use.
        PortTaken = "port_taken",
        /// The program could not be started.
        SpawnFailed = "spawn_failed",
        /// It ended while it loaded.
        ExitedDuringLoad = "exited_during_load",
        /// It did not become ready in time.
        StartTimeout = "start_timeout",
        /// It failed its start-up self-test.
        SelfTestFailed = "self_test_failed",
        /// It does not answer any more.
        Hung = "hung",
        /// It ended by itself.
        Crashed = "crashed",
        /// Somebody killed it.
        Killed = "killed",
        /// It reported a CUDA error.
        CudaError = "cuda_error",
        /// The model needs more memory than its GPUs have, whoever else uses them.
        TooLarge = "too_large",
        /// The GPU's memory is exhausted.
        VramExhausted = "vram_exhausted",
        /// The host's memory is exhausted.
        HostMemoryExhausted = "host_memory_exhausted",
        /// It was built for a processor with other instructions.
        IllegalInstruction = "illegal_instruction",
        /// The container runtime failed.
        ContainerFailed = "container_failed",
        /// The host that runs it has not been heard from.
        WorkerAway = "worker_away",
    }
}

wire_words! {
    /// How a reload stands.
    ReloadState {
        /// The new model is fetched and checked; the old one still serves.
        Staging = "staging",
        /// The old model's running tasks come to their end.
        Draining = "draining",
        /// The engine starts with the new model.
        Starting = "starting",
        /// The new model serves.
        Done = "done",
        /// It failed; the old model serves again, or is being brought back.
        RolledBack = "rolled_back",
    }
}

/// The last reload of a pool, or the one that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReloadStatus {
    /// The model that was asked for.
    pub new_model_ref: String,
    /// The model before.
    pub old_model_ref: String,
    /// How it stands.
    pub state: ReloadState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Health of one pool (OC-CTRL-2001).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "live": true, "ready": true, "draining": false,
    "metrics": {"slots_total": 1, "slots_free": 0, "queue_depth": 3},
    "engine_version": "b6891"
}))]
pub struct PoolHealth {
    /// The engine's process answers.
    pub live: bool,
    /// A task submitted now would be taken.
    pub ready: bool,
    /// No new task is taken.
    pub draining: bool,
    /// Measured values by name; what cannot be read is absent.
    #[schema(value_type = Object)]
    pub metrics: BTreeMap<String, Value>,
    /// Why it is not ready, with what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The engine's own version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,
    /// The devices it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_mask: Option<String>,
    /// What its engine is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PoolState>,
    /// What is being done just now, in words, while it is not ready: building, fetching, loading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// Share of that activity that is done, 0 to 1, where it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// The kind of `last_error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<PoolFault>,
    /// What to do about `last_error`, where that can be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Times the engine was started again after a failure, since the daemon's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<i32>,
    /// Time until the next attempt to start it, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_ms: Option<i64>,
    /// Process id of the engine, where it is a process of this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The last reload, or the one under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<ReloadStatus>,
}

/// One pool of `GET /v1/pools`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolStatus {
    /// The pool's id.
    pub id: String,
    /// The host that runs it; absent when that is the orchestrator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// The kind of engine.
    pub engine: Engine,
    /// The model it serves.
    pub model: String,
    /// Context of one slot, in tokens; absent until the engine has told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctx: Option<i32>,
    /// How the engine came to be: `external`, or how it was provisioned.
    pub provisioning: String,
    /// Where inference runs: a device mask, or `unverified` for an external engine.
    pub compute: String,
    /// Parallel tasks the engine takes.
    pub slots_total: i32,
    /// Slots not running a task of ours.
    pub slots_free: i32,
    /// Tasks waiting.
    pub queue_depth: i32,
    /// Most tasks that may wait.
    pub queue_capacity: i32,
    /// Video memory in all, in bytes; absent when it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vram_total_bytes: Option<i64>,
    /// Video memory free, in bytes; absent when it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vram_free_bytes: Option<i64>,
    /// Its health.
    pub health: PoolHealth,
}

/// All pools, in configuration order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolList {
    /// The pools.
    pub pools: Vec<PoolStatus>,
}

/// Body of `POST /v1/pools/{id}/drain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"deadline_ms": 60000}))]
pub struct DrainRequest {
    /// Time running tasks have to end, in milliseconds.
    pub deadline_ms: i64,
}

/// Body of `POST /v1/pools/{id}/stop`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"deadline_ms": 60000}))]
pub struct StopRequest {
    /// Time running tasks have to end, in milliseconds; unset: the pool's `supervision.drain_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<i64>,
}

/// Body of `POST /v1/pools/{id}/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"new_model_ref": "hf:org/repo/other.gguf"}))]
pub struct ReloadRequest {
    /// The model to serve instead.
    pub new_model_ref: String,
}

/// `GET /readyz`: 200 when at least one pool is ready and the daemon is not stopping, else 503 with the reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether tasks are taken.
    pub ready: bool,
    /// Pools that are ready.
    pub pools_ready: i32,
    /// Pools configured.
    pub pools_total: i32,
    /// Why not, when not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ErrorEnvelope>,
}
