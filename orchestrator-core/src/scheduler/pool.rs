//! One pool's own state.

use api_types::{Priority, ReplicaId, TaskId};

use super::{PerClass, PoolSpec};
use crate::estimate::{Demand, Estimate, PoolSpeed, Waiting, predict_start_ms};
use crate::policy::PoolSnapshot;
use crate::queue::BoundedQueue;

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) replica_id: ReplicaId,
    pub(super) models: Vec<String>,
    /// Slots as configured; the engine may have fewer.
    pub(super) slots: u32,
    pub(super) queue: BoundedQueue<TaskId>,
    pub(super) leases: Vec<Lease>,
    /// What waits in the queue, added up.
    pub(super) demand: PerClass<Demand>,
    pub(super) speed: PoolSpeed,
    pub(super) live: bool,
    /// Whether it is on the list of pools that may be able to start something.
    pub(super) listed: bool,
}

/// A slot in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) task: TaskId,
    since_ms: u64,
    predicted_ms: u64,
}

impl Lease {
    pub(super) const fn new(task: TaskId, since_ms: u64, predicted_ms: u64) -> Self {
        Self { task, since_ms, predicted_ms }
    }

    /// What is left of the task. One that has outlived its prediction is given a quarter of it more, again and again.
    fn remainder_ms(&self, now_ms: u64) -> u64 {
        let elapsed = now_ms.saturating_sub(self.since_ms);
        if elapsed < self.predicted_ms { self.predicted_ms - elapsed } else { self.predicted_ms / 4 }
    }
}

impl Pool {
    pub(super) fn new(spec: PoolSpec) -> Self {
        Self {
            replica_id: spec.replica_id,
            models: spec.models,
            slots: spec.slots,
            queue: BoundedQueue::new(spec.queue_capacity, spec.full_policy),
            leases: Vec::new(),
            demand: PerClass::default(),
            speed: PoolSpeed::default(),
            live: false,
            listed: false,
        }
    }

    pub(super) fn release(&mut self, task: TaskId) {
        if let Some(index) = self.leases.iter().position(|lease| lease.task == task) {
            self.leases.swap_remove(index);
        }
    }

    /// When a task of this class with so many tasks ahead of it starts, in milliseconds from now.
    pub(super) fn predict_start(&self, slots: i32, priority: Priority, tasks_ahead: usize, now_ms: u64) -> Estimate {
        let slots = usize::try_from(slots).unwrap_or(0);
        let ahead = match priority {
            Priority::Interactive => self.demand.interactive,
            Priority::Batch => self.demand.interactive.plus(self.demand.batch),
        };
        let service = self.speed.service(&ahead);
        let waiting = Waiting {
            free_slots: slots.saturating_sub(self.leases.len()) as u64,
            tasks_ahead: tasks_ahead as u64,
            mean_service_ms: service.ms / ahead.tasks.max(1),
        };
        let ms = predict_start_ms(waiting, &self.leases.iter().map(|lease| lease.remainder_ms(now_ms)));
        Estimate { ms, measured: service.measured || ms == 0 }
    }
}

/// What placement knows about a pool before the first probe.
pub(super) fn snapshot_of(spec: &PoolSpec) -> PoolSnapshot {
    let slots = i32::try_from(spec.slots).unwrap_or(i32::MAX);
    let models: Vec<&str> = spec.models.iter().map(String::as_str).collect();
    PoolSnapshot {
        slots_total: slots,
        slots_free: slots,
        queue_capacity: i32::try_from(spec.queue_capacity).unwrap_or(i32::MAX),
        ctx_max_supported: spec.ctx_max,
        sampler_profile_version: spec.sampler_profile_version.clone(),
        determinism: spec.determinism,
        device_mask: spec.device_mask.clone(),
        ..PoolSnapshot::new(spec.pool_id.clone(), spec.engine, &models)
    }
}
