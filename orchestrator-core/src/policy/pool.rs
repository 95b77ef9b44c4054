//! A pool as placement sees it.

use std::sync::Arc;

use api_types::{DeterminismLevel, Engine, PoolId, Priority};
use serde::{Deserialize, Serialize};

use crate::classes::PerClass;

/// What stands between a newcomer and a slot of a pool, as predicted. Times are absolute where they run down by themselves,
/// so that nothing has to be computed anew while nothing happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// When the next slot falls free, on the clock of `now_ms`; a time in the past means now.
    pub slot_free_at_ms: u64,
    /// Work waiting in each class, spread over the slots, in milliseconds.
    pub backlog_ms: PerClass<f64>,
}

impl Load {
    /// Predicted wait of a newcomer, in milliseconds.
    #[must_use]
    pub fn wait_ms(&self, priority: Priority, now_ms: u64) -> f64 {
        let ahead = match priority {
            Priority::Interactive => self.backlog_ms.interactive,
            Priority::Batch => self.backlog_ms.interactive + self.backlog_ms.batch,
        };
        self.slot_free_at_ms.saturating_sub(now_ms) as f64 + ahead
    }
}

/// A pool whose model is not loaded, or is about to make room for another, and is loaded when a task asks for it (LO-SWP-01).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColdStart {
    /// When it is predicted to take tasks, on the clock of `now_ms`; a time in the past means soon.
    pub ready_at_ms: u64,
    /// Whether that rests on earlier loads; if not it is a rough guess.
    pub measured: bool,
}

impl ColdStart {
    /// Predicted time until it takes tasks, in milliseconds.
    #[must_use]
    pub const fn wait_ms(&self, now_ms: u64) -> u64 {
        self.ready_at_ms.saturating_sub(now_ms)
    }
}

/// Why a pool is not ready, for those whom it refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What is wrong, and what to do about it.
    pub text: Arc<str>,
    /// It does not pass by waiting.
    pub lasting: bool,
}

/// A pool at one moment (LO-PLC-11). What could not be observed is `None`, or 0 where a number says so; it is never guessed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolSnapshot {
    /// The pool.
    pub id: PoolId,
    /// The kind of engine.
    pub engine: Engine,
    /// Names under which it serves its model: the configured reference first, then aliases. Without surrounding whitespace.
    pub models: Arc<[Arc<str>]>,
    /// Tasks it runs at the same time.
    pub slots_total: i32,
    /// Slots without a task.
    pub slots_free: i32,
    /// Tasks waiting in its queue.
    pub queued: i32,
    /// Most tasks that may wait in its queue.
    pub queue_capacity: i32,
    /// Classes that have reached a limit of their own.
    pub class_full: PerClass<bool>,
    /// Video memory in all, in bytes; 0 when it cannot be read, and then no memory filter applies.
    pub vram_total_bytes: i64,
    /// Video memory free, in bytes.
    pub vram_free_bytes: i64,
    /// CUDA compute capability, such as `8.6`.
    pub compute_capability: Option<String>,
    /// Measured decode speed of one task, in tokens per second.
    pub perf_tokens_per_s: Option<f64>,
    /// Measured time from dispatch to the first token, in milliseconds.
    pub first_token_ms: Option<f64>,
    /// Measured share of its limit that an output reaches.
    pub output_share: Option<f64>,
    /// What stands between a newcomer and a slot, once the pool's speed is known.
    pub load: Option<Load>,
    /// The devices it may use.
    pub device_mask: Option<String>,
    /// It takes no new work.
    pub draining: bool,
    /// It can take work.
    pub ready: bool,
    /// It is loaded when a task asks for it; until then it takes tasks and starts none.
    pub cold: Option<ColdStart>,
    /// Why it is not ready, where that is known.
    pub trouble: Option<Trouble>,
    /// The engine's own version.
    pub engine_version: Option<String>,
    /// Largest context of one slot that a task can really use, in tokens (OC-CORE-1015).
    pub ctx_max_supported: Option<i32>,
    /// Quantisations it can run; empty when it does not tell.
    pub quants: Arc<[String]>,
    /// Additional abilities by name.
    pub features: Arc<[String]>,
    /// When it was last heard from, on the clock of `now_ms`; `None` for a source that has no heartbeat.
    pub heartbeat_ms: Option<u64>,
    /// The sampler profile in force.
    pub sampler_profile_version: Option<String>,
    /// Whether it promises equal bytes for equal requests.
    pub determinism: DeterminismLevel,
}

impl PoolSnapshot {
    /// A pool that is known by its configuration only: not ready, nothing measured, no slot.
    #[must_use]
    pub fn new(id: PoolId, engine: Engine, models: &[&str]) -> Self {
        Self {
            id,
            engine,
            models: models.iter().map(|name| Arc::from(name.trim())).collect(),
            slots_total: 0,
            slots_free: 0,
            queued: 0,
            queue_capacity: 0,
            class_full: PerClass { interactive: false, batch: false },
            vram_total_bytes: 0,
            vram_free_bytes: 0,
            compute_capability: None,
            perf_tokens_per_s: None,
            first_token_ms: None,
            output_share: None,
            load: None,
            device_mask: None,
            draining: false,
            ready: false,
            cold: None,
            trouble: None,
            engine_version: None,
            ctx_max_supported: None,
            quants: Arc::from([]),
            features: Arc::from([]),
            heartbeat_ms: None,
            sampler_profile_version: None,
            determinism: DeterminismLevel::Strict,
        }
    }

    /// Whether its queue has no room for a task of this class.
    #[must_use]
    pub fn is_full_for(&self, priority: Priority) -> bool {
        *self.class_full.of(priority) || (self.queue_capacity > 0 && self.queued >= self.queue_capacity)
    }

    /// Whether it serves a model under this name; whitespace around the name means nothing.
    #[must_use]
    pub fn serves(&self, model_ref: &str) -> bool {
        let wanted = model_ref.trim();
        self.models.iter().any(|name| **name == *wanted)
    }
}
