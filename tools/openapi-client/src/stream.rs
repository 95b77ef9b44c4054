//! A task's stream, event by event.

use api_types::sse::{EndFrame, ErrorFrame, MetricsFrame, NarrationFrame, StartedFrame, TokenFrame};
use api_types::{SessionInfo, TaskId, TaskRequest};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::Client;
use crate::call::{Call, Reply};
use crate::error::{ClientError, correlation_id};
use crate::events::EventQueue;

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
    /// Its payload.
    #[serde(flatten)]
    pub frame: Frame,
}

impl Frame {
    /// Reads the payload of an event of this name; `None` when the name is not known here.
    pub(crate) fn read(name: &str, data: &str) -> serde_json::Result<Option<Self>> {
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

/// An open stream. Dropping it closes the connection, which the server may take as a cancel.
#[derive(Debug)]
pub struct TaskStream {
    client: Client,
    response: Response,
    events: EventQueue,
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
            Ok(Some(event)) => event.frame.is_last(),
            Ok(None) | Err(_) => true,
        };
        outcome
    }

    /// Id of the newest event handed out, or what the stream was resumed from.
    #[must_use]
    pub fn last_event_id(&self) -> Option<u64> {
        self.last_event_id
    }

    /// The id under which the server's log has this request.
    #[must_use]
    pub fn correlation_id(&self) -> Option<String> {
        correlation_id(self.response.headers())
    }

    /// What the session had left when the stream was opened.
    #[must_use]
    pub fn budgets(&self) -> Budgets {
        Budgets::read(self.response.headers())
    }

    async fn next_known(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(received) = self.events.pop() {
                self.last_event_id = received.id.or(self.last_event_id);
                match received.frame.map_err(|problem| self.misfit(&problem))? {
                    Some(frame) => return Ok(Some(Event { id: received.id, frame })),
                    None => continue,
                }
            }
            match self.response.chunk().await.map_err(|error| self.client.transport(error))? {
                Some(bytes) => self.events.feed(&bytes),
                None => return Err(ClientError::Cut { server: self.client.server().to_string() }),
            }
        }
    }

    fn misfit(&self, problem: &str) -> ClientError {
        self.client.protocol(problem, self.response.headers())
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
        let mut request = self.request(&call).header(ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await.map_err(|error| self.transport(error))?;
        if response.status() != StatusCode::OK {
            let reply = Reply::read(response).await.map_err(|error| self.transport(error))?;
            let reply = reply.successful(self)?;
            return Err(reply.not_a_stream(self));
        }
        let is_stream =
            response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if !is_stream {
            return Err(self.protocol("something else than a stream of events", response.headers()));
        }
        Ok(TaskStream { client: self.clone(), response, events: EventQueue::default(), last_event_id, over: false })
    }
}
