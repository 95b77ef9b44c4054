//! Taking a task, or saying why not.

use api_types::{ErrorKind, PolicyLabel, PoolId, Priority, TaskId, TaskState};

use super::pool::Forecast;
use super::{Admission, NewTask, Rejection, Scheduler, Task};
use crate::Refusal;
use crate::estimate::{Demand, Estimate, Situation, backoff_ms};
use crate::policy::{DecisionLog, PlacementDecision, decide, explain, misfit};
use crate::queue::{Ahead, EnqueueError, FullPolicy};

/// A task's place in a queue.
#[derive(Clone, Copy)]
struct Entered {
    forecast: Forecast,
    ahead: Ahead,
    evicted: Option<TaskId>,
}

/// A deadline that a task meets with less than this probability cannot be met.
const HOPELESS: f64 = 0.05;

impl Scheduler {
    /// Places a task and puts it into its pool's queue; [`Scheduler::next_dispatch`] hands it out, at once if a slot is
    /// free.
    ///
    /// # Errors
    /// `CONFLICT` when the id is alive already (LO-ADM-07), what [`explain`] says when no pool can take it,
    /// `ADMISSION_REJECT` or `QUEUE_FULL_DROP_LRU` when the queue is full, `ADMISSION_REJECT` when its class comes too fast
    /// for the pool, `DEADLINE_UNMET` when it would end too late. Nothing has changed then.
    pub fn admit(&mut self, new: NewTask, now_ms: u64) -> Result<Admission, Rejection> {
        self.check_id(new.id)?;
        let input = self.placement(&new.job, now_ms);
        let (index, decision) = match decide(&input) {
            PlacementDecision::Assigned { index, reason, .. } => (index, reason),
            PlacementDecision::NoCapacity { reason, log, .. } => {
                return Err(Rejection { refusal: explain(&input, reason), decision: Some(Box::new(log)) });
            }
        };
        match self.enter(&new, index, now_ms) {
            Ok(entered) => {
                let id = new.id;
                self.remember(new, index, decision.fallback_used, entered.forecast, now_ms);
                Ok(self.admission(&self.tasks[&id], entered, decision, now_ms))
            }
            Err(refusal) => Err(Rejection { refusal, decision: Some(Box::new(decision)) }),
        }
    }

    /// Puts a task back into a queue that was accepted in an earlier life of the process: whatever its pool's state and
    /// however full its queue is. It waits at `pool_id` if that can still run it, else where placement puts it. Call it in
    /// the order in which the tasks were accepted.
    ///
    /// # Errors
    /// As [`Scheduler::admit`] when no pool can ever run it any more, and for an id that is alive.
    pub fn restore(&mut self, new: NewTask, pool_id: &PoolId, now_ms: u64) -> Result<PoolId, Refusal> {
        self.check_id(new.id)?;
        let input = self.placement(&new.job, now_ms);
        let fits = |index: &usize| !misfit(&input, &self.snapshots[*index]);
        let index = match (self.by_id.get(pool_id).copied().filter(fits), decide(&input)) {
            (Some(index), _) | (None, PlacementDecision::Assigned { index, .. }) => index,
            (None, PlacementDecision::NoCapacity { reason, .. }) => {
                // A pool that has not been heard from yet may still come.
                let later = (0..self.snapshots.len()).find(fits);
                later.ok_or_else(|| explain(&input, reason))?
            }
        };
        let pool = &mut self.pools[index];
        let queued = pool.queue.push_back(new.id, new.job.priority);
        debug_assert!(queued.is_ok(), "an id that is not alive waits nowhere");
        let forecast =
            Forecast { situation: Situation::immediate(new.job.priority), start_ms: 0, end_ms: 0, measured: false };
        self.remember(new, index, false, forecast, now_ms);
        Ok(self.snapshots[index].id.clone())
    }

    fn check_id(&self, id: TaskId) -> Result<(), Refusal> {
        if self.tasks.contains_key(&id) {
            let message = format!("task {id} is queued or running already; choose a new task_id");
            return Err(Refusal::new(ErrorKind::Conflict, message));
        }
        Ok(())
    }

    /// Everything that can still refuse a task that has a pool; the last step is its place in the queue.
    fn enter(&mut self, new: &NewTask, index: usize, now_ms: u64) -> Result<Entered, Refusal> {
        let priority = new.job.priority;
        self.check_rate(index, priority, now_ms)?;
        let pool = &self.pools[index];
        let demand = demand_of(new);
        let ahead = pool.queue.ahead_of_newcomer(priority);
        let forecast = pool.forecast(priority, ahead, &demand, now_ms);
        if pool.queue.has_room(priority) || pool.queue.limits().full_policy == FullPolicy::DropLru {
            self.check_deadline(index, &forecast, new.deadline_ms)?;
        }
        let enqueued =
            self.pools[index].queue.enqueue(new.id, priority).map_err(|error| self.queue_full(index, error, now_ms))?;
        if let Some(rate) = self.pools[index].rates.of_mut(priority) {
            rate.take(now_ms);
        }
        if let Some(evicted) = enqueued.evicted
            && let Some(task) = self.tasks.remove(&evicted)
        {
            self.left(index, task.job.priority, task.demand);
        }
        Ok(Entered { forecast, ahead: enqueued.ahead, evicted: enqueued.evicted })
    }

