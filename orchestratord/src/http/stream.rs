//! A task's stream as a response body.

mod pace;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api_types::{ErrorEnvelope, ErrorKind};
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Version};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use transcript::{Behind, Forgotten, Reader};

use self::pace::Pace;
use super::respond;
use crate::app::App;
use crate::narrate;
use crate::task::Task;

/// A response that follows a task's stream, from the event after `after` on.
pub(super) fn response(app: &Arc<App>, task: &Arc<Task>, after: Option<u32>, version: Version) -> Response {
    let reader = match task.transcript().reader(after) {
        Ok(reader) => reader,
        Err(forgotten) => return respond::error(gone(forgotten)),
    };
    app.reader_came(task);
    let pace = Pace::new(&app.config.stream).map(Box::new);
    let body = StreamBody { reader: Some(reader), pace, app: Arc::clone(app), task: Arc::clone(task) };
    let mut response = event_stream(Body::new(body), version);
    respond::budgets(response.headers_mut(), &task.born().admission);
    response
}

/// A response with a stream that has ended.
pub(super) fn replayed(frames: Bytes, version: Version) -> Response {
    event_stream(Body::from(frames), version)
}

fn event_stream(body: Body, version: Version) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    let mut response = (headers, body).into_response();
    if version == Version::HTTP_11 {
        // LO-SSE-04; HTTP/2 has no such header.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    }
    response
}

/// Part of a stream is not kept any more.
pub(super) fn gone(forgotten: Forgotten) -> ErrorEnvelope {
    let before = forgotten.first_kept;
    let message = format!(
        "the stream's events before {before} are no longer kept (stream.max_bytes); resume with Last-Event-ID: {} or later",
        before.saturating_sub(1)
    );
    ErrorEnvelope::new(ErrorKind::NotFound, message)
}

/// Follows the transcript; when the connection goes away before the end, the application hears of it.
struct StreamBody {
    /// `None` only while it is being dropped.
    reader: Option<Reader>,
    /// Only where the configuration asks for timers.
    pace: Option<Box<Pace>>,
    app: Arc<App>,
    task: Arc<Task>,
}

impl HttpBody for StreamBody {
    type Data = Bytes;
    type Error = Behind;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Behind>>> {
        let this = &mut *self;
        let Some(reader) = &mut this.reader else { return Poll::Ready(None) };
        let read = match &mut this.pace {
            None => reader.poll_read(cx),
            Some(pace) => pace.poll_read(reader, cx),
        };
        if let Poll::Ready(Some(Err(Behind))) = read {
            narrate::reader_cut(&this.task);
        }
        read.map(|piece| piece.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.reader.as_ref().is_none_or(Reader::is_at_end)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        let saw_the_end = self.is_end_stream();
        // The application counts the readers that are left, so this one goes first.
        self.reader = None;
        if !saw_the_end {
            self.app.reader_left(&self.task);
        }
    }
}
