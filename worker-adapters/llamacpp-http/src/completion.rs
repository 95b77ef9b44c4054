//! Events of `POST /completion`: one JSON object each, the last one with `"stop":true`, no `[DONE]`.

use adapter_api::{Finish, Progress, TokenEvent, Usage, WorkerError};
use api_types::sse::{Channel, FinishReason};
use http_util::sse::SseEvent;
use http_util::stream::EventDecoder;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::wire::{PromptProgress, Timings, error_event, not_json, refusal, send_text, unusable};

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(default)]
    stop: bool,
    stop_type: Option<&'a str>,
    tokens_predicted: Option<u32>,
    tokens_evaluated: Option<u32>,
    #[serde(borrow)]
    timings: Option<Timings<'a>>,
    prompt_progress: Option<PromptProgress>,
    id_slot: Option<i64>,
    error: Option<Value>,
}

/// Decoder of one completion's events.
#[derive(Debug, Default)]
pub struct CompletionDecoder {
    scratch: String,
}

impl EventDecoder for CompletionDecoder {
    fn event(
        &mut self,
        event: SseEvent<'_>,
        sink: &mut dyn FnMut(TokenEvent<'_>),
    ) -> Result<Option<Finish>, WorkerError> {
        let event: Event<'_> = serde_json::from_str(event.data).map_err(|error| not_json(&error))?;
        if let Some(error) = event.error {
            return Err(error_event(error));
        }
        if let Some(progress) = event.prompt_progress {
            sink(progress.event());
            return Ok(None);
        }
        if event.content.is_none() {
            return Err(unusable("no content"));
        }
        send_text(event.content, Channel::Content, &mut self.scratch, sink)?;
        if event.stop {
            return event.finish().map(Some);
        }
        if event.tokens_predicted.is_some() {
            // Counted by the engine, held-back tokens included: what a canceled task has used.
            sink(TokenEvent::Metrics(Progress { prefill: None, tokens_out: event.tokens_predicted }));
        }
        Ok(None)
    }

    fn refusal(&self, status: u16, body: &[u8], request: &[u8]) -> WorkerError {
        refusal(status, body, request)
    }
}

impl Event<'_> {
    fn finish(&self) -> Result<Finish, WorkerError> {
        let reason = match self.stop_type {
            Some("eos" | "word") => FinishReason::Stop,
            Some("limit") => FinishReason::Length,
            _ => return Err(unusable("it stopped for an unknown reason")),
        };
        let mut usage = Usage {
            tokens_in: self.tokens_evaluated,
            tokens_out: self.tokens_predicted,
            slot: self.id_slot.and_then(|slot| u32::try_from(slot).ok()),
            ..Usage::default()
        };
        self.timings.unwrap_or_default().add_to(&mut usage);
        Ok(Finish { reason, usage })
    }
}
