//! What all parts of the daemon share, and the few things that may happen to a task from outside its runner.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adapter_host::AdapterHost;
use api_types::sse::{EventName, MetricsFrame, Phase};
use api_types::{ErrorEnvelope, ErrorKind, FeedEvent, MoveReason, PoolId, Priority, TaskId, TaskState};
use artifact_store::ArtifactStore;
use auth_min::Identity;
use catalog_core::CatalogError;
use config_schema::Config;
use orchestrator_core::scheduler::{Action, Canceled, Dispatch, Outcome, Requeued};
use orchestrator_core::session::{SessionLimits, Sessions, Used};
use orchestrator_core::throttle::Throttles;
use orchestrator_core::{Refusal, Scheduler};
use pool_managerd::manager::{Manager, Memory};
use pool_managerd::registry::Lease;
use state_db::StateDb;

use crate::alarms::{Alarm, Alarms};
use crate::artifacts;
use crate::clock::Clock;
use crate::feed::Feed;
use crate::history;
use crate::journal;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::narrate;
use crate::parking::Parking;
use crate::pools::{Pool, Pools, rate_limit};
use crate::residency::Residency;
use crate::runner;
use crate::store::TaskStore;
use crate::task::{CancelReason, EndedTask, Ending, Task};
use crate::wire::{int, long};
use crate::workers::Workers;

/// A long wait is reported less often than a short one: about so many times, as far as it can be foreseen; and a crowd gets
/// one report each millisecond between them all.
const REPORTS_PER_WAIT: u64 = 8;
/// Bounds of the time between two reports, in milliseconds; `stream.metrics_interval_ms` lies between them or wins.
const SHORTEST_REPORT_GAP_MS: u64 = 50;
const LONGEST_REPORT_GAP_MS: u64 = 10_000;

/// The daemon's state. Locks are short and never held together, but for those of throttle, sessions and scheduler, which an
/// admission takes in this order, and that of residency, which is taken before the scheduler's.
pub struct App {
    /// The configuration, checked.
    pub config: Config,
    /// The one clock.
    pub clock: Clock,
    /// Engines by pool.
    pub host: AdapterHost,
    /// What probes found out about pools.
    pub pools: Pools,
    /// Every task known.
    pub tasks: TaskStore,
    /// Deadlines that nobody else watches.
    pub alarms: Alarms,
    /// Series for `/metrics`.
    pub metrics: Metrics,
    /// Journal and history.
    pub db: StateDb,
    /// The catalog of models.
    pub models: Models,
    /// What watchers are told.
    pub feed: Feed,
    /// Documents, and the records of ended tasks.
    pub artifacts: ArtifactStore,
    /// The engines that are run here.
    pub manager: Manager,
    /// Who has the GPUs' memory.
    pub residency: Residency,
    /// Other hosts that run engines.
    pub workers: Workers,
    /// What engines hold of sessions while they are unloaded.
    pub parking: Parking,
    scheduler: Mutex<Scheduler>,
    sessions: Mutex<Sessions>,
    throttle: Mutex<Throttle>,
    stopping: AtomicBool,
}

/// How often each caller may submit; callers without a limit are not counted at all.
pub struct Throttle(Option<Throttles<String>>);

impl Throttle {
    fn new(config: &Config) -> Self {
        let limit = config.admission.token_rate_limit();
        Self(limit.map(|limit| Throttles::new(rate_limit(limit), "this API token")))
    }

    /// Whether a caller may submit now.
    ///
    /// # Errors
    /// When to try again.
    pub fn check(&self, caller: Identity, now_ms: u64) -> Result<(), Refusal> {
        self.0.as_ref().map_or(Ok(()), |throttles| throttles.check(&caller.to_string(), now_ms))
    }

    /// Counts a task of a caller.
    ///
    /// # Errors
    /// As [`Throttle::check`].
    pub fn take(&mut self, caller: Identity, now_ms: u64) -> Result<(), Refusal> {
        self.0.as_mut().map_or(Ok(()), |throttles| throttles.take(&caller.to_string(), now_ms))
    }
}

