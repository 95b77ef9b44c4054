//! One task: what was asked, where it is in its life, and its stream.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adapter_api::Usage;
use api_types::sse::{EndFrame, ErrorFrame, EventName, FinishReason, NarrationFrame};
use api_types::{
    AdmissionResponse, ErrorEnvelope, ErrorKind, InputTokens, MoveReason, PlacementMove, PlacementRecord, PoolId,
    Priority, ReplicaId, SessionId, TaskId, TaskRequest, TaskState, TaskSummary,
};
use auth_min::Identity;
use orchestrator_core::scheduler::{Dispatch, Outcome};
use orchestrator_core::task::{End, TaskEvent, next};
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::transcript::Transcript;
use crate::wire::{int, long};

/// Who sent a request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The id under which log lines are found; the client's, or a fresh one.
    pub correlation_id: Arc<str>,
    /// Who calls, as logs may show it.
    pub identity: Identity,
}

/// What a task is born with.
pub struct NewTask {
    /// The client's request.
    pub request: Arc<TaskRequest>,
    /// Who submitted it, and the id under which its log lines are found.
    pub caller: Caller,
    /// Seed in force.
    pub seed: u32,
    /// The answer to its admission, given again for a safe retry.
    pub admission: AdmissionResponse,
    /// Why its pool was chosen.
    pub placement: PlacementRecord,
    /// The pool.
    pub pool_id: PoolId,
    /// Probability, as estimated then, that it ends before its deadline.
    pub on_time_probability: f64,
    /// Length of its input.
    pub input_tokens: Option<InputTokens>,
    /// Decode time reserved for it, in milliseconds; `None` when its session has no time budget.
    pub decode_allowance_ms: Option<u64>,
    /// Tokens its session had used; `None` without budgets.
    pub tokens_used: Option<u64>,
    /// Monotonic time of its admission to this life of the daemon.
    pub admitted_ms: u64,
    /// Wall time of its admission, in milliseconds since the Unix epoch.
    pub admitted_at_ms: i64,
    /// Monotonic time at which it must have ended.
    pub deadline_at_ms: u64,
    /// Whether it was admitted to an earlier life of the daemon.
    pub recovered: bool,
}

/// A task the daemon knows. Its runner, its readers and whoever cancels it share it.
pub struct Task {
    born: NewTask,
    home: tokio::runtime::Handle,
    cancel: CancellationToken,
    /// Whether the journal has it, once that is known.
    durable: SetOnce<bool>,
    /// Fires when the last frame is written.
    published: CancellationToken,
    transcript: Arc<Transcript>,
    life: Mutex<Life>,
}

#[derive(Debug)]
struct Life {
    state: TaskState,
    /// The state it ended from, once it has.
    ended_from: Option<TaskState>,
    pool_id: PoolId,
    replica_id: Option<ReplicaId>,
    engine_version: Option<Arc<str>>,
    dispatched_ms: Option<u64>,
    attempts: u32,
    moves: Vec<PlacementMove>,
    first_token_ms: Option<u64>,
    ended_ms: Option<u64>,
    tokens_in: Option<u32>,
    tokens_out: Option<u32>,
    error: Option<ErrorEnvelope>,
}

/// Identifiers of events that one life of the daemon has to itself.
const IDS_PER_LIFE: u32 = 1_000_000;
/// Most lives that are told apart.
const MOST_LIVES: u64 = 4_000;

/// How a task ends, with what its last frame says.
#[derive(Debug, Clone)]
pub enum Ending {
    /// The engine said that it was done.
    Completed {
        /// Why it stopped.
        reason: FinishReason,
        /// What it counted.
        usage: Usage,
    },
    /// Canceled; the stream closes with the counts so far.
    Canceled {
        /// By whom, or why.
        why: CancelReason,
    },
    /// Failed with a typed error; `Expired` when the code is `DEADLINE_UNMET`.
    Failed(ErrorEnvelope),
}

