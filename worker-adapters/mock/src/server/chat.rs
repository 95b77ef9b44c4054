//! The events of `POST /v1/chat/completions`.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use serde::Serialize;
use serde_json::{Value, json};

use super::completion::{Timings, put, write_json};
use super::request::Echo;
use crate::Config;
use crate::generation::{Finished, Prefill, StopType, Text};

/// Writes one stream's events.
pub(super) struct Events {
    /// Members that every chunk ends with, without the closing brace.
    tail: Box<str>,
    include_usage: bool,
    told_role: bool,
}

impl Events {
    pub(super) fn new(config: &Config, echo: &Echo) -> Self {
        let (model, build) = (Value::from(config.model.as_str()), Value::from(config.build.as_str()));
        let tail = format!(
            "\"created\":{},\"id\":\"{}\",\"model\":{model},\"system_fingerprint\":{build},\
             \"object\":\"chat.completion.chunk\"",
            created(),
            fresh_id(),
        );
        Self { tail: tail.into(), include_usage: echo.include_usage, told_role: false }
    }

    pub(super) fn token(&mut self, text: &Text, out: &mut BytesMut) {
        self.role(out);
        match text {
            Text::Piece(piece) => self.content(&piece.json, out),
            Text::Loose(text) if text.is_empty() => {}
            Text::Loose(text) => self.content(&Value::from(text.as_str()).to_string(), out),
        }
    }

    pub(super) fn prefill(&mut self, prefill: &Prefill, out: &mut BytesMut) {
        self.role(out);
        let Prefill { total, cached, processed, elapsed_ms } = prefill;
        put(
            out,
            format_args!(
                "data: {{\"choices\":[{{\"finish_reason\":null,\"index\":0,\"delta\":{{}}}}],{},\"prompt_progress\":\
                 {{\"total\":{total},\"cache\":{cached},\"processed\":{processed},\"time_ms\":{}}}}}\n\n",
                self.tail,
                elapsed_ms.round(),
            ),
        );
    }

    pub(super) fn finished(&mut self, finished: &Finished, out: &mut BytesMut) {
        self.role(out);
        if !finished.rest.is_empty() {
            self.content(&Value::from(finished.rest.as_str()).to_string(), out);
        }
        let reason = finish_reason(finished);
        put(
            out,
            format_args!(
                "data: {{\"choices\":[{{\"finish_reason\":\"{reason}\",\"index\":0,\"delta\":{{}}}}],{}",
                self.tail
            ),
        );
        if self.include_usage {
            put(out, format_args!("}}\n\ndata: {{\"choices\":[],{},\"usage\":", self.tail));
            write_json(&Usage::from(finished), out);
        }
        put(out, format_args!(",\"timings\":"));
        write_json(&Timings::from(finished), out);
        put(out, format_args!("}}\n\n"));
    }

    /// llama.cpp sends the role in the same chunk as the first token.
    fn role(&mut self, out: &mut BytesMut) {
        if !self.told_role {
            self.told_role = true;
            self.delta("{\"role\":\"assistant\",\"content\":null}", out);
        }
    }

    fn content(&self, json: &str, out: &mut BytesMut) {
        out.extend_from_slice(b"data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":");
        out.extend_from_slice(json.as_bytes());
        out.extend_from_slice(b"}}],");
        out.extend_from_slice(self.tail.as_bytes());
        out.extend_from_slice(b"}\n\n");
    }

    fn delta(&self, delta: &str, out: &mut BytesMut) {
        put(
            out,
            format_args!(
                "data: {{\"choices\":[{{\"finish_reason\":null,\"index\":0,\"delta\":{delta}}}],{}}}\n\n",
                self.tail
            ),
        );
    }
}

/// The whole answer of a request that does not stream.
pub(super) fn answer(config: &Config, text: &str, finished: &Finished) -> Value {
    json!({
        "choices": [{
            "finish_reason": finish_reason(finished),
            "index": 0,
            "message": {"role": "assistant", "content": text},
        }],
        "created": created(),
        "model": config.model,
        "system_fingerprint": config.build,
        "object": "chat.completion",
        "usage": Usage::from(finished),
        "id": fresh_id(),
        "timings": Timings::from(finished),
    })
}

#[derive(Debug, Serialize)]
struct Usage {
    completion_tokens: u32,
    prompt_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: Details,
}

#[derive(Debug, Serialize)]
struct Details {
    cached_tokens: u32,
}

impl From<&Finished> for Usage {
    fn from(finished: &Finished) -> Self {
        Self {
            completion_tokens: finished.tokens_out,
            prompt_tokens: finished.tokens_in,
            total_tokens: finished.tokens_in + finished.tokens_out,
            prompt_tokens_details: Details { cached_tokens: finished.cached },
        }
    }
}

fn finish_reason(finished: &Finished) -> &'static str {
    match finished.stop {
        StopType::Eos | StopType::Word(_) => "stop",
        StopType::Limit { .. } => "length",
    }
}

fn created() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn fresh_id() -> String {
    format!("chatcmpl-{:032x}", rand::random::<u128>())
}
