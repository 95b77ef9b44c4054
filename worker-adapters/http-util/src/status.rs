//! From an engine's refusals and our client's failures to [`WorkerError`] (ADAPT-3002, LO-WAD-13).
//!
//! Messages go to logs and to clients, so they may hold what an engine says about a request but never what was in it:
//! engines do quote their input (a JSON parser its last token, a validator the bad value). [`explain`] keeps field names
//! and numbers and drops the rest.

use adapter_api::WorkerError;
use narration_core::redact;
use serde_json::Value;

use crate::control::ControlError;
use crate::sse::SseError;
use crate::stream::StreamError;

/// Longest message, in characters.
const MAX_MESSAGE: usize = 300;
/// So many bytes of prose shared with the request are a quotation.
const QUOTATION: usize = 16;

/// What an error body tells, as far as engines agree on it: `{"error": {"message", "type"}}`, `{"error": "..."}`,
/// `{"message"}`, `{"detail"}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineError {
    /// The engine's word for the kind of error (`error.type`, `error_type`); not stable between versions for all engines.
    pub kind: Option<String>,
    /// Its sentence.
    pub message: Option<String>,
    /// The innermost error object, for members of one engine only.
    pub members: Value,
}

impl EngineError {
    /// Reads an error body; empty when it is none.
    #[must_use]
    pub fn parse(body: &[u8]) -> Self {
        serde_json::from_slice(body).map(Self::from_value).unwrap_or_default()
    }

    /// Reads an error that was parsed already.
    #[must_use]
    pub fn from_value(value: Value) -> Self {
        let outer_kind = text_at(&value, "error_type");
        let inner = match value.get("error") {
            Some(Value::String(message)) => {
                return Self { kind: outer_kind, message: Some(message.clone()), members: value };
            }
            Some(inner) => inner.clone(),
            None => value,
        };
        let message = text_at(&inner, "message").or_else(|| text_at(&inner, "detail"));
        Self { kind: text_at(&inner, "type").or(outer_kind), message, members: inner }
    }

    /// A number among the members.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.members.get(name)?.as_u64()
    }
}

fn text_at(value: &Value, name: &str) -> Option<String> {
    value.get(name)?.as_str().map(str::to_owned)
}

/// The error for an answer whose status is not a success. `request` is the body that was sent; nothing of it will be in
/// the message.
#[must_use]
pub fn refusal(status: u16, body: &[u8], request: &[u8]) -> WorkerError {
    refusal_by(status, &EngineError::parse(body), request)
}

/// [`refusal`] for an error body that was read already.
#[must_use]
pub fn refusal_by(status: u16, error: &EngineError, request: &[u8]) -> WorkerError {
    let text = explain(status, error, request);
    match status {
        429 => WorkerError::Busy(text),
        503 => WorkerError::PoolUnavailable(text),
        408 | 504 => WorkerError::DecodeTimeout(text),
        400 | 413 | 422 | 501 => WorkerError::Rejected(text),
        // Anything else is not about this request: a wrong key, a wrong path, a broken engine.
        _ => WorkerError::Adapter(text),
    }
}

/// What an engine says about its refusal, without anything of the request, without credentials, and cut short.
#[must_use]
pub fn explain(status: u16, error: &EngineError, request: &[u8]) -> String {
    let said = error.message.as_deref().map(|message| presentable(message, request)).unwrap_or_default();
    let kind = error.kind.as_deref().filter(|kind| is_name(kind)).unwrap_or_default();
    let text = match (kind.is_empty(), said.is_empty()) {
        (true, true) => format!("status {status}"),
        (false, true) => format!("status {status}, {kind}"),
        (true, false) => format!("status {status}: {said}"),
        (false, false) => format!("status {status}, {kind}: {said}"),
    };
    cut(text)
}

/// A foreign sentence made fit for a log: quotations of the request, quoted values and credentials are dropped.
fn presentable(message: &str, request: &[u8]) -> String {
    let unquoted = drop_quoted_values(message, request);
    if quotes(&unquoted, request) {
        return String::new();
    }
    cut(redact(&unquoted).into_owned())
}