/// Why a task was canceled; the `reason` label of `tasks_canceled_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CancelReason {
    /// `POST /v1/tasks/{id}/cancel`.
    Client,
    /// The last reader went away.
    Disconnect,
    /// Nobody opened the stream in time.
    Unattended,
    /// It could not be journaled, so its client was told that it was not taken.
    NotJournaled,
}

impl CancelReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Client, Self::Disconnect, Self::Unattended, Self::NotJournaled];

    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Disconnect => "disconnect",
            Self::Unattended => "unattended",
            Self::NotJournaled => "not_journaled",
        }
    }

    /// What happened, for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Client => "canceled the task as the client asked",
            Self::Disconnect => "canceled the task because its reader went away",
            Self::Unattended => "canceled the task because nobody opened its stream",
            Self::NotJournaled => "canceled the task because it could not be journaled",
        }
    }
}

/// The numbers of a task that has just ended, for metrics, logs and estimates. Times are milliseconds.
#[derive(Debug, Clone)]
pub struct EndedTask {
    /// The state it ended in.
    pub state: TaskState,
    /// The pool it was on.
    pub pool_id: PoolId,
    /// The replica that ran it; `None` when it never ran.
    pub replica_id: Option<ReplicaId>,
    /// The engine's version, when known.
    pub engine_version: Option<Arc<str>>,
    /// Time it waited.
    pub queue_time_ms: u64,
    /// Time from dispatch to the first token; `None` without one.
    pub first_token_ms: Option<u64>,
    /// Time from the first token to the end.
    pub decode_time_ms: u64,
    /// Prompt tokens by the engine's count.
    pub tokens_in: Option<u32>,
    /// Generated tokens by the engine's count.
    pub tokens_out: Option<u32>,
}

