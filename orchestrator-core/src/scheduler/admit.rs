//! Taking a task, or saying why not.

use api_types::{ErrorKind, PolicyLabel, Priority, TaskId, TaskState};

use super::{Admission, NewTask, Scheduler, Task};
use crate::Refusal;
use crate::estimate::{Demand, Estimate, backoff_ms};
use crate::policy::{DecisionLog, PlacementDecision, decide, explain};
use crate::queue::{Enqueued, FullPolicy};

impl Scheduler {
    /// Places a task and puts it into its pool's queue; [`Scheduler::next_dispatch`] hands it out, at once if a slot is
    /// free.
    ///
    /// # Errors
    /// `CONFLICT` when the id is alive already (LO-ADM-07), what [`explain`] says when no pool can take it,
    /// `ADMISSION_REJECT` or `QUEUE_FULL_DROP_LRU` when the queue is full. Nothing has changed then.
    pub fn admit(&mut self, new: NewTask, now_ms: u64) -> Result<Admission, Refusal> {
        if self.tasks.contains_key(&new.id) {
            let message = format!("task {} is queued or running already; choose a new task_id", new.id);
            return Err(Refusal::new(ErrorKind::Conflict, message));
        }
        let input = self.placement(&new.job, now_ms);
        let (index, decision) = match decide(&input) {
            PlacementDecision::Assigned { index, reason, .. } => (index, reason),
            PlacementDecision::NoCapacity { reason, .. } => return Err(explain(&input, reason)),
        };
        let enqueued = self.enqueue(index, new.id, new.job.priority, now_ms)?;
        let id = new.id;
        let deadline_ms = u64::try_from(new.deadline_ms).unwrap_or(0);
        self.remember(new, index, &decision, now_ms);
        Ok(self.admission(id, index, &enqueued, decision, deadline_ms, now_ms))
    }

    fn enqueue(
        &mut self,
        index: usize,
        id: TaskId,
        priority: Priority,
        now_ms: u64,
    ) -> Result<Enqueued<TaskId>, Refusal> {
        let enqueued = self.pools[index].queue.enqueue(id, priority).map_err(|_| self.queue_full(index, now_ms))?;
        if let Some(evicted) = enqueued.evicted
            && let Some(task) = self.tasks.remove(&evicted)
        {
            self.left(index, task.job.priority, task.demand);
        }
        Ok(enqueued)
    }

    fn remember(&mut self, new: NewTask, index: usize, decision: &DecisionLog, now_ms: u64) {
        let demand = Demand::of_task(new.prompt_tokens, new.job.expected_tokens, new.max_tokens);
        let priority = new.job.priority;
        let task = Task {
            state: TaskState::Queued,
            job: new.job,
            demand,
            pool: index,
            sequence: self.admitted,
            deadline_at_ms: now_ms.saturating_add_signed(new.deadline_ms.max(0)),
            fallback_used: decision.fallback_used,
            dispatches: 0,
            lost_on: None,
            cancel_asked: false,
            dispatched_at_ms: 0,
            predicted: Estimate { ms: 0, measured: false },
        };
        self.admitted += 1;
        self.tasks.insert(new.id, task);
        self.entered(index, priority, demand);
    }

    fn admission(
        &self,
        id: TaskId,
        index: usize,
        enqueued: &Enqueued<TaskId>,
        decision: DecisionLog,
        deadline_ms: u64,
        now_ms: u64,
    ) -> Admission {
        let (pool, snapshot, task) = (&self.pools[index], &self.snapshots[index], &self.tasks[&id]);
        let start = pool.predict_start(snapshot.slots_total, task.job.priority, enqueued.position, now_ms);
        let service = pool.speed.service(&task.demand);
        Admission {
            pool_id: snapshot.id.clone(),
            queue_position: enqueued.position,
            predicted_start_ms: start.ms,
            prediction_is_measured: start.measured,
            backoff_ms: self.backoff(index, now_ms),
            on_time_probability: pool.speed.on_time_probability(service, deadline_ms.saturating_sub(start.ms)),
            decision,
            evicted: enqueued.evicted,
        }
    }

    fn backoff(&self, index: usize, now_ms: u64) -> u64 {
        let pool = &self.pools[index];
        if pool.queue.has_room() {
            return 0;
        }
        let head = pool.predict_start(self.snapshots[index].slots_total, Priority::Interactive, 0, now_ms);
        backoff_ms(false, head.ms)
    }

    pub(super) fn queue_full(&self, index: usize, now_ms: u64) -> Refusal {
        let (pool, snapshot) = (&self.pools[index], &self.snapshots[index]);
        let wait_ms = self.backoff(index, now_ms);
        let (kind, label) = match pool.queue.policy() {
            FullPolicy::Reject => (ErrorKind::AdmissionReject, PolicyLabel::Reject),
            FullPolicy::DropLru => (ErrorKind::QueueFullDropLru, PolicyLabel::DropLru),
        };
        let message = format!(
            "pool {} has {} tasks waiting, its limit is {}; try again in {wait_ms} ms or use another pool",
            snapshot.id,
            pool.queue.len(),
            pool.queue.capacity()
        );
        let retry_after_ms = i64::try_from(wait_ms).unwrap_or(i64::MAX);
        Refusal::backpressure(kind, label, retry_after_ms, message)
            .with_engine(snapshot.engine)
            .with_pool(snapshot.id.clone())
    }
}
