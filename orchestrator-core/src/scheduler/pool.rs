//! One pool's own state.

use std::sync::Arc;

use api_types::{Priority, ReplicaId, TaskId};

use super::replica::Replica;
use super::{PoolSpec, Task};
use crate::classes::PerClass;
use crate::estimate::{Accuracy, Demand, Estimate, PoolSpeed, Situation, Waiting, predict_start_ms};
use crate::policy::{ColdStart, Load, PoolSnapshot};
use crate::queue::{Ahead, BoundedQueue};
use crate::throttle::{RateLimit, Throttled, TokenBucket};

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) models: Vec<String>,
    pub(super) replicas: Vec<Replica>,
    /// Whether its replicas must run one and the same engine version (ORCH-3046).
    one_version: bool,
    pub(super) queue: BoundedQueue<TaskId>,
    pub(super) leases: Vec<Lease>,
    /// What waits in the queue, added up.
    pub(super) demand: PerClass<Demand>,
    pub(super) speed: PoolSpeed,
    pub(super) accuracy: Accuracy,
    pub(super) rates: PerClass<Option<Rate>>,
    /// As in its snapshot.
    pub(super) cold: Option<ColdStart>,
    pub(super) usage: Usage,
    /// Whether it is on the list of pools that may be able to start something.
    pub(super) listed: bool,
}

/// How fast tasks of a class may come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) limit: RateLimit,
    bucket: TokenBucket,
}

impl Rate {
    fn new(limit: RateLimit) -> Self {
        Self { limit, bucket: TokenBucket::new(limit, 0) }
    }

    pub(super) fn check(&self, now_ms: u64) -> Result<(), Throttled> {
        match self.bucket.wait_ms(now_ms) {
            0 => Ok(()),
            retry_after_ms => Err(Throttled { retry_after_ms }),
        }
    }

    pub(super) fn take(&mut self, now_ms: u64) {
        let taken = self.bucket.take(now_ms);
        debug_assert!(taken.is_ok(), "the caller has checked");
    }
}

/// When a pool was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// When a task was admitted, began or ended last.
    pub(super) last_ms: u64,
    arrived_ms: Option<u64>,
    /// Usual time between two admissions.
    pub(super) gap_ms: Option<u64>,
}

/// Weight of the past in the usual time between two admissions, of 8: what was usual an hour ago says little.
const PAST: u64 = 6;

impl Usage {
    /// A task was admitted.
    pub(super) fn arrived(&mut self, now_ms: u64) {
        if let Some(before_ms) = self.arrived_ms.replace(now_ms) {
            let gap_ms = now_ms.saturating_sub(before_ms);
            let usual = |usual_ms: u64| (usual_ms.saturating_mul(PAST) + gap_ms.saturating_mul(8 - PAST)) / 8;
            self.gap_ms = Some(self.gap_ms.map_or(gap_ms, usual));
        }
        self.touch(now_ms);
    }

    pub(super) fn touch(&mut self, now_ms: u64) {
        self.last_ms = self.last_ms.max(now_ms);
    }
}

/// A slot in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) task: TaskId,
    pub(super) replica: usize,
    priority: Priority,
    since_ms: u64,
    predicted_ms: u64,
}

impl Lease {
    pub(super) const fn new(
        task: TaskId,
        replica: usize,
        priority: Priority,
        since_ms: u64,
        predicted_ms: u64,
    ) -> Self {
        Self { task, replica, priority, since_ms, predicted_ms }
    }

    /// When it is predicted to end.
    const fn ends_at_ms(&self) -> u64 {
        self.since_ms + self.predicted_ms
    }

    /// What is left of the task.
    fn remainder_ms(&self, accuracy: &Accuracy, now_ms: u64) -> u64 {
        accuracy.remainder_ms(self.priority, self.predicted_ms, now_ms.saturating_sub(self.since_ms))
    }
}

/// What was predicted for a task at one moment, before any correction by experience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forecast {
    pub(super) situation: Situation,
    /// Time until it starts.
    pub(super) start_ms: u64,
    /// Time until it ends.
    pub(super) end_ms: u64,
    pub(super) measured: bool,
}

