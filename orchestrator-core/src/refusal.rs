//! Why a request was not taken, before it becomes an HTTP body or an `error` frame.

use api_types::{Engine, ErrorEnvelope, ErrorKind, PolicyLabel, PoolId};

/// A typed "no" with a sentence that says what to do next (HME-032). The sentence never holds a prompt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct Refusal {
    /// The public code.
    pub kind: ErrorKind,
    /// What to change, or how long to wait, with the numbers.
    pub message: String,
    /// The engine concerned.
    pub engine: Option<Engine>,
    /// The pool concerned.
    pub pool_id: Option<PoolId>,
    /// The policy that decided.
    pub policy_label: Option<PolicyLabel>,
    /// Replaces the code's own `retriable` where a case is unlike the rest, such as a spent session.
    pub retriable: Option<bool>,
    /// How long to wait before trying again, in milliseconds.
    pub retry_after_ms: Option<i64>,
}

impl Refusal {
    /// A refusal with nothing but its code and its sentence.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            engine: None,
            pool_id: None,
            policy_label: None,
            retriable: None,
            retry_after_ms: None,
        }
    }

    /// `INVALID_PARAMS`: the request must be changed.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParams, message)
    }

    /// A policy's "not now" or "no more": what a 429 must carry comes with it (LO-ERR-04).
    #[must_use]
    pub fn backpressure(
        kind: ErrorKind,
        policy_label: PolicyLabel,
        retry_after_ms: i64,
        message: impl Into<String>,
    ) -> Self {
        Self { policy_label: Some(policy_label), retry_after_ms: Some(retry_after_ms), ..Self::new(kind, message) }
    }

    /// The same, about this engine.
    #[must_use]
    pub fn with_engine(self, engine: Engine) -> Self {
        Self { engine: Some(engine), ..self }
    }

    /// The same, about this pool.
    #[must_use]
    pub fn with_pool(self, pool_id: PoolId) -> Self {
        Self { pool_id: Some(pool_id), ..self }
    }

    /// The same, with `retriable` other than the code's own.
    #[must_use]
    pub fn with_retriable(self, retriable: bool) -> Self {
        Self { retriable: Some(retriable), ..self }
    }

    /// Whether the same request may succeed later without being changed.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        self.retriable.unwrap_or_else(|| self.kind.retriable())
    }
}

impl From<Refusal> for ErrorEnvelope {
    fn from(refusal: Refusal) -> Self {
        let retriable = refusal.is_retriable();
        Self {
            code: refusal.kind,
            message: refusal.message,
            engine: refusal.engine,
            pool_id: refusal.pool_id.map(|pool| pool.to_string()),
            retriable: Some(retriable),
            retry_after_ms: refusal.retry_after_ms,
            policy_label: refusal.policy_label,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ErrorEnvelope, ErrorKind, PolicyLabel, Refusal};

    /// LO-ERR-04, ORCH-3331: a spent session is the one `ADMISSION_REJECT` that is not worth repeating.
    #[test]
    fn an_envelope_carries_what_a_429_needs() {
        let full = Refusal::backpressure(ErrorKind::AdmissionReject, PolicyLabel::Reject, 250, "full");
        let spent = Refusal::backpressure(ErrorKind::AdmissionReject, PolicyLabel::SessionTurns, 0, "spent")
            .with_retriable(false);
        let cases = [(full, true, 250), (spent, false, 0)];
        for (refusal, retriable, wait) in cases {
            let label = refusal.policy_label;
            let envelope = ErrorEnvelope::from(refusal);
            assert_eq!(envelope.code.http_status(), 429);
            assert_eq!(
                (envelope.retriable, envelope.retry_after_ms, envelope.policy_label),
                (Some(retriable), Some(wait), label)
            );
        }
    }
}
