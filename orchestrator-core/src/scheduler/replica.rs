//! One replica of a pool: an engine with the pool's model.

use std::cmp::Reverse;
use std::sync::Arc;

use api_types::ReplicaId;

use super::{ReplicaFacts, ReplicaSpec};
use crate::policy::STALE_AFTER_MS;

#[derive(Debug)]
pub(super) struct Replica {
    pub(super) id: ReplicaId,
    /// Slots as configured; the engine may have fewer.
    configured_slots: u32,
    pub(super) slots: u32,
    /// Slots in use by our tasks.
    pub(super) active: u32,
    pub(super) live: bool,
    pub(super) ready: bool,
    pub(super) heartbeat_ms: Option<u64>,
    pub(super) ctx_max: Option<i32>,
    pub(super) engine_version: Option<Arc<str>>,
    pub(super) model_aliases: Vec<String>,
    pub(super) vram_total_bytes: i64,
    pub(super) vram_free_bytes: i64,
    pub(super) compute_capability: Option<String>,
    pub(super) features: Arc<[String]>,
}

impl Replica {
    pub(super) fn new(spec: ReplicaSpec) -> Self {
        Self {
            id: spec.replica_id,
            configured_slots: spec.slots,
            slots: spec.slots,
            active: 0,
            live: false,
            ready: false,
            heartbeat_ms: None,
            ctx_max: None,
            engine_version: None,
            model_aliases: Vec::new(),
            vram_total_bytes: 0,
            vram_free_bytes: 0,
            compute_capability: None,
            features: Arc::from([]),
        }
    }

    /// Takes in what a probe found; what it did not tell keeps its last known value.
    pub(super) fn take_in(&mut self, facts: &ReplicaFacts, now_ms: u64) {
        self.live = facts.live;
        self.ready = facts.ready;
        self.heartbeat_ms = Some(now_ms);
        if let Some(slots) = facts.slots_total {
            self.slots = slots.min(self.configured_slots);
        }
        if let Some(aliases) = &facts.model_aliases {
            self.model_aliases.clone_from(aliases);
        }
        if let Some(features) = facts.features.as_ref().filter(|features| **features != *self.features) {
            self.features = features.iter().cloned().collect();
        }
        if let Some(version) =
            facts.engine_version.as_deref().filter(|told| self.engine_version.as_deref() != Some(told))
        {
            self.engine_version = Some(version.into());
        }
        if facts.compute_capability.is_some() && facts.compute_capability != self.compute_capability {
            self.compute_capability.clone_from(&facts.compute_capability);
        }
        self.ctx_max = facts.ctx_max.or(self.ctx_max);
        self.vram_total_bytes = facts.vram_total_bytes.unwrap_or(self.vram_total_bytes);
        self.vram_free_bytes = facts.vram_free_bytes.unwrap_or(self.vram_free_bytes);
    }

    pub(super) const fn free_slots(&self) -> u32 {
        self.slots.saturating_sub(self.active)
    }

    pub(super) fn is_fresh(&self, now_ms: u64) -> bool {
        self.heartbeat_ms.is_some_and(|heard| now_ms.saturating_sub(heard) <= STALE_AFTER_MS)
    }

    /// ORCH-3012: most free memory, then fewest tasks, then first by id.
    pub(super) fn rank(&self) -> (Reverse<i64>, u32, &ReplicaId) {
        (Reverse(self.vram_free_bytes), self.active, &self.id)
    }
}
