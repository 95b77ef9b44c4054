//! From a request to a task: everything that can refuse it comes before anything is stored.

use std::sync::Arc;
use std::time::Duration;

use adapter_api::Job;
use api_types::sse::{EventName, StartedFrame};
use api_types::{
    AdmissionResponse, ErrorEnvelope, ErrorKind, InputTokens, ModelId, PlacementMode, PlacementRecord, Priority,
    TaskRequest, TokenSource,
};
use config_schema::PlacementOverride;
use orchestrator_core::estimate::Prompt;
use orchestrator_core::guard::{self, ModelLimits, TokenCount};
use orchestrator_core::policy::JobSpec;
use orchestrator_core::scheduler::{Admission, NewTask as ScheduledTask};
use orchestrator_core::session::{Ask, Budgets, Turn};
use orchestrator_core::{Refusal, Scheduler};
use state_db::Receipt;

use crate::alarms::Alarm;
use crate::app::{App, stopping};
use crate::history;
use crate::journal;
use crate::narrate;
use crate::pools::Pool;
use crate::task::{Caller, CancelReason, Ending, NewTask, Task};
use crate::wire::{int, long};

/// Largest seed that engines take as it is; the one above means "draw one" to llama.cpp.
const MAX_SEED: u32 = u32::MAX - 1;
/// Time an engine's tokenizer has; then the estimate must do.
const COUNTING: Duration = Duration::from_secs(2);

/// What a request has come to.
pub enum Admitted {
    /// A task that is known: new, or the one that the same request made before.
    Task(Arc<Task>),
    /// A task that ended in an earlier life of the daemon; its stream is gone.
    Earlier(AdmissionResponse),
}

/// A task's input, measured or counted.
#[derive(Clone, Copy)]
struct Input {
    bytes: u64,
    tokens: TokenCount,
}

/// What a task was granted on its way in.
struct Granted<'a> {
    admission: &'a Admission,
    input: Input,
    turn: Turn,
    /// What its session has left then; `None` without budgets.
    budgets: Option<Budgets>,
}

/// A task that has its place, and what is still to be done about it.
struct Entered {
    task: Arc<Task>,
    evicted: Option<Arc<Task>>,
    receipt: Option<Receipt>,
}

impl App {
    /// Takes a task or says why not. A repeated request with the same body gets the task it made the first time. A batch
    /// task is in the journal when this returns.
    ///
    /// # Errors
    /// The typed refusal; nothing has been stored then.
    pub async fn admit(
        self: &Arc<Self>,
        request: TaskRequest,
        caller: Caller,
        attended: bool,
    ) -> Result<Admitted, ErrorEnvelope> {
        let engine = request.engine;
        self.try_admit(Arc::new(request), caller, attended).await.inspect_err(|refusal| {
            self.metrics.rejected(engine, refusal);
            narrate::refused(engine, refusal);
        })
    }

    async fn try_admit(
        self: &Arc<Self>,
        request: Arc<TaskRequest>,
        caller: Caller,
        attended: bool,
    ) -> Result<Admitted, ErrorEnvelope> {
        if let Some(known) = self.known(&request).await? {
            return Ok(known);
        }
        if self.is_stopping() {
            return Err(stopping());
        }
        guard::check_request(&request)?;
        self.check_overrides(&request)?;
        self.models.admissible(&request.model_ref, || self.serving(&request.model_ref))?;
        self.throttle().check(caller.identity, self.clock.now_ms())?;
        let input = self.measure(&request, &caller).await;
        guard::check_limits(&request, &ModelLimits::default(), input.tokens)?;
        match self.enter(Arc::clone(&request), caller, input) {
            Ok(entered) => self.settle_in(entered, attended).await,
            // The same request may have come twice at the same time.
            Err(refusal) if refusal.code == ErrorKind::Conflict => self.known(&request).await?.ok_or(refusal),
            Err(refusal) => Err(refusal),
        }
    }

    /// What the same id has led to before.
    async fn known(&self, request: &TaskRequest) -> Result<Option<Admitted>, ErrorEnvelope> {
        if let Some(known) = self.tasks.get(request.task_id) {
            if **known.request() != *request {
                return Err(journal::conflict(request));
            }
            return in_journal(known).await.map(Some);
        }
        // Interactive tasks do not outlive the daemon, and neither do their answers.
        if request.priority == Priority::Interactive {
            return Ok(None);
        }
        let stored = self.db.task(request.task_id).await.map_err(|error| history::unreadable(&error))?;
        stored.map(|stored| journal::answer_again(&stored, request).map(Admitted::Earlier)).transpose()
    }

