//! The closed set of public errors, and the one place that maps them to HTTP status and `retriable` (ORCH-3331).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::vocabulary::Engine;
use crate::words::wire_words;

wire_words! {
    /// Stable error code, on the wire in error bodies and in `error` frames (LO-ERR-02, LO-ERR-07).
    ErrorKind {
        /// Malformed body, context or token limit exceeded, bad placement override.
        InvalidParams = "INVALID_PARAMS",
        /// `deadline_ms` is not positive, or cannot be met.
        DeadlineUnmet = "DEADLINE_UNMET",
        /// Strict trust policy not satisfied, or digest mismatch.
        UntrustedArtifact = "UNTRUSTED_ARTIFACT",
        /// The model is retired.
        ModelDeprecated = "MODEL_DEPRECATED",
        /// Queue full under `reject`, throttled, or a session limit is spent.
        AdmissionReject = "ADMISSION_REJECT",
        /// Queue full under `drop-lru`; also ends the stream of the task that was evicted.
        QueueFullDropLru = "QUEUE_FULL_DROP_LRU",
        /// The pool is loading, draining, or the model is not present yet.
        PoolUnready = "POOL_UNREADY",
        /// No such pool, GPU outage, or breaker open.
        PoolUnavailable = "POOL_UNAVAILABLE",
        /// All replicas busy or lost during dispatch.
        ReplicaExhausted = "REPLICA_EXHAUSTED",
        /// The engine exceeded the wall or idle limit.
        DecodeTimeout = "DECODE_TIMEOUT",
        /// The engine died or restarted in the middle of the task.
        WorkerReset = "WORKER_RESET",
        /// Anything unexpected.
        Internal = "INTERNAL",
        /// No such task, session, pool, model, artifact or route.
        NotFound = "NOT_FOUND",
        /// The request contradicts what exists, for example the same task id with another body.
        Conflict = "CONFLICT",
    }
}

impl ErrorKind {
    /// HTTP status when the failure is known before a stream has started.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::InvalidParams | Self::DeadlineUnmet | Self::UntrustedArtifact | Self::ModelDeprecated => 400,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::AdmissionReject | Self::QueueFullDropLru => 429,
            Self::WorkerReset | Self::Internal => 500,
            Self::PoolUnready | Self::PoolUnavailable | Self::ReplicaExhausted | Self::DecodeTimeout => 503,
        }
    }

    /// Whether the same request may succeed later without being changed. A spent session limit is the one exception: it
    /// is `ADMISSION_REJECT` with `retriable: false`.
    #[must_use]
    pub const fn retriable(self) -> bool {
        match self {
            Self::AdmissionReject
            | Self::QueueFullDropLru
            | Self::PoolUnready
            | Self::ReplicaExhausted
            | Self::DecodeTimeout => true,
            Self::InvalidParams
            | Self::DeadlineUnmet
            | Self::UntrustedArtifact
            | Self::ModelDeprecated
            | Self::PoolUnavailable
            | Self::WorkerReset
            | Self::Internal
            | Self::NotFound
            | Self::Conflict => false,
        }
    }
}

wire_words! {
    /// Which policy refused or ended a task (LO-ERR-08).
    PolicyLabel {
        /// The queue is full and refuses newcomers.
        Reject = "reject",
        /// The queue was full and made room.
        DropLru = "drop-lru",
        /// A throttle.
        RateLimit = "rate-limit",
        /// A session's token, time or cost budget is spent.
        SessionBudget = "session-budget",
        /// A session's turns are used up.
        SessionTurns = "session-turns",
    }
}

/// Body of every failed request (LO-ERR-03). On 429 `policy_label`, `retriable` and `retry_after_ms` are always there
/// (LO-ERR-04) and the `Retry-After` (whole seconds) and `X-Backoff-Ms` headers repeat the wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "code": "ADMISSION_REJECT",
    "message": "pool gpu0 has 64 tasks waiting, its limit; try again in 1500 ms or use another pool",
    "engine": "llamacpp",
    "pool_id": "gpu0",
    "retriable": true,
    "retry_after_ms": 1500,
    "policy_label": "reject"
}))]
pub struct ErrorEnvelope {
    /// What went wrong, from a closed set.
    pub code: ErrorKind,
    /// What to do next, for a person. Never holds a prompt or a secret.
    pub message: String,
    /// The engine concerned, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// The pool concerned, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_id: Option<String>,
    /// Whether the same request may succeed later unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retriable: Option<bool>,
    /// How long to wait before trying again, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<i64>,
    /// Which policy decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_label: Option<PolicyLabel>,
}

impl ErrorEnvelope {
    /// An envelope with the code's own `retriable` value and nothing optional.
    #[must_use]
    pub fn new(code: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            engine: None,
            pool_id: None,
            retriable: Some(code.retriable()),
            retry_after_ms: None,
            policy_label: None,
        }
    }
}

/// Body of 401 and 403 answers (LO-ERR-05).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "code": 40101,
    "message": "MISSING_TOKEN: this server wants a bearer token",
    "hint": "send `Authorization: Bearer <token>`; the operator set AUTH_TOKEN"
}))]
pub struct AuthErrorEnvelope {
    /// 40101 no token, 40102 wrong token, 40301 not allowed from here.
    pub code: u32,
    /// Begins with the symbolic name: `MISSING_TOKEN`, `BAD_TOKEN`, `NON_LOOPBACK_WITHOUT_TOKEN` or `FOREIGN_HOST`.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::ErrorKind;

    /// LO-ERR-02, LO-ERR-07, ORCH-3331: the table of the contract, row by row.
    #[test]
    fn codes_map_to_status_and_retriable() {
        let rows: &[(&str, u16, bool)] = &[
            ("INVALID_PARAMS", 400, false),
            ("DEADLINE_UNMET", 400, false),
            ("UNTRUSTED_ARTIFACT", 400, false),
            ("MODEL_DEPRECATED", 400, false),
            ("ADMISSION_REJECT", 429, true),
            ("QUEUE_FULL_DROP_LRU", 429, true),
            ("POOL_UNREADY", 503, true),
            ("POOL_UNAVAILABLE", 503, false),
            ("REPLICA_EXHAUSTED", 503, true),
            ("DECODE_TIMEOUT", 503, true),
            ("WORKER_RESET", 500, false),
            ("INTERNAL", 500, false),
            ("NOT_FOUND", 404, false),
            ("CONFLICT", 409, false),
        ];
        assert_eq!(rows.len(), ErrorKind::ALL.len());
        for (kind, (word, status, retriable)) in ErrorKind::ALL.iter().zip(rows) {
            assert_eq!(serde_json::to_value(kind).expect("a word"), *word);
            assert_eq!((kind.as_str(), kind.http_status(), kind.retriable()), (*word, *status, *retriable));
        }
    }
}
