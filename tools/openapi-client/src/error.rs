//! Every way in which a call can fail.

use std::time::Duration;

use api_types::{AuthErrorEnvelope, ErrorEnvelope};
use auth_min::{BearerToken, Fingerprint};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use crate::ClientConfig;

/// Why a call failed. Nothing here holds a token, a prompt or a URL's query.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client could not be set up, for example because the system has no certificate store.
    #[error("the HTTP client could not be set up")]
    Setup(#[source] reqwest::Error),
    /// No connection came about.
    #[error("cannot connect to {server}")]
    Unreachable {
        /// The address tried.
        server: String,
        /// What the network said.
        #[source]
        source: reqwest::Error,
    },
    /// The connection failed after it had come about.
    #[error("the connection to {server} broke")]
    Broken {
        /// The server.
        server: String,
        /// What the network said.
        #[source]
        source: reqwest::Error,
    },
    /// A stream ended without its last event.
    #[error("the stream from {server} ended before its last event")]
    Cut {
        /// The server.
        server: String,
    },
    /// No answer in time.
    #[error("{server} did not answer in time")]
    TimedOut {
        /// The server.
        server: String,
    },
    /// The server refused, with an envelope.
    #[error("{}", .0.envelope.message)]
    Refused(Box<ApiRefusal>),
    /// The server wants another token, or a caller from elsewhere.
    #[error("{}", .0.envelope.message)]
    Unauthorized(Box<AuthRefusal>),
    /// What answered does not speak OrchQueue v1.
    #[error("{server} answered with {problem}")]
    Protocol {
        /// The server.
        server: String,
        /// What is wrong with the answer, without its text.
        problem: String,
        /// The id under which the server's log has it.
        correlation_id: Option<String>,
    },
}

/// A refusal with the common envelope.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiRefusal {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub envelope: ErrorEnvelope,
    /// The id under which the server's log has it.
    pub correlation_id: Option<String>,
    /// The wait asked for: `X-Backoff-Ms`, else `Retry-After`, else `retry_after_ms` of the body.
    pub retry_after: Option<Duration>,
}

/// A refusal for want of permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRefusal {
    /// 401 or 403.
    pub status: u16,
    /// The body.
    pub envelope: AuthErrorEnvelope,
    /// Which token was sent, if one was; the server's log shows the same fingerprint.
    pub sent: Option<Fingerprint>,
    /// The id under which the server's log has it.
    pub correlation_id: Option<String>,
}

impl ClientError {
    /// The id under which the server's log has the failed request, when it told one.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => refusal.correlation_id.as_deref(),
            Self::Unauthorized(refusal) => refusal.correlation_id.as_deref(),
            Self::Protocol { correlation_id, .. } => correlation_id.as_deref(),
            _ => None,
        }
    }

    /// Whether the same call may succeed later unchanged.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Cut { .. } | Self::TimedOut { .. } => true,
            Self::Refused(refusal) => refusal.envelope.retriable.unwrap_or(refusal.envelope.code.retriable()),
            Self::Setup(_) | Self::Unauthorized(_) | Self::Protocol { .. } => false,
        }
    }

    /// The wait that the server asked for before the call is tried again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }

    pub(crate) fn transport(server: String, error: reqwest::Error) -> Self {
        let source = error.without_url();
        if source.is_connect() {
            Self::Unreachable { server, source }
        } else if source.is_timeout() {
            Self::TimedOut { server }
        } else {
            Self::Broken { server, source }
        }
    }

    /// Reads a refusal's body: one of the two envelopes, or something that is not ours.
    pub(crate) fn refusal(config: &ClientConfig, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let correlation_id = correlation_id(headers);
        if let Ok(envelope) = serde_json::from_slice::<ErrorEnvelope>(body) {
            let told = envelope.retry_after_ms.and_then(|wait| u64::try_from(wait).ok()).map(Duration::from_millis);
            let retry_after = wait(headers).or(told);
            return Self::Refused(Box::new(ApiRefusal {
                status: status.as_u16(),
                envelope,
                correlation_id,
                retry_after,
            }));
        }
        match serde_json::from_slice::<AuthErrorEnvelope>(body) {
            Ok(envelope) => {
                let sent = config.token.as_ref().map(BearerToken::fingerprint);
                Self::Unauthorized(Box::new(AuthRefusal { status: status.as_u16(), envelope, sent, correlation_id }))
            }
            Err(_) => {
                let problem = format!("{status} and no error envelope");
                Self::Protocol { server: config.server.to_string(), problem, correlation_id }
            }
        }
    }
}

pub(crate) fn correlation_id(headers: &HeaderMap) -> Option<String> {
    Some(headers.get("x-correlation-id")?.to_str().ok()?.to_owned())
}

/// OC-CLI-2802. The header in milliseconds is the finer one.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    number("x-backoff-ms").map(Duration::from_millis).or_else(|| number("retry-after").map(Duration::from_secs))
}