    /// Models of the pools that answer to a name.
    fn serving(&self, name: &str) -> Vec<ModelId> {
        let scheduler = self.scheduler();
        let serves = |pool: &&Arc<Pool>| scheduler.pool(&pool.id).is_some_and(|view| view.snapshot.serves(name));
        self.pools.iter().filter(serves).map(|pool| pool.served().id.clone()).collect()
    }

    /// ORCH-3961: what clients may say about placement is the operator's choice.
    fn check_overrides(&self, request: &TaskRequest) -> Result<(), Refusal> {
        let Some(placement) = &request.placement else { return Ok(()) };
        let asked = [
            (PlacementOverride::Pin, placement.mode == PlacementMode::Pin),
            (PlacementOverride::Prefer, placement.mode == PlacementMode::Prefer),
            (PlacementOverride::Avoid, placement.avoid_pools.is_some()),
            (PlacementOverride::RequireDeviceMask, placement.require_device_mask.is_some()),
        ];
        let denied = |(word, used): &(PlacementOverride, bool)| *used && !self.config.admission.allows(*word);
        match asked.into_iter().find(denied) {
            Some((word, _)) => Err(Refusal::invalid(format!(
                "the operator does not let clients use the placement override `{word}`; leave it out, or have \
                 admission.placement_overrides changed"
            ))),
            None => Ok(()),
        }
    }

    /// Measures the input; the engine counts it where it might not fit. An input that fits however it is split need not be
    /// counted, and an admission that asks nobody costs nobody time.
    async fn measure(&self, request: &Arc<TaskRequest>, caller: &Caller) -> Input {
        let bytes = guard::input_bytes(request);
        let estimate = Input { bytes, tokens: TokenCount::estimate(bytes) };
        if guard::fits_for_sure(request, bytes) {
            return estimate;
        }
        let job = JobSpec::from_request(request);
        let Some(pool) = self.scheduler().open_pool_for(&job, self.clock.now_ms()).cloned() else {
            return estimate;
        };
        let replica = self.pools.scheduled(&pool).first();
        let job = Job {
            request: Arc::clone(request),
            seed: 0,
            repeatable: false,
            correlation_id: Arc::clone(&caller.correlation_id),
        };
        let counting = self.host.count_tokens(&pool, &replica.id, &job);
        match tokio::time::timeout(COUNTING, counting).await {
            Ok(Ok(Some(tokens))) => Input { bytes, tokens: TokenCount::Exact(tokens) },
            Ok(Ok(None) | Err(_)) | Err(_) => estimate,
        }
    }

