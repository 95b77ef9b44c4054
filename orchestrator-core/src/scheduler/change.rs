//! Pools that change, and what that does to the tasks waiting for them.

use std::sync::Arc;

use api_types::{PlacementMode, PoolId, Priority, ReplicaId, TaskId};

use super::replica::Replica;
use super::{Action, ReplicaFacts, Scheduler};
use crate::estimate::{Accuracy, PoolSpeed};
use crate::policy::{ColdStart, PlacementDecision, PoolSnapshot, Trouble, decide, explain, misfit};
use crate::queue::EnqueueError;

impl Scheduler {
    /// Takes in what a probe found out about a replica. Tasks waiting for a pool that has become unready are placed again unless they are
    /// pinned; where no other pool can take them now, they stay and wait until their deadline. Tasks that a changed pool
    /// can no longer run at all are placed again or rejected. An unknown pool or replica changes nothing.
    pub fn update_replica(
        &mut self,
        pool_id: &PoolId,
        replica_id: &ReplicaId,
        facts: &ReplicaFacts,
        now_ms: u64,
    ) -> Vec<Action> {
        let Some(index) = self.by_id.get(pool_id).copied() else {
            return Vec::new();
        };
        let Some(replica) = self.pools[index].replica(replica_id) else {
            return Vec::new();
        };
        let before = self.snapshots[index].clone();
        self.pools[index].replicas[replica].take_in(facts, now_ms);
        self.refresh_abilities(index);
        self.after_change(index, &before, now_ms)
    }

    /// A pool serves these models from now on, and no longer those before. What was measured of the old ones is forgotten. Tasks
    /// that wait for them go to other pools, or are rejected. An unknown pool changes nothing.
    pub fn serve_models(&mut self, pool_id: &PoolId, models: Vec<String>, now_ms: u64) -> Vec<Action> {
        let Some(index) = self.by_id.get(pool_id).copied() else {
            return Vec::new();
        };
        if self.pools[index].models == models {
            return Vec::new();
        }
        let before = self.snapshots[index].clone();
        let pool = &mut self.pools[index];
        pool.models = models;
        pool.speed = PoolSpeed::default();
        pool.accuracy = Accuracy::default();
        for replica in &mut pool.replicas {
            replica.model_aliases.clear();
        }
        self.snapshots[index].models = names(self.pools[index].models.iter());
        self.refresh_abilities(index);
        self.after_change(index, &before, now_ms)
    }

    /// Stops a pool from taking work; running tasks go on, waiting ones are placed again as in `update_pool`.
    pub fn drain(&mut self, pool_id: &PoolId, now_ms: u64) -> Vec<Action> {
        self.set_draining(pool_id, true, now_ms)
    }

    /// Lets a pool take work again.
    pub fn undrain(&mut self, pool_id: &PoolId, now_ms: u64) -> Vec<Action> {
        self.set_draining(pool_id, false, now_ms)
    }

    /// A pool's model is not loaded, or is to make room, and is loaded when a task asks for it: from now on it takes tasks and
    /// starts none. `None`: it starts tasks when it is ready, and takes none when it is not. Its running tasks go on.
    pub fn set_cold(&mut self, pool_id: &PoolId, cold: Option<ColdStart>, now_ms: u64) -> Vec<Action> {
        let Some(index) = self.by_id.get(pool_id).copied().filter(|index| self.snapshots[*index].cold != cold) else {
            return Vec::new();
        };
        let before = self.snapshots[index].clone();
        self.snapshots[index].cold = cold;
        self.pools[index].cold = cold;
        self.refresh_load(index);
        self.after_change(index, &before, now_ms)
    }

    /// What a refusal says of a pool that is not ready. An unknown pool changes nothing.
    pub fn set_trouble(&mut self, pool_id: &PoolId, trouble: Option<Trouble>) {
        if let Some(index) = self.by_id.get(pool_id) {
            self.snapshots[*index].trouble = trouble;
        }
    }

    /// A pool will not be ready again by itself: tasks that wait for it are placed again or end, with what [`Self::set_trouble`] was
    /// told. An unknown pool changes nothing.
    pub fn give_up(&mut self, pool_id: &PoolId, now_ms: u64) -> Vec<Action> {
        let Some(index) = self.by_id.get(pool_id).copied() else {
            return Vec::new();
        };
        let mut actions = Vec::new();
        self.place_again(index, now_ms, &mut actions);
        for task in self.waiting_for(index) {
            actions.push(self.reject(task, index, now_ms));
        }
        actions
    }

