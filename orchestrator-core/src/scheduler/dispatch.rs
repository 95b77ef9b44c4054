//! From the queue to a slot and back out of it.

use std::sync::Arc;

use api_types::{Priority, TaskId, TaskState};

use super::pool::Lease;
use super::replica::Replica;
use super::{Canceled, Dispatch, Outcome, Requeued, Scheduler, Task};
use crate::estimate::{Observation, Situation};
use crate::policy::{PlacementDecision, PlacementInput, decide, takes_work};
use crate::task::{End, TaskEvent, next};

/// Waiting tasks of a class that a pool with a free slot looks at in another pool's queue.
const LOOK_AHEAD: usize = 16;
/// Times a task whose worker was lost is tried again.
const RETRIES: u32 = 1;

impl Scheduler {
    /// The next task to hand to an engine, or `None` when nothing can start. A pool with a free slot starts, in this
    /// order: its own interactive tasks, interactive tasks that wait for a busy pool, its own batch tasks, such batch
    /// tasks (OC-CORE-1004). Where the operator has given the classes shares, its own queue says whose turn it is.
    pub fn next_dispatch(&mut self, now_ms: u64) -> Option<Dispatch> {
        while let Some(index) = self.startable.front().copied() {
            if let Some(dispatch) = self.dispatch_on(index, now_ms) {
                // The others get their turn before this pool starts a second one.
                self.startable.rotate_left(1);
                return Some(dispatch);
            }
            self.startable.pop_front();
            self.pools[index].listed = false;
        }
        None
    }

    /// Notes a task's first token: from now on it cannot be tried again elsewhere. `false` when it is not running.
    pub fn first_token(&mut self, task_id: TaskId) -> bool {
        self.tasks.get_mut(&task_id).is_some_and(|task| task.take(TaskEvent::FirstToken))
    }

    /// Takes a waiting task out for good, or notes that a running one is to stop. Also the way to end a waiting task whose
    /// deadline has passed.
    pub fn cancel(&mut self, task_id: TaskId, now_ms: u64) -> Canceled {
        let Some(task) = self.tasks.get_mut(&task_id) else {
            return Canceled::Unknown;
        };
        if task.state != TaskState::Queued {
            task.cancel_asked = true;
            return Canceled::Running;
        }
        let (index, priority, demand) = (task.pool, task.job.priority, task.demand);
        if let Some(task) = self.tasks.remove(&task_id) {
            self.learn_end(&task, false, now_ms);
        }
        self.pools[index].queue.cancel(&task_id);
        self.left(index, priority, demand);
        Canceled::Queued
    }

    /// Ends a running task: its slot is free, and its pool's estimates learn from it. `false` when it is not running.
    pub fn finish(&mut self, task_id: TaskId, outcome: Outcome, now_ms: u64) -> bool {
        let ended = self.tasks.get_mut(&task_id).is_some_and(|task| {
            // A waiting task is ended by `cancel`.
            task.state != TaskState::Queued && task.take(TaskEvent::Ended(outcome.end))
        });
        if !ended {
            return false;
        }
        let Some(task) = self.tasks.remove(&task_id) else {
            return false;
        };
        self.pools[task.pool].speed.observe(&observation(&task, outcome, now_ms));
        self.refresh_speed(task.pool);
        self.release(task_id, task.pool);
        self.pools[task.pool].usage.touch(now_ms);
        let completed = outcome.end == End::Completed;
        if task.predicted.measured {
            let (predicted_ms, actual_ms) = (task.predicted.ms, now_ms.saturating_sub(task.dispatched_at_ms));
            let situation = Situation::immediate(task.job.priority);
            self.pools[task.pool].accuracy.ended(situation, predicted_ms, actual_ms, completed);
        }
        if task.foreseen.start_ms > 0 {
            self.learn_end(&task, completed, now_ms);
        }
        true
    }

    /// Compares an end with what was foreseen at the admission.
    fn learn_end(&mut self, task: &Task, completed: bool, now_ms: u64) {
        let foreseen = task.foreseen;
        if foreseen.measured {
            let actual_ms = now_ms.saturating_sub(task.admitted_at_ms);
            let accuracy = &mut self.pools[task.foreseen_by].accuracy;
            accuracy.ended(foreseen.situation, foreseen.end_ms, actual_ms, completed);
        }
    }

    /// Puts a task back whose worker was lost before the first token: to the front of its class, on another pool if one
    /// can take it. Once per task; a second loss gives it up, as does one after the first token.
    pub fn requeue(&mut self, task_id: TaskId, now_ms: u64) -> Requeued {
        let Some(task) = self.tasks.get_mut(&task_id).filter(|task| task.state != TaskState::Queued) else {
            return Requeued::Unknown;
        };
        let pool = task.pool;
        let canceled = task.cancel_asked;
        let again = !canceled && task.dispatches <= RETRIES && task.take(TaskEvent::Requeued);
        let lost_on = self.release(task_id, pool);
        if !again {
            self.tasks.remove(&task_id);
            return if canceled { Requeued::Canceled } else { Requeued::GivenUp };
        }
        let index = self.place_elsewhere(task_id, pool, lost_on, now_ms);
        self.wait_again(task_id, index, lost_on.map(|replica| (pool, replica)))
    }

