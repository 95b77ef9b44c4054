//! The simulation behind the adapter trait, in the same process.

use std::task::{Context, Poll, ready};

use adapter_api::{
    Finish, Job, Progress, StreamState, TokenEvent, TokenStream, Usage, WorkerAdapter, WorkerError, WorkerHealth,
    WorkerProps,
};
use api_types::sse::{Channel, FinishReason};
use api_types::{Engine, KvHint, TaskRequest, Workload};
use async_trait::async_trait;
use tokio::task::coop::poll_proceed;
use tokio::time::{Instant, Interval, interval_at};

use crate::ask::{Ask, Delivery, render_chat};
use crate::faults::{Inside, MidStream, OddEnd, Route};
use crate::generation::{Finished, Generation, Prefill, Step, StopType};
use crate::simulation::{Condition, Opening, Refusal, Simulation};
use crate::text;

/// An adapter whose engine is a [`Simulation`] in the same process. It works under paused time.
#[derive(Clone, Debug)]
pub struct Mock {
    sim: Simulation,
}

impl Mock {
    /// An adapter to a simulated engine.
    #[must_use]
    pub fn new(sim: Simulation) -> Self {
        Self { sim }
    }

    /// The engine.
    #[must_use]
    pub fn simulation(&self) -> &Simulation {
        &self.sim
    }

    /// Lets the faults of a route strike as they would on the way to a process.
    async fn open(&self, route: Route) -> Result<Option<Inside>, WorkerError> {
        match self.sim.open(self.sim.take_fault(route)).await {
            Opening::Go(fault) => Ok(fault),
            Opening::Refuse(status, _) => Err(refused(status)),
            Opening::WebPage => Err(WorkerError::Adapter("a web page instead of an answer".to_owned())),
            Opening::HalfHead => Err(failure(MidStream::Reset)),
            Opening::TrickleHead(every) => {
                tokio::time::sleep(every * HEAD_BYTES).await;
                Ok(None)
            }
            // Without HTTP there is no length to be wrong about. Whether it is ready, its condition says.
            Opening::WrongLength(_) | Opening::Healthy => Ok(None),
        }
    }

    /// The same for an answer that is not a stream, where every fault strikes at once.
    async fn open_plain(&self, route: Route) -> Result<(), WorkerError> {
        match self.open(route).await?.and_then(Inside::at_once) {
            None => Ok(()),
            Some(fault) => Err(self.strike(fault).await),
        }
    }

    async fn strike(&self, fault: MidStream) -> WorkerError {
        match fault {
            MidStream::Stall | MidStream::Trickle(_) => std::future::pending().await,
            MidStream::Crash(death) => self.sim.crash(death),
            _ => {}
        }
        failure(fault)
    }

    fn ask(job: &Job) -> Ask {
        let request = &*job.request;
        Ask {
            prompt: prompt(request),
            seed: Some(job.seed),
            max_tokens: u32::try_from(request.max_tokens).ok(),
            stop: request.sampling.as_ref().and_then(|sampling| sampling.stop.clone()).unwrap_or_default(),
            cache_prompt: !job.repeatable && request.kv_hint != Some(KvHint::Cold),
            progress: true,
            ignore_eos: false,
            delivery: Delivery::Stream,
        }
    }
}

#[async_trait]
impl WorkerAdapter for Mock {
    fn engine(&self) -> Engine {
        Engine::Mock
    }

    async fn health(&self) -> Result<WorkerHealth, WorkerError> {
        let live = self.sim.condition() != Condition::Crashed;
        if live {
            self.open_plain(Route::Health).await?;
        }
        Ok(WorkerHealth { live, ready: self.sim.condition() == Condition::Ready })
    }

    async fn props(&self) -> Result<WorkerProps, WorkerError> {
        self.open_plain(Route::Props).await?;
        match self.sim.condition() {
            Condition::Ready => {}
            Condition::Loading => return Err(refusal(&Refusal::Loading)),
            Condition::Crashed => return Err(refusal(&Refusal::Crashed)),
        }
        let config = self.sim.config();
        let free = self.sim.slots().iter().filter(|slot| slot.task.is_none()).count();
        let mut workloads = vec![Workload::Completion];
        workloads.extend(config.embedding_width.map(|_| Workload::Embedding));
        Ok(WorkerProps {
            slots_total: Some(config.slots.get()),
            slots_free: u32::try_from(free).ok(),
            ctx_max: Some(config.ctx),
            model: Some(config.model.clone()),
            workloads,
            ..WorkerProps::default()
        })
    }

