//! Questions that change nothing.

use std::sync::Arc;

use api_types::{PoolId, Priority, TaskId, TaskState};

use super::{PoolDemand, PoolView, ReplicaView, Scheduler, Task};
use crate::classes::PerClass;
use crate::estimate::{Demand, Prompt, Situation};
use crate::policy::{JobSpec, takes_work};
use crate::residency::Waiters;

/// How things stand for a living task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// Where it is in its life.
    pub state: TaskState,
    /// Tasks that start before it; 0 once it runs.
    pub queue_position: usize,
    /// Predicted wait until it starts, in milliseconds; 0 once it runs.
    pub predicted_start_ms: u64,
    /// Whether the prediction rests on observed tasks; if not it is a rough guess.
    pub prediction_is_measured: bool,
    /// Probability that it ends before its deadline.
    pub on_time_probability: f64,
}

impl Scheduler {
    /// Identifies the present topology: it grows whenever a pool opens, closes, or changes what it can run (ORCH-3410.1).
    /// Load, free memory and heartbeats do not count.
    #[must_use]
    pub const fn snapshot_version(&self) -> u64 {
        self.snapshot_version
    }

    /// All pools, in configuration order.
    pub fn pools(&self) -> impl Iterator<Item = PoolView<'_>> {
        (0..self.pools.len()).map(|index| self.view(index))
    }

    /// One pool.
    #[must_use]
    pub fn pool(&self, pool_id: &PoolId) -> Option<PoolView<'_>> {
        self.by_id.get(pool_id).map(|index| self.view(*index))
    }

    /// Where a task is in its life; `None` once it has ended.
    #[must_use]
    pub fn task_state(&self, task_id: TaskId) -> Option<TaskState> {
        self.tasks.get(&task_id).map(|task| task.state)
    }

    /// The pool that a task waits for or runs on.
    #[must_use]
    pub fn task_pool(&self, task_id: TaskId) -> Option<&PoolId> {
        self.tasks.get(&task_id).map(|task| &self.snapshots[task.pool].id)
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// Tasks that start before a waiting one; `None` when it does not wait.
    #[must_use]
    pub fn queue_position(&self, task_id: TaskId) -> Option<usize> {
        let task = self.tasks.get(&task_id)?;
        self.pools[task.pool].queue.position(&task_id)
    }

    /// Tasks of a class that wait for a pool; 0 for an unknown one.
    #[must_use]
    pub fn queue_depth(&self, pool_id: &PoolId, priority: Priority) -> usize {
        self.by_id.get(pool_id).map_or(0, |index| self.pools[*index].queue.len_of(priority))
    }

    /// Slots of a pool in use by our tasks; 0 for an unknown one.
    #[must_use]
    pub fn active_leases(&self, pool_id: &PoolId) -> usize {
        self.by_id.get(pool_id).map_or(0, |index| self.pools[*index].leases.len())
    }

    /// What is asked of a pool; `None` for an unknown one.
    #[must_use]
    pub fn demand_on(&self, pool_id: &PoolId, now_ms: u64) -> Option<PoolDemand> {
        let pool = &self.pools[*self.by_id.get(pool_id)?];
        let waiters = |priority| {
            let first = pool.queue.view(priority).next().and_then(|id| self.tasks.get(id));
            Waiters { count: pool.queue.len_of(priority), oldest_ms: first.map_or(0, |task| task.admitted_at_ms) }
        };
        Some(PoolDemand {
            running: pool.leases.len(),
            running_ms: pool.running_ms(now_ms),
            backlog_ms: pool.backlog_ms(now_ms),
            waiting: PerClass { interactive: waiters(Priority::Interactive), batch: waiters(Priority::Batch) },
            last_used_ms: pool.usage.last_ms,
            gap_ms: pool.usage.gap_ms,
        })
    }

    /// Predicted wait until a task starts, in milliseconds; 0 once it runs, `None` once it has ended.
    #[must_use]
    pub fn predicted_start_ms(&self, task_id: TaskId, now_ms: u64) -> Option<u64> {
        self.outlook(task_id, now_ms).map(|outlook| outlook.predicted_start_ms)
    }

    /// How things stand for a task; `None` once it has ended.
    #[must_use]
    pub fn outlook(&self, task_id: TaskId, now_ms: u64) -> Option<Outlook> {
        let task = self.tasks.get(&task_id)?;
        let pool = &self.pools[task.pool];
        let Some(ahead) = pool.queue.ahead(&task_id) else {
            return Some(self.outlook_of_running(task, now_ms));
        };
        let left_ms = task.deadline_at_ms.saturating_sub(now_ms);
        let forecast = pool.forecast(task.job.priority, ahead, &task.demand, now_ms);
        Some(Outlook {
            state: task.state,
            queue_position: ahead.all(),
            predicted_start_ms: pool.accuracy.corrected_start_ms(forecast.situation, forecast.start_ms),
            prediction_is_measured: forecast.measured,
            on_time_probability: pool.accuracy.on_time_probability(forecast.situation, forecast.end_ms, 0, left_ms),
        })
    }

    fn outlook_of_running(&self, task: &Task, now_ms: u64) -> Outlook {
        let elapsed_ms = now_ms.saturating_sub(task.dispatched_at_ms);
        let limit_ms = task.deadline_at_ms.saturating_sub(task.dispatched_at_ms);
        let situation = Situation::immediate(task.job.priority);
        let accuracy = &self.pools[task.pool].accuracy;
        Outlook {
            state: task.state,
            queue_position: 0,
            predicted_start_ms: 0,
            prediction_is_measured: true,
            on_time_probability: accuracy.on_time_probability(situation, task.predicted.ms, elapsed_ms, limit_ms),
        }
    }

    /// Time that a job is predicted to decode on the slowest of the pools that serve its model, in milliseconds; `None`
    /// while none of them has shown its speed.
    #[must_use]
    pub fn predicted_decode_ms(&self, job: &JobSpec) -> Option<u64> {
        let demand = Demand::of_task(Prompt::default(), job.expected_tokens, job.max_tokens.unwrap_or(0));
        let serving = self.serving.get(&(job.engine, Arc::from(job.model_ref.trim())));
        serving.into_iter().flatten().filter_map(|index| self.pools[*index].speed.decode_ms(&demand)).max()
    }

    /// An open pool that serves a job's model, for questions to its engine's tokenizer.
    #[must_use]
    pub fn open_pool_for(&self, job: &JobSpec, now_ms: u64) -> Option<&PoolId> {
        let serving = self.serving.get(&(job.engine, Arc::from(job.model_ref.trim())));
        let open = |index: &&usize| takes_work(&self.snapshots[**index], now_ms);
        serving.into_iter().flatten().find(open).map(|index| &self.snapshots[*index].id)
    }

    /// The replicas of a pool, in configuration order; none for an unknown one.
    pub fn replicas(&self, pool_id: &PoolId) -> impl Iterator<Item = ReplicaView<'_>> {
        let pool = self.by_id.get(pool_id).map(|index| &self.pools[*index]);
        pool.into_iter().flat_map(|pool| {
            pool.replicas.iter().map(|replica| ReplicaView {
                replica_id: &replica.id,
                ready: pool.is_usable(replica),
                odd_version: replica.ready && !pool.is_usable(replica),
                active_leases: replica.active,
            })
        })
    }

    fn view(&self, index: usize) -> PoolView<'_> {
        let (pool, snapshot) = (&self.pools[index], &self.snapshots[index]);
        PoolView {
            snapshot,
            live: pool.replicas.iter().any(|replica| replica.live),
            active_leases: pool.leases.len(),
            speed: &pool.speed,
            queue: pool.queue.limits(),
        }
    }
}
