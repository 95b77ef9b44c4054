//! Responses as llama-server writes them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_LENGTH, CONTENT_TYPE, SERVER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use serde::Serialize;

use super::body::{TokenBody, filler};
use crate::Refusal;

/// The connection must end here, without an answer or in the middle of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is broken off on purpose")]
pub(super) struct BrokenOff;

pub(super) type Reply = Response<ReplyBody>;

/// A body, known at once or token by token.
pub(super) enum ReplyBody {
    Full(Full<Bytes>),
    Tokens(Box<TokenBody>),
    /// So many more bytes of nothing.
    Filler(u64),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Full(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Tokens(body) => body.poll_chunk(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data))),
            Self::Filler(0) => Poll::Ready(None),
            Self::Filler(left) => {
                let piece;
                (piece, *left) = filler(*left);
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(body) => body.is_end_stream(),
            Self::Tokens(_) | Self::Filler(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(body) => body.size_hint(),
            Self::Tokens(_) | Self::Filler(_) => SizeHint::default(),
        }
    }
}

/// A response of any type.
pub(super) fn full(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    reply(status, content_type, ReplyBody::Full(Full::new(body.into())))
}

/// A response in JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    let body = serde_json::to_vec(value).unwrap_or_default();
    full(status, "application/json; charset=utf-8", body)
}

/// A response without a meaning and of any length, which is made while it is sent.
pub(super) fn long(bytes: u64) -> Reply {
    reply(StatusCode::OK, "application/json; charset=utf-8", ReplyBody::Filler(bytes))
}

/// A stream of events, perhaps with a length that it only claims to have.
pub(super) fn events(body: TokenBody, length: Option<u64>) -> Reply {
    let mut reply = reply(StatusCode::OK, "text/event-stream", ReplyBody::Tokens(Box::new(body)));
    let name = HeaderName::from_static("x-accel-buffering");
    reply.headers_mut().insert(name, HeaderValue::from_static("no"));
    if let Some(length) = length {
        reply.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    reply
}

fn reply(status: StatusCode, content_type: &'static str, body: ReplyBody) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("llama.cpp"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static(""));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

#[derive(Serialize)]
struct Envelope {
    error: ErrorObject,
}

#[derive(Serialize)]
struct ErrorObject {
    code: u16,
    message: String,
    r#type: &'static str,
    #[serde(flatten)]
    context: Option<ContextExceeded>,
}

#[derive(Serialize)]
struct ContextExceeded {
    n_prompt_tokens: u32,
    n_ctx: u32,
}

/// The engine's error object.
pub(super) fn error(status: StatusCode, message: impl Into<String>) -> Reply {
    json(status, &envelope(status, error_type(status), message.into(), None))
}

/// The engine's error object inside a stream.
pub(super) fn error_event() -> String {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    let envelope = envelope(status, error_type(status), "the engine failed while decoding".to_owned(), None);
    format!("data: {}\n\n", serde_json::to_string(&envelope).unwrap_or_default())
}

/// What becomes of a request the engine does not take.
pub(super) fn refusal(refusal: &Refusal) -> Result<Reply, BrokenOff> {
    let message = refusal.to_string();
    Ok(match *refusal {
        Refusal::Crashed => return Err(BrokenOff),
        Refusal::Loading => error(StatusCode::SERVICE_UNAVAILABLE, message),
        Refusal::NoEmbeddings => error(StatusCode::NOT_IMPLEMENTED, message),
        Refusal::ContextExceeded { prompt_tokens, ctx } => {
            let context = ContextExceeded { n_prompt_tokens: prompt_tokens, n_ctx: ctx };
            let status = StatusCode::BAD_REQUEST;
            json(status, &envelope(status, "exceed_context_size_error", message, Some(context)))
        }
    })
}

fn envelope(status: StatusCode, r#type: &'static str, message: String, context: Option<ContextExceeded>) -> Envelope {
    Envelope { error: ErrorObject { code: status.as_u16(), message, r#type, context } }
}

/// Source: llama.cpp's `format_error_response`.
fn error_type(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::NOT_IMPLEMENTED => "not_supported_error",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "server_error",
    }
}
