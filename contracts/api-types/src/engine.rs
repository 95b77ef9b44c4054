//! Engines that were prepared here, what preparing one takes, and the GPUs they run on.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::pool::PoolFault;
use crate::vocabulary::Engine;

/// An engine that was built, pulled or downloaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PreparedEngineRecord {
    /// Its id.
    pub id: String,
    /// The kind of engine.
    pub engine: Engine,
    /// Its version.
    pub version: String,
    /// What it was built from: a commit or a tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_ref: Option<String>,
    /// Digest of its program or image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Flags it was built with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_flags: Vec<String>,
    /// What there is of it: paths, or references to images.
    pub artifacts: Vec<String>,
    /// When it was prepared, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// Pools that use it.
    pub used_by: Vec<String>,
}

/// Every engine that was prepared here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EngineList {
    /// The engines, by id.
    pub engines: Vec<PreparedEngineRecord>,
}

/// What preparing a pool's engine takes; nothing of it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"pool_id": "gpu0", "steps": [{"kind": "clone", "detail": "https://example.org/llama.cpp at b6891"}]}))]
pub struct EnginePlan {
    /// The pool.
    pub pool_id: String,
    /// The steps, in order.
    pub steps: Vec<EnginePlanStep>,
}

/// A step of an [`EnginePlan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnginePlanStep {
    /// Its kind, such as `check`, `clone`, `configure`, `build`, `download`, `verify`, `unpack`, `pull`, `start`.
    pub kind: String,
    /// What is done.
    pub detail: String,
}

/// A GPU of the server's host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceStatus {
    /// Its index, in the order of the PCI bus.
    pub index: u32,
    /// Its UUID.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// CUDA compute capability, such as `8.6`.
    pub compute_capability: String,
    /// Memory in all, in bytes.
    pub vram_total_bytes: i64,
    /// Memory that nobody uses, in bytes.
    pub vram_free_bytes: i64,
    /// Share of time in which it computed, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_percent: Option<f64>,
    /// Temperature in degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<f64>,
    /// Power draw in watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_w: Option<f64>,
    /// Memory errors that could not be corrected, since the driver was loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecc_uncorrected: Option<i64>,
    /// Its MIG instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mig: Vec<MigStatus>,
    /// Processes that hold memory of it.
    pub processes: Vec<DeviceProcess>,
    /// Pools that may use it.
    pub pools: Vec<String>,
    /// Why it cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A MIG instance of a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MigStatus {
    /// Its UUID, `MIG-…`.
    pub uuid: String,
    /// Memory in all, in bytes.
    pub vram_total_bytes: i64,
    /// Memory that nobody uses, in bytes.
    pub vram_free_bytes: i64,
}

/// A process that holds memory of a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceProcess {
    /// Its process id.
    pub pid: u32,
    /// Memory it holds, in bytes; absent when the driver does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vram_bytes: Option<i64>,
    /// The pool whose engine it is; absent for any other program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_id: Option<String>,
}

/// The GPUs of the server's host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceList {
    /// Version of the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The GPUs.
    pub devices: Vec<DeviceStatus>,
    /// Why there are none, when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to do about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Which lines of an engine's output to send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Last lines to begin with; 200 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u32>,
    /// Whether to go on with new lines until the client leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

/// What a look at a host found that would keep engines from starting, or would not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DoctorReport {
    /// Whether every pool could start, as far as can be told without starting it.
    pub ok: bool,
    /// The findings, in the order in which a start would meet them.
    pub checks: Vec<DoctorCheck>,
}

/// One finding of a [`DoctorReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DoctorCheck {
    /// What was looked at, such as `driver`, `cuda`, `cmake`, `disk`.
    pub name: String,
    /// The pool it matters for; absent when for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_id: Option<String>,
    /// What came of it.
    pub outcome: DoctorOutcome,
    /// What was found.
    pub detail: String,
    /// The kind of trouble.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<PoolFault>,
    /// What to do: a command where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

crate::words::wire_words! {
    /// What came of a check.
    DoctorOutcome {
        /// As it must be.
        Pass = "pass",
        /// Works, but something could be better.
        Warn = "warn",
        /// Would keep an engine from starting.
        Fail = "fail",
    }
}
