//! Runs one task on an engine: submit, follow the engine's stream, watch the time, end the task.

mod watch;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adapter_api::{Finish, Job, Progress, StreamState, TokenEvent, WorkerError};
use adapter_host::{HostError, HostedStream};
use api_types::sse::{EventName, MetricsFrame, Phase, TokenFrame};
use api_types::{DeterminismLevel, ErrorEnvelope, ErrorKind, PolicyLabel};
use config_schema::Stream as StreamConfig;
use orchestrator_core::Refusal;
use orchestrator_core::scheduler::Dispatch;
use orchestrator_core::session::{Home, Tail};
use tokio::time::Instant;
use transcript::Writer;

use self::watch::{Late, MORE_DECODE_MS, Watch};
use crate::app::App;
use crate::narrate;
use crate::pools::{self, Pool, Replica};
use crate::task::{Ending, Task};
use crate::wire::{int, long};

/// Starts a dispatched task on its own runtime. What the stream says of it is written before this returns, so that a task
/// that need not wait tells everything it knows in the first write to its client.
pub fn start(app: &Arc<App>, task: &Arc<Task>, dispatch: &Dispatch, slot: pool_managerd::registry::Lease) {
    let lease = Lease { app: Arc::clone(app), task: Arc::clone(task), is_ours: true, _slot: slot };
    let pool = Arc::clone(app.pools.scheduled(&dispatch.pool_id));
    let replica = Arc::clone(pool.scheduled(&dispatch.replica_id));
    let now_ms = app.clock.now_ms();
    if task.dispatched(dispatch, replica.engine_version(), now_ms, app.clock.unix_ms(now_ms)) {
        Run { app, task, pool: &pool, replica: &replica }.announce(now_ms);
        app.tell_of(task);
        task.home().spawn(run(lease, pool, replica));
    }
}

/// Runs a task to its end, or to the loss of its worker, and gives its slot back, however that comes about.
async fn run(mut lease: Lease, pool: Arc<Pool>, replica: Arc<Replica>) {
    let (app, task) = (Arc::clone(&lease.app), Arc::clone(&lease.task));
    let run = Run { app: &app, task: &task, pool: &pool, replica: &replica };
    match run.drive().await {
        Over::Ended(ending) => app.end(&task, &ending),
        Over::Lost(error) if app.try_again(&task) => {
            // The scheduler has taken the slot back with the task.
            lease.is_ours = false;
            narrate::worker_lost(&task, &pool, &replica, &error);
        }
        Over::Lost(error) => app.end(&task, &Ending::Failed(error)),
        Over::Canceled => {}
    }
    if lease.is_ours {
        // A task that was broken off keeps its slot until the engine has noticed.
        app.host.settled(task.id()).await;
    }
}

/// How a run was over.
enum Over {
    /// The task ended.
    Ended(Ending),
    /// The worker was lost before the first token; the task may run elsewhere.
    Lost(ErrorEnvelope),
    /// Somebody else has ended the task.
    Canceled,
}

/// The slot of a dispatched task. Dropping it is the only way a slot becomes free again, so that no way of ending a runner
/// can leak it.
struct Lease {
    app: Arc<App>,
    task: Arc<Task>,
    is_ours: bool,
    /// Dropped last: whoever waits for the pool to be idle finds the scheduler told.
    _slot: pool_managerd::registry::Lease,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        if !self.task.has_ended() {
            narrate::runner_failed(&self.task);
            let message = "the orchestrator lost track of the task; submit it again and report the log";
            self.app.end(&self.task, &Ending::failed(ErrorKind::Internal, message));
        }
        self.app.release(self.task.id(), self.task.outcome());
    }
}

struct Run<'a> {
    app: &'a Arc<App>,
    task: &'a Arc<Task>,
    pool: &'a Arc<Pool>,
    replica: &'a Arc<Replica>,
}

