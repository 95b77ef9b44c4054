//! Exit codes. They are part of the interface: scripts branch on them, so a number never changes its meaning.

use std::process::ExitCode;

use api_types::ErrorKind;
use openapi_client::ClientError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// As asked.
    Ok = 0,
    /// The task failed, or the server did, in a way that trying again unchanged will not mend.
    Failed = 1,
    /// The command line or a file it names is wrong.
    Usage = 2,
    /// No orchestrator answered.
    Unreachable = 3,
    /// The server refused the request; it must be changed.
    Refused = 4,
    /// The token is missing or wrong, or calls from here are not allowed.
    Unauthorized = 5,
    /// The server cannot now; the same command may succeed later.
    TryLater = 6,
    /// A task that was run again gave another output.
    Differs = 7,
    /// A pool failed instead of doing what was asked of it.
    PoolFailed = 8,
    /// A pool could not serve the model it was to be reloaded with, and serves the one before again.
    RolledBack = 9,
    /// Something on this machine would keep an engine from starting.
    Unfit = 10,
    /// What was asked for was canceled, by Ctrl-C or by somebody else.
    Canceled = 130,
    /// Whoever read our output went away; a running task was canceled.
    OutputClosed = 141,
}

/// The table shown by `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
    0  as asked
    1  the task or the server failed; trying again unchanged will not help
    2  the command line, or a file it names, is wrong
    3  no orchestrator answered at the server's address
    4  the server refused the request; change it
    5  the token is missing or wrong, or calls from here are not allowed
    6  the server cannot now; try again later
    7  `verify` ran a task again, and its output differs
    8  a pool failed instead of doing what was asked of it
    9  `pools reload` was rolled back; the pool serves the model before
   10  something on this machine would keep an engine from starting
  130  canceled, by Ctrl-C or by somebody else
  141  whoever read the output went away; a running task was canceled";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// The code for a failed call (ORCH-3330, LO-CLI-08: fix it, back off, or give up).
    pub(crate) fn of_call(error: &ClientError) -> Self {
        match error {
            ClientError::Unauthorized(_) => Self::Unauthorized,
            ClientError::Refused(refusal) => {
                Self::of_refusal(refusal.envelope.code, refusal.status, error.is_retriable())
            }
            ClientError::Setup(_) => Self::Failed,
            ClientError::Unreachable { .. }
            | ClientError::Broken { .. }
            | ClientError::Cut { .. }
            | ClientError::TimedOut { .. }
            | ClientError::Protocol { .. } => Self::Unreachable,
        }
    }

    /// The code for work on a model that failed after it was accepted: as if it had been refused at once.
    pub(crate) fn of_job(code: ErrorKind, retriable: bool) -> Self {
        Self::of_refusal(code, code.http_status(), retriable)
    }

    fn of_refusal(code: ErrorKind, status: u16, retriable: bool) -> Self {
        match (retriable, status) {
            (true, _) => Self::TryLater,
            (false, 500..) => Self::of_task(code, retriable),
            (false, _) => Self::Refused,
        }
    }

    /// The code for a task that ended with an error.
    pub(crate) fn of_task(code: ErrorKind, retriable: bool) -> Self {
        match (retriable, code) {
            (true, _) => Self::TryLater,
            (false, ErrorKind::InvalidParams) => Self::Refused,
            (false, _) => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ErrorKind, Exit, HELP};

    /// LO-CLI-08, ORCH-3330: fix the input, back off, or give up.
    #[test]
    fn a_code_tells_what_to_do() {
        let rows = [
            (ErrorKind::InvalidParams, 400, false, Exit::Refused),
            (ErrorKind::NotFound, 404, false, Exit::Refused),
            (ErrorKind::Conflict, 409, false, Exit::Refused),
            (ErrorKind::AdmissionReject, 429, true, Exit::TryLater),
            // A spent session budget does not come back by waiting.
            (ErrorKind::AdmissionReject, 429, false, Exit::Refused),
            (ErrorKind::PoolUnready, 503, true, Exit::TryLater),
            (ErrorKind::PoolUnavailable, 503, false, Exit::Failed),
            (ErrorKind::Internal, 500, false, Exit::Failed),
        ];
        for (code, status, retriable, exit) in rows {
            assert_eq!(Exit::of_refusal(code, status, retriable), exit, "{code} {status}");
        }
    }

    #[test]
    fn the_help_lists_every_code() {
        let all = [
            Exit::Ok,
            Exit::Failed,
            Exit::Usage,
            Exit::Unreachable,
            Exit::Refused,
            Exit::Unauthorized,
            Exit::TryLater,
            Exit::Differs,
            Exit::PoolFailed,
            Exit::RolledBack,
            Exit::Unfit,
            Exit::Canceled,
            Exit::OutputClosed,
        ];
        for exit in all {
            assert!(HELP.lines().any(|line| line.trim_start().starts_with(&format!("{} ", exit as u8))), "{exit:?}");
        }
        assert_eq!(HELP.lines().count(), all.len() + 1);
    }
}