    fn set_draining(&mut self, pool_id: &PoolId, draining: bool, now_ms: u64) -> Vec<Action> {
        let Some(index) = self.by_id.get(pool_id).copied() else {
            return Vec::new();
        };
        let before = self.snapshots[index].clone();
        self.snapshots[index].draining = draining;
        self.after_change(index, &before, now_ms)
    }

    /// Makes one pool out of what is known of its replicas: what a task needs must hold on whichever of them it runs.
    fn refresh_abilities(&mut self, index: usize) {
        let (pool, snapshot) = (&self.pools[index], &mut self.snapshots[index]);
        let all = || pool.usable().map(|(_, replica)| replica);
        snapshot.ready = all().next().is_some();
        snapshot.heartbeat_ms = pool.replicas.iter().filter_map(|replica| replica.heartbeat_ms).max();
        let Some(first) = all().next() else {
            self.refresh_load(index);
            return;
        };
        snapshot.heartbeat_ms = all().filter_map(|replica| replica.heartbeat_ms).max();
        snapshot.slots_total = i32::try_from(pool.slots().0).unwrap_or(i32::MAX);
        snapshot.ctx_max_supported = all().filter_map(|replica| replica.ctx_max).min().or(snapshot.ctx_max_supported);
        snapshot.vram_total_bytes = all().map(|replica| replica.vram_total_bytes).max().unwrap_or(0);
        snapshot.vram_free_bytes = all().map(|replica| replica.vram_free_bytes).max().unwrap_or(0);
        let aliases = all().flat_map(|replica| &replica.model_aliases);
        snapshot.models = names(pool.models.iter().chain(aliases));
        if snapshot.features != first.features {
            snapshot.features = shared_features(first, &all());
        }
        keep_newest(&mut snapshot.engine_version, first.engine_version.as_deref());
        keep_newest(&mut snapshot.compute_capability, first.compute_capability.as_deref());
        self.refresh_load(index);
    }

    fn after_change(&mut self, index: usize, before: &PoolSnapshot, now_ms: u64) -> Vec<Action> {
        let after = &self.snapshots[index];
        let (was_open, is_open) = (is_open(before), is_open(after));
        let other_abilities = abilities(before) != abilities(after);
        if was_open != is_open || other_abilities || before.slots_total != after.slots_total {
            self.snapshot_version += 1;
        }
        if before.models != after.models {
            self.index_models();
        }
        let mut actions = Vec::new();
        if other_abilities {
            self.turn_out_misfits(index, now_ms, &mut actions);
        }
        if was_open && !is_open {
            self.place_again(index, now_ms, &mut actions);
        }
        if !was_open && is_open {
            self.take_in_stranded(index, now_ms, &mut actions);
        }
        self.list_startable(index);
        actions
    }

    /// Places the tasks waiting for this pool again, as far as another pool has room for them.
    fn place_again(&mut self, index: usize, now_ms: u64, actions: &mut Vec<Action>) {
        for task in self.waiting_for(index) {
            if let Some(to) = self.other_pool_for(task, index, now_ms) {
                actions.push(self.move_task(task, index, to, false));
            }
        }
    }

    /// A pool that has become open takes in what waits for closed pools that serve the same model.
    fn take_in_stranded(&mut self, index: usize, now_ms: u64, actions: &mut Vec<Action>) {
        let snapshot = &self.snapshots[index];
        let serving = |name: &Arc<str>| self.serving.get(&(snapshot.engine, Arc::clone(name)));
        let mut closed: Vec<usize> = snapshot.models.iter().filter_map(serving).flatten().copied().collect();
        closed.retain(|peer| !is_open(&self.snapshots[*peer]) && !self.pools[*peer].queue.is_empty());
        closed.sort_unstable();
        closed.dedup();
        for peer in closed {
            self.place_again(peer, now_ms, actions);
        }
    }