    fn wait_again(&mut self, task_id: TaskId, index: usize, lost_on: Option<(usize, usize)>) -> Requeued {
        let Some(task) = self.tasks.get_mut(&task_id) else {
            return Requeued::Unknown;
        };
        task.pool = index;
        task.lost_on = lost_on;
        let (priority, demand) = (task.job.priority, task.demand);
        let put_back = self.pools[index].queue.put_back(task_id, priority);
        debug_assert!(put_back.is_ok(), "a running task waits in no queue");
        self.entered(index, priority, demand);
        let queue_position = self.pools[index].queue.position(&task_id).unwrap_or(0);
        Requeued::Again { pool_id: self.snapshots[index].id.clone(), queue_position }
    }

    /// Whether another engine could start a running task now, should its own fail it before the first token.
    #[must_use]
    pub fn could_start_elsewhere(&self, task_id: TaskId, now_ms: u64) -> bool {
        let Some(task) = self.tasks.get(&task_id).filter(|task| task.dispatches <= RETRIES) else {
            return false;
        };
        let on_sibling = takes_work(&self.snapshots[task.pool], now_ms)
            && self.pools[task.pool].has_free_slot_beside(task_id, now_ms);
        let could_start =
            |index| index != task.pool && self.can_start(index, now_ms) && self.could_run(index, task, now_ms);
        on_sibling || (0..self.pools.len()).any(could_start)
    }

    /// The pool for a task that was lost on a replica: its own if that has another usable one, else another pool with room,
    /// else the same again. A pool whose workers keep dying must not fill the others' queues beyond their limit.
    fn place_elsewhere(&self, task_id: TaskId, pool: usize, lost_on: Option<usize>, now_ms: u64) -> usize {
        let fresh = |(index, replica): (usize, &Replica)| lost_on != Some(index) && replica.is_fresh(now_ms);
        if !self.snapshots[pool].draining && self.pools[pool].usable().any(fresh) {
            return pool;
        }
        let mut job = self.tasks[&task_id].job.clone();
        job.placement.avoid_pools.get_or_insert_default().push(self.snapshots[pool].id.to_string());
        match decide(&self.placement(&job, now_ms)) {
            PlacementDecision::Assigned { index, .. } if self.pools[index].queue.has_room(job.priority) => index,
            PlacementDecision::Assigned { .. } | PlacementDecision::NoCapacity { .. } => pool,
        }
    }

    fn release(&mut self, task_id: TaskId, index: usize) -> Option<usize> {
        let replica = self.pools[index].release(task_id);
        self.refresh_load(index);
        self.list_startable(index);
        replica
    }

    fn dispatch_on(&mut self, index: usize, now_ms: u64) -> Option<Dispatch> {
        if !self.can_start(index, now_ms) {
            return None;
        }
        if self.pools[index].queue.next_class() == Some(Priority::Batch)
            && self.pools[index].queue.len_of(Priority::Interactive) > 0
        {
            return self.start_own(index, Priority::Batch, now_ms);
        }
        for priority in [Priority::Interactive, Priority::Batch] {
            if self.pools[index].queue.len_of(priority) > 0 {
                return self.start_own(index, priority, now_ms);
            }
            if let Some(task_id) = self.find_elsewhere(index, priority, now_ms) {
                return self.take_over(index, task_id, now_ms);
            }
        }
        None
    }

    fn can_start(&self, index: usize, now_ms: u64) -> bool {
        self.pools[index].has_free_slot(now_ms) && takes_work(&self.snapshots[index], now_ms)
    }

    fn start_own(&mut self, index: usize, priority: Priority, now_ms: u64) -> Option<Dispatch> {
        let (task_id, _) = self.pools[index].queue.pop_of(priority)?;
        let demand = self.tasks[&task_id].demand;
        self.left(index, priority, demand);
        self.start(index, task_id, None, now_ms)
    }

    fn take_over(&mut self, index: usize, task_id: TaskId, now_ms: u64) -> Option<Dispatch> {
        let task = self.tasks.get_mut(&task_id)?;
        let from = std::mem::replace(&mut task.pool, index);
        let (priority, demand) = (task.job.priority, task.demand);
        self.pools[from].queue.cancel(&task_id);
        self.left(from, priority, demand);
        self.start(index, task_id, Some(from), now_ms)
    }