    /// The step that counts: token of the throttle, session turn and budgets, place in a queue and entry in the store, all or
    /// nothing.
    fn enter(&self, request: Arc<TaskRequest>, caller: Caller, input: Input) -> Result<Entered, ErrorEnvelope> {
        let now_ms = self.clock.now_ms();
        let mut job = JobSpec::from_request(&request);
        let mut throttle = self.throttle();
        let identity = caller.identity;
        throttle.check(identity, now_ms)?;
        let mut sessions = self.sessions();
        let mut scheduler = self.scheduler();
        // One with the same id may have come, and even ended, since it was looked for.
        if self.tasks.get(request.task_id).is_some() {
            return Err(journal::conflict(&request));
        }
        if request.kv_hint != Some(api_types::KvHint::Cold)
            && let Some(home) = sessions.affinity(request.session_id, now_ms)
        {
            job.session_affinity_pool = Some(home.pool_id);
            job.session_affinity_replica = Some(home.replica_id);
        }
        let ask = self.ask(&request, &scheduler, &job);
        let turn = sessions.admit(request.session_id, request.task_id, ask, now_ms)?;
        let asked = scheduled(&request, job, input, request.deadline_ms);
        let pinned = asked.job.placement.mode == PlacementMode::Pin;
        let admission = match scheduler.admit(asked, now_ms) {
            Ok(admission) => admission,
            Err(rejection) => {
                sessions.undo(request.task_id);
                let decision = rejection.decision.as_deref();
                self.metrics.decided(false, pinned, false, decision.map_or(0, |log| log.candidates_considered));
                if let Some(decision) = decision {
                    narrate::not_placed(&request, &caller, decision, &rejection.refusal);
                }
                return Err(rejection.refusal.into());
            }
        };
        let allowed = throttle.take(identity, now_ms);
        debug_assert!(allowed.is_ok(), "it was checked under the same lock");
        drop(throttle);
        let budgets = self.has_budgets().then(|| sessions.budgets(request.session_id)).flatten();
        drop(sessions);
        let decision = &admission.decision;
        self.metrics.decided(true, decision.pinned, decision.fallback_used, decision.candidates_considered);
        let granted = Granted { admission: &admission, input, turn, budgets };
        let born = self.born(request, caller, &granted, now_ms);
        let task = Arc::new(Task::new(born, self.config.stream.max_bytes));
        self.write_started(&task);
        // Still under the scheduler's lock: whoever dispatches the task next finds it in the store, and the journal has its
        // entries in the order of admission.
        self.tasks.insert(Arc::clone(&task));
        let receipt = task.is_journaled().then(|| journal::accept(&self.db, &task));
        drop(scheduler);
        let evicted = admission.evicted.and_then(|id| self.tasks.get(id));
        Ok(Entered { task, evicted, receipt })
    }

    /// What follows once a task has its place.
    async fn settle_in(self: &Arc<Self>, entered: Entered, attended: bool) -> Result<Admitted, ErrorEnvelope> {
        let Entered { task, evicted, receipt } = entered;
        if let Some(evicted) = evicted {
            self.end(&evicted, &Ending::Failed(self.dropped(&evicted)));
        }
        self.watch(&task, attended);
        self.pools.scheduled(&task.born().pool_id).first().series().enqueued(task.request().priority);
        narrate::admitted(&task);
        self.tell_of(&task);
        self.dispatch();
        if let Some(receipt) = receipt {
            // Whether or not the client stays to hear of it.
            let (app, task) = (Arc::clone(self), Arc::clone(&task));
            task.home().clone().spawn(async move {
                match receipt.await {
                    Ok(()) => task.set_durable(true),
                    Err(error) => {
                        narrate::not_journaled(&task, &error);
                        app.cancel(&task, CancelReason::NotJournaled);
                        task.set_durable(false);
                    }
                }
            });
        }
        in_journal(task).await
    }

    /// What a task may use of its session's budgets.
    fn ask(&self, request: &TaskRequest, scheduler: &Scheduler, job: &JobSpec) -> Ask {
        let decode_ms = match self.config.sessions.time_budget_ms {
            Some(_) => scheduler.predicted_decode_ms(job),
            None => None,
        };
        Ask { max_tokens: u32::try_from(request.max_tokens).unwrap_or(0), decode_ms }
    }

    fn born(&self, request: Arc<TaskRequest>, caller: Caller, granted: &Granted<'_>, now_ms: u64) -> NewTask {
        let Granted { admission, input, turn, budgets } = *granted;
        let drawn = || rand::random_range(0..=MAX_SEED);
        NewTask {
            seed: request.seed.and_then(|seed| u32::try_from(seed).ok()).unwrap_or_else(drawn),
            admission: AdmissionResponse {
                task_id: request.task_id,
                queue_position: int(admission.queue_position),
                predicted_start_ms: long(admission.predicted_start_ms),
                backoff_ms: long(admission.backoff_ms),
                tokens_budget_remaining: budgets.and_then(|budgets| budgets.tokens_remaining).map(long),
                time_budget_remaining_ms: budgets.and_then(|budgets| budgets.time_remaining_ms).map(long),
                cost_budget_remaining: budgets.and_then(|budgets| budgets.cost_remaining),
            },
            placement: PlacementRecord::from(&admission.decision),
            on_time_probability: admission.on_time_probability,
            pool_id: admission.pool_id.clone(),
            input_tokens: input_tokens(input.tokens),
            decode_allowance_ms: turn.decode_ms,
            tokens_used: budgets.map(|budgets| budgets.tokens_used),
            admitted_ms: now_ms,
            admitted_at_ms: self.clock.unix_ms(now_ms),
            deadline_at_ms: now_ms.saturating_add_signed(request.deadline_ms),
            recovered: false,
            request,
            caller,
        }
    }

