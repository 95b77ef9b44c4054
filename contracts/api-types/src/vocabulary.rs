//! The closed sets of words on the wire (LO-API-01, ORCH-2008).

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::words::wire_words;

wire_words! {
    /// The kind of engine behind a pool.
    Engine {
        /// llama.cpp's HTTP server.
        Llamacpp = "llamacpp",
        /// vLLM's OpenAI-style server.
        Vllm = "vllm",
        /// Hugging Face text-generation-inference.
        Tgi = "tgi",
        /// NVIDIA Triton with a token-streaming model.
        Triton = "triton",
        /// Any OpenAI-compatible server.
        Openai = "openai",
        /// The simulated engine, for tests and benchmarks.
        Mock = "mock",
    }
}

wire_words! {
    /// What a task asks of the model.
    Workload {
        /// Generate text.
        Completion = "completion",
        /// Turn inputs into vectors.
        Embedding = "embedding",
        /// Score inputs against a query.
        Rerank = "rerank",
    }
}

wire_words! {
    /// Whether equal requests must give equal bytes.
    DeterminismLevel {
        /// Byte-identical on one replica: one slot, no prompt cache.
        Strict = "strict",
        /// Batching and caching allowed.
        BestEffort = "best_effort",
    }
}

wire_words! {
    /// Queue class. A waiting interactive task starts before a waiting batch task, unless the pool gives the classes weights.
    Priority {
        /// Somebody is watching.
        Interactive = "interactive",
        /// Nobody waits for the first token.
        Batch = "batch",
    }
}

wire_words! {
    /// Whether the engine's prompt cache may be used.
    KvHint {
        /// Caching and session affinity are welcome (the default).
        Reuse = "reuse",
        /// Neither is allowed.
        Cold = "cold",
    }
}

wire_words! {
    /// What an artifact holds.
    ArtifactKind {
        /// A plan of work.
        Plan = "plan",
        /// A summary.
        Summary = "summary",
        /// A change to files.
        Diff = "diff",
        /// A task's transcript and record.
        Trace = "trace",
        /// Anything else.
        Other = "other",
    }
}

wire_words! {
    /// Lifecycle of a catalog model.
    ModelLifecycle {
        /// New tasks may use it.
        Active = "Active",
        /// New tasks are refused with `MODEL_DEPRECATED`.
        Retired = "Retired",
    }
}

wire_words! {
    /// How missing signatures and SBOMs are treated.
    TrustMode {
        /// They are refused.
        Strict = "strict",
        /// They are warned about.
        Permissive = "permissive",
    }
}

/// How the client means to read the output; used for tagging artifacts only (ORCH-3101, ORCH-3102). It never changes
/// what the model generates, and a value not known here is kept as [`OutputMode::Other`] instead of being refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutputMode {
    /// Plain text.
    Text,
    /// JSON.
    Json,
    /// File edits.
    Edits,
    /// A value this version does not know.
    Other,
}

impl<'de> Deserialize<'de> for OutputMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(match word.as_ref() {
            "text" => Self::Text,
            "json" => Self::Json,
            "edits" => Self::Edits,
            _ => Self::Other,
        })
    }
}