impl Pool {
    pub(super) fn new(spec: PoolSpec) -> Self {
        Self {
            models: spec.models,
            replicas: spec.replicas.into_iter().map(Replica::new).collect(),
            one_version: spec.require_same_engine_version,
            queue: BoundedQueue::new(spec.queue),
            leases: Vec::new(),
            demand: PerClass::default(),
            speed: PoolSpeed::default(),
            accuracy: Accuracy::default(),
            rates: PerClass {
                interactive: spec.rate_limits.interactive.map(Rate::new),
                batch: spec.rate_limits.batch.map(Rate::new),
            },
            cold: None,
            usage: Usage::default(),
            listed: false,
        }
    }

    /// The replica with this id.
    pub(super) fn replica(&self, id: &ReplicaId) -> Option<usize> {
        self.replicas.iter().position(|replica| replica.id == *id)
    }

    /// The engine version of the set: that of its first ready replica.
    pub(super) fn engine_version(&self) -> Option<&Arc<str>> {
        self.replicas.iter().find(|replica| replica.ready)?.engine_version.as_ref()
    }

    /// Whether a replica may run tasks: it is ready, and of the set's version where that matters.
    pub(super) fn is_usable(&self, replica: &Replica) -> bool {
        replica.ready && (!self.one_version || replica.engine_version.as_ref() == self.engine_version())
    }

    pub(super) fn usable(&self) -> impl Iterator<Item = (usize, &Replica)> + Clone {
        self.replicas.iter().enumerate().filter(|(_, replica)| self.is_usable(replica))
    }

    /// The replica for a task (ORCH-3012): its session's own if that has a free slot, else by rank. One on which the task
    /// was lost is the last resort.
    pub(super) fn pick_replica(&self, task: &Task, lost_on: Option<usize>, now_ms: u64) -> Option<usize> {
        let free = self.free_replicas(now_ms);
        let home = task.job.session_affinity_replica.as_ref();
        free.min_by_key(|(index, replica)| (lost_on == Some(*index), home != Some(&replica.id), replica.rank()))
            .map(|(index, _)| index)
    }

    pub(super) fn has_free_slot(&self, now_ms: u64) -> bool {
        self.free_replicas(now_ms).next().is_some()
    }

    /// Whether a replica other than that of a running task has a free slot.
    pub(super) fn has_free_slot_beside(&self, task: TaskId, now_ms: u64) -> bool {
        let own = self.leases.iter().find(|lease| lease.task == task).map(|lease| lease.replica);
        self.free_replicas(now_ms).any(|(index, _)| Some(index) != own)
    }

    fn free_replicas(&self, now_ms: u64) -> impl Iterator<Item = (usize, &Replica)> {
        self.usable().filter(move |(_, replica)| replica.free_slots() > 0 && replica.is_fresh(now_ms))
    }

    pub(super) fn lease(&mut self, lease: Lease) {
        self.replicas[lease.replica].active += 1;
        self.leases.push(lease);
    }

    /// Gives a task's slot back and says on which replica it was.
    pub(super) fn release(&mut self, task: TaskId) -> Option<usize> {
        let index = self.leases.iter().position(|lease| lease.task == task)?;
        let lease = self.leases.swap_remove(index);
        self.replicas[lease.replica].active -= 1;
        Some(lease.replica)
    }

    /// Slots of all usable replicas: in all, and free.
    pub(super) fn slots(&self) -> (u32, u32) {
        self.usable().fold((0, 0), |(all, free), (_, replica)| (all + replica.slots, free + replica.free_slots()))
    }

    /// The same once its model is loaded.
    pub(super) fn slots_to_come(&self) -> (u32, u32) {
        match self.cold {
            None => self.slots(),
            Some(_) => self.replicas.iter().fold((0, 0), |(all, free), replica| {
                (all.saturating_add(replica.slots), free.saturating_add(replica.free_slots()))
            }),
        }
    }

    /// Predicted time until every running task has ended, in milliseconds.
    pub(super) fn running_ms(&self, now_ms: u64) -> u64 {
        self.leases.iter().map(|lease| lease.remainder_ms(&self.accuracy, now_ms)).max().unwrap_or(0)
    }

