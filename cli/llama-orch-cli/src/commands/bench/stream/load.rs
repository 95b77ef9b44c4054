//! The load generator: many streams on one thread, each read event by event.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use http_util::sse::{SseDecoder, SseError, SseEvent};
use http_util::stream::{Body, BodyState, StreamClient, StreamConfig, StreamError, StreamRequest, TlsSetupError};
use http_util::{Endpoint, EndpointError};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::failure::Failure;

/// Longest wait for a response's head; an engine may hold it back until a slot is free.
const ESTABLISH: Duration = Duration::from_secs(60);
/// Less than what stands in front of the engines leaves an idle connection open.
const IDLE_LIFETIME: Duration = Duration::from_secs(30);
const ERROR_BODY_LIMIT: usize = 4096;
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// How much to ask for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Requests at the same time.
    pub(super) streams: u32,
    /// Requests in all.
    pub(super) requests: u32,
    /// Tokens of each.
    pub(super) tokens: u32,
}

/// What came of a load.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Time from sending a request to its first token, sorted.
    pub(super) first_token: Vec<Duration>,
    /// Tokens received in all.
    pub(super) tokens: u64,
    /// Time from the first request to the last end.
    pub(super) wall: Duration,
}

/// Somebody to ask.
#[derive(Clone, Debug)]
pub(super) struct Target {
    client: StreamClient,
    dialect: Dialect,
}

/// How to ask.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dialect {
    /// llama-server's `POST /completion`.
    Engine,
    /// `POST /v1/tasks`, for this model.
    Orchestrator {
        /// The pool's model.
        model: &'static str,
    },
}

impl Target {
    /// A target at a URL. Connections are kept between loads.
    pub(super) fn new(url: &str, dialect: Dialect, streams: u32) -> Result<Self, LoadError> {
        let config = StreamConfig {
            establish_timeout: ESTABLISH,
            max_idle: usize::try_from(streams).unwrap_or(usize::MAX),
            idle_lifetime: IDLE_LIFETIME,
            ..StreamConfig::default()
        };
        Ok(Self { client: StreamClient::new(url.parse::<Endpoint>()?, config)?, dialect })
    }

    /// Carries out a load. Every stream must give exactly the tokens asked for.
    pub(super) async fn drive(&self, load: Load) -> Result<Outcome, Failure> {
        let taken = Arc::new(AtomicU32::new(0));
        let begun = Instant::now();
        let mut workers = JoinSet::new();
        for _ in 0..load.streams.min(load.requests) {
            workers.spawn(self.clone().work(load, Arc::clone(&taken)));
        }
        let mut first_token = Vec::new();
        while let Some(worker) = workers.join_next().await {
            let times = worker.map_err(|error| Failure::local(format!("the load generator failed: {error}")))?;
            first_token.extend(times?);
        }
        let wall = begun.elapsed();
        first_token.sort_unstable();
        Ok(Outcome { first_token, tokens: u64::from(load.requests) * u64::from(load.tokens), wall })
    }

    async fn work(self, load: Load, taken: Arc<AtomicU32>) -> Result<Vec<Duration>, LoadError> {
        let mut times = Vec::new();
        while taken.fetch_add(1, Ordering::Relaxed) < load.requests {
            times.push(self.request(load.tokens).await?);
        }
        Ok(times)
    }

    /// One request; returns the time to its first token.
    async fn request(&self, tokens: u32) -> Result<Duration, LoadError> {
        let body = self.dialect.body(tokens);
        let headers = &[("Accept", "text/event-stream")];
        let request = StreamRequest { headers, ..StreamRequest::post(self.dialect.path(), body.as_bytes()) };
        let begun = Instant::now();
        let response = self.client.send(&request).await?;
        if response.head.status != 200 {
            let body = response.body.collect(ERROR_BODY_LIMIT, ERROR_BODY_TIMEOUT).await.unwrap_or_default();
            let body = String::from_utf8_lossy(&body).into_owned();
            return Err(LoadError::Refused { status: response.head.status, body });
        }
        let (first, got) = self.read(response.body).await?;
        match first {
            Some(first) if got == tokens => Ok(first.duration_since(begun)),
            _ => Err(LoadError::Tokens { asked: tokens, got }),
        }
    }

    /// Reads a stream to its end: when its first token came, and how many did.
    async fn read(&self, mut body: Body) -> Result<(Option<Instant>, u32), LoadError> {
        let mut decoder = SseDecoder::default();
        let (mut first, mut got) = (None, 0);
        loop {
            let state = poll_fn(|cx| {
                body.poll_data(cx, |payload| {
                    decoder.feed(payload, |event| {
                        if self.dialect.is_token(event) {
                            first.get_or_insert_with(Instant::now);
                            got += 1;
                        }
                        Ok::<(), LoadError>(())
                    })
                })
            });
            if state.await? == BodyState::Complete {
                return Ok((first, got));
            }
        }
    }
}

impl Dialect {
    fn path(self) -> &'static str {
        match self {
            Self::Engine => "/completion",
            Self::Orchestrator { .. } => "/v1/tasks",
        }
    }

    fn body(self, tokens: u32) -> String {
        match self {
            Self::Engine => format!(r#"{{"prompt":"bench","n_predict":{tokens},"stream":true,"seed":42}}"#),
            Self::Orchestrator { model } => format!(
                r#"{{"task_id":"{}","session_id":"{}","workload":"completion","model_ref":"{model}","engine":"llamacpp","ctx":8192,"priority":"interactive","max_tokens":{tokens},"deadline_ms":600000,"seed":42,"prompt":"bench"}}"#,
                Uuid::new_v4(),
                Uuid::new_v4()
            ),
        }
    }

    fn is_token(self, event: SseEvent<'_>) -> bool {
        match self {
            // Source: llama-server's README, POST /completion: `stop` is true in the last event only, which has no token.
            Self::Engine => event.data.contains("\"stop\":false"),
            Self::Orchestrator { .. } => event.name == "token",
        }
    }
}

/// Why a load could not be carried out.
#[derive(Debug)]
pub(super) enum LoadError {
    Address(EndpointError),
    Setup(TlsSetupError),
    Transport(StreamError),
    Events(SseError),
    Refused { status: u16, body: String },
    Tokens { asked: u32, got: u32 },
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let what = match error {
            LoadError::Address(error) => error.to_string(),
            LoadError::Setup(error) => error.to_string(),
            LoadError::Transport(error) => format!("a stream broke: {error}"),
            LoadError::Events(error) => format!("a stream is no stream of events: {error}"),
            LoadError::Refused { status, body } => format!("a request was refused with {status}: {body}"),
            LoadError::Tokens { asked, got } => format!("a stream has {got} tokens instead of {asked}"),
        };
        Self::local(format!("the benchmark's load failed: {what}"))
    }
}

impl From<EndpointError> for LoadError {
    fn from(error: EndpointError) -> Self {
        Self::Address(error)
    }
}

impl From<TlsSetupError> for LoadError {
    fn from(error: TlsSetupError) -> Self {
        Self::Setup(error)
    }
}

impl From<StreamError> for LoadError {
    fn from(error: StreamError) -> Self {
        Self::Transport(error)
    }
}

impl From<SseError> for LoadError {
    fn from(error: SseError) -> Self {
        Self::Events(error)
    }
}