    fn start(&mut self, index: usize, task_id: TaskId, from: Option<usize>, now_ms: u64) -> Option<Dispatch> {
        let pool = &mut self.pools[index];
        let task = self.tasks.get_mut(&task_id)?;
        let lost_on = task.lost_on.filter(|(pool, _)| *pool == index).map(|(_, replica)| replica);
        let replica = pool.pick_replica(task, lost_on, now_ms);
        debug_assert!(replica.is_some(), "the caller checked for a free slot");
        let dispatched = task.take(TaskEvent::Dispatched);
        debug_assert!(dispatched, "only a waiting task is in a queue");
        pool.usage.touch(now_ms);
        let attempt = task.dispatches;
        task.dispatches += 1;
        task.dispatched_at_ms = now_ms;
        task.predicted = pool.speed.service(&task.demand);
        let replica = replica.unwrap_or(0);
        pool.lease(Lease::new(task_id, replica, task.job.priority, now_ms, task.predicted.ms));
        let replica_id = pool.replicas[replica].id.clone();
        let foreseen = task.foreseen;
        if attempt == 0 && foreseen.measured {
            let actual_ms = now_ms.saturating_sub(task.admitted_at_ms);
            self.pools[task.foreseen_by].accuracy.started(foreseen.situation, foreseen.start_ms, actual_ms);
        }
        self.refresh_load(index);
        let pool_id = self.snapshots[index].id.clone();
        let moved_from = from.map(|from| self.snapshots[from].id.clone());
        Some(Dispatch { task_id, pool_id, replica_id, moved_from, attempt })
    }

    /// A task of a class that waits for a pool which cannot start it now, and that this pool could run, with an earlier end
    /// as far as both speeds are known. Of several pools the one whose task was admitted first gives.
    fn find_elsewhere(&self, index: usize, priority: Priority, now_ms: u64) -> Option<TaskId> {
        if *self.waiting.of(priority) == 0 {
            return None;
        }
        let snapshot = &self.snapshots[index];
        let peers = snapshot.models.iter().filter_map(|name| self.serving.get(&(snapshot.engine, Arc::clone(name))));
        peers
            .flatten()
            .copied()
            .filter(|peer| *peer != index && self.pools[*peer].queue.len_of(priority) > 0)
            .filter(|peer| !self.can_start(*peer, now_ms))
            .filter_map(|peer| {
                let mut waiting = self.pools[peer].queue.view(priority).take(LOOK_AHEAD);
                waiting.find_map(|id| {
                    let task = self.tasks.get(id)?;
                    let better = self.could_run(index, task, now_ms) && self.ends_sooner(index, peer, *id, now_ms);
                    better.then_some((task, *id))
                })
            })
            .min_by_key(|(task, _)| task.sequence)
            .map(|(_, id)| id)
    }

    /// Whether a task that waits for `peer` would end sooner if this pool started it now. A pool that takes no work, or
    /// whose speed is not known, is not worth waiting for.
    fn ends_sooner(&self, index: usize, peer: usize, id: TaskId, now_ms: u64) -> bool {
        if !takes_work(&self.snapshots[peer], now_ms) {
            return true;
        }
        let (Some(task), Some(ahead)) = (self.tasks.get(&id), self.pools[peer].queue.ahead(&id)) else {
            return false;
        };
        let here = self.pools[index].speed.service(&task.demand);
        let there = self.pools[peer].forecast(task.job.priority, ahead, &task.demand, now_ms);
        !(here.measured && there.measured) || here.ms < there.end_ms
    }

    /// Whether placement would put a task here if this were the only pool. A preference that was met is not widened for
    /// the sake of an earlier start.
    fn could_run(&self, index: usize, task: &Task, now_ms: u64) -> bool {
        if let Some((pool, replica)) = task.lost_on
            && pool == index
            && self.pools[index].usable().all(|(other, _)| other == replica)
        {
            return false;
        }
        let pools = std::slice::from_ref(&self.snapshots[index]);
        match decide(&PlacementInput { pools, job: &task.job, now_ms }) {
            PlacementDecision::Assigned { reason, .. } => !reason.fallback_used || task.fallback_used,
            PlacementDecision::NoCapacity { .. } => false,
        }
    }
}

impl Task {
    /// Takes an event if it may follow; `false` leaves the state as it is.
    fn take(&mut self, event: TaskEvent) -> bool {
        next(self.state, event).map(|state| self.state = state).is_ok()
    }
}

fn observation(task: &Task, outcome: Outcome, now_ms: u64) -> Observation {
    Observation {
        demand: task.demand,
        prompt_bytes: task.prompt_bytes,
        completed: outcome.end == End::Completed,
        tokens_in: outcome.tokens_in,
        tokens_out: outcome.tokens_out,
        first_token_ms: outcome.first_token_ms,
        decode_ms: outcome.decode_ms,
        service_ms: now_ms.saturating_sub(task.dispatched_at_ms),
    }
}