    /// Predicted time until every running and waiting task has ended, in milliseconds.
    pub(super) fn backlog_ms(&self, now_ms: u64) -> u64 {
        let waiting = |demand: &Demand| if demand.tasks == 0 { 0 } else { self.speed.service(demand).ms };
        let work = waiting(&self.demand.interactive).saturating_add(waiting(&self.demand.batch));
        self.running_ms(now_ms).saturating_add(work / u64::from(self.slots_to_come().0.max(1)))
    }

    /// What is predicted for a task that has these ahead of it.
    pub(super) fn forecast(&self, priority: Priority, ahead: Ahead, demand: &Demand, now_ms: u64) -> Forecast {
        let start = self.predict_start(priority, ahead, now_ms);
        let service = self.speed.service(demand);
        let load_ms = self.cold.map_or(0, |cold| cold.wait_ms(now_ms));
        let start_ms = start.ms.saturating_add(load_ms);
        let situation = match start_ms {
            _ if self.cold.is_some() => Situation::loading(priority),
            0 => Situation::immediate(priority),
            _ => Situation::waiting(priority, ahead.all()),
        };
        Forecast {
            situation,
            start_ms,
            end_ms: start_ms.saturating_add(service.ms),
            measured: start.measured && service.measured && self.cold.is_none_or(|cold| cold.measured),
        }
    }

    /// When a task of this class with these ahead of it starts, in milliseconds from now.
    fn predict_start(&self, priority: Priority, ahead: Ahead, now_ms: u64) -> Estimate {
        let own = self.work_ahead(priority, ahead.own);
        let others = self.work_ahead(other(priority), ahead.others);
        let tasks_ahead = ahead.all() as u64;
        let waiting = Waiting {
            free_slots: u64::from(self.slots_to_come().1),
            tasks_ahead,
            mean_service_ms: (own.ms + others.ms) / tasks_ahead.max(1),
        };
        let running: Vec<u64> = self.leases.iter().map(|lease| lease.remainder_ms(&self.accuracy, now_ms)).collect();
        let ms = predict_start_ms(waiting, &running.iter().copied());
        let measured = self.speed.service_ms().is_some() || self.speed.tokens_per_s().is_some();
        Estimate { ms, measured: measured || ms == 0 }
    }

    /// Work of so many waiting tasks of a class, as if all of the class were alike.
    fn work_ahead(&self, priority: Priority, tasks: usize) -> Estimate {
        let demand = self.demand.of(priority);
        let whole = self.speed.service(demand);
        let share = if demand.tasks == 0 { 0.0 } else { tasks as f64 / demand.tasks as f64 };
        Estimate { ms: (whole.ms as f64 * share).round() as u64, ..whole }
    }

    /// What placement learns of the work here.
    pub(super) fn load(&self, slots: u32, free: u32) -> Load {
        let is_free = free > 0 && self.queue.is_empty();
        let next = || self.leases.iter().map(Lease::ends_at_ms).min().unwrap_or(0);
        let backlog = |demand: &Demand| self.speed.service(demand).ms as f64 / f64::from(slots.max(1));
        Load {
            slot_free_at_ms: if is_free { 0 } else { next() },
            backlog_ms: PerClass { interactive: backlog(&self.demand.interactive), batch: backlog(&self.demand.batch) },
        }
    }
}

const fn other(priority: Priority) -> Priority {
    match priority {
        Priority::Interactive => Priority::Batch,
        Priority::Batch => Priority::Interactive,
    }
}

/// What placement knows about a pool before the first probe.
pub(super) fn snapshot_of(spec: &PoolSpec) -> PoolSnapshot {
    let slots = spec.replicas.iter().map(|replica| replica.slots).fold(0, u32::saturating_add);
    let slots = i32::try_from(slots).unwrap_or(i32::MAX);
    let models: Vec<&str> = spec.models.iter().map(String::as_str).collect();
    PoolSnapshot {
        slots_total: slots,
        slots_free: slots,
        queue_capacity: i32::try_from(spec.queue.capacity).unwrap_or(i32::MAX),
        ctx_max_supported: spec.ctx_max,
        sampler_profile_version: spec.sampler_profile_version.clone(),
        determinism: spec.determinism,
        device_mask: spec.device_mask.clone(),
        ..PoolSnapshot::new(spec.pool_id.clone(), spec.engine, &models)
    }
}