impl Task {
    /// A queued task whose runner will live on the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(born: NewTask) -> Self {
        let life = Life {
            state: TaskState::Queued,
            ended_from: None,
            pool_id: born.pool_id.clone(),
            replica_id: None,
            engine_version: None,
            dispatched_ms: None,
            attempts: 0,
            moves: Vec::new(),
            first_token_ms: None,
            ended_ms: None,
            tokens_in: None,
            tokens_out: None,
            error: None,
        };
        let transcript = if born.recovered {
            // No id of an earlier life may mean something else in this one; one life lasts longer than a second.
            let age_ms = (long(born.deadline_at_ms) - long(born.admitted_ms) - born.request.deadline_ms).unsigned_abs();
            let life = int((age_ms / 1000 + 1).min(MOST_LIVES)).unsigned_abs();
            Transcript::starting_at(life * IDS_PER_LIFE)
        } else {
            Transcript::default()
        };
        let durable = SetOnce::new_with(born.recovered.then_some(true));
        Self {
            born,
            home: tokio::runtime::Handle::current(),
            cancel: CancellationToken::new(),
            durable,
            published: CancellationToken::new(),
            transcript: Arc::new(transcript),
            life: Mutex::new(life),
        }
    }

    /// Its id.
    pub fn id(&self) -> TaskId {
        self.born.request.task_id
    }

    /// Its session.
    pub fn session_id(&self) -> SessionId {
        self.born.request.session_id
    }

    /// What was asked.
    pub fn request(&self) -> &Arc<TaskRequest> {
        &self.born.request
    }

    /// What it was born with.
    pub fn born(&self) -> &NewTask {
        &self.born
    }

    /// Monotonic time at which it must have ended.
    pub fn deadline_ms(&self) -> u64 {
        self.born.deadline_at_ms
    }

    /// Whether it is in the journal until it ends: a batch task outlives the daemon (ORCH-3002-G).
    pub fn is_journaled(&self) -> bool {
        self.born.request.priority == Priority::Batch
    }

    /// The journal has it, or never will. Only the first call counts.
    pub fn set_durable(&self, durable: bool) {
        let _ = self.durable.set(durable);
    }

    /// Waits until the journal has it; false when it never will. A task that is not journaled need not wait. That it has
    /// ended says nothing: its end may become known before its beginning.
    pub async fn durable(&self) -> bool {
        !self.is_journaled() || *self.durable.wait().await
    }

    /// Waits until the last frame is written.
    pub async fn published(&self) {
        self.published.cancelled().await;
    }

    /// The runtime its connection lives on; its runner lives there too.
    pub fn home(&self) -> &tokio::runtime::Handle {
        &self.home
    }

    /// Fires when the task must stop running.
    pub fn cancel_token(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Its stream.
    pub fn transcript(&self) -> &Arc<Transcript> {
        &self.transcript
    }

    /// Where it is in its life.
    pub fn state(&self) -> TaskState {
        self.life().state
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.life().ended_ms.is_some()
    }

    /// The pool it is on now.
    pub fn pool_id(&self) -> PoolId {
        self.life().pool_id.clone()
    }

    /// The replica that runs it or ran it.
    pub fn replica_id(&self) -> Option<ReplicaId> {
        self.life().replica_id.clone()
    }

    /// How often it was handed to an engine.
    pub fn attempts(&self) -> u32 {
        self.life().attempts
    }

    /// It waits in another pool's queue now.
    pub fn moved_to(&self, pool_id: PoolId, reason: MoveReason, at_ms: i64) {
        self.life().go_to(pool_id, reason, at_ms);
    }

    /// It was taken up again after a restart of the daemon.
    pub fn recovered_at(&self, pool_id: PoolId, at_ms: i64) {
        let mut life = self.life();
        let from = life.pool_id.to_string();
        life.moves.push(PlacementMove { at_ms, from, to: pool_id.to_string(), reason: MoveReason::Recovered });
        life.pool_id = pool_id;
    }

    /// Its worker was lost before the first token; it waits again. False when it has ended meanwhile, or has streamed.
    pub fn requeued(&self) -> bool {
        self.life().advance(TaskEvent::Requeued)
    }

    /// It is handed to an engine. False when it has ended meanwhile.
    pub fn dispatched(&self, dispatch: &Dispatch, version: Option<Arc<str>>, now_ms: u64, at_ms: i64) -> bool {
        let mut life = self.life();
        if !life.advance(TaskEvent::Dispatched) {
            return false;
        }
        life.go_to(dispatch.pool_id.clone(), MoveReason::Idle, at_ms);
        life.attempts += 1;
        life.replica_id = Some(dispatch.replica_id.clone());
        life.engine_version = version;
        life.dispatched_ms = Some(now_ms);
        true
    }

    /// Its first token came; called before the token is written. Later calls do nothing.
    pub fn first_token(&self, now_ms: u64) {
        let mut life = self.life();
        if life.first_token_ms.is_none() && life.advance(TaskEvent::FirstToken) {
            life.first_token_ms = Some(now_ms);
        }
    }

    /// The engine told how much it has generated so far.
    pub fn generated(&self, tokens_out: u32) {
        self.life().tokens_out = Some(tokens_out);
    }

    /// Time from dispatch to the first token in milliseconds, once there is one.
    pub fn first_token_latency_ms(&self) -> Option<u64> {
        let life = self.life();
        life.first_token_ms.map(|first| first.saturating_sub(life.dispatched_ms.unwrap_or(first)))
    }

    /// Ends the task: the one place where that happens. From its return on the stream takes no token; its last frame comes
    /// with [`Task::publish`]. Of several callers only the first gets the numbers.
    pub fn end(&self, ending: &Ending, now_ms: u64) -> Option<EndedTask> {
        let mut life = self.life();
        let ended_from = life.state;
        if !life.advance(TaskEvent::Ended(ending.kind())) {
            return None;
        }
        life.ended_from = Some(ended_from);
        life.ended_ms = Some(now_ms);
        if let Ending::Completed { usage, .. } = ending {
            life.tokens_in = usage.tokens_in;
            life.tokens_out = usage.tokens_out;
        }
        if let Ending::Failed(error) = ending {
            life.error = Some(error.clone());
        }
        let ended = life.numbers(self.born.admitted_ms, now_ms);
        drop(life);
        self.transcript.write().close();
        self.cancel.cancel();
        Some(ended)
    }

    /// Writes the last frame, after a sentence for people if `narrate`, and seals the stream.
    pub fn publish(&self, ending: &Ending, ended: &EndedTask, narrate: bool) {
        let mut writer = self.transcript.write();
        let narration = narrate.then(|| self.last_narration(ending, ended));
        match ending {
            Ending::Completed { reason, .. } => {
                let frame = EndFrame { finish_reason: Some(*reason), ..end_frame(ended) };
                writer.seal(narration.as_ref(), EventName::End, &frame);
            }
            Ending::Canceled { .. } => {
                let frame = EndFrame { canceled: Some(true), ..end_frame(ended) };
                writer.seal(narration.as_ref(), EventName::End, &frame);
            }
            Ending::Failed(error) => {
                writer.seal(narration.as_ref(), EventName::Error, &error_frame(error));
            }
        }
        drop(writer);
        self.published.cancel();
    }

    /// What the scheduler learns from a task that ran and has ended.
    pub fn outcome(&self) -> Outcome {
        let life = self.life();
        let end = match life.state {
            TaskState::Completed => End::Completed,
            TaskState::Canceled => End::Canceled,
            TaskState::Expired => End::Expired,
            _ => End::Failed,
        };
        let Some(ended_ms) = life.ended_ms else { return Outcome::unmeasured(end) };
        let numbers = life.numbers(self.born.admitted_ms, ended_ms);
        Outcome {
            end,
            tokens_in: numbers.tokens_in,
            tokens_out: numbers.tokens_out,
            first_token_ms: numbers.first_token_ms,
            decode_ms: numbers.first_token_ms.map(|_| numbers.decode_time_ms),
        }
    }

    /// One task for `GET /v1/tasks`. Until its last frame is out it has not ended for anybody: an end that is not recorded yet
    /// does not survive a crash.
    pub fn view(&self, clock: &Clock, queue_position: Option<usize>) -> TaskSummary {
        let is_published = self.published.is_cancelled();
        let summary = self.summary(clock, queue_position);
        match self.life().ended_from.filter(|_| !is_published) {
            Some(state) => TaskSummary { state, ended_at_ms: None, decode_time_ms: None, error: None, ..summary },
            None => summary,
        }
    }

    /// One task for the history.
    pub fn summary(&self, clock: &Clock, queue_position: Option<usize>) -> TaskSummary {
        let life = self.life();
        let request = &self.born.request;
        let numbers = life.ended_ms.map(|ended| life.numbers(self.born.admitted_ms, ended));
        // A task that waits again may yet be given up, and was handed to an engine then.
        let dispatched_ms = life.dispatched_ms.filter(|_| life.state != TaskState::Queued);
        let first_token_ms = life.first_token_ms.zip(dispatched_ms).map(|(first, from)| first.saturating_sub(from));
        TaskSummary {
            task_id: request.task_id,
            correlation_id: self.born.caller.correlation_id.as_ref().to_owned(),
            session_id: request.session_id,
            state: life.state,
            workload: request.workload,
            model_ref: request.model_ref.clone(),
            engine: request.engine,
            engine_version: life.engine_version.as_deref().map(str::to_owned),
            priority: request.priority,
            seed: i64::from(self.born.seed),
            pool_id: Some(life.pool_id.to_string()),
            replica_id: life.replica_id.as_ref().map(ToString::to_string),
            queue_position: queue_position.map(int),
            predicted_start_ms: self.born.admission.predicted_start_ms,
            deadline_ms: request.deadline_ms,
            max_tokens: request.max_tokens,
            input_tokens: self.born.input_tokens,
            on_time_probability: Some(self.born.on_time_probability),
            attempts: int(life.attempts),
            moves: life.moves.clone(),
            recovered: self.born.recovered,
            admitted_at_ms: self.born.admitted_at_ms,
            dispatched_at_ms: dispatched_ms.map(|at| clock.unix_ms(at)),
            ended_at_ms: life.ended_ms.map(|at| clock.unix_ms(at)),
            queue_time_ms: dispatched_ms.map(|at| clock.unix_ms(at) - self.born.admitted_at_ms),
            first_token_ms: first_token_ms.map(long),
            decode_time_ms: numbers.as_ref().map(|numbers| long(numbers.decode_time_ms)),
            tokens_in: life.tokens_in.map(int),
            tokens_out: life.tokens_out.map(int),
            placement: Some(self.born.placement.clone()),
            error: life.error.clone(),
        }
    }

    fn last_narration(&self, ending: &Ending, ended: &EndedTask) -> NarrationFrame {
        let (action, human) = match ending {
            Ending::Completed { .. } => {
                let tokens = ended.tokens_out.unwrap_or(0);
                (
                    "end",
                    format!("pool {} ended the task: {tokens} tokens in {} ms", ended.pool_id, ended.decode_time_ms),
                )
            }
            Ending::Canceled { why } => ("cancel", format!("orchestratord {}", why.sentence())),
            Ending::Failed(error) => ("fail", error.message.clone()),
        };
        self.narration(action, &ended.pool_id, human)
    }

    /// A sentence for people in the task's own stream.
    pub fn narration(&self, action: &str, pool_id: &PoolId, human: String) -> NarrationFrame {
        NarrationFrame {
            human,
            actor: "orchestratord".to_owned(),
            action: action.to_owned(),
            target: Some(pool_id.to_string()),
            correlation_id: Some(self.born.caller.correlation_id.as_ref().to_owned()),
            job_id: Some(self.id().to_string()),
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    fn go_to(&mut self, pool_id: PoolId, reason: MoveReason, at_ms: i64) {
        if self.pool_id != pool_id {
            let from = self.pool_id.to_string();
            self.moves.push(PlacementMove { at_ms, from, to: pool_id.to_string(), reason });
            self.pool_id = pool_id;
        }
    }

    fn advance(&mut self, event: TaskEvent) -> bool {
        match next(self.state, event) {
            Ok(state) => {
                self.state = state;
                true
            }
            Err(_) => false,
        }
    }

    fn numbers(&self, admitted_ms: u64, ended_ms: u64) -> EndedTask {
        let dispatched_ms = self.dispatched_ms.unwrap_or(ended_ms);
        EndedTask {
            state: self.state,
            pool_id: self.pool_id.clone(),
            replica_id: self.replica_id.clone(),
            engine_version: self.engine_version.clone(),
            queue_time_ms: dispatched_ms.saturating_sub(admitted_ms),
            first_token_ms: self.first_token_ms.map(|first| first.saturating_sub(dispatched_ms)),
            decode_time_ms: self.first_token_ms.map_or(0, |first| ended_ms.saturating_sub(first)),
            tokens_in: self.tokens_in,
            tokens_out: self.tokens_out,
        }
    }
}

impl Ending {
    /// Failed with the code's own `retriable` value.
    pub fn failed(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Failed(ErrorEnvelope::new(kind, message))
    }

    fn kind(&self) -> End {
        match self {
            Self::Completed { .. } => End::Completed,
            Self::Canceled { .. } => End::Canceled,
            Self::Failed(error) if error.code == ErrorKind::DeadlineUnmet => End::Expired,
            Self::Failed(_) => End::Failed,
        }
    }
}

fn end_frame(ended: &EndedTask) -> EndFrame {
    let decode_time_ms = long(ended.decode_time_ms);
    EndFrame {
        // The contract wants a number; an engine that does not count has generated 0 as far as anybody knows.
        tokens_out: ended.tokens_out.map_or(0, int),
        decode_time_ms,
        decode_ms: decode_time_ms,
        canceled: None,
        tokens_in: ended.tokens_in.map(int),
        finish_reason: None,
    }
}

fn error_frame(error: &ErrorEnvelope) -> ErrorFrame {
    ErrorFrame {
        code: error.code,
        message: error.message.clone(),
        retriable: error.retriable.unwrap_or_else(|| error.code.retriable()),
        retry_after_ms: error.retry_after_ms,
        engine: error.engine,
        policy_label: error.policy_label,
    }
}