impl Run<'_> {
    fn announce(&self, now_ms: u64) {
        let waited_ms = now_ms.saturating_sub(self.task.born().admitted_ms);
        self.replica.series().started(self.task.request().priority);
        narrate::dispatched(self.task, self.pool, self.replica, waited_ms);
        if self.app.config.stream.narration {
            let human = format!("pool {} starts the task after {waited_ms} ms of waiting", self.pool.id);
            self.droppable(
                &mut self.task.transcript().write(),
                EventName::Narration,
                &self.task.narration("start", &self.pool.id, human),
            );
        }
    }

    /// Follows the engine to the end.
    async fn drive(&self) -> Over {
        let job = Job {
            request: Arc::clone(self.task.request()),
            seed: self.task.born().seed,
            repeatable: self.pool.is_strict() || self.task.request().determinism == Some(DeterminismLevel::Strict),
            correlation_id: Arc::clone(&self.task.born().caller.correlation_id),
        };
        let timeouts = &self.pool.config.timeouts;
        let deadline = self.app.clock.instant(self.task.deadline_ms());
        let mut watch = Watch::new(deadline, timeouts.wall(), timeouts.idle());
        let cancel = self.task.cancel_token().clone();
        let give_up = || self.engine_is_gone() || self.could_start_elsewhere();
        let mut submit = pin!(self.app.host.submit(&self.pool.id, &self.replica.id, &job, cancel, &give_up));
        let submitted = tokio::select! {
            biased;
            submitted = &mut submit => submitted,
            late = watch.expired() => return Over::Ended(self.too_late(late)),
        };
        match submitted {
            Ok(stream) => self.follow(stream, &mut watch).await,
            Err(error) => self.failed(&error),
        }
    }

    async fn follow(&self, mut stream: HostedStream, watch: &mut Watch) -> Over {
        let mut pass = Pass::new(&self.app.config.stream, self.is_home());
        loop {
            let late = tokio::select! {
                biased;
                state = poll_fn(|cx| self.poll_stream(&mut stream, &mut pass, cx)) => {
                    if std::mem::take(&mut pass.just_streamed) {
                        self.streams(watch);
                    }
                    match state {
                        Ok(StreamState::Open) => {
                            pass.now = Instant::now();
                            watch.touch(pass.now)
                        }
                        Ok(StreamState::Ended) => return Over::Ended(self.completed(pass.finish)),
                        Err(error) => return self.failed(&error),
                    }
                }
                // Of an engine that is not read nothing is known.
                late = watch.expired() => if late == Late::Idle && pass.is_full { watch.touch(Instant::now()) } else { Some(late) },
            };
            match late.map(|late| (late, self.allow_more(late))) {
                None => {}
                Some((_, Some(more))) => watch.allow(more),
                Some((late, None)) => return Over::Ended(self.too_late(late)),
            }
        }
    }

    /// The first token has come: the engine holds the session's prefix (LO-SES-03), a lost worker is the end from now on, and
    /// decode time counts.
    fn streams(&self, watch: &mut Watch) {
        pools::tried(self.app, self.pool, self.replica);
        self.app.scheduler().first_token(self.task.id());
        let home = Home { pool_id: self.pool.id.clone(), replica_id: self.replica.id.clone() };
        self.app.sessions().mark_warm(self.task.id(), home, self.app.clock.now_ms());
        if let Some(allowance_ms) = self.task.born().decode_allowance_ms {
            watch.limit_decoding(Duration::from_millis(allowance_ms));
        }
    }

    /// More decode time for a task that has used up what was reserved for it, if its session has any left.
    fn allow_more(&self, late: Late) -> Option<Duration> {
        if late != Late::Budget {
            return None;
        }
        let more_ms = self.app.sessions().extend_time(self.task.id(), MORE_DECODE_MS);
        (more_ms > 0).then(|| Duration::from_millis(more_ms))
    }

    /// One read of the engine's stream: all its events go into the transcript under one lock and wake the readers once. A
    /// full transcript keeps the next read waiting, and so, by and by, the engine.
    fn poll_stream(
        &self,
        stream: &mut HostedStream,
        pass: &mut Pass,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamState, HostError>> {
        if pass.is_full {
            ready!(self.task.transcript().poll_room(cx));
        }
        let mut writer = None;
        let state = stream.poll_events(cx, &mut |event| {
            let writer = writer.get_or_insert_with(|| self.task.transcript().write());
            self.take(&event, writer, pass);
        });
        pass.is_full = writer.is_some_and(|mut writer| writer.is_full());
        state
    }

    fn take(&self, event: &TokenEvent<'_>, writer: &mut Writer<'_>, pass: &mut Pass) {
        match *event {
            TokenEvent::Started => {}
            TokenEvent::Token { text, channel } => {
                self.first_token(writer, pass);
                writer.token(text, channel);
            }
            TokenEvent::Embedding { index, vector } => {
                self.first_token(writer, pass);
                writer.token_payload(&result_frame(index, Some(vector.to_vec()), None));
            }
            TokenEvent::Score { index, score } => {
                self.first_token(writer, pass);
                writer.token_payload(&result_frame(index, None, Some(score)));
            }
            TokenEvent::Metrics(progress) => self.progress(progress, writer, pass),
            TokenEvent::End(finish) => pass.finish = Some(finish),
        }
    }

    fn first_token(&self, writer: &Writer<'_>, pass: &mut Pass) {
        if writer.tokens() == 0 {
            self.task.first_token(self.app.clock.now_ms());
            pass.just_streamed = true;
            self.app.tell_of(self.task);
        }
    }

    fn progress(&self, progress: Progress, writer: &mut Writer<'_>, pass: &mut Pass) {
        if let Some(tokens_out) = progress.tokens_out {
            self.task.generated(tokens_out);
        }
        let now = pass.now;
        self.narrate_progress(writer, pass, now);
        if now < pass.metrics_due {
            return;
        }
        pass.metrics_due = now + self.app.config.stream.metrics_interval();
        let decoding = writer.tokens() > 0;
        let budgets = self.app.has_budgets().then(|| self.app.sessions().budgets(self.task.session_id())).flatten();
        let failed_over = self.task.attempts() > 1;
        let frame = MetricsFrame {
            kv_warmth: Some(!failed_over && pass.was_home),
            kv_migrated: failed_over.then_some(false),
            tokens_budget_remaining: budgets.and_then(|budgets| budgets.tokens_remaining).map(long),
            time_budget_remaining_ms: budgets.and_then(|budgets| budgets.time_remaining_ms).map(long),
            cost_budget_remaining: budgets.and_then(|budgets| budgets.cost_remaining),
            queue_depth: self.app.queue_depth(&self.pool.id),
            on_time_probability: self.on_time_probability(),
            phase: Some(if decoding { Phase::Decoding } else { Phase::Prefill }),
            progress: progress.prefill,
            latency_first_token_ms: self.task.first_token_latency_ms().map(long),
            tokens_out: progress.tokens_out.map(int),
            ..MetricsFrame::default()
        };
        self.droppable(writer, EventName::Metrics, &frame);
    }

    /// LO-SSE-05: a sentence now and then, for operators who ask for it.
    fn narrate_progress(&self, writer: &mut Writer<'_>, pass: &mut Pass, now: Instant) {
        let Some(period) = self.app.config.stream.narration_period().filter(|_| self.app.config.stream.narration)
        else {
            return;
        };
        if now < pass.narration_due {
            return;
        }
        pass.narration_due = now + period;
        let human = format!("pool {} has sent {} pieces of the answer", self.pool.id, writer.tokens());
        self.droppable(writer, EventName::Narration, &self.task.narration("progress", &self.pool.id, human));
    }

    fn on_time_probability(&self) -> f64 {
        let outlook = self.app.scheduler().outlook(self.task.id(), self.app.clock.now_ms());
        outlook.map_or_else(|| self.task.born().on_time_probability, |outlook| outlook.on_time_probability)
    }

    /// Whether the session was served by this replica before.
    fn is_home(&self) -> bool {
        let home = self.app.sessions().affinity(self.task.session_id(), self.app.clock.now_ms());
        home.is_some_and(|home| home.pool_id == self.pool.id && home.replica_id == self.replica.id)
    }

    fn droppable<T: serde::Serialize>(&self, writer: &mut Writer<'_>, name: EventName, frame: &T) {
        let lag = u32::try_from(self.app.config.stream.channel_cap.get()).unwrap_or(u32::MAX);
        if !writer.droppable(name, frame, lag) && !writer.is_closed() {
            self.replica.series().dropped_frame(name);
        }
    }

    fn completed(&self, finish: Option<Finish>) -> Ending {
        pools::tried(self.app, self.pool, self.replica);
        match finish {
            Some(Finish { reason, usage }) => {
                if let (Some(read), Some(written)) = (usage.tokens_in, usage.tokens_out) {
                    let tail = Tail { slot: usage.slot, tokens: u64::from(read) + u64::from(written) };
                    self.app.sessions().hold(self.task.id(), tail);
                }
                Ending::Completed { reason, usage }
            }
            None => Ending::failed(ErrorKind::Internal, "the engine's adapter ended a stream without its result"),
        }
    }

    fn failed(&self, error: &HostError) -> Over {
        // Whoever canceled the task has ended it already.
        let Some(error) = error.worker() else { return Over::Canceled };
        // What an engine makes of a task may be the task's own fault, so only another engine is tried then.
        let lost = error.is_worker_lost() || (matches!(error, WorkerError::Adapter(_)) && self.could_start_elsewhere());
        pools::failed(self.app, self.pool, self.replica, error);
        let advice = match error.kind() {
            ErrorKind::WorkerReset | ErrorKind::PoolUnavailable => {
                "; look at the engine's own log, then submit the task again"
            }
            ErrorKind::ReplicaExhausted => "; wait a moment and submit the task again",
            ErrorKind::InvalidParams => "; change the request",
            ErrorKind::DecodeTimeout => "; submit again, or raise the pool's timeouts",
            _ => "; the orchestrator's log has the details under this task's correlation id",
        };
        let envelope = ErrorEnvelope {
            engine: Some(self.pool.config.engine),
            pool_id: Some(self.pool.id.to_string()),
            ..ErrorEnvelope::new(error.kind(), format!("{error}{advice}"))
        };
        if lost { Over::Lost(envelope) } else { Over::Ended(Ending::Failed(envelope)) }
    }

    /// Whether the engine that the task was given to is not the pool's any more, or is on its way out. What listens in its place has
    /// tasks only once it is ready.
    fn engine_is_gone(&self) -> bool {
        self.pool.config.is_managed() && !self.replica.is_ready()
    }

    /// Whether another engine could have the task at once, if this one fails it before the first token.
    fn could_start_elsewhere(&self) -> bool {
        self.app.scheduler().could_start_elsewhere(self.task.id(), self.app.clock.now_ms())
    }

    /// Must be called before the stream is dropped: silence is held against the engine.
    fn too_late(&self, late: Late) -> Ending {
        if late == Late::Idle {
            let silence = WorkerError::DecodeTimeout("it was silent for too long".to_owned());
            self.app.host.blame(&self.pool.id, self.task.id(), &silence);
            pools::failed(self.app, self.pool, self.replica, &silence);
        }
        let timeouts = &self.pool.config.timeouts;
        let (kind, message) = match late {
            Late::Budget => {
                let message =
                    "the session's time budget (sessions.time_budget_ms) is used up; start a new session_id to go on";
                let refusal = Refusal::backpressure(ErrorKind::AdmissionReject, PolicyLabel::SessionBudget, 0, message);
                return Ending::Failed(refusal.with_retriable(false).with_pool(self.pool.id.clone()).into());
            }
            Late::Deadline => (
                ErrorKind::DeadlineUnmet,
                format!(
                    "the task's deadline of {} ms passed; allow more time or ask for less",
                    self.task.request().deadline_ms
                ),
            ),
            Late::Wall => (
                ErrorKind::DecodeTimeout,
                format!("the task ran longer than the pool's limit of {} ms (timeouts.wall_ms)", timeouts.wall_ms),
            ),
            Late::Idle => (
                ErrorKind::DecodeTimeout,
                format!(
                    "the engine was silent for {} ms (timeouts.idle_ms); look at the engine's own log",
                    timeouts.idle_ms
                ),
            ),
        };
        Ending::Failed(ErrorEnvelope {
            engine: Some(self.pool.config.engine),
            pool_id: Some(self.pool.id.to_string()),
            ..ErrorEnvelope::new(kind, message)
        })
    }
}

/// What one pass over the stream leaves for the next.
struct Pass {
    finish: Option<Finish>,
    /// When the engine was last read.
    now: Instant,
    metrics_due: Instant,
    narration_due: Instant,
    /// The transcript has no room; the engine is not read meanwhile.
    is_full: bool,
    /// The first token came and nothing but the stream knows of it yet.
    just_streamed: bool,
    /// Whether the replica held the session's prefix before this task.
    was_home: bool,
}

impl Pass {
    fn new(config: &StreamConfig, was_home: bool) -> Self {
        let now = Instant::now();
        Self {
            finish: None,
            now,
            metrics_due: now + config.metrics_interval(),
            narration_due: now + config.narration_period().unwrap_or_default(),
            is_full: false,
            just_streamed: false,
            was_home,
        }
    }
}

fn result_frame(index: u32, embedding: Option<Vec<f32>>, score: Option<f32>) -> TokenFrame {
    let i = int(index);
    TokenFrame { t: String::new(), i, channel: None, embedding, score }
}
