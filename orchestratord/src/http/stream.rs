//! A task's stream as a response body.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Version};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::respond;
use crate::app::App;
use crate::task::Task;
use crate::transcript::Reader;

/// A response that follows a task's stream, from the event after `after` on.
pub(super) fn response(app: &Arc<App>, task: &Arc<Task>, after: Option<u32>, version: Version) -> Response {
    let reader = task.transcript().reader(after);
    app.reader_came(task);
    let body = StreamBody { reader: Some(reader), app: Arc::clone(app), task: Arc::clone(task) };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    let mut response = (headers, Body::new(body)).into_response();
    respond::budgets(response.headers_mut(), &task.born().admission);
    if version == Version::HTTP_11 {
        // LO-SSE-04; HTTP/2 has no such header.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    }
    response
}

/// Follows the transcript; when the connection goes away before the end, the application hears of it.
struct StreamBody {
    /// `None` only while it is being dropped.
    reader: Option<Reader>,
    app: Arc<App>,
    task: Arc<Task>,
}

impl HttpBody for StreamBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut self.reader {
            Some(reader) => reader.poll_read(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes)))),
            None => Poll::Ready(None),
        }
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
