//! One task: what was asked, where it is in its life, and its stream.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adapter_api::Usage;
use api_types::sse::{EndFrame, ErrorFrame, EventName, FinishReason, NarrationFrame};
use api_types::{
    AdmissionResponse, ErrorEnvelope, ErrorKind, PlacementRecord, PoolId, ReplicaId, SessionId, TaskId, TaskRequest,
    TaskState, TaskSummary,
};
use auth_min::Identity;
use orchestrator_core::scheduler::Outcome;
use orchestrator_core::task::{End, TaskEvent, next};
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
    /// Monotonic time of its admission.
    pub admitted_ms: u64,
}

/// A task the daemon knows. Its runner, its readers and whoever cancels it share it.
pub struct Task {
    born: NewTask,
    home: tokio::runtime::Handle,
    cancel: CancellationToken,
    transcript: Arc<Transcript>,
    life: Mutex<Life>,
}

#[derive(Debug)]
struct Life {
    state: TaskState,
    pool_id: PoolId,
    replica_id: Option<ReplicaId>,
    engine_version: Option<Arc<str>>,
    dispatched_ms: Option<u64>,
    first_token_ms: Option<u64>,
    ended_ms: Option<u64>,
    tokens_in: Option<u32>,
    tokens_out: Option<u32>,
    error: Option<ErrorEnvelope>,
}

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
}

impl CancelReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Client, Self::Disconnect, Self::Unattended];

    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Disconnect => "disconnect",
            Self::Unattended => "unattended",
        }
    }

    /// What happened, for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Client => "canceled the task as the client asked",
            Self::Disconnect => "canceled the task because its reader went away",
            Self::Unattended => "canceled the task because nobody opened its stream",
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
            pool_id: born.pool_id.clone(),
            replica_id: None,
            engine_version: None,
            dispatched_ms: None,
            first_token_ms: None,
            ended_ms: None,
            tokens_in: None,
            tokens_out: None,
            error: None,
        };
        Self {
            born,
            home: tokio::runtime::Handle::current(),
            cancel: CancellationToken::new(),
            transcript: Arc::default(),
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
        self.born.admitted_ms.saturating_add_signed(self.born.request.deadline_ms)
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

    /// It waits in another pool's queue now.
    pub fn moved_to(&self, pool_id: PoolId) {
        self.life().pool_id = pool_id;
    }

    /// It is handed to an engine. False when it has ended meanwhile.
    pub fn dispatched(&self, pool_id: PoolId, replica_id: ReplicaId, version: Option<Arc<str>>, now_ms: u64) -> bool {
        let mut life = self.life();
        if !life.advance(TaskEvent::Dispatched) {
            return false;
        }
        life.pool_id = pool_id;
        life.replica_id = Some(replica_id);
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

    /// Ends the task: the one place where that happens. Writes the last frame, after a sentence for people if `narrate`, and
    /// seals the stream. Of several callers only the first gets the numbers; from its return on the stream takes no token.
    pub fn end(&self, ending: &Ending, now_ms: u64, narrate: bool) -> Option<EndedTask> {
        let mut life = self.life();
        if !life.advance(TaskEvent::Ended(ending.kind())) {
            return None;
        }
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
        self.write_last_frame(ending, &ended, narrate);
        self.cancel.cancel();
        Some(ended)
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

    /// One task for `GET /v1/tasks`.
    pub fn summary(&self, clock: &Clock, queue_position: Option<usize>) -> TaskSummary {
        let life = self.life();
        let request = &self.born.request;
        let numbers = life.ended_ms.map(|ended| life.numbers(self.born.admitted_ms, ended));
        let first_token_ms =
            life.first_token_ms.zip(life.dispatched_ms).map(|(first, from)| first.saturating_sub(from));
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
            admitted_at_ms: clock.unix_ms(self.born.admitted_ms),
            dispatched_at_ms: life.dispatched_ms.map(|at| clock.unix_ms(at)),
            ended_at_ms: life.ended_ms.map(|at| clock.unix_ms(at)),
            queue_time_ms: life.dispatched_ms.map(|at| long(at - self.born.admitted_ms)),
            first_token_ms: first_token_ms.map(long),
            decode_time_ms: numbers.as_ref().map(|numbers| long(numbers.decode_time_ms)),
            tokens_in: life.tokens_in.map(int),
            tokens_out: life.tokens_out.map(int),
            placement: Some(self.born.placement.clone()),
            error: life.error.clone(),
        }
    }

    fn write_last_frame(&self, ending: &Ending, ended: &EndedTask, narrate: bool) {
        let mut writer = self.transcript.write();
        if narrate {
            writer.event(EventName::Narration, &self.last_narration(ending, ended));
        }
        match ending {
            Ending::Completed { reason, .. } => {
                writer.seal(EventName::End, &EndFrame { finish_reason: Some(*reason), ..end_frame(ended) });
            }
            Ending::Canceled { .. } => {
                writer.seal(EventName::End, &EndFrame { canceled: Some(true), ..end_frame(ended) });
            }
            Ending::Failed(error) => {
                writer.seal(EventName::Error, &error_frame(error));
            }
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
    }
}