    /// Tasks that this pool cannot run any more, whatever state it is in, go elsewhere or end.
    fn turn_out_misfits(&mut self, index: usize, now_ms: u64, actions: &mut Vec<Action>) {
        for task in self.waiting_for(index) {
            if !misfit(&self.placement(&self.tasks[&task].job, now_ms), &self.snapshots[index]) {
                continue;
            }
            let action = match self.other_pool_for(task, index, now_ms) {
                Some(to) => self.move_task(task, index, to, true),
                None => self.reject(task, index, now_ms),
            };
            actions.push(action);
        }
    }

    /// The tasks waiting for a pool, in the order in which they would start.
    fn waiting_for(&self, index: usize) -> Vec<TaskId> {
        let queue = &self.pools[index].queue;
        queue.view(Priority::Interactive).chain(queue.view(Priority::Batch)).copied().collect()
    }

    /// Where placement puts a waiting task now, if that is another pool, open and with room in its queue.
    fn other_pool_for(&self, task: TaskId, index: usize, now_ms: u64) -> Option<usize> {
        let job = &self.tasks.get(&task)?.job;
        if job.placement.mode == PlacementMode::Pin {
            return None;
        }
        match decide(&self.placement(job, now_ms)) {
            PlacementDecision::Assigned { index: to, .. } => {
                Some(to).filter(|to| *to != index && self.pools[*to].queue.has_room(job.priority))
            }
            PlacementDecision::NoCapacity { .. } => None,
        }
    }

    fn move_task(&mut self, id: TaskId, from: usize, to: usize, misfit: bool) -> Action {
        if let Some(task) = self.tasks.get_mut(&id) {
            task.pool = to;
            let (priority, demand) = (task.job.priority, task.demand);
            self.pools[from].queue.cancel(&id);
            self.left(from, priority, demand);
            let enqueued = self.pools[to].queue.enqueue(id, priority);
            debug_assert!(matches!(enqueued, Ok(ref done) if done.evicted.is_none()), "the caller checked for room");
            self.entered(to, priority, demand);
        }
        Action::Moved { task: id, from: self.snapshots[from].id.clone(), to: self.snapshots[to].id.clone(), misfit }
    }

    fn reject(&mut self, id: TaskId, index: usize, now_ms: u64) -> Action {
        let input = self.placement(&self.tasks[&id].job, now_ms);
        let refusal = match decide(&input) {
            PlacementDecision::NoCapacity { reason, .. } => explain(&input, reason),
            PlacementDecision::Assigned { index: full, .. } => {
                let capacity = self.pools[full].queue.limits().capacity;
                self.queue_full(full, EnqueueError::QueueFull { capacity, class: None }, now_ms)
            }
        };
        if let Some(task) = self.tasks.remove(&id) {
            self.pools[index].queue.cancel(&id);
            self.left(index, task.job.priority, task.demand);
        }
        Action::Rejected { task: id, refusal }
    }
}

/// Whether it takes work, as far as it was last heard from.
const fn is_open(pool: &PoolSnapshot) -> bool {
    (pool.ready || pool.cold.is_some()) && !pool.draining
}

/// What decides whether it can run a task at all.
fn abilities(pool: &PoolSnapshot) -> impl PartialEq + '_ {
    (
        &pool.models,
        pool.ctx_max_supported,
        &pool.engine_version,
        &pool.compute_capability,
        &pool.features,
        pool.vram_total_bytes,
    )
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> Arc<[Arc<str>]> {
    let mut known: Vec<Arc<str>> = Vec::new();
    for name in names.map(|name| name.trim()).filter(|name| !name.is_empty()) {
        if !known.iter().any(|other| **other == *name) {
            known.push(Arc::from(name));
        }
    }
    known.into()
}

/// What every one of the replicas can do.
fn shared_features<'a>(first: &Replica, all: &(impl Iterator<Item = &'a Replica> + Clone)) -> Arc<[String]> {
    let shared = |feature: &&String| all.clone().all(|replica| replica.features.contains(feature));
    first.features.iter().filter(shared).cloned().collect()
}

/// Takes over a value that a probe told, without allocating when it is the old one.
fn keep_newest(known: &mut Option<String>, told: Option<&str>) {
    if let Some(told) = told.filter(|told| known.as_deref() != Some(told)) {
        *known = Some(told.to_owned());
    }
}