/// Replaces what stands in quotes by dots, unless it is the name of a field or option.
fn drop_quoted_values(message: &str, request: &[u8]) -> String {
    // A JSON parser's "last read: '...'" quotes with whatever marks the input itself has.
    let message = message.find("last read:").map_or(message, |at| message[..at].trim_end_matches([' ', ';']));
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(at) = rest.find(['\'', '"', '`']) {
        let (before, marked) = rest.split_at(at);
        let (mark, inside) = marked.split_at(1);
        out.push_str(before);
        out.push_str(mark);
        rest = inside;
        if mark == "'" && is_apostrophe(before, inside) {
            continue;
        }
        let Some((value, behind)) = inside.split_once(mark) else {
            // A quotation that was cut: its end is unknown.
            out.push('…');
            return out;
        };
        out.push_str(if is_name(value) && !is_value_in(request, value) { value } else { "…" });
        out.push_str(mark);
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// Between two letters, as in "can't".
fn is_apostrophe(before: &str, behind: &str) -> bool {
    before.ends_with(|c: char| c.is_alphabetic()) && behind.starts_with(|c: char| c.is_alphabetic())
}

/// Whether a word occurs in the request otherwise than as the name of a member.
fn is_value_in(request: &[u8], word: &str) -> bool {
    let occurs = |text: &str| memchr::memmem::find(request, text.as_bytes()).is_some();
    occurs(word) && !occurs(&format!("\"{word}\":"))
}

/// Short, one word, and made of what field names, options and punctuation are made of.
fn is_name(text: &str) -> bool {
    text.len() <= 40 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.[]{}():,\\/".contains(&byte))
}

/// Whether a sentence repeats a piece of the request that is not just a field's name.
fn quotes(message: &str, request: &[u8]) -> bool {
    let is_prose = |piece: &[u8]| piece.iter().any(|byte| !(byte.is_ascii_lowercase() || *byte == b'_'));
    message
        .as_bytes()
        .windows(QUOTATION)
        .filter(|piece| is_prose(piece))
        .any(|piece| memchr::memmem::find(request, piece).is_some())
}

fn cut(text: String) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// An error and its causes in one line. Library errors may name URLs, so credentials are masked.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    cut(redact(&text).into_owned())
}

impl From<StreamError> for WorkerError {
    fn from(error: StreamError) -> Self {
        let text = chain(&error);
        match error {
            StreamError::Connect(_) | StreamError::ConnectTimeout(_) | StreamError::Tls(_) => {
                Self::PoolUnavailable(text)
            }
            StreamError::EstablishTimeout(_) => Self::DecodeTimeout(text),
            StreamError::Send(_) | StreamError::Receive(_) | StreamError::Truncated => Self::WorkerReset(text),
            StreamError::Malformed(_) | StreamError::TooLarge { .. } => Self::Adapter(text),
            StreamError::BadRequest => Self::Internal(text),
        }
    }
}

impl From<SseError> for WorkerError {
    fn from(error: SseError) -> Self {
        Self::Adapter(chain(&error))
    }
}

impl From<ControlError> for WorkerError {
    fn from(error: ControlError) -> Self {
        let text = chain(&error);
        match error {
            ControlError::Connect(_) => Self::PoolUnavailable(text),
            ControlError::Timeout(_) => Self::DecodeTimeout(text),
            ControlError::Lost(_) => Self::WorkerReset(text),
            ControlError::TooLarge { .. } | ControlError::Body(_) => Self::Adapter(text),
            ControlError::Setup(_) | ControlError::Encode(_) => Self::Internal(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::*;

    /// LO-WAD-13, ADAPT-3002: statuses and bodies of several engines.
    #[test]
    fn refusals() {
        use WorkerError::{Adapter, Busy, PoolUnavailable, Rejected};
        for (status, body, error) in [
            (
                503,
                r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#,
                PoolUnavailable("status 503, unavailable_error: Loading model".into()),
            ),
            (
                400,
                r#"{"error":{"message":"too long","type":"Bad Request","code":400}}"#,
                Rejected("status 400: too long".into()),
            ),
            (
                422,
                r#"{"error":"`inputs` must be short","error_type":"validation"}"#,
                Rejected("status 422, validation: `inputs` must be short".into()),
            ),
            (404, r#"{"detail":"Not Found"}"#, Adapter("status 404: Not Found".into())),
            (429, "", Busy("status 429".into())),
            (501, "{}", Rejected("status 501".into())),
            (500, "<html>oops</html>", Adapter("status 500".into())),
            (
                401,
                r#"{"error":{"message":"Invalid API key: sk-12345678abc"}}"#,
                Adapter("status 401: Invalid API key: [redacted]".into()),
            ),
        ] {
            assert_eq!(refusal(status, body.as_bytes(), b"{}"), error);
        }
    }

    /// LO-WAD-02, ORCH-3278: engines quote their input; we do not pass that on.
    #[test]
    fn nothing_of_the_request_gets_into_a_message() {
        let request = br#"{"prompt":"my diary says hello","n_predict":"many"}"#;
        for (message, shown) in [
            ("Field 'n_predict': must be number, but is string", "Field 'n_predict': must be number, but is string"),
            ("bad value 'my diary' given", "bad value '…' given"),
            ("syntax error; last read: '\"my dia'", "syntax error"),
            ("it's wrong, input was my diary says hello", ""),
            ("can't read 'my diary' or 'diary'", "can't read '…' or '…'"),
            ("unterminated \"my diary", "unterminated \"…"),
        ] {
            assert_eq!(presentable(message, request), shown);
        }
        assert_eq!(presentable(&"é".repeat(400), b"").chars().count(), MAX_MESSAGE + 1);
    }

    /// ADAPT-3002: how our own client fails.
    #[test]
    fn client_failures() {
        let second = Duration::from_secs(1);
        let io = || io::Error::from(io::ErrorKind::ConnectionReset);
        let kind = |error: StreamError| WorkerError::from(error).kind();
        use api_types::ErrorKind::{DecodeTimeout, Internal, PoolUnavailable, WorkerReset};
        assert_eq!(kind(StreamError::Connect(io())), PoolUnavailable);
        assert_eq!(kind(StreamError::ConnectTimeout(second)), PoolUnavailable);
        assert_eq!(kind(StreamError::EstablishTimeout(second)), DecodeTimeout);
        assert_eq!(kind(StreamError::Receive(io())), WorkerReset);
        assert_eq!(kind(StreamError::Truncated), WorkerReset);
        assert_eq!(kind(StreamError::Malformed("x")), Internal);
    }
}
