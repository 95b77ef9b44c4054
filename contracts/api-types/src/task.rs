//! What a client submits.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::ids::{SessionId, TaskId};
use crate::vocabulary::{DeterminismLevel, Engine, KvHint, OutputMode, Priority, Workload};
use crate::words::wire_words;

/// Body of `POST /v1/tasks` (LO-API-20). Unknown fields are refused. Exactly one of `prompt`, `messages` and `inputs` is
/// given: text to continue, a chat rendered by the engine's own template, or the inputs of an embedding or rerank task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "task_id": "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10",
    "session_id": "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b",
    "workload": "completion",
    "model_ref": "hf:org/repo/file.gguf",
    "engine": "llamacpp",
    "ctx": 4096,
    "priority": "interactive",
    "max_tokens": 128,
    "deadline_ms": 60000,
    "seed": 42,
    "prompt": "Write a haiku about queues."
}))]
pub struct TaskRequest {
    /// Chosen by the client. The same id with the same body is a safe retry; with another body it is `CONFLICT`.
    pub task_id: TaskId,
    /// The session the task belongs to; created by its first task.
    pub session_id: SessionId,
    /// What is asked of the model.
    pub workload: Workload,
    /// The model, as the operator's configuration or the catalog names it.
    pub model_ref: String,
    /// The kind of engine that must run it.
    pub engine: Engine,
    /// Context the task needs, prompt and output together, in tokens.
    pub ctx: i32,
    /// Queue class.
    pub priority: Priority,
    /// Most tokens to generate.
    pub max_tokens: i32,
    /// Time the task has from admission to its end, in milliseconds.
    pub deadline_ms: i64,

    /// Text to continue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// A chat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<ChatMessage>>,
    /// Inputs of an embedding or rerank task; for rerank the first one is the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<String>>,

    /// Seed of the sampler. Without it one is drawn and reported in `started`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 4294967294_i64)]
    pub seed: Option<i64>,
    /// Whether equal requests must give equal bytes; without it any pool may serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub determinism: Option<DeterminismLevel>,
    /// Wanted version of the sampler profile; a pool with another one is not feasible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler_profile_version: Option<String>,
    /// How the sampler picks tokens; what is not given is the engine's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// The client's own guess of the output's length, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_tokens: Option<i32>,
    /// Whether the engine's prompt cache may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_hint: Option<KvHint>,
    /// Constraints on the choice of pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementOverrides>,
    /// How the client will read the output; a tag only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_mode: Option<OutputMode>,
    /// Constraint on the output, in OpenAI's form (`{"type":"json_object"}` or a JSON schema).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Value>,
    /// Tools the model may call, in OpenAI's form. Only with `messages`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Value>>,
    /// Which tool the model must call, in OpenAI's form. Only with `tools`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<Value>,
}

/// One turn of a chat, in OpenAI's form. `content` is text or a list of parts; other members (`tool_calls`,
/// `tool_call_id`, `name`, …) reach the engine's template untouched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// The text, or a list of parts; absent for an assistant turn that only calls tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Value>,
    /// Whatever else the turn carries.
    #[serde(flatten)]
    #[schema(additional_properties)]
    pub other: serde_json::Map<String, Value>,
}

/// How the sampler picks tokens. Every field is optional; an absent one leaves the engine's default in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"temperature": 0.7, "top_p": 0.9, "stop": ["\n\n"]}))]
pub struct Sampling {
    /// 0 picks the likeliest token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Keep the likeliest tokens whose probabilities add up to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Keep this many of the likeliest tokens; 0 keeps all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i32>,
    /// Drop tokens less likely than this share of the likeliest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// Penalty on repeated tokens; 1 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_penalty: Option<f64>,
    /// Penalty on tokens that occurred at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    /// Penalty on tokens by how often they occurred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    /// Texts that end the generation; they are not part of the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Vec<String>>,
}

wire_words! {
    /// How `placement` constrains the choice of pool.
    PlacementMode {
        /// Only `pin_pool_id`.
        Pin = "pin",
        /// Only `prefer_pools`, or all pools when none of them can and fallback is allowed.
        Prefer = "prefer",
        /// Every pool (the default).
        Auto = "auto",
    }
}

/// Constraints on the choice of pool (LO-PLC-14). Absent means `auto` with fallback allowed (ORCH-3908).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"mode": "prefer", "prefer_pools": ["gpu0"], "allow_fallback": true}))]
pub struct PlacementOverrides {
    /// `pin`, `prefer` or `auto`.
    #[serde(default)]
    pub mode: PlacementMode,
    /// The pool to use with `pin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_pool_id: Option<String>,
    /// The pools to use with `prefer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefer_pools: Option<Vec<String>>,
    /// Pools never to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avoid_pools: Option<Vec<String>>,
    /// Only pools with exactly this device mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_device_mask: Option<String>,
    /// Whether `prefer` may widen to all pools.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub allow_fallback: bool,
}

impl Default for PlacementOverrides {
    fn default() -> Self {
        Self {
            mode: PlacementMode::Auto,
            pin_pool_id: None,
            prefer_pools: None,
            avoid_pools: None,
            require_device_mask: None,
            allow_fallback: true,
        }
    }
}

#[expect(clippy::derivable_impls, reason = "the word table has no place for a #[default] attribute")]
impl Default for PlacementMode {
    fn default() -> Self {
        Self::Auto
    }
}

const fn yes() -> bool {
    true
}
