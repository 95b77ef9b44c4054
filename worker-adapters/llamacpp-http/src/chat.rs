//! Events of `POST /v1/chat/completions`: OpenAI's chunks, a chunk with the usage, `[DONE]`.

use adapter_api::{Finish, TokenEvent, Usage, WorkerError};
use api_types::sse::{Channel, FinishReason};
use http_util::json_text::First;
use http_util::sse::SseEvent;
use http_util::stream::EventDecoder;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::wire::{PromptProgress, Timings, error_event, not_json, refusal, send_text, unusable};

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: First<Choice<'a>>,
    usage: Option<ChunkUsage>,
    #[serde(borrow)]
    timings: Option<Timings<'a>>,
    prompt_progress: Option<PromptProgress>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    finish_reason: Option<&'a str>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<Vec<&'a RawValue>>,
}

#[derive(Clone, Copy, Deserialize)]
struct ChunkUsage {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
    prompt_tokens_details: Option<PromptTokensDetails>,
}

#[derive(Clone, Copy, Deserialize)]
struct PromptTokensDetails {
    cached_tokens: Option<u32>,
}

/// Decoder of one chat's events.
#[derive(Debug, Default)]
pub struct ChatDecoder {
    scratch: String,
    reason: Option<FinishReason>,
    usage: Usage,
}

impl EventDecoder for ChatDecoder {
    fn event(
        &mut self,
        event: SseEvent<'_>,
        sink: &mut dyn FnMut(TokenEvent<'_>),
    ) -> Result<Option<Finish>, WorkerError> {
        if event.data == "[DONE]" {
            // It also follows failures, so by itself it means nothing.
            let lost = || WorkerError::WorkerReset("the answer ended without a finish reason".to_owned());
            let reason = self.reason.ok_or_else(lost)?;
            return Ok(Some(Finish { reason, usage: self.usage }));
        }
        let chunk: Chunk<'_> = serde_json::from_str(event.data).map_err(|error| not_json(&error))?;
        if let Some(error) = chunk.error {
            return Err(error_event(error));
        }
        if let Some(progress) = chunk.prompt_progress {
            sink(progress.event());
        }
        if let Some(usage) = chunk.usage {
            self.usage.tokens_in = usage.prompt_tokens;
            self.usage.tokens_out = usage.completion_tokens;
            self.usage.tokens_cached = usage.prompt_tokens_details.and_then(|details| details.cached_tokens);
        }
        if let Some(timings) = chunk.timings {
            timings.add_to(&mut self.usage);
        }
        if let Some(choice) = chunk.choices.0 {
            self.choice(&choice, sink)?;
        }
        Ok(None)
    }

    fn refusal(&self, status: u16, body: &[u8], request: &[u8]) -> WorkerError {
        refusal(status, body, request)
    }
}

impl ChatDecoder {
    fn choice(&mut self, choice: &Choice<'_>, sink: &mut dyn FnMut(TokenEvent<'_>)) -> Result<(), WorkerError> {
        if let Some(delta) = &choice.delta {
            send_text(delta.reasoning_content, Channel::Reasoning, &mut self.scratch, sink)?;
            send_text(delta.content, Channel::Content, &mut self.scratch, sink)?;
            for call in delta.tool_calls.iter().flatten() {
                sink(TokenEvent::Token { text: call.get(), channel: Channel::ToolCall });
            }
        }
        self.reason = match choice.finish_reason {
            None => self.reason,
            Some("stop") => Some(FinishReason::Stop),
            Some("length") => Some(FinishReason::Length),
            Some("tool_calls") => Some(FinishReason::ToolCalls),
            Some(_) => return Err(unusable("it finished for an unknown reason")),
        };
        Ok(())
    }
}
