//! `[[pools]]`: engines, and how tasks wait for them.

use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::time::Duration;

use api_types::{DeterminismLevel, Engine, PoolId, Priority, WorkerId, words};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::device::DeviceRef;
use crate::engines::Supervision;
use crate::limits::RateLimit;
use crate::provisioning::{EngineSource, MissingTable, Provisioning, ProvisioningMode};

/// One pool: one engine with one model, or several that are replicas of each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name, unique.
    #[schemars(with = "String", length(min = 1))]
    pub id: PoolId,
    /// The kind of engine.
    pub engine: Engine,
    /// The model, as tasks name it; also what is fetched, unless `provisioning.model.ref` says otherwise.
    #[schemars(length(min = 1))]
    pub model: String,
    /// The model's quantisation, for reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quant: Option<String>,
    /// Context of one slot, in tokens. Unset: the engine's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctx: Option<NonZeroU32>,
    /// Tasks that run at the same time on one replica. More than one cannot be `strict`.
    #[serde(default = "one")]
    pub slots: NonZeroU32,
    /// Whether equal requests give equal bytes: `strict` means one slot and no prompt cache. Unset: a pool of one slot is
    /// strict, any other is best effort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub determinism: Option<DeterminismLevel>,
    /// The host that runs it, by the `worker.id` of its `pool-managerd`. Unset: this one. Only for managed pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(min = 1))]
    pub worker: Option<WorkerId>,
    /// GPUs of its host that it may use, by index or UUID. An external pool needs none.
    #[serde(default)]
    pub devices: Vec<DeviceRef>,
    /// Share of the model on each device, in the order of `devices`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensor_split: Option<Vec<f32>>,
    /// When the model is loaded.
    #[serde(default)]
    pub activation: Activation,
    /// Idle time after which an on-demand pool is unloaded, in milliseconds; 0 never unloads it for that reason.
    #[serde(default = "ten_minutes_ms")]
    pub idle_unload_ms: u64,
    /// Whether it stays loaded when another pool needs the memory. Unset: preloaded pools stay, on-demand ones do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<bool>,
    /// Whether all replicas must run the same engine version.
    #[serde(default = "yes")]
    pub require_same_engine_version: bool,
    /// Version of the sampler settings, for the determinism record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler_profile_version: Option<String>,
    /// `[pools.queue]`.
    #[serde(default)]
    pub queue: Queue,
    /// `[pools.admission]`.
    #[serde(default)]
    pub admission: Admission,
    /// `[pools.timeouts]`.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// `[pools.calls]`.
    #[serde(default)]
    pub calls: Calls,
    /// `[pools.supervision]`.
    #[serde(default)]
    pub supervision: Supervision,
    /// `[pools.provisioning]`.
    #[serde(default)]
    pub provisioning: Provisioning,
}

impl Pool {
    /// How its engine comes to be: as the file says, else the engine's usual way (ORCH-3800).
    #[must_use]
    pub fn mode(&self) -> ProvisioningMode {
        self.provisioning.mode.unwrap_or(match self.engine {
            Engine::Llamacpp => ProvisioningMode::Source,
            Engine::Vllm | Engine::Tgi | Engine::Triton => ProvisioningMode::Container,
            Engine::Openai | Engine::Mock => ProvisioningMode::External,
        })
    }

    /// What it promises about equal requests: as the file says, else what its slots allow.
    #[must_use]
    pub fn determinism(&self) -> DeterminismLevel {
        self.determinism.unwrap_or(match self.slots.get() {
            1 => DeterminismLevel::Strict,
            _ => DeterminismLevel::BestEffort,
        })
    }

    /// Whether llama-orch starts the engine itself, and so owns its devices.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.mode() != ProvisioningMode::External
    }

    /// Whether its engine is started on this host.
    #[must_use]
    pub fn is_managed_here(&self) -> bool {
        self.is_managed() && self.worker.is_none()
    }

    /// The settings of its mode.
    ///
    /// # Errors
    /// [`MissingTable`]; never for a pool of a loaded configuration.
    pub fn engine_source(&self) -> Result<EngineSource<'_>, MissingTable> {
        match self.provisioning.source_for(self.mode()) {
            Err(_) if self.engine == Engine::Mock && !self.is_managed() => Ok(EngineSource::Simulated),
            source => source,
        }
    }

    /// Whether this version can talk to its engine. It reads the configuration of others, too.
    #[must_use]
    pub fn has_adapter(&self) -> bool {
        match self.engine {
            Engine::Llamacpp => true,
            Engine::Mock => matches!(self.engine_source(), Ok(EngineSource::Simulated)),
            Engine::Vllm | Engine::Tgi | Engine::Triton | Engine::Openai => false,
        }
    }

    /// Its devices as one text, in order: `0,1`, or `box2:0,1` on another host. `None` when it names none.
    #[must_use]
    pub fn device_mask(&self) -> Option<String> {
        let names: Vec<_> = self.devices.iter().map(ToString::to_string).collect();
        let host = self.worker.as_ref().map_or_else(String::new, |worker| format!("{worker}:"));
        (!names.is_empty()).then(|| format!("{host}{}", names.join(",")))
    }

    /// The model to fetch.
    #[must_use]
    pub fn model_to_fetch(&self) -> &str {
        self.provisioning.model.reference.as_deref().unwrap_or(&self.model)
    }

    /// Idle time after which it is unloaded; `None` for a pool that is not unloaded for that reason.
    #[must_use]
    pub fn idle_unload(&self) -> Option<Duration> {
        (self.activation == Activation::OnDemand && self.idle_unload_ms > 0)
            .then(|| Duration::from_millis(self.idle_unload_ms))
    }

    /// Whether it stays loaded when another pool needs the memory.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.keep.unwrap_or(self.activation == Activation::Preload)
    }

    /// Whether its engine is unloaded at times, and can put away what it holds of sessions (LO-SWP-07). A strict pool's engine
    /// holds nothing, and what one of another host holds is not asked for.
    #[must_use]
    pub fn parks_kv(&self) -> bool {
        let is_unloaded = self.activation == Activation::OnDemand || !self.is_kept();
        let has_cache = self.determinism() == DeterminismLevel::BestEffort;
        self.is_managed_here() && self.engine == Engine::Llamacpp && is_unloaded && has_cache
    }
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

