//! From a request to a task: everything that can refuse it comes before anything is stored.

use std::sync::Arc;

use api_types::sse::{EventName, StartedFrame};
use api_types::{AdmissionResponse, ErrorEnvelope, ErrorKind, PlacementRecord, Priority, TaskRequest};
use orchestrator_core::policy::JobSpec;
use orchestrator_core::scheduler::{Admission, NewTask as ScheduledTask};
use orchestrator_core::{Refusal, guard};

use crate::alarms::Alarm;
use crate::app::{App, stopping};
use crate::narrate;
use crate::task::{Caller, Ending, NewTask, Task};
use crate::wire::{int, long};

/// Largest seed that engines take as it is; the one above means "draw one" to llama.cpp.
const MAX_SEED: u32 = u32::MAX - 1;

impl App {
    /// Takes a task or says why not. A repeated request with the same body gets the task it made the first time.
    ///
    /// # Errors
    /// The typed refusal; nothing has been stored then.
    pub fn admit(
        self: &Arc<Self>,
        request: TaskRequest,
        caller: Caller,
        attended: bool,
    ) -> Result<Arc<Task>, ErrorEnvelope> {
        let engine = request.engine;
        self.try_admit(request, caller, attended).inspect_err(|refusal| {
            self.metrics.rejected(engine, refusal.code);
            narrate::refused(engine, refusal);
        })
    }

    fn try_admit(
        self: &Arc<Self>,
        request: TaskRequest,
        caller: Caller,
        attended: bool,
    ) -> Result<Arc<Task>, ErrorEnvelope> {
        if let Some(known) = self.tasks.get(request.task_id) {
            return same_request(known, &request);
        }
        if self.is_stopping() {
            return Err(stopping());
        }
        guard::check_request(&request)?;
        let (task, evicted) = self.enter(Arc::new(request), caller)?;
        if let Some(evicted) = evicted.and_then(|id| self.tasks.get(id)) {
            self.end(&evicted, &Ending::Failed(self.dropped(&evicted)));
        }
        self.watch(&task, attended);
        self.pools.series(&task.born().pool_id).enqueued(task.request().priority);
        narrate::admitted(&task);
        self.dispatch();
        Ok(task)
    }

    /// The step that counts: session turn, place in a queue and entry in the store, all or nothing.
    fn enter(
        &self,
        request: Arc<TaskRequest>,
        caller: Caller,
    ) -> Result<(Arc<Task>, Option<api_types::TaskId>), ErrorEnvelope> {
        let now_ms = self.clock.now_ms();
        let job = JobSpec::from_request(&request);
        let pinned = job.placement.mode == api_types::PlacementMode::Pin;
        let mut sessions = self.sessions();
        let turn = sessions.begin_turn(request.session_id, now_ms)?;
        let mut scheduler = self.scheduler();
        let asked = ScheduledTask {
            id: request.task_id,
            job,
            max_tokens: request.max_tokens,
            prompt_tokens: None,
            deadline_ms: request.deadline_ms,
        };
        let admission = match scheduler.admit(asked, now_ms) {
            Ok(admission) => admission,
            Err(refusal) => {
                sessions.undo_turn(request.session_id, turn);
                self.metrics.decided(false, pinned, false, 0);
                return Err(refusal.into());
            }
        };
        drop(sessions);
        let decision = &admission.decision;
        self.metrics.decided(true, decision.pinned, decision.fallback_used, decision.candidates_considered);
        let task = Arc::new(new_task(request, caller, &admission, now_ms));
        self.write_started(&task);
        // Still under the scheduler's lock: whoever dispatches the task next finds it in the store.
        self.tasks.insert(Arc::clone(&task));
        drop(scheduler);
        Ok((task, admission.evicted))
    }

    fn write_started(&self, task: &Task) {
        let born = task.born();
        let pool = self.pools.get(born.pool_id.as_str());
        let version = pool.and_then(|pool| pool.engine_version());
        let frame = StartedFrame {
            queue_position: born.admission.queue_position,
            predicted_start_ms: born.admission.predicted_start_ms,
            correlation_id: Some(born.caller.correlation_id.as_ref().to_owned()),
            job_id: Some(task.id().to_string()),
            engine: Some(born.request.engine),
            engine_version: version.map(|version| version.as_ref().to_owned()),
            sampler_profile_version: pool.and_then(|pool| pool.sampler_profile_version.clone()),
            model_digest: pool.and_then(|pool| pool.model_digest()),
            seed: Some(i64::from(born.seed)),
            pool_id: Some(born.pool_id.to_string()),
            replica_id: None,
            tokens_in: None,
            tokens_used: None,
            tokens_remaining: None,
        };
        task.transcript().write().event(EventName::Started, &frame);
    }

    fn watch(&self, task: &Task, attended: bool) {
        self.alarms.set(task.id(), Alarm::Deadline, task.deadline_ms());
        if !attended && task.request().priority == Priority::Interactive {
            let until_ms = self.clock.now_ms() + self.config.stream.attach_timeout_ms;
            self.alarms.set(task.id(), Alarm::Unattended, until_ms);
        }
    }

    fn dropped(&self, task: &Task) -> ErrorEnvelope {
        let pool_id = task.pool_id();
        let wait_ms = self.scheduler().predicted_start_ms(task.id(), self.clock.now_ms()).unwrap_or(1000);
        Refusal::backpressure(
            ErrorKind::QueueFullDropLru,
            api_types::PolicyLabel::DropLru,
            long(wait_ms),
            format!("pool {pool_id} was full and made room for a newer task; submit it again when the pool has room"),
        )
        .with_pool(pool_id)
        .with_engine(task.request().engine)
        .into()
    }
}

fn same_request(known: Arc<Task>, request: &TaskRequest) -> Result<Arc<Task>, ErrorEnvelope> {
    if **known.request() == *request {
        return Ok(known);
    }
    Err(ErrorEnvelope::new(
        ErrorKind::Conflict,
        format!("task {} exists with another body; choose a new task_id, or repeat the same body", request.task_id),
    ))
}

fn new_task(request: Arc<TaskRequest>, caller: Caller, admission: &Admission, now_ms: u64) -> Task {
    let seed =
        request.seed.and_then(|seed| u32::try_from(seed).ok()).unwrap_or_else(|| rand::random_range(0..=MAX_SEED));
    Task::new(NewTask {
        admission: AdmissionResponse {
            task_id: request.task_id,
            queue_position: int(admission.queue_position),
            predicted_start_ms: long(admission.predicted_start_ms),
            backoff_ms: long(admission.backoff_ms),
        },
        placement: PlacementRecord::from(&admission.decision),
        on_time_probability: admission.on_time_probability,
        pool_id: admission.pool_id.clone(),
        admitted_ms: now_ms,
        request,
        caller,
        seed,
    })
}
