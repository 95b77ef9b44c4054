//! What changes, told to whoever watches `GET /v1/events`. While nobody does, telling costs one look at a counter.

use std::sync::Arc;

use api_types::FeedEvent;
use serde::Serialize;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Changes a watcher may be behind before it misses some.
const KEPT: usize = 4096;

/// The feed's sending side.
pub struct Feed {
    sender: broadcast::Sender<Change>,
    closed: CancellationToken,
}

/// One change, encoded once for all watchers.
#[derive(Clone, Debug)]
pub struct Change {
    /// What kind.
    pub event: FeedEvent,
    /// The payload as JSON.
    pub data: Arc<str>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(KEPT), closed: CancellationToken::new() }
    }
}

impl Feed {
    /// Tells of a change. The payload is made only when somebody watches.
    pub fn tell<Payload: Serialize>(&self, event: FeedEvent, payload: impl FnOnce() -> Payload) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        match serde_json::to_string(&payload()) {
            // Whoever watched may be gone by now, which is no failure.
            Ok(json) => drop(self.sender.send(Change { event, data: json.into() })),
            Err(error) => tracing::error!(%error, %event, "a change could not be written as JSON"),
        }
    }

    /// What changes from now on, until the feed is closed.
    pub fn watch(&self) -> (broadcast::Receiver<Change>, CancellationToken) {
        (self.sender.subscribe(), self.closed.clone())
    }

    /// Ends what every watcher reads.
    pub fn close(&self) {
        self.closed.cancel();
    }
}