    fn check_rate(&self, index: usize, priority: Priority, now_ms: u64) -> Result<(), Refusal> {
        let Some(rate) = self.pools[index].rates.of(priority) else {
            return Ok(());
        };
        let pool = &self.snapshots[index];
        rate.check(now_ms).map_err(|throttled| {
            let whose = format!("{priority} tasks have a rate limit on pool {}; all clients together", pool.id);
            throttled.refusal(rate.limit, &whose).with_engine(pool.engine).with_pool(pool.id.clone())
        })
    }

    /// A guess refuses nobody; a measured prediction refuses what has no hope.
    fn check_deadline(&self, index: usize, forecast: &Forecast, deadline_ms: i64) -> Result<(), Refusal> {
        let deadline = u64::try_from(deadline_ms).unwrap_or(0);
        let accuracy = &self.pools[index].accuracy;
        if !forecast.measured
            || accuracy.on_time_probability(forecast.situation, forecast.end_ms, 0, deadline) >= HOPELESS
        {
            return Ok(());
        }
        let pool = &self.snapshots[index];
        let start_ms = accuracy.corrected_start_ms(forecast.situation, forecast.start_ms);
        let service_ms = forecast.end_ms - forecast.start_ms;
        let message = format!(
            "pool {} could start the task in about {start_ms} ms and needs about {service_ms} ms for it, more than its \
             deadline_ms {deadline_ms}; allow more time, ask for fewer tokens or use a pool with a shorter queue",
            pool.id
        );
        let refusal = Refusal::new(ErrorKind::DeadlineUnmet, message);
        Err(refusal.with_engine(pool.engine).with_pool(pool.id.clone()))
    }

    /// Books a task that stands in a pool's queue.
    fn remember(&mut self, new: NewTask, index: usize, fallback_used: bool, foreseen: Forecast, now_ms: u64) {
        let demand = demand_of(&new);
        let priority = new.job.priority;
        let task = Task {
            state: TaskState::Queued,
            job: new.job,
            demand,
            prompt_bytes: new.prompt.bytes,
            pool: index,
            sequence: self.admitted,
            admitted_at_ms: now_ms,
            foreseen,
            foreseen_by: index,
            deadline_at_ms: now_ms.saturating_add_signed(new.deadline_ms.max(0)),
            fallback_used,
            dispatches: 0,
            lost_on: None,
            cancel_asked: false,
            dispatched_at_ms: 0,
            predicted: Estimate { ms: 0, measured: false },
        };
        self.admitted += 1;
        self.pools[index].usage.arrived(now_ms);
        self.tasks.insert(new.id, task);
        self.entered(index, priority, demand);
    }

    fn admission(&self, task: &Task, entered: Entered, decision: DecisionLog, now_ms: u64) -> Admission {
        let (pool, forecast) = (&self.pools[task.pool], entered.forecast);
        let deadline_ms = task.deadline_at_ms.saturating_sub(now_ms);
        let is_full = Priority::ALL.iter().any(|class| !pool.queue.has_room(*class));
        Admission {
            pool_id: self.snapshots[task.pool].id.clone(),
            queue_position: entered.ahead.all(),
            predicted_start_ms: pool.accuracy.corrected_start_ms(forecast.situation, forecast.start_ms),
            prediction_is_measured: forecast.measured,
            backoff_ms: if is_full { self.backoff(task.pool, now_ms) } else { 0 },
            on_time_probability: pool.accuracy.on_time_probability(forecast.situation, forecast.end_ms, 0, deadline_ms),
            decision,
            evicted: entered.evicted,
        }
    }

    /// How long a client should wait before it submits more to a pool, in milliseconds, should that be full.
    #[must_use]
    pub fn backoff_ms(&self, pool_id: &PoolId, now_ms: u64) -> Option<u64> {
        self.by_id.get(pool_id).map(|index| self.backoff(*index, now_ms))
    }

    /// How long until the pool's next waiting task leaves its place.
    fn backoff(&self, index: usize, now_ms: u64) -> u64 {
        let none = Demand::default();
        backoff_ms(self.pools[index].forecast(Priority::Interactive, Ahead::default(), &none, now_ms).start_ms)
    }

    pub(super) fn queue_full(&self, index: usize, error: EnqueueError, now_ms: u64) -> Refusal {
        let (pool, snapshot) = (&self.pools[index], &self.snapshots[index]);
        let wait_ms = self.backoff(index, now_ms);
        let (kind, label) = match pool.queue.limits().full_policy {
            FullPolicy::Reject => (ErrorKind::AdmissionReject, PolicyLabel::Reject),
            FullPolicy::DropLru => (ErrorKind::QueueFullDropLru, PolicyLabel::DropLru),
        };
        let (waiting, limit) = match error {
            EnqueueError::QueueFull { capacity, class: Some(class) } => {
                (format!("{} {class} tasks", pool.queue.len_of(class)), capacity)
            }
            _ => (format!("{} tasks", pool.queue.len()), pool.queue.limits().capacity),
        };
        let message = format!(
            "pool {} has {waiting} waiting, its limit is {limit}; try again in {wait_ms} ms or use another pool",
            snapshot.id
        );
        let retry_after_ms = i64::try_from(wait_ms).unwrap_or(i64::MAX);
        Refusal::backpressure(kind, label, retry_after_ms, message)
            .with_engine(snapshot.engine)
            .with_pool(snapshot.id.clone())
    }
}

fn demand_of(new: &NewTask) -> Demand {
    Demand::of_task(new.prompt, new.job.expected_tokens, new.job.max_tokens.unwrap_or(0))
}