    async fn engine_version(&self) -> Result<String, WorkerError> {
        self.open_plain(Route::Props).await?;
        match self.sim.condition() {
            Condition::Crashed => Err(refusal(&Refusal::Crashed)),
            Condition::Loading | Condition::Ready => Ok(self.sim.config().build.clone()),
        }
    }

    async fn submit(&self, job: &Job) -> Result<Box<dyn TokenStream>, WorkerError> {
        self.sim.count_request();
        let fault = self.open(Route::Generate).await?;
        match job.request.workload {
            Workload::Completion => {
                let started = self.sim.start_with(Self::ask(job), fault).await;
                let generation = started.map_err(|refused| refusal(&refused))?;
                Ok(Box::new(MockStream {
                    generation,
                    told: false,
                    burst: self.sim.config().burst.get(),
                    trickle: None,
                }))
            }
            Workload::Embedding => {
                if let Some(fault) = fault.and_then(Inside::at_once) {
                    return Err(self.strike(fault).await);
                }
                let inputs = job.request.inputs.as_deref().unwrap_or_default();
                let (vectors, tokens) = self.sim.embed(inputs).await.map_err(|refused| refusal(&refused))?;
                Ok(Box::new(Vectors { vectors, tokens }))
            }
            Workload::Rerank => Err(WorkerError::Rejected("this engine does not rerank".to_owned())),
        }
    }

    async fn count_tokens(&self, job: &Job) -> Result<Option<u32>, WorkerError> {
        self.open_plain(Route::Tokenize).await?;
        Ok(u32::try_from(text::tokenize(&prompt(&job.request)).len()).ok())
    }

    async fn busy_slots(&self) -> Result<Option<u32>, WorkerError> {
        self.open_plain(Route::Slots).await?;
        match self.sim.condition() {
            Condition::Crashed => Err(refusal(&Refusal::Crashed)),
            Condition::Loading | Condition::Ready => Ok(u32::try_from(self.sim.stats().running).ok()),
        }
    }
}

fn prompt(request: &TaskRequest) -> String {
    match (&request.prompt, &request.messages) {
        (Some(prompt), _) => prompt.clone(),
        (None, Some(messages)) => render_chat(messages),
        (None, None) => request.inputs.as_deref().unwrap_or_default().join("\n"),
    }
}

/// About as many as llama-server's head has.
const HEAD_BYTES: u32 = 200;

/// About as many as one of its events has.
const EVENT_BYTES: u32 = 120;

/// What an HTTP adapter takes of one event.
const EVENT_LIMIT: u64 = 1024 * 1024;

struct MockStream {
    generation: Generation,
    told: bool,
    burst: u32,
    /// From one event to the next, once they come byte by byte.
    trickle: Option<Interval>,
}

