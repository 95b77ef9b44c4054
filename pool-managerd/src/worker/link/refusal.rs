//! Why the orchestrator does not answer as it should, and what that means.

use api_types::{AuthErrorEnvelope, ErrorEnvelope};
use http_util::ControlError;
use http_util::control::Answer;

/// Why a registration was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum RefusedError {
    /// The orchestrator cannot be reached.
    #[error("{}", with_cause(.0))]
    Unreachable(#[from] ControlError),
    /// It wants another token.
    #[error("it does not take this host's token ({0}); set AUTH_TOKEN or AUTH_TOKEN_FILE here to the orchestrator's")]
    Token(String),
    /// It refuses.
    #[error("{0}")]
    Refused(String),
    /// It cannot answer just now.
    #[error("{0}")]
    Failing(String),
}

impl RefusedError {
    /// Whether it stays so until somebody changes something.
    pub(super) const fn is_lasting(&self) -> bool {
        matches!(self, Self::Token(_) | Self::Refused(_))
    }
}

fn with_cause(error: &ControlError) -> String {
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Why a heartbeat was not answered as one.
pub(super) enum Unanswered {
    /// The session is over.
    Forgotten,
    For(RefusedError),
}

impl From<ControlError> for Unanswered {
    fn from(error: ControlError) -> Self {
        Self::For(RefusedError::Unreachable(error))
    }
}

pub(super) fn refusal_of(answer: &Answer) -> Unanswered {
    match answer.status {
        404 => Unanswered::Forgotten,
        _ => Unanswered::For(refusal(answer)),
    }
}

pub(super) fn refusal(answer: &Answer) -> RefusedError {
    let said = answer.json::<ErrorEnvelope>().map(|envelope| envelope.message);
    match answer.status {
        401 | 403 => {
            let said = answer.json::<AuthErrorEnvelope>().map(|envelope| match envelope.hint {
                Some(hint) => format!("{}; {hint}", envelope.message),
                None => envelope.message,
            });
            RefusedError::Token(said.unwrap_or_else(|_| answer.status.to_string()))
        }
        429 | 500.. => RefusedError::Failing(said.unwrap_or_else(|_| format!("it answers {}", answer.status))),
        status => {
            RefusedError::Refused(said.unwrap_or_else(|_| format!("it answers {status}; is it an orchestrator?")))
        }
    }
}

#[cfg(test)]
mod tests {
    use http_util::control::Answer;

    use super::super::{PAUSE, REFUSED_PAUSE, pause};
    use super::{RefusedError, refusal};

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.to_owned().into() }
    }

    /// LO-POOL-04: 401 and 403 come with a hint for the operator and longer pauses than a link that is down; all pauses grow and
    /// none is exact.
    #[test]
    fn refusals_have_a_hint_and_patience() {
        let denied = r#"{"code": 40103, "message": "NO_TOKEN: no token", "hint": "set AUTH_TOKEN there"}"#;
        for status in [401, 403] {
            let error = refusal(&answer(status, denied));
            assert!(error.is_lasting() && matches!(error, RefusedError::Token(_)));
            let text = error.to_string();
            assert!(text.contains("AUTH_TOKEN_FILE") && text.contains("set AUTH_TOKEN there"), "{text}");
        }
        assert!(refusal(&answer(500, "x")).to_string().contains("500"));
        for (bounds, failures) in [(PAUSE, 0), (PAUSE, 40), (REFUSED_PAUSE, 0), (REFUSED_PAUSE, 40)] {
            let full = if failures == 0 { bounds.0 } else { bounds.1 };
            for _ in 0..50 {
                assert!((full / 2..=full).contains(&pause(bounds, failures)));
            }
        }
        assert!(REFUSED_PAUSE.0 > PAUSE.1);
    }
}
