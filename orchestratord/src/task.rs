//! One task: what was asked, where it is in its life, and its stream.

mod born;
mod ending;
mod life;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api_types::sse::{EndFrame, EventName, NarrationFrame};
use api_types::{
    MoveReason, PlacementMove, PoolId, Priority, ReplicaId, SessionId, TaskId, TaskRequest, TaskState, TaskSummary,
};
use orchestrator_core::scheduler::{Dispatch, Outcome};
use orchestrator_core::task::{End, TaskEvent};
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;
use transcript::Transcript;

use crate::clock::Clock;
use crate::wire::{int, long};

pub use born::{Caller, NewTask};
pub use ending::{CancelReason, EndedTask, Ending};
use ending::{end_frame, error_frame};
use life::Life;

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
    /// Apart from the rest of its life because it changes with every token.
    generated: AtomicU32,
    life: Mutex<Life>,
}

impl Task {
    /// A queued task whose runner will live on the current runtime, and whose stream keeps about `stream_limit` bytes.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(born: NewTask, stream_limit: usize) -> Self {
        let life = Life::queued(born.pool_id.clone());
        let transcript = Transcript::new(stream_limit, born.first_event_id());
        let durable = SetOnce::new_with(born.recovered.then_some(true));
        Self {
            born,
            home: tokio::runtime::Handle::current(),
            cancel: CancellationToken::new(),
            durable,
            published: CancellationToken::new(),
            transcript: Arc::new(transcript),
            generated: AtomicU32::new(0),
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
        self.generated.store(tokens_out, Ordering::Relaxed);
    }

    /// How much the engine has told that it has generated; `None` while that is nothing.
    fn generated_so_far(&self) -> Option<u32> {
        Some(self.generated.load(Ordering::Relaxed)).filter(|tokens| *tokens > 0)
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
        life.tokens_out = self.generated_so_far();
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
            tokens_out: life.tokens_out.or_else(|| self.generated_so_far()).map(int),
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
