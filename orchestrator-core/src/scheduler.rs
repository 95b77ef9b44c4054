//! The one mutable structure: pools, their queues, their leases, and every task that has not ended.
//!
//! The daemon keeps it under a mutex, tells it what happened, and carries out what it answers. Every choice of a pool goes
//! through [`decide`](crate::policy::decide). After anything that can make work startable (`admit`, `finish`, `requeue`, `update_pool`,
//! `drain`, `undrain`) the daemon calls [`Scheduler::next_dispatch`] until it gives `None`; a list of pools that may have
//! become able to start something keeps that cheap.

mod admit;
mod change;
mod dispatch;
mod pool;
mod query;
mod replica;
mod types;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use api_types::{Engine, PoolId, Priority, TaskId, TaskState};
use foldhash::fast::RandomState;

use crate::classes::PerClass;
use crate::estimate::{Demand, Estimate};
use crate::policy::{JobSpec, PlacementInput, PoolSnapshot};
use pool::{Forecast, Pool};

pub use query::Outlook;
pub use types::{
    Action, Admission, Canceled, Dispatch, NewTask, Outcome, PoolDemand, PoolSpec, PoolView, Rejection, ReplicaFacts,
    ReplicaSpec, ReplicaView, Requeued,
};

/// Pools, queues, leases and living tasks.
#[derive(Debug)]
pub struct Scheduler {
    pools: Vec<Pool>,
    /// What placement sees, one per pool; kept up to date in place.
    snapshots: Vec<PoolSnapshot>,
    by_id: HashMap<PoolId, usize>,
    /// Pools by engine and model name: those that may take over each other's tasks.
    serving: HashMap<(Engine, Arc<str>), Vec<usize>>,
    tasks: HashMap<TaskId, Task, RandomState>,
    /// Pools that may be able to start something, each at most once.
    startable: VecDeque<usize>,
    /// Waiting tasks of all pools.
    waiting: PerClass<usize>,
    snapshot_version: u64,
    admitted: u64,
}

/// A task that has not ended.
#[derive(Debug)]
struct Task {
    state: TaskState,
    job: JobSpec,
    demand: Demand,
    prompt_bytes: u64,
    pool: usize,
    /// Order of admission.
    sequence: u64,
    admitted_at_ms: u64,
    /// What it was told at its admission, and the pool that said so.
    foreseen: Forecast,
    foreseen_by: usize,
    deadline_at_ms: u64,
    /// Whether placement had to widen a preference for it.
    fallback_used: bool,
    /// How often it was dispatched.
    dispatches: u32,
    /// The pool and the replica that were lost under it.
    lost_on: Option<(usize, usize)>,
    cancel_asked: bool,
    dispatched_at_ms: u64,
    /// What it was predicted to take when it was dispatched.
    predicted: Estimate,
}

impl Scheduler {
    /// Pools as configured: none is ready until a probe says so. Of pools with the same id only the first is kept; the
    /// configuration refuses them before.
    #[must_use]
    pub fn new(specs: Vec<PoolSpec>) -> Self {
        let mut scheduler = Self {
            pools: Vec::with_capacity(specs.len()),
            snapshots: Vec::with_capacity(specs.len()),
            by_id: HashMap::with_capacity(specs.len()),
            serving: HashMap::new(),
            tasks: HashMap::default(),
            startable: VecDeque::new(),
            waiting: PerClass::default(),
            snapshot_version: 1,
            admitted: 0,
        };
        for spec in specs {
            if !scheduler.by_id.contains_key(&spec.pool_id) {
                scheduler.by_id.insert(spec.pool_id.clone(), scheduler.pools.len());
                scheduler.snapshots.push(pool::snapshot_of(&spec));
                scheduler.pools.push(Pool::new(spec));
            }
        }
        scheduler.index_models();
        scheduler
    }

    const fn placement<'a>(&'a self, job: &'a JobSpec, now_ms: u64) -> PlacementInput<'a> {
        PlacementInput { pools: self.snapshots.as_slice(), job, now_ms }
    }

    /// Finds out anew which pools serve which model. Equal names come to share one text, which makes placement faster.
    fn index_models(&mut self) {
        self.serving.clear();
        let mut texts: HashSet<Arc<str>> = HashSet::new();
        for (index, snapshot) in self.snapshots.iter_mut().enumerate() {
            texts.extend(snapshot.models.iter().cloned());
            snapshot.models = snapshot.models.iter().filter_map(|name| texts.get(name).cloned()).collect();
            for name in snapshot.models.iter() {
                self.serving.entry((snapshot.engine, Arc::clone(name))).or_default().push(index);
            }
        }
    }

    /// Puts a pool on the list of those that may be able to start something.
    fn list_startable(&mut self, index: usize) {
        let pool = &mut self.pools[index];
        if !pool.listed {
            pool.listed = true;
            self.startable.push_back(index);
        }
    }

    /// Copies what is counted here into what placement sees.
    fn refresh_load(&mut self, index: usize) {
        let (pool, snapshot) = (&self.pools[index], &mut self.snapshots[index]);
        let (slots, free) = pool.slots_to_come();
        snapshot.slots_free = i32::try_from(free).unwrap_or(i32::MAX);
        snapshot.queued = i32::try_from(pool.queue.len()).unwrap_or(i32::MAX);
        snapshot.class_full = PerClass {
            interactive: !pool.queue.has_room(Priority::Interactive),
            batch: !pool.queue.has_room(Priority::Batch),
        };
        if snapshot.perf_tokens_per_s.is_some() {
            snapshot.load = Some(pool.load(slots, free));
        }
    }

    /// Copies what was learned about a pool's speed into what placement sees.
    fn refresh_speed(&mut self, index: usize) {
        let (speed, snapshot) = (&self.pools[index].speed, &mut self.snapshots[index]);
        snapshot.perf_tokens_per_s = speed.tokens_per_s();
        snapshot.first_token_ms = speed.first_token_ms();
        snapshot.output_share = speed.limit_share();
    }

    /// Books a task that was put into a pool's queue.
    fn entered(&mut self, index: usize, priority: Priority, demand: Demand) {
        let waiting = self.pools[index].demand.of_mut(priority);
        *waiting = waiting.plus(demand);
        *self.waiting.of_mut(priority) += 1;
        self.refresh_load(index);
        self.list_startable(index);
    }

    /// Books a task that was taken out of a pool's queue.
    fn left(&mut self, index: usize, priority: Priority, demand: Demand) {
        let waiting = self.pools[index].demand.of_mut(priority);
        *waiting = waiting.minus(demand);
        *self.waiting.of_mut(priority) -= 1;
        self.refresh_load(index);
    }
}
