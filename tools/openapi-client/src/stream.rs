//! A task's stream, event by event.

use api_types::sse::{EndFrame, ErrorFrame, MetricsFrame, NarrationFrame, StartedFrame, TokenFrame};
use api_types::{SessionInfo, TaskId, TaskRequest};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::Client;
use crate::call::Call;
use crate::error::{ClientError, correlation_id};
use crate::events::{EventBody, EventQueue, Payload, Received};

pub(crate) const OPERATIONS: &[&str] = &["stream_task"];

/// Payload of one event. As JSON it is `{"event": …, "data": …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data", rename_all = "lowercase")]
pub enum Frame {
    /// First of every stream.
    Started(Box<StartedFrame>),
    /// A piece of output.
    Token(TokenFrame),
    /// How the task fares.
    Metrics(Box<MetricsFrame>),
    /// A sentence for people.
    Narration(Box<NarrationFrame>),
    /// Last, when the task ended as meant or was canceled.
    End(EndFrame),
    /// Last, when the task failed.
    Error(ErrorFrame),
}

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its index in the stream, for [`Client::stream`]'s `last_event_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Its payload as it came, for whoever compares bytes.
    #[serde(skip)]
    pub raw: String,
    /// Its payload.
    #[serde(flatten)]
    pub frame: Frame,
}

impl Payload for Frame {
    fn read(name: &str, data: &str) -> serde_json::Result<Option<Self>> {
        Ok(Some(match name {
            "started" => Self::Started(serde_json::from_str(data)?),
            "token" => Self::Token(serde_json::from_str(data)?),
            "metrics" => Self::Metrics(serde_json::from_str(data)?),
            "narration" => Self::Narration(serde_json::from_str(data)?),
            "end" => Self::End(serde_json::from_str(data)?),
            "error" => Self::Error(serde_json::from_str(data)?),
            _ => return Ok(None),
        }))
    }
}

impl Frame {
    /// Whether nothing follows it.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self, Self::End(_) | Self::Error(_))
    }
}

/// What a session has left; a budget that is not configured is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budgets {
    /// Tokens that may still be generated.
    pub tokens: Option<i64>,
    /// Decode time, in milliseconds.
    pub time_ms: Option<i64>,
    /// Cost, in the operator's own unit.
    pub cost: Option<f64>,
}

impl From<&SessionInfo> for Budgets {
    fn from(session: &SessionInfo) -> Self {
        Self {
            tokens: session.tokens_budget_remaining,
            time_ms: session.time_budget_remaining_ms,
            cost: session.cost_budget_remaining,
        }
    }
}

impl Budgets {
    fn read(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        Self {
            tokens: text("x-budget-tokens-remaining").and_then(|text| text.parse().ok()),
            time_ms: text("x-budget-time-remaining-ms").and_then(|text| text.parse().ok()),
            cost: text("x-budget-cost-remaining").and_then(|text| text.parse().ok()),
        }
    }
}

/// The events of a stream that was kept as text, such as a proof bundle's transcript, in order. Kinds not known here are
/// left out, and so is an event that the text cuts off.
///
/// # Errors
/// [`KeptStreamError`] when an event does not fit the contract.
pub fn kept_events(text: &str) -> Result<Vec<Event>, KeptStreamError> {
    let mut queue = EventQueue::default();
    queue.feed(text.as_bytes());
    let received = std::iter::from_fn(|| queue.pop());
    received.filter_map(|received| Event::of(received).map_err(KeptStreamError).transpose()).collect()
}

/// A kept stream that is none of this contract; says what does not fit, without its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kept stream holds {0}")]
pub struct KeptStreamError(String);

impl Event {
    /// `None` when the event's kind is not known here; the error says what does not fit.
    fn of(received: Received<Frame>) -> Result<Option<Self>, String> {
        let Received { id, raw, frame } = received;
        Ok(frame?.map(|frame| Self { id, raw, frame }))
    }
}

/// An open stream. Dropping it closes the connection, which the server may take as a cancel.
#[derive(Debug)]
pub struct TaskStream {
    body: EventBody<Frame>,
    last_event_id: Option<u64>,
    over: bool,
}

impl TaskStream {
    /// The next event; `None` after the last one. An event of a kind not known here is skipped. Nothing is lost when the
    /// future is dropped.
    ///
    /// # Errors
    /// [`ClientError::Broken`] or [`ClientError::Cut`] when the connection is lost, after which
    /// [`last_event_id`](Self::last_event_id) says where to resume; [`ClientError::Protocol`] when an event does not fit
    /// the contract. Either ends the stream.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        if self.over {
            return Ok(None);
        }
        let outcome = self.next_known().await;
        self.over = match &outcome {
            Ok(event) => event.frame.is_last(),
            Err(_) => true,
        };
        outcome.map(Some)
    }

    /// Id of the newest event handed out, or what the stream was resumed from.
    #[must_use]
    pub fn last_event_id(&self) -> Option<u64> {
        self.last_event_id
    }

    /// The id under which the server's log has this request.
    #[must_use]
    pub fn correlation_id(&self) -> Option<String> {
        correlation_id(self.body.headers())
    }

    /// What the session had left when the stream was opened.
    #[must_use]
    pub fn budgets(&self) -> Budgets {
        Budgets::read(self.body.headers())
    }

    async fn next_known(&mut self) -> Result<Event, ClientError> {
        loop {
            let received = self.body.next().await?;
            self.last_event_id = received.id.or(self.last_event_id);
            if let Some(event) = Event::of(received).map_err(|problem| self.body.misfit(&problem))? {
                return Ok(event);
            }
        }
    }
}

impl Client {
    /// Submits a task and streams it in the same round trip.
    ///
    /// `POST /v1/tasks` with `Accept: text/event-stream`. It is sent once; after a failure the caller may send the same
    /// task again, or ask with [`stream`](Self::stream).
    ///
    /// # Errors
    /// [`ClientError`], as for every call; a refusal is an error here and not an event.
    pub async fn submit_stream(&self, task: &TaskRequest) -> Result<TaskStream, ClientError> {
        self.open(Call::new(Method::POST, &["v1", "tasks"]).json(task), None).await
    }

    /// Opens a task's stream, from its beginning or after the event with id `last_event_id`.
    ///
    /// `GET /v1/tasks/{id}/stream`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn stream(&self, id: TaskId, last_event_id: Option<u64>) -> Result<TaskStream, ClientError> {
        self.open(Call::new(Method::GET, &["v1", "tasks", &id.to_string(), "stream"]), last_event_id).await
    }

    async fn open(&self, call: Call, last_event_id: Option<u64>) -> Result<TaskStream, ClientError> {
        let body = self.open_events(&call, last_event_id).await?;
        Ok(TaskStream { body, last_event_id, over: false })
    }
}
