//! The events of a task's stream (LO-SSE-20..25).
//!
//! `started → token* → end | error`, with `metrics` and `narration` in between. Each event carries an `id:`, its index in
//! the stream, for `Last-Event-ID`. These are the payloads; the daemon's encoder writes the `token` frame by hand because
//! it is the one on the hot path, and a test holds it against [`TokenFrame`].

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{ErrorKind, PolicyLabel};
use crate::vocabulary::Engine;
use crate::words::wire_words;

wire_words! {
    /// Name of an event on the wire.
    EventName {
        /// First event of every stream.
        Started = "started",
        /// A piece of output.
        Token = "token",
        /// How the task fares.
        Metrics = "metrics",
        /// A sentence for people.
        Narration = "narration",
        /// Last event of a stream that ended as meant or was canceled.
        End = "end",
        /// Last event of a stream that failed.
        Error = "error",
    }
}

wire_words! {
    /// What a token belongs to; absent on the wire means `content`.
    Channel {
        /// The answer.
        Content = "content",
        /// The model's reasoning before the answer.
        Reasoning = "reasoning",
        /// A tool call, as a JSON fragment in OpenAI's delta form.
        ToolCall = "tool_call",
    }
}

wire_words! {
    /// What a task is doing when a `metrics` frame is written.
    Phase {
        /// Waiting for a slot.
        Queued = "queued",
        /// Waiting for its model to load.
        Loading = "loading",
        /// The engine reads the prompt.
        Prefill = "prefill",
        /// Tokens are arriving.
        Decoding = "decoding",
    }
}

/// Payload of `started`, written at admission with what was known then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"queue_position": 0, "predicted_start_ms": 0, "job_id": "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10", "engine": "llamacpp", "seed": 42, "pool_id": "gpu0"}))]
pub struct StartedFrame {
    /// Tasks ahead of this one.
    pub queue_position: i32,
    /// Predicted wait in milliseconds.
    pub predicted_start_ms: i64,
    /// The id under which log lines are found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The task's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// The kind of engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Its own version, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,
    /// The sampler profile in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler_profile_version: Option<String>,
    /// Digest of the model, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_digest: Option<String>,
    /// Seed in force, given or drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Pool the task was placed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_id: Option<String>,
    /// Replica, when it is decided already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_id: Option<String>,
    /// Prompt tokens, when counted already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_in: Option<i32>,
    /// Tokens the session has used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_used: Option<i64>,
    /// Tokens the session has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_remaining: Option<i64>,
}

/// Payload of `token`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"t": " Paris", "i": 0}))]
pub struct TokenFrame {
    /// The text: one token, or as many as the engine sent together.
    pub t: String,
    /// Index of the event among the stream's tokens, from 0 without gaps.
    pub i: i32,
    /// What it belongs to; absent means the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    /// The vector of input number `i`, for an embedding task; `t` is empty then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Vec<f32>>,
    /// The score of input number `i`, for a rerank task; `t` is empty then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
}

/// Payload of `metrics`. Only `queue_depth` and `on_time_probability` are always there (HME-021).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"queue_depth": 1, "on_time_probability": 0.97, "phase": "decoding", "tokens_out": 64}))]
pub struct MetricsFrame {
    /// Tasks waiting in the task's pool.
    pub queue_depth: i32,
    /// Probability that the task ends before its deadline, 0 to 1.
    pub on_time_probability: f64,
    /// What the task is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Tasks ahead of this one, while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<i32>,
    /// Predicted wait in milliseconds, while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_start_ms: Option<i64>,
    /// Share of the load or of the prompt done, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// Whether the replica held the session's prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_warmth: Option<bool>,
    /// Whether KV moved between workers; never true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_migrated: Option<bool>,
    /// Session tokens left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_budget_remaining: Option<i64>,
    /// Session decode time left, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_budget_remaining_ms: Option<i64>,
    /// Session cost left, in the operator's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_budget_remaining: Option<f64>,
    /// Time from dispatch to the first token, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_first_token_ms: Option<i64>,
    /// Time since the first token, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_decode_ms: Option<i64>,
    /// Tokens generated so far, as the engine counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_out: Option<i32>,
}

/// Payload of `narration`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"human": "orchestratord canceled the task after 12 tokens", "actor": "orchestratord", "action": "cancel"}))]
pub struct NarrationFrame {
    /// The sentence.
    pub human: String,
    /// Who acts.
    pub actor: String,
    /// What is done.
    pub action: String,
    /// To whom or what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The id under which log lines are found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The task's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
}

/// Payload of `end`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"tokens_out": 128, "decode_time_ms": 2100, "decode_ms": 2100, "tokens_in": 12, "finish_reason": "length"}))]
pub struct EndFrame {
    /// Generated tokens, as the engine counted them.
    pub tokens_out: i32,
    /// Time from the first token to the end, in milliseconds.
    pub decode_time_ms: i64,
    /// The same value under its older name.
    pub decode_ms: i64,
    /// True when the task was canceled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canceled: Option<bool>,
    /// Prompt tokens, as the engine counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_in: Option<i32>,
    /// Why the engine stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<FinishReason>,
}

wire_words! {
    /// Why the engine stopped, when it stopped as meant.
    FinishReason {
        /// The model was done, or a stop text came.
        Stop = "stop",
        /// `max_tokens` or the context is used up.
        Length = "length",
        /// The model calls tools.
        ToolCalls = "tool_calls",
    }
}

/// Payload of `error` (LO-SSE-24).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"code": "WORKER_RESET", "message": "the engine closed the connection in the middle of the answer", "retriable": false, "engine": "llamacpp"}))]
pub struct ErrorFrame {
    /// What went wrong.
    pub code: ErrorKind,
    /// What to do next, for a person.
    pub message: String,
    /// Whether the same request may succeed later unchanged.
    pub retriable: bool,
    /// How long to wait before trying again, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<i64>,
    /// The engine concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Which policy decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_label: Option<PolicyLabel>,
}
