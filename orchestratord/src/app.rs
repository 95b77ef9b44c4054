//! What all parts of the daemon share, and the few things that may happen to a task from outside its runner.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adapter_host::AdapterHost;
use api_types::{ErrorEnvelope, ErrorKind, PoolId, Priority, TaskId, TaskState};
use config_schema::Config;
use orchestrator_core::Scheduler;
use orchestrator_core::scheduler::{Action, Canceled, Outcome};
use orchestrator_core::session::{SessionLimits, Sessions};

use crate::alarms::{Alarm, Alarms};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::narrate;
use crate::pools::Pools;
use crate::runner;
use crate::store::TaskStore;
use crate::task::{CancelReason, Ending, Task};

/// The daemon's state. Locks are short and never held together, but for the session and scheduler locks, which an
/// admission takes in this order.
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
    scheduler: Mutex<Scheduler>,
    sessions: Mutex<Sessions>,
    stopping: AtomicBool,
}

impl App {
    /// The state at start: pools configured, none of them probed.
    pub fn new(config: Config) -> Arc<Self> {
        let metrics = Metrics::default();
        let pools = Pools::new(&config, &metrics);
        let scheduler = Scheduler::new(pools.specs());
        let sessions = Sessions::new(SessionLimits {
            ttl_ms: config.sessions.ttl_ms.get(),
            max_turns: config.sessions.max_turns.get(),
            ..SessionLimits::default()
        });
        Arc::new(Self {
            clock: Clock::start(),
            host: AdapterHost::default(),
            pools,
            tasks: TaskStore::default(),
            alarms: Alarms::default(),
            metrics,
            scheduler: Mutex::new(scheduler),
            sessions: Mutex::new(sessions),
            stopping: AtomicBool::new(false),
            config,
        })
    }

    /// The scheduler, for one short operation.
    pub fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sessions, for one short operation.
    pub fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of sessions that have not expired.
    pub fn live_sessions(&self) -> usize {
        let mut sessions = self.sessions();
        sessions.prune(self.clock.now_ms());
        sessions.len()
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
        loop {
            let next = self.scheduler().next_dispatch(self.clock.now_ms());
            let Some(dispatch) = next else { return };
            let Some(task) = self.tasks.get(dispatch.task_id) else {
                // Cannot happen: a task is stored under the same lock that admits it. Its slot must not leak even so.
                tracing::error!(task_id = %dispatch.task_id, "a scheduled task is not known");
                self.scheduler().cancel(dispatch.task_id);
                continue;
            };
            runner::start(self, &task, dispatch);
        }
    }

    /// A task that ran has let go of its engine; the slot is free for the next one.
    pub fn release(self: &Arc<Self>, id: TaskId, outcome: Outcome) {
        self.scheduler().finish(id, outcome, self.clock.now_ms());
        self.dispatch();
    }

    /// Cancels a task, waiting or running. From the return on its stream is sealed.
    pub fn cancel(&self, task: &Task, reason: CancelReason) {
        self.scheduler().cancel(task.id());
        self.end(task, &Ending::Canceled { why: reason });
    }

    /// Ends a task: seals its stream, counts, logs. Of several callers only the first does anything.
    pub fn end(&self, task: &Task, ending: &Ending) {
        let now_ms = self.clock.now_ms();
        let Some(ended) = task.end(ending, now_ms, self.config.stream.narration) else { return };
        self.alarms.clear(task.id());
        let request = task.request();
        let series = self.pools.series(&ended.pool_id);
        if ended.replica_id.is_some() {
            series.ended(request.priority, &ended);
        }
        match ending {
            Ending::Completed { .. } => {}
            Ending::Canceled { why } => series.canceled(*why),
            Ending::Failed(error) if error.code == ErrorKind::QueueFullDropLru => {
                self.metrics.rejected(request.engine, error.code);
            }
            Ending::Failed(_) => {}
        }
        narrate::ended(task, ending, &ended);
        self.tasks.finished(task, now_ms, self.config.stream.retain_ms);
    }

    /// Somebody follows the task's stream.
    pub fn reader_came(&self, task: &Task) {
        self.alarms.clear_attendance(task.id());
    }

    /// Somebody has stopped following the task's stream before its end. Batch tasks run without a reader.
    pub fn reader_left(&self, task: &Arc<Task>) {
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
    pub fn alarm(&self, id: TaskId, alarm: Alarm) {
        let Some(task) = self.tasks.get(id) else { return };
        let unattended = task.transcript().readers() == 0;
        match alarm {
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
        scheduler.task_state(id) == Some(TaskState::Queued) && scheduler.cancel(id) == Canceled::Queued
    }

    /// Carries out what a change of a pool meant for waiting tasks.
    pub fn carry_out(self: &Arc<Self>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Moved { task, to, .. } => {
                    if let Some(task) = self.tasks.get(task) {
                        task.moved_to(to);
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
    pub fn stop_admitting(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        for task in self.tasks.living() {
            if self.withdraw(task.id()) {
                self.end(&task, &Ending::Failed(stopping()));
            }
        }
    }

    /// The grace is over: whatever still runs ends now.
    pub fn cut(&self) -> usize {
        let living = self.tasks.living();
        for task in &living {
            self.scheduler().cancel(task.id());
            self.end(task, &Ending::Failed(stopping()));
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
