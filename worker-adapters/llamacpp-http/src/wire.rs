//! Pieces that several of the engine's answers share.

use adapter_api::{Progress, TokenEvent, Usage, WorkerError};
use api_types::sse::Channel;
use http_util::json_text::unescape;
use http_util::status::{self, EngineError};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The engine's own measurements, on the last event. They are told for information, so what makes no sense is left out rather
/// than held against the answer: an engine's clock may jump, and its `NaN` is `null`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Timings<'a> {
    #[serde(borrow)]
    cache_n: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    predicted_ms: Option<&'a RawValue>,
}

/// No task spends longer than a week on anything.
const LONGEST_MS: f64 = 7.0 * 24.0 * 3600.0 * 1000.0;

impl Timings<'_> {
    pub(crate) fn add_to(self, usage: &mut Usage) {
        let number = |raw: Option<&RawValue>| raw?.get().parse::<u32>().ok();
        let time = |raw: Option<&RawValue>| raw?.get().parse().ok().filter(|ms| (0.0..=LONGEST_MS).contains(ms));
        usage.tokens_cached = number(self.cache_n).or(usage.tokens_cached);
        usage.prefill_ms = time(self.prompt_ms);
        usage.decode_ms = time(self.predicted_ms);
    }
}

/// `prompt_progress` of an event asked for with `return_progress`. Such an event also carries `"tokens":[0]`, which is no
/// token.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct PromptProgress {
    total: f64,
    processed: f64,
}

impl PromptProgress {
    pub(crate) fn event(self) -> TokenEvent<'static> {
        let prefill = (self.total > 0.0).then(|| (self.processed / self.total).clamp(0.0, 1.0));
        TokenEvent::Metrics(Progress { prefill, tokens_out: None })
    }
}

/// Passes on a text, unless it is empty: the engine sends empty ones while it holds text back.
pub(crate) fn send_text(
    raw: Option<&RawValue>,
    channel: Channel,
    scratch: &mut String,
    sink: &mut dyn FnMut(TokenEvent<'_>),
) -> Result<(), WorkerError> {
    let Some(raw) = raw else { return Ok(()) };
    let text = unescape(raw.get(), scratch).map_err(|error| unusable(&error.to_string()))?;
    if !text.is_empty() {
        sink(TokenEvent::Token { text, channel });
    }
    Ok(())
}

/// An event that is not what the protocol says. Never with the event's text in it.
pub(crate) fn unusable(what: &str) -> WorkerError {
    WorkerError::Adapter(format!("llama.cpp sent an event that cannot be read: {what}"))
}

/// Parser messages quote what they read, so only the kind of mistake is told.
pub(crate) fn not_json(error: &serde_json::Error) -> WorkerError {
    unusable(if error.is_data() { "another shape" } else { "not json" })
}

/// An `error` event in the middle of a stream. Too late for a status, but it has the `code` of one.
pub(crate) fn error_event(error: Value) -> WorkerError {
    let error = EngineError::from_value(error);
    let status = error.number("code").and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
    refusal_by(status, &error, b"")
}

/// An answer with an error status.
pub(crate) fn refusal(status: u16, body: &[u8], request: &[u8]) -> WorkerError {
    refusal_by(status, &EngineError::parse(body), request)
}

fn refusal_by(status: u16, error: &EngineError, request: &[u8]) -> WorkerError {
    if error.kind.as_deref() == Some("exceed_context_size_error")
        && let (Some(prompt), Some(context)) = (error.number("n_prompt_tokens"), error.number("n_ctx"))
    {
        return WorkerError::Rejected(format!(
            "the prompt has {prompt} tokens and a slot's context holds {context}; shorten the prompt or give the engine more"
        ));
    }
    status::refusal_by(status, error, request)
}
