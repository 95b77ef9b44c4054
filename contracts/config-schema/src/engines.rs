//! `[engines]`: what the engines that llama-orch runs itself have in common, and `[pools.supervision]`.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use api_types::words;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

words! {
    /// Which program runs containers.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
    ContainerRuntime {
        /// Podman where it is installed, else Docker.
        #[default]
        Auto = "auto",
        /// Podman.
        Podman = "podman",
        /// Docker.
        Docker = "docker",
    }
}

/// `[engines]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Engines {
    /// Where sources, builds and downloaded programs are kept, one folder for each kind of engine.
    pub cache_dir: PathBuf,
    /// The NVIDIA driver's management library. Unset: the one that the system finds. Environment: LLAMA_ORCH_NVML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvml_library: Option<PathBuf>,
    /// Which program runs containers.
    pub container_runtime: ContainerRuntime,
    /// Compilers that run at once while an engine is built. Unset: one for each core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_jobs: Option<NonZeroU32>,
    /// Size at which a log file of an engine is put aside, in bytes.
    pub log_max_bytes: NonZeroU64,
    /// Log files of an engine that are kept, the one that is written among them.
    pub log_files: NonZeroU32,
}

impl Default for Engines {
    fn default() -> Self {
        Self {
            cache_dir: PathBuf::from("~/.cache/llama-orch"),
            nvml_library: None,
            container_runtime: ContainerRuntime::Auto,
            build_jobs: None,
            log_max_bytes: NonZeroU64::new(16 << 20).expect("16 MiB is not zero"),
            log_files: NonZeroU32::new(4).expect("4 is not zero"),
        }
    }
}

/// `[pools.supervision]`: how the engine of a managed pool is started, watched and started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Supervision {
    /// Time an engine has to become ready, in milliseconds, if its model were of no size; `start_ms_per_gib` is added. It
    /// begins anew whenever the start makes progress.
    #[schemars(range(min = 1))]
    pub start_timeout_ms: u64,
    /// Further time for each GiB of the model, in milliseconds.
    pub start_ms_per_gib: u64,
    /// Time an engine has to end when it is asked to, in milliseconds; then it is killed.
    pub stop_grace_ms: u64,
    /// Gap between two looks at a ready engine, in milliseconds.
    #[schemars(range(min = 1, max = 4000))]
    pub probe_interval_ms: u64,
    /// Longest that an engine may take to answer such a look, in milliseconds.
    #[schemars(range(min = 1))]
    pub probe_timeout_ms: u64,
    /// Looks that must fail one after the other before an engine counts as hung and is started again.
    pub probe_failures: NonZeroU32,
    /// Wait before the first restart, in milliseconds; it doubles with each further one.
    #[schemars(range(min = 1))]
    pub restart_backoff_ms: u64,
    /// Longest wait before a restart, in milliseconds.
    #[schemars(range(min = 1))]
    pub restart_backoff_max_ms: u64,
    /// Restarts within `circuit_window_ms` after which there are no more until that time has passed.
    pub circuit_restarts: NonZeroU32,
    /// Time within which restarts count together, and for which a pool rests after too many, in milliseconds.
    #[schemars(range(min = 1))]
    pub circuit_window_ms: u64,
    /// Time running tasks have when a pool drains and nobody says how long, in milliseconds.
    pub drain_ms: u64,
    /// Whether an engine must pass a short decode and a cancel before it gets tasks.
    pub self_test: bool,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            start_timeout_ms: 60_000,
            start_ms_per_gib: 15_000,
            stop_grace_ms: 10_000,
            probe_interval_ms: 1000,
            probe_timeout_ms: 3000,
            probe_failures: NonZeroU32::new(3).expect("3 is not zero"),
            restart_backoff_ms: 1000,
            restart_backoff_max_ms: 60_000,
            circuit_restarts: NonZeroU32::new(5).expect("5 is not zero"),
            circuit_window_ms: 300_000,
            drain_ms: 60_000,
            self_test: true,
        }
    }
}

impl Supervision {
    /// Longest gap between two looks at an engine: placement does not rely on what is older than five seconds.
    pub const PROBE_INTERVAL_MAX_MS: u64 = 4000;

    /// Time an engine has to end when it is asked to.
    #[must_use]
    pub const fn stop_grace(&self) -> Duration {
        Duration::from_millis(self.stop_grace_ms)
    }

    /// Gap between two looks at a ready engine.
    #[must_use]
    pub const fn probe_interval(&self) -> Duration {
        Duration::from_millis(self.probe_interval_ms)
    }

    /// Longest that an engine may take to answer a look.
    #[must_use]
    pub const fn probe_timeout(&self) -> Duration {
        Duration::from_millis(self.probe_timeout_ms)
    }
}