impl App {
    /// The state at start: pools configured, none of them probed.
    pub fn new(
        config: Config,
        db: StateDb,
        models: Models,
        artifacts: ArtifactStore,
        manager: Manager,
        clock: Clock,
    ) -> Result<Arc<Self>, CatalogError> {
        let metrics = Metrics::default();
        for (id, state) in models.states() {
            metrics.model_state(id.as_str(), Some(state));
        }
        let pools = Pools::new(&config, &metrics);
        let mut scheduler = Scheduler::new(pools.specs());
        let residency = Residency::open(&config, &pools)?;
        residency.begin(&mut scheduler);
        let sessions = Sessions::new(SessionLimits {
            ttl_ms: config.sessions.ttl_ms.get(),
            max_turns: config.sessions.max_turns.get(),
            tokens_budget: config.sessions.tokens_budget,
            time_budget_ms: config.sessions.time_budget_ms,
            cost_budget: config.sessions.cost_budget,
            cost_per_1k_tokens: config.sessions.cost_per_1k_tokens,
            ..SessionLimits::default()
        });
        Ok(Arc::new(Self {
            clock,
            host: AdapterHost::default(),
            pools,
            tasks: TaskStore::default(),
            alarms: Alarms::default(),
            metrics,
            db,
            models,
            feed: Feed::default(),
            artifacts,
            manager,
            residency,
            workers: Workers::new(&config),
            parking: Parking::open(&config),
            scheduler: Mutex::new(scheduler),
            sessions: Mutex::new(sessions),
            throttle: Mutex::new(Throttle::new(&config)),
            stopping: AtomicBool::new(false),
            config,
        }))
    }

    /// The scheduler, for one short operation.
    pub fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sessions, for one short operation.
    pub fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often callers may submit, for one short operation.
    pub fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether sessions have budgets.
    pub fn has_budgets(&self) -> bool {
        let limits = &self.config.sessions;
        limits.tokens_budget.is_some() || limits.time_budget_ms.is_some() || limits.cost_budget.is_some()
    }

    /// Number of sessions that have not expired.
    pub fn live_sessions(&self) -> usize {
        let mut sessions = self.sessions();
        sessions.prune(self.clock.now_ms());
        sessions.len()
    }

    /// The memory of a pool's devices, wherever they are; `None` where it cannot be read.
    pub fn memory_of(&self, pool: &PoolId) -> Option<Memory> {
        self.manager.memory_of(pool).or_else(|| self.workers.memory_of(pool))
    }

    /// Tasks waiting in a pool.
    pub fn queue_depth(&self, pool: &PoolId) -> i32 {
        self.scheduler().pool(pool).map_or(0, |pool| pool.snapshot.queued)
    }

    /// Whether the daemon has been told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Hands waiting tasks to engines as long as there is a free slot for one.
    pub fn dispatch(self: &Arc<Self>) {
        self.residency.nudge();
        loop {
            let Some((dispatch, lease)) = self.next_dispatch() else { return };
            let Some(task) = self.tasks.get(dispatch.task_id) else {
                // Cannot happen: a task is stored under the same lock that admits it. Its slot must not leak even so.
                tracing::error!(task_id = %dispatch.task_id, "a scheduled task is not known");
                self.scheduler().cancel(dispatch.task_id, self.clock.now_ms());
                continue;
            };
            runner::start(self, &task, &dispatch, lease);
        }
    }

    /// The next task that can start, and the lease of its slot. Both come about under the scheduler's lock, so that a pool that
    /// was closed and has no lease has no task either.
    fn next_dispatch(&self) -> Option<(Dispatch, Lease)> {
        let mut scheduler = self.scheduler();
        let dispatch = scheduler.next_dispatch(self.clock.now_ms())?;
        let lease = self.manager.registry().lease(&dispatch.pool_id);
        Some((dispatch, lease))
    }

    /// A task that ran has let go of its engine; the slot is free for the next one.
    pub fn release(self: &Arc<Self>, id: TaskId, outcome: Outcome) {
        self.scheduler().finish(id, outcome, self.clock.now_ms());
        self.dispatch();
    }

    /// A task's worker was lost before its first token. It waits again and this says yes, or it is for the caller to end.
    pub fn try_again(self: &Arc<Self>, task: &Task) -> bool {
        if !task.requeued() {
            return false;
        }
        let requeued = self.scheduler().requeue(task.id(), self.clock.now_ms());
        match requeued {
            Requeued::Again { pool_id, .. } => {
                self.sessions().fail_over(task.session_id());
                let at_ms = self.clock.unix_ms(self.clock.now_ms());
                task.moved_to(pool_id.clone(), MoveReason::WorkerLost, at_ms);
                narrate::tried_again(task, &pool_id);
                self.tell_of(task);
                self.report_soon(task);
                self.dispatch();
                true
            }
            Requeued::GivenUp | Requeued::Canceled | Requeued::Unknown => false,
        }
    }

    /// Cancels a task, waiting or running. From the return on its stream takes no token.
    pub fn cancel(self: &Arc<Self>, task: &Arc<Task>, reason: CancelReason) {
        self.scheduler().cancel(task.id(), self.clock.now_ms());
        self.end(task, &Ending::Canceled { why: reason });
    }

