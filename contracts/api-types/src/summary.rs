//! What a client learns about a task it submitted, and how it asks for a list of them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::{IntoParams, ToSchema};

use crate::error::ErrorEnvelope;
use crate::ids::{PoolId, SessionId, TaskId};
use crate::placement::{PlacementMove, PlacementRecord};
use crate::vocabulary::{Engine, Priority, Workload};
use crate::words::wire_words;

wire_words! {
    /// Where a task is in its life. `queued → dispatched → streaming →` one of the four ends.
    TaskState {
        /// Waiting for a slot.
        Queued = "queued",
        /// Handed to an engine; no token yet.
        Dispatched = "dispatched",
        /// Tokens are arriving.
        Streaming = "streaming",
        /// Ended as the engine meant it to.
        Completed = "completed",
        /// Ended with a typed error.
        Failed = "failed",
        /// Canceled by the client, by a lost client, or because nobody came for the stream.
        Canceled = "canceled",
        /// Ended because its deadline passed.
        Expired = "expired",
    }
}

/// One task, as `GET /v1/tasks/{id}` shows it. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskSummary {
    /// The task's id.
    pub task_id: TaskId,
    /// The id under which its log lines are found.
    pub correlation_id: String,
    /// The session it belongs to.
    pub session_id: SessionId,
    /// Where it is in its life.
    pub state: TaskState,
    /// What was asked of the model.
    pub workload: Workload,
    /// The model.
    pub model_ref: String,
    /// The kind of engine.
    pub engine: Engine,
    /// The engine's own version, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,
    /// Queue class.
    pub priority: Priority,
    /// Seed in force, given or drawn.
    pub seed: i64,
    /// Time it has from admission to its end, in milliseconds.
    #[serde(default)]
    #[schema(required)]
    pub deadline_ms: i64,
    /// Most tokens to generate.
    #[serde(default)]
    #[schema(required)]
    pub max_tokens: i32,
    /// Length of its prompt, as known at admission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<InputTokens>,
    /// Pool it was placed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_id: Option<String>,
    /// Replica that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_id: Option<String>,
    /// Tasks ahead of it now; absent once it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<i32>,
    /// Wait predicted at admission, in milliseconds.
    pub predicted_start_ms: i64,
    /// Probability that it ends before its deadline, 0 to 1, as estimated at admission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_time_probability: Option<f64>,
    /// When it was admitted.
    pub admitted_at_ms: i64,
    /// When it was handed to an engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatched_at_ms: Option<i64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<i64>,
    /// Time in the queue, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_time_ms: Option<i64>,
    /// Time from dispatch to the first token, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<i64>,
    /// Time from the first token to the end, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode_time_ms: Option<i64>,
    /// Prompt tokens, as the engine counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_in: Option<i32>,
    /// Generated tokens, as the engine counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_out: Option<i32>,
    /// Why the pool was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementRecord>,
    /// Every change of its pool, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<PlacementMove>,
    /// How many times it was handed to an engine.
    #[serde(default)]
    #[schema(required)]
    pub attempts: i32,
    /// Whether it was taken up again after a restart of the orchestrator.
    #[serde(default, skip_serializing_if = "is_false")]
    pub recovered: bool,
    /// The error it ended with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorEnvelope>,
}

/// Length of a task's prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"tokens": 12, "source": "exact"}))]
pub struct InputTokens {
    /// Tokens.
    pub tokens: i32,
    /// Who counted.
    pub source: TokenSource,
}

wire_words! {
    /// How a prompt's tokens were counted.
    TokenSource {
        /// By the engine's own tokenizer.
        Exact = "exact",
        /// From the length of the text.
        Estimate = "estimate",
    }
}

/// Tasks, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskList {
    /// The tasks.
    pub tasks: Vec<TaskSummary>,
    /// `cursor` of the next page; absent on the last one. Opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Query of `GET /v1/tasks`. Filters add up: a task is listed when it passes all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TaskQuery {
    /// Most tasks in the answer; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// Where to go on: `next_cursor` of the page before, with the same filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only tasks in one of these states; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "comma_separated")]
    #[param(style = Form, explode = false, example = json!(["queued", "streaming"]))]
    pub state: Vec<TaskState>,
    /// Only tasks of this class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Only tasks placed on this pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub pool_id: Option<PoolId>,
    /// Only tasks of this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// Only tasks for this model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_ref: Option<String>,
    /// Only tasks admitted at this time or later, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Only tasks admitted before this time, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
}

/// A list of words in one query value.
mod comma_separated {
    use super::{Deserialize, Deserializer, Serializer, TaskState};
    use serde::de::IntoDeserializer as _;
    use serde::de::value::StrDeserializer;

    pub(super) fn serialize<S: Serializer>(states: &[TaskState], serializer: S) -> Result<S::Ok, S::Error> {
        let words: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
        serializer.serialize_str(&words.join(","))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TaskState>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.split(',')
            .map(|word| {
                let word: StrDeserializer<'_, D::Error> = word.into_deserializer();
                TaskState::deserialize(word)
            })
            .collect()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{TaskQuery, TaskState, TaskSummary};

    /// What was written before a field came to be can still be read, and says nothing that it did not say.
    #[test]
    fn an_older_record_is_read() {
        let old = json!({
            "task_id": "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10", "correlation_id": "c",
            "session_id": "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b", "state": "completed", "workload": "completion",
            "model_ref": "m", "engine": "mock", "priority": "batch", "seed": 42, "predicted_start_ms": 0, "admitted_at_ms": 1,
            "placement": {"candidates_considered": 1, "filters_applied": [], "tie_breakers_applied": [], "pinned": false,
                "fallback_used": false}
        });
        let task: TaskSummary = serde_json::from_value(old.clone()).expect("it fits");
        let mut again = serde_json::to_value(task).expect("JSON");
        for added in ["deadline_ms", "max_tokens", "attempts"] {
            assert_eq!(again.as_object_mut().expect("an object").remove(added), Some(0.into()), "{added}");
        }
        assert_eq!(again, old);
    }

    /// LO-API-02: the filters as text, both ways; unknown names and words are refused.
    #[test]
    fn a_query_is_strict_and_survives_its_text() {
        let text = "limit=2&state=failed%2Cexpired&priority=batch&pool_id=gpu0\
                    &session_id=2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b&model_ref=hf%3Aa%2Fb&since_ms=5&until_ms=9";
        let query: TaskQuery = serde_urlencoded::from_str(text).expect("it fits");
        assert_eq!(query.state, [TaskState::Failed, TaskState::Expired]);
        assert_eq!(serde_urlencoded::to_string(&query).expect("text"), text);
        assert_eq!(serde_urlencoded::to_string(TaskQuery::default()).expect("text"), "");
        for wrong in ["states=queued", "state=done", "state=", "priority=low", "limit=-1", "session_id=x"] {
            assert!(serde_urlencoded::from_str::<TaskQuery>(wrong).is_err(), "{wrong}");
        }
    }
}
