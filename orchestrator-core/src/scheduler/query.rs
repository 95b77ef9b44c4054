//! Questions that change nothing.

use api_types::{PoolId, Priority, TaskId, TaskState};

use super::{PoolView, Scheduler, Task};

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
        let left_ms = task.deadline_at_ms.saturating_sub(now_ms);
        let Some(queue_position) = pool.queue.position(&task_id) else {
            return Some(self.outlook_of_running(task, now_ms));
        };
        let slots = self.snapshots[task.pool].slots_total;
        let start = pool.predict_start(slots, task.job.priority, queue_position, now_ms);
        let service = pool.speed.service(&task.demand);
        Some(Outlook {
            state: task.state,
            queue_position,
            predicted_start_ms: start.ms,
            prediction_is_measured: start.measured,
            on_time_probability: pool.speed.on_time_probability(service, left_ms.saturating_sub(start.ms)),
        })
    }

    fn outlook_of_running(&self, task: &Task, now_ms: u64) -> Outlook {
        let whole_ms = task.deadline_at_ms.saturating_sub(task.dispatched_at_ms);
        let late = now_ms >= task.deadline_at_ms;
        let speed = &self.pools[task.pool].speed;
        Outlook {
            state: task.state,
            queue_position: 0,
            predicted_start_ms: 0,
            prediction_is_measured: true,
            on_time_probability: if late { 0.0 } else { speed.on_time_probability(task.predicted, whole_ms) },
        }
    }

    fn view(&self, index: usize) -> PoolView<'_> {
        let (pool, snapshot) = (&self.pools[index], &self.snapshots[index]);
        PoolView {
            snapshot,
            replica_id: &pool.replica_id,
            live: pool.live,
            active_leases: pool.leases.len(),
            speed: &pool.speed,
            full_policy: pool.queue.policy(),
        }
    }
}