fn ten_minutes_ms() -> u64 {
    600_000
}

fn yes() -> bool {
    true
}

words! {
    /// When a pool's model is loaded.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
    Activation {
        /// At start.
        #[default]
        Preload = "preload",
        /// When asked for; unloaded after `idle_unload_ms`.
        OnDemand = "on_demand",
    }
}

words! {
    /// What a full queue does.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
    FullPolicy {
        /// Refuses the newcomer.
        #[default]
        Reject = "reject",
        /// Makes room: the oldest batch task goes, else the oldest interactive one.
        DropLru = "drop-lru",
    }
}

/// `[pools.queue]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Most tasks that wait.
    pub capacity: NonZeroUsize,
    /// What happens to one more.
    pub full_policy: FullPolicy,
}

impl Default for Queue {
    fn default() -> Self {
        Self { capacity: NonZeroUsize::new(64).expect("64 is not zero"), full_policy: FullPolicy::Reject }
    }
}

/// `[pools.admission]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admission {
    /// Limits of single classes, at most one entry each; a class that is not named has none.
    pub priorities: Vec<PriorityLimits>,
}

impl Admission {
    /// The limits of one class.
    #[must_use]
    pub fn limits(&self, priority: Priority) -> Option<&PriorityLimits> {
        self.priorities.iter().find(|limits| limits.name == priority)
    }
}

/// One entry of `pools.admission.priorities`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriorityLimits {
    /// The class.
    pub name: Priority,
    /// Most tasks of this class that wait; at most the queue's capacity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_capacity: Option<NonZeroUsize>,
    /// Most tasks admitted per second. Unset is unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rate_limit_rps: Option<f64>,
    /// Tasks that are admitted at once before the rate applies. Unset: the rate rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit_burst: Option<NonZeroU32>,
    /// Share of starts while both classes wait: with interactive 4 and batch 1, after four interactive tasks one batch task
    /// starts. Both classes have a weight or neither. Unset: interactive tasks always start first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<NonZeroU16>,
}

impl PriorityLimits {
    /// The throttle on this class.
    #[must_use]
    pub fn rate_limit(&self) -> Option<RateLimit> {
        Some(RateLimit::new(self.rate_limit_rps?, self.rate_limit_burst))
    }
}

/// `[pools.timeouts]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Longest run of one task, in milliseconds.
    #[schemars(range(min = 1))]
    pub wall_ms: u64,
    /// Longest gap between two tokens, in milliseconds.
    #[schemars(range(min = 1))]
    pub idle_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { wall_ms: 600_000, idle_ms: 30_000 }
    }
}

impl Timeouts {
    /// Longest run of one task.
    #[must_use]
    pub fn wall(&self) -> Duration {
        Duration::from_millis(self.wall_ms)
    }

    /// Longest gap between two tokens.
    #[must_use]
    pub fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }
}

/// `[pools.calls]`: what happens when an engine fails its tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Calls {
    /// How often a task is offered again to an engine that could not take it just then, unless another one can.
    pub retries: u32,
    /// Failed tasks within `breaker_window_ms` after which an engine gets none.
    pub breaker_failures: NonZeroU32,
    /// Time within which they must come, in milliseconds.
    #[schemars(range(min = 1))]
    pub breaker_window_ms: u64,
    /// Time without tasks before one of them tries the engine, in milliseconds.
    #[schemars(range(min = 1))]
    pub breaker_cool_down_ms: u64,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            retries: 3,
            breaker_failures: NonZeroU32::new(5).expect("5 is not zero"),
            breaker_window_ms: 30_000,
            breaker_cool_down_ms: 5_000,
        }
    }
}

impl Calls {
    /// Time within which failures count together.
    #[must_use]
    pub fn breaker_window(&self) -> Duration {
        Duration::from_millis(self.breaker_window_ms)
    }

    /// Time without tasks.
    #[must_use]
    pub fn breaker_cool_down(&self) -> Duration {
        Duration::from_millis(self.breaker_cool_down_ms)
    }
}
