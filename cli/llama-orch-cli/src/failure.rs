//! What a person reads when a command fails: what happened, under which id the server's log has it, what to do next.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use api_types::sse::ErrorFrame;
use api_types::{ErrorEnvelope, ErrorKind};
use openapi_client::{AuthRefusal, ClientError};

use crate::exit::Exit;
use crate::show;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    what: String,
    correlation_id: Option<String>,
    next: Option<String>,
}

impl Failure {
    /// Wrong arguments or files.
    pub(crate) fn usage(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, what: what.into(), correlation_id: None, next: Some(next.into()) }
    }

    /// Something on this side.
    pub(crate) fn local(what: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, what: what.into(), correlation_id: None, next: None }
    }

    /// Nothing to be told: the reader of our output is gone.
    pub(crate) fn output_closed() -> Self {
        Self { exit: Exit::OutputClosed, what: String::new(), correlation_id: None, next: None }
    }

    /// What was asked for cannot be had.
    pub(crate) fn new(exit: Exit, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { exit, what: what.into(), correlation_id: None, next: Some(next.into()) }
    }

    /// The task ended with an error.
    pub(crate) fn of_task(error: &ErrorFrame, correlation_id: Option<String>) -> Self {
        let next = error.retriable.then(|| later(wait(error.retry_after_ms)));
        let exit = Exit::of_task(error.code, error.retriable);
        Self { exit, what: format!("{}: {}", error.code, error.message), correlation_id, next }
    }

    /// Work on a model failed.
    pub(crate) fn of_job(error: &ErrorEnvelope) -> Self {
        let exit = Exit::of_job(error.code, is_retriable(error));
        Self { exit, what: format!("{}: {}", error.code, error.message), correlation_id: None, next: advice(error) }
    }

    /// Adds what to do next, where nothing better is known.
    pub(crate) fn or_next(mut self, next: impl FnOnce() -> String) -> Self {
        self.next = self.next.or_else(|| Some(next()));
        self
    }

    /// Writes it to stderr.
    pub(crate) fn report(&self) {
        if self.exit != Exit::OutputClosed {
            eprintln!("llama-orch: {self}");
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(id) = &self.correlation_id {
            write!(f, "\n  correlation id: {id}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  next: {next}")?;
        }
        Ok(())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let next = match &error {
            ClientError::Unreachable { .. } if what(&error).contains("certificate") => Some(
                "trust the authority of the server's certificate with SSL_CERT_FILE=/path/of/ca.pem, or name the server as its \
                 certificate does"
                    .into(),
            ),
            ClientError::Unreachable { .. } => Some(
                "start the server with `orchestratord`, or name another one with --server or LLAMA_ORCH_SERVER".into(),
            ),
            ClientError::Broken { .. } | ClientError::Cut { .. } | ClientError::TimedOut { .. } => {
                Some("see `llama-orch status` and the server's log, then try again".into())
            }
            ClientError::Protocol { .. } => Some("check that --server names an orchestrator of this version".into()),
            ClientError::Unauthorized(refusal) => Some(token_remedy(refusal)),
            ClientError::Refused(_) if error.is_retriable() => Some(later(error.retry_after())),
            ClientError::Refused(refusal) => remedy(refusal.envelope.code),
            ClientError::Setup(_) => None,
        };
        Self {
            exit: Exit::of_call(&error),
            what: what(&error),
            correlation_id: error.correlation_id().map(str::to_owned),
            next,
        }
    }
}

/// The error and its innermost cause, which is the one that says "connection refused".
fn what(error: &ClientError) -> String {
    let mut text = match error {
        ClientError::Refused(refusal) => format!("{}: {error}", refusal.envelope.code),
        _ => error.to_string(),
    };
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    if let Some(cause) = causes.last() {
        text.push_str(&format!(": {cause}"));
    }
    text
}

/// What to do about a refusal that does not pass, where the message alone does not say it.
fn remedy(code: ErrorKind) -> Option<String> {
    let next = match code {
        ErrorKind::PoolUnavailable => "`llama-orch pools` shows which pools there are and how they fare",
        ErrorKind::Internal | ErrorKind::WorkerReset => "look for the correlation id in the server's log",
        ErrorKind::NotFound => "`llama-orch tasks`, `pools`, `models list` and `artifacts list` show what there is",
        _ => return None,
    };
    Some(next.to_owned())
}

/// What to do about the error that a task ended with.
pub(crate) fn advice(error: &ErrorEnvelope) -> Option<String> {
    match is_retriable(error) {
        true => Some(later(wait(error.retry_after_ms))),
        false => remedy(error.code),
    }
}

fn is_retriable(error: &ErrorEnvelope) -> bool {
    error.retriable.unwrap_or(error.code.retriable())
}

fn wait(ms: Option<i64>) -> Option<Duration> {
    ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis)
}

/// LO-CLI-02, LO-CLI-04: a token is only ever shown by its fingerprint.
fn token_remedy(refusal: &AuthRefusal) -> String {
    let hint = refusal.envelope.hint.as_deref().unwrap_or("set AUTH_TOKEN to the token of the server");
    match refusal.sent {
        Some(fingerprint) => format!("{hint} (the token sent has the fingerprint {fingerprint})"),
        None => format!("{hint} (no token was sent)"),
    }
}

fn later(wait: Option<Duration>) -> String {
    match wait {
        Some(wait) => format!("try again in {}", show::duration(wait)),
        None => "try again later".to_owned(),
    }
}