    /// Ends tasks, waiting or running, with the same error.
    pub fn fail_all<'a>(self: &Arc<Self>, tasks: impl IntoIterator<Item = &'a Arc<Task>>, error: &ErrorEnvelope) {
        for task in tasks {
            self.scheduler().cancel(task.id(), self.clock.now_ms());
            self.end(task, &Ending::Failed(error.clone()));
        }
    }

    /// Ends a task: counts, settles, logs, records, and seals its stream. Of several callers only the first does anything.
    /// The end of a journaled task is in `state.db` before anybody is told of it, so that no task that was seen to end runs
    /// again after a crash.
    pub fn end(self: &Arc<Self>, task: &Arc<Task>, ending: &Ending) {
        let Some(ended) = self.conclude(task, ending) else { return };
        let receipt = journal::finish(&self.db, task, &self.clock);
        if task.is_journaled() {
            let (app, task, ending) = (Arc::clone(self), Arc::clone(task), ending.clone());
            task.home().clone().spawn(async move {
                if let Err(error) = receipt.await {
                    narrate::not_recorded(&task, &error);
                }
                app.publish(&task, &ending, &ended);
                artifacts::record(&app, &task, &ending);
            });
        } else {
            self.publish(task, ending, &ended);
            artifacts::record(self, task, ending);
        }
    }

    /// Ends a task for this life of the daemon only: a journaled one runs again in the next.
    fn suspend(self: &Arc<Self>, task: &Arc<Task>) {
        if !task.is_journaled() {
            return self.end(task, &Ending::Failed(stopping()));
        }
        let ending = Ending::Failed(ErrorEnvelope {
            message: "the orchestrator is stopping; the task is kept and runs when it is back".to_owned(),
            ..stopping()
        });
        if let Some(ended) = self.conclude(task, &ending) {
            self.publish(task, &ending, &ended);
        }
    }

    /// A task has changed: watchers learn of it. Not for callers that hold the scheduler.
    pub fn tell_of(&self, task: &Task) {
        self.feed.tell(FeedEvent::Task, || history::summary(self, task));
    }

    fn publish(&self, task: &Task, ending: &Ending, ended: &EndedTask) {
        task.publish(ending, ended, self.config.stream.narration);
        self.tell_of(task);
        self.tasks.finished(task, self.clock.now_ms(), self.config.stream.retain_ms);
    }

    fn conclude(&self, task: &Task, ending: &Ending) -> Option<EndedTask> {
        let now_ms = self.clock.now_ms();
        let ended = task.end(ending, now_ms)?;
        self.residency.nudge();
        self.alarms.clear(task.id());
        let used = Used { tokens_out: ended.tokens_out.unwrap_or(0), decode_ms: ended.decode_time_ms };
        self.sessions().settle(task.id(), used, now_ms);
        let request = task.request();
        let pool = self.pools.scheduled(&ended.pool_id);
        let replica = ended.replica_id.as_ref().map_or_else(|| pool.first(), |id| pool.scheduled(id));
        let series = replica.series();
        if ended.replica_id.is_some() {
            series.ended(request.priority, &ended);
        }
        match ending {
            Ending::Completed { .. } => {}
            Ending::Canceled { why } => series.canceled(*why),
            Ending::Failed(error) if error.code == ErrorKind::QueueFullDropLru => {
                self.metrics.rejected(request.engine, error);
            }
            Ending::Failed(_) => {}
        }
        narrate::ended(task, ending, &ended);
        Some(ended)
    }

    /// Somebody follows the task's stream.
    pub fn reader_came(&self, task: &Task) {
        self.alarms.clear_attendance(task.id());
        self.report_soon(task);
    }

    fn report_soon(&self, task: &Task) {
        if task.state() == TaskState::Queued {
            self.alarms.set(task.id(), Alarm::Report, self.clock.now_ms() + self.config.stream.metrics_interval_ms);
        }
    }

    /// Tells the readers of a waiting task how things stand, again and again until it is handed to an engine.
    fn report(&self, task: &Task) {
        let now_ms = self.clock.now_ms();
        let outlook = self.scheduler().outlook(task.id(), now_ms);
        let Some(outlook) = outlook.filter(|outlook| outlook.state == TaskState::Queued) else { return };
        if task.transcript().readers() == 0 {
            return;
        }
        let pool = self.pools.scheduled(&task.pool_id());
        let frame = MetricsFrame {
            queue_depth: self.queue_depth(&pool.id),
            on_time_probability: outlook.on_time_probability,
            phase: Some(if pool.is_loading() { Phase::Loading } else { Phase::Queued }),
            queue_position: Some(int(outlook.queue_position)),
            predicted_start_ms: Some(long(outlook.predicted_start_ms)),
            progress: self.progress_of(pool),
            ..MetricsFrame::default()
        };
        if !task.transcript().write().passing(EventName::Metrics, &frame) {
            pool.first().series().dropped_frame(EventName::Metrics);
        }
        let foreseen_ms = outlook.predicted_start_ms / REPORTS_PER_WAIT;
        let crowd_ms = frame.queue_depth.unsigned_abs().into();
        let shortest_ms = self.config.stream.metrics_interval_ms.max(SHORTEST_REPORT_GAP_MS);
        let gap_ms = foreseen_ms.max(crowd_ms).min(LONGEST_REPORT_GAP_MS).max(shortest_ms);
        self.alarms.set(task.id(), Alarm::Report, now_ms + gap_ms);
    }

    /// Share of what is done to bring a pool's engine up: by its manager, else of the download of its model.
    fn progress_of(&self, pool: &Pool) -> Option<f64> {
        let managed = pool.report().and_then(|report| report.activity).and_then(|(_, share)| share);
        let loading = || self.residency.progress(&pool.id, self.clock.now_ms());
        managed
            .or_else(loading)
            .or_else(|| self.models.job(&pool.served().id).filter(|job| job.is_under_way())?.share())
    }

    /// Somebody has stopped following the task's stream before its end. Batch tasks run without a reader.
    pub fn reader_left(self: &Arc<Self>, task: &Arc<Task>) {
        let stream = &self.config.stream;
        let needs_reader = stream.cancel_on_disconnect && task.request().priority == Priority::Interactive;
        if !needs_reader || task.has_ended() || task.transcript().readers() > 0 {
            return;
        }
        if stream.disconnect_grace_ms == 0 {
            self.cancel(task, CancelReason::Disconnect);
        } else {
            let until_ms = self.clock.now_ms() + stream.disconnect_grace_ms;
            self.alarms.set(task.id(), Alarm::Abandoned, until_ms);
        }
    }

    /// An alarm has gone off.
    pub fn alarm(self: &Arc<Self>, id: TaskId, alarm: Alarm) {
        let Some(task) = self.tasks.get(id) else { return };
        let unattended = task.transcript().readers() == 0;
        match alarm {
            Alarm::Report => self.report(&task),
            Alarm::Unattended if unattended => self.cancel(&task, CancelReason::Unattended),
            Alarm::Abandoned if unattended => self.cancel(&task, CancelReason::Disconnect),
            Alarm::Unattended | Alarm::Abandoned => {}
            // A task that runs is watched by its runner.
            Alarm::Deadline if self.withdraw(id) => {
                let waited = task.request().deadline_ms;
                self.end(&task, &Ending::failed(ErrorKind::DeadlineUnmet, format!(
                    "the task was still waiting when its deadline of {waited} ms passed; allow more time, or use a pool with a shorter queue"
                )));
            }
            Alarm::Deadline => {}
        }
    }

    /// Takes a task out of its queue; false when it is not waiting in one.
    fn withdraw(&self, id: TaskId) -> bool {
        let mut scheduler = self.scheduler();
        scheduler.task_state(id) == Some(TaskState::Queued)
            && scheduler.cancel(id, self.clock.now_ms()) == Canceled::Queued
    }

    /// Carries out what a change of a pool meant for waiting tasks.
    pub fn carry_out(self: &Arc<Self>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Moved { task, to, misfit, .. } => {
                    if let Some(task) = self.tasks.get(task) {
                        let reason = if misfit { MoveReason::Misfit } else { MoveReason::Closed };
                        narrate::moved(&task, &to, reason);
                        task.moved_to(to, reason, self.clock.unix_ms(self.clock.now_ms()));
                        self.tell_of(&task);
                    }
                }
                Action::Rejected { task, refusal } => {
                    if let Some(task) = self.tasks.get(task) {
                        self.end(&task, &Ending::Failed(ErrorEnvelope::from(refusal)));
                    }
                }
            }
        }
        self.dispatch();
    }

    /// The daemon stops: no task is taken any more, and those that have not started end now.
    pub fn stop_admitting(self: &Arc<Self>) {
        self.stopping.store(true, Ordering::Relaxed);
        for task in self.tasks.living() {
            if self.withdraw(task.id()) {
                self.suspend(&task);
            }
        }
    }

    /// The grace is over: whatever still runs ends now.
    pub fn cut(self: &Arc<Self>) -> usize {
        let living = self.tasks.living();
        for task in &living {
            self.scheduler().cancel(task.id(), self.clock.now_ms());
            self.suspend(task);
        }
        living.len()
    }
}

/// What tasks get that a stopping daemon cannot serve.
pub fn stopping() -> ErrorEnvelope {
    ErrorEnvelope {
        retry_after_ms: Some(1000),
        ..ErrorEnvelope::new(
            ErrorKind::PoolUnready,
            "the orchestrator is stopping; submit the task again when it is back",
        )
    }
}