impl TokenStream for MockStream {
    fn poll_events(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(TokenEvent<'_>),
    ) -> Poll<Result<StreamState, WorkerError>> {
        // An engine that decodes flat out is always ready; without this it would keep its thread from everybody else.
        let turn = ready!(poll_proceed(cx));
        let mut events = 0;
        if !self.told {
            self.told = true;
            sink(TokenEvent::Started);
            events += 1;
        }
        while events < self.burst {
            if let Some(trickle) = &mut self.trickle
                && trickle.poll_tick(cx).is_pending()
            {
                if events == 0 {
                    return Poll::Pending;
                }
                break;
            }
            match self.generation.poll_step(cx) {
                Poll::Pending if events == 0 => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(Step::Prefill(prefill)) => sink(TokenEvent::Metrics(progress(&prefill))),
                Poll::Ready(Step::Token(token)) => send(token.text.as_str(), sink),
                Poll::Ready(Step::Fault(MidStream::OversizedLine(bytes))) if bytes < EVENT_LIMIT => {}
                Poll::Ready(Step::Fault(MidStream::Trickle(every))) => {
                    let event = every * EVENT_BYTES;
                    self.trickle = Some(interval_at(Instant::now() + event, event));
                    continue;
                }
                Poll::Ready(Step::Fault(fault)) => return Poll::Ready(Err(failure(fault))),
                Poll::Ready(Step::Done(finished)) => {
                    send(&finished.rest, sink);
                    sink(TokenEvent::End(finish(&finished)));
                    turn.made_progress();
                    return Poll::Ready(Ok(StreamState::Ended));
                }
            }
            events += 1;
        }
        turn.made_progress();
        Poll::Ready(Ok(StreamState::Open))
    }
}

fn send(text: &str, sink: &mut dyn FnMut(TokenEvent<'_>)) {
    if !text.is_empty() {
        sink(TokenEvent::Token { text, channel: Channel::Content });
    }
}

fn progress(prefill: &Prefill) -> Progress {
    let share = f64::from(prefill.processed) / f64::from(prefill.total.max(1));
    Progress { prefill: Some(share), tokens_out: None }
}

fn finish(finished: &Finished) -> Finish {
    Finish {
        reason: match finished.stop {
            StopType::Eos | StopType::Word(_) => FinishReason::Stop,
            StopType::Limit { .. } => FinishReason::Length,
        },
        usage: Usage {
            tokens_in: Some(finished.tokens_in),
            tokens_cached: Some(finished.cached),
            tokens_out: Some(finished.tokens_out),
            prefill_ms: clocked(finished, finished.prompt_ms),
            decode_ms: clocked(finished, finished.predicted_ms),
            slot: u32::try_from(finished.slot).ok(),
        },
    }
}

/// A time, unless the engine's clock is not to be believed.
fn clocked(finished: &Finished, ms: f64) -> Option<f64> {
    let jumped = matches!(finished.odd, Some(OddEnd::ClockJump(_)));
    (!jumped).then_some(ms)
}

/// The vectors of an embedding task, all known when the stream begins.
struct Vectors {
    vectors: Vec<Vec<f32>>,
    tokens: u32,
}

impl TokenStream for Vectors {
    fn poll_events(
        &mut self,
        _cx: &mut Context<'_>,
        sink: &mut dyn FnMut(TokenEvent<'_>),
    ) -> Poll<Result<StreamState, WorkerError>> {
        sink(TokenEvent::Started);
        for (index, vector) in (0..).zip(&self.vectors) {
            sink(TokenEvent::Embedding { index, vector });
        }
        let usage = Usage { tokens_in: Some(self.tokens), tokens_out: Some(0), ..Usage::default() };
        sink(TokenEvent::End(Finish { reason: FinishReason::Stop, usage }));
        Poll::Ready(Ok(StreamState::Ended))
    }
}

fn refusal(refusal: &Refusal) -> WorkerError {
    let message = refusal.to_string();
    match refusal {
        Refusal::Loading | Refusal::Crashed => WorkerError::PoolUnavailable(message),
        Refusal::ContextExceeded { .. } | Refusal::NoEmbeddings => WorkerError::Rejected(message),
    }
}

/// What an HTTP adapter makes of a status.
fn refused(status: u16) -> WorkerError {
    let message = format!("status {status}");
    match status {
        429 => WorkerError::Busy(message),
        503 => WorkerError::PoolUnavailable(message),
        408 | 504 => WorkerError::DecodeTimeout(message),
        400 | 413 | 422 | 501 => WorkerError::Rejected(message),
        _ => WorkerError::Adapter(message),
    }
}

/// What an HTTP adapter makes of a fault inside a stream.
fn failure(fault: MidStream) -> WorkerError {
    match fault {
        MidStream::Reset | MidStream::HalfEvent | MidStream::Crash(_) => {
            WorkerError::WorkerReset("connection reset".to_owned())
        }
        MidStream::HalfCharacter | MidStream::CleanEnd | MidStream::Stall | MidStream::Trickle(_) => {
            WorkerError::WorkerReset("the stream ended before its last event".to_owned())
        }
        MidStream::MalformedEvent => WorkerError::Adapter("an event is not JSON".to_owned()),
        MidStream::OversizedLine(_) => WorkerError::Adapter("an event is too large".to_owned()),
        MidStream::ErrorEvent => WorkerError::Adapter("the engine reports an error".to_owned()),
    }
}