    fn write_started(&self, task: &Task) {
        let born = task.born();
        let pool = self.pools.scheduled(&born.pool_id);
        let replica = pool.first();
        let counted = born.input_tokens.as_ref().filter(|input| input.source == TokenSource::Exact);
        let frame = StartedFrame {
            queue_position: born.admission.queue_position,
            predicted_start_ms: born.admission.predicted_start_ms,
            correlation_id: Some(born.caller.correlation_id.as_ref().to_owned()),
            job_id: Some(task.id().to_string()),
            engine: Some(born.request.engine),
            engine_version: replica.engine_version().map(|version| version.as_ref().to_owned()),
            sampler_profile_version: pool.sampler_profile_version.clone(),
            model_digest: self.model_digest(pool, replica),
            seed: Some(i64::from(born.seed)),
            pool_id: Some(born.pool_id.to_string()),
            replica_id: None,
            tokens_in: counted.map(|input| input.tokens),
            tokens_used: born.tokens_used.map(long),
            tokens_remaining: born.admission.tokens_budget_remaining,
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
        let wait_ms = self.scheduler().backoff_ms(&pool_id, self.clock.now_ms()).unwrap_or(1000);
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

    /// Takes a task up again that was accepted in an earlier life of the daemon. Call it in the order of acceptance, before
    /// anything is admitted.
    pub fn recover(self: &Arc<Self>, entry: journal::Entry, admitted_at_ms: i64) {
        let now_ms = self.clock.now_ms();
        let left_ms = admitted_at_ms.saturating_add(entry.request.deadline_ms) - self.clock.unix_ms(now_ms);
        let born = NewTask {
            caller: Caller { correlation_id: entry.correlation_id, identity: auth_min::Identity::Localhost },
            seed: entry.seed,
            admission: entry.admission,
            placement: entry.placement,
            pool_id: entry.pool_id,
            on_time_probability: entry.on_time_probability,
            input_tokens: entry.input_tokens,
            decode_allowance_ms: None,
            tokens_used: None,
            admitted_ms: now_ms,
            admitted_at_ms,
            deadline_at_ms: now_ms.saturating_add_signed(left_ms),
            recovered: true,
            request: entry.request,
        };
        let task = Arc::new(Task::new(born, self.config.stream.max_bytes));
        self.tasks.insert(Arc::clone(&task));
        let request = task.request();
        let bytes = guard::input_bytes(request);
        let input = Input { bytes, tokens: TokenCount::estimate(bytes) };
        let asked = scheduled(request, JobSpec::from_request(request), input, left_ms);
        let pool_id = task.born().pool_id.clone();
        let restored = self.scheduler().restore(asked, &pool_id, now_ms);
        match restored {
            Ok(pool_id) => task.recovered_at(pool_id, self.clock.unix_ms(now_ms)),
            Err(refusal) => return self.end(&task, &Ending::Failed(refusal.into())),
        }
        self.write_started(&task);
        narrate::recovered(&task);
        self.watch(&task, true);
    }
}

/// A task as the scheduler takes it.
fn scheduled(request: &TaskRequest, job: JobSpec, input: Input, deadline_ms: i64) -> ScheduledTask {
    ScheduledTask { id: request.task_id, job, prompt: Prompt::new(input.tokens, input.bytes), deadline_ms }
}

fn input_tokens(count: TokenCount) -> Option<InputTokens> {
    match count {
        TokenCount::Exact(tokens) => Some(InputTokens { tokens: int(tokens), source: TokenSource::Exact }),
        TokenCount::Estimated(tokens) => Some(InputTokens { tokens: int(tokens), source: TokenSource::Estimate }),
        TokenCount::Unknown => None,
    }
}

/// A task once it is as safe as it must be before its client hears of it.
async fn in_journal(task: Arc<Task>) -> Result<Admitted, ErrorEnvelope> {
    if task.durable().await {
        return Ok(Admitted::Task(task));
    }
    let message =
        "the task could not be journaled and was not taken; the operator must look at the log and at server.data_dir";
    Err(ErrorEnvelope::new(ErrorKind::Internal, message))
}
