//! `GET /v1/events`: the feed of changes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api_types::{ErrorEnvelope, ErrorKind, FeedEvent, FeedGap, FeedQuery};
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::{body, respond};
use crate::app::App;
use crate::feed::Change;

/// Gap between two comments that tell proxies and clients that the feed is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// `GET /v1/events`.
pub(super) async fn watch(State(app): State<Arc<App>>, query: body::Asked<FeedQuery>) -> Response {
    let wanted = match body::query(query).and_then(names) {
        Ok(wanted) => wanted,
        Err(refusal) => return respond::error(refusal),
    };
    let (changes, closed) = app.feed.watch();
    let watcher = Watcher { changes, closed, wanted, greeted: false };
    let pieces = stream::unfold(watcher, |mut watcher| async {
        let piece = watcher.next().await?;
        Some((Ok::<_, Infallible>(piece), watcher))
    });
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

fn names(query: FeedQuery) -> Result<Vec<FeedEvent>, ErrorEnvelope> {
    let Some(list) = query.events else { return Ok(FeedEvent::ALL.to_vec()) };
    let read = |name: &str| {
        let found = FeedEvent::ALL.iter().find(|event| event.as_str() == name.trim()).copied();
        found.ok_or_else(|| {
            let known: Vec<_> = FeedEvent::ALL.iter().map(|event| event.as_str()).collect();
            let message = format!("`events` is a list of these, separated by commas: {}", known.join(", "));
            ErrorEnvelope::new(ErrorKind::InvalidParams, message)
        })
    };
    list.split(',').map(read).collect()
}

/// One client of the feed.
struct Watcher {
    changes: Receiver<Change>,
    closed: CancellationToken,
    wanted: Vec<FeedEvent>,
    greeted: bool,
}

impl Watcher {
    /// The next piece of its stream; `None` when the feed is closed.
    async fn next(&mut self) -> Option<String> {
        if !std::mem::replace(&mut self.greeted, true) {
            return Some(": watching\n\n".to_owned());
        }
        loop {
            let received = tokio::select! {
                received = self.changes.recv() => received,
                () = tokio::time::sleep(HEARTBEAT) => return Some(":\n\n".to_owned()),
                () = self.closed.cancelled() => return None,
            };
            match received {
                Ok(change) if self.wanted.contains(&change.event) => return Some(frame(change.event, &change.data)),
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    let gap = serde_json::to_string(&FeedGap { missed }).expect("a number is JSON");
                    return Some(frame(FeedEvent::Gap, &gap));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn frame(event: FeedEvent, data: &str) -> String {
    format!("event: {event}\ndata: {data}\n\n")
}
