//! What the scheduler is told of pools: their configuration, and what probes find.

use std::num::NonZeroU16;

use api_types::{DeterminismLevel, ReplicaId};
use orchestrator_core::classes::PerClass;
use orchestrator_core::queue::{QueueLimits, Weights};
use orchestrator_core::scheduler::{PoolSpec, ReplicaFacts, ReplicaSpec};
use orchestrator_core::throttle::RateLimit;

use crate::faults::Condition;
use crate::load::ENGINE;
use crate::scenario::{Pool, Scenario};

/// Video memory that the model takes, in bytes.
const MODEL_BYTES: i64 = 5 << 30;
/// Video memory that the context of one running task takes, in bytes per token.
const BYTES_PER_TOKEN: i64 = 64 << 10;

pub(super) fn specs(scenario: &Scenario) -> Vec<PoolSpec> {
    scenario.pools.iter().map(spec).collect()
}

/// A replica's name is its place.
pub(super) fn replica_id(place: usize) -> ReplicaId {
    format!("r{place}").into()
}

fn spec(pool: &Pool) -> PoolSpec {
    let replicas = pool.replicas.iter().enumerate();
    PoolSpec {
        pool_id: pool.id.into(),
        replicas: replicas
            .map(|(place, replica)| ReplicaSpec { replica_id: replica_id(place), slots: replica.slots })
            .collect(),
        require_same_engine_version: true,
        engine: ENGINE,
        models: vec![pool.model.to_owned()],
        queue: QueueLimits {
            class_capacity: PerClass { interactive: None, batch: pool.batch_capacity },
            weights: pool.weights.and_then(weights),
            ..QueueLimits::new(pool.capacity, pool.full_policy)
        },
        rate_limits: PerClass {
            interactive: None,
            batch: pool.batch_rate.map(|(rate_per_s, burst)| RateLimit { rate_per_s, burst }),
        },
        determinism: DeterminismLevel::BestEffort,
        sampler_profile_version: None,
        device_mask: pool.device_mask.map(str::to_owned),
        ctx_max: None,
    }
}

fn weights((interactive, batch): (u16, u16)) -> Option<Weights> {
    Some(PerClass { interactive: NonZeroU16::new(interactive)?, batch: NonZeroU16::new(batch)? })
}

/// What a probe finds.
pub(super) fn facts(pool: &Pool, replica: usize, condition: Condition, running: usize) -> ReplicaFacts {
    let of = &pool.replicas[replica];
    let vram_total_bytes = of.vram_gib << 30;
    let contexts = i64::from(pool.ctx) * BYTES_PER_TOKEN * running as i64;
    ReplicaFacts {
        ready: condition.is_ready(),
        live: condition.is_live(),
        slots_total: Some(of.slots),
        ctx_max: Some(pool.ctx),
        vram_total_bytes: Some(vram_total_bytes),
        vram_free_bytes: Some((vram_total_bytes - MODEL_BYTES - contexts).max(0)),
        ..ReplicaFacts::default()
    }
}
