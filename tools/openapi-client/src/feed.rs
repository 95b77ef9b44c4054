//! The feed of what changes on the server.

use api_types::{FeedEvent, FeedGap, FeedQuery, ModelChange, ModelJob, PoolStatus, TaskSummary};
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::call::Call;
use crate::events::{EventBody, Payload};
use crate::{Client, ClientError};

pub(crate) const OPERATIONS: &[&str] = &["watch_events"];

/// One change. As JSON it is `{"event": …, "data": …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum FeedFrame {
    /// A task was admitted, moved, began to stream or ended.
    Task(Box<TaskSummary>),
    /// A pool became ready or unready, began to drain or came back.
    Pool(Box<PoolStatus>),
    /// A model was registered, changed or removed.
    Model(Box<ModelChange>),
    /// Work on a model goes on.
    ModelJob(Box<ModelJob>),
    /// Events were missed; read the lists again.
    Gap(FeedGap),
}

impl Payload for FeedFrame {
    fn read(name: &str, data: &str) -> serde_json::Result<Option<Self>> {
        let Some(event) = FeedEvent::ALL.iter().find(|event| event.as_str() == name) else { return Ok(None) };
        Ok(Some(match event {
            FeedEvent::Task => Self::Task(serde_json::from_str(data)?),
            FeedEvent::Pool => Self::Pool(serde_json::from_str(data)?),
            FeedEvent::Model => Self::Model(serde_json::from_str(data)?),
            FeedEvent::ModelJob => Self::ModelJob(serde_json::from_str(data)?),
            FeedEvent::Gap => Self::Gap(serde_json::from_str(data)?),
        }))
    }
}

/// The open feed; it ends when it is dropped.
#[derive(Debug)]
pub struct Feed(EventBody<FeedFrame>);

impl Feed {
    /// The next change. One of a kind not known here is skipped. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// [`ClientError::Broken`] or [`ClientError::Cut`] when the connection is lost: open the feed again and read the lists
    /// again; [`ClientError::Protocol`] when an event does not fit the contract.
    pub async fn next(&mut self) -> Result<FeedFrame, ClientError> {
        loop {
            let received = self.0.next().await?;
            if let Some(frame) = received.frame.map_err(|problem| self.0.misfit(&problem))? {
                return Ok(frame);
            }
        }
    }
}

impl Client {
    /// What changes: tasks, pools, models, and the progress of work on models.
    ///
    /// `GET /v1/events`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn watch_events(&self, query: &FeedQuery) -> Result<Feed, ClientError> {
        self.open_events(&Call::new(Method::GET, &["v1", "events"]).query(query), None).await.map(Feed)
    }
}
