//! The environment of engines: the daemon's, less what is the daemon's alone.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

/// Beginnings of names that stay with the daemon: its own secrets, credentials for fetching models, and what its service
/// manager handed to it and to nobody else.
const KEPT_BACK: &[&str] = &[
    "AUTH_TOKEN",
    "LLORCH_API_TOKEN",
    "AWS_",
    "OCI_",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "WATCHDOG_",
    "JOURNAL_STREAM",
];

/// Ends of names that tell of a secret, whoever put it there.
const SECRET_ENDS: &[&str] = &["_TOKEN", "_SECRET", "_PASSWORD", "_API_KEY", "_ACCESS_KEY"];

/// What an engine inherits, and what it is given besides or instead.
pub(super) fn of_engine(
    daemon: impl Iterator<Item = (OsString, OsString)>,
    given: &[(OsString, OsString)],
) -> Vec<(OsString, OsString)> {
    let is_given = |name: &OsStr| given.iter().any(|(given, _)| given == name);
    daemon.filter(|(name, _)| !is_kept_back(name) && !is_given(name)).chain(given.iter().cloned()).collect()
}

fn is_kept_back(name: &OsStr) -> bool {
    let name = name.as_bytes();
    KEPT_BACK.iter().any(|start| name.starts_with(start.as_bytes()))
        || SECRET_ENDS.iter().any(|end| name.to_ascii_uppercase().ends_with(end.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::of_engine;

    fn pairs(of: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        of.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    /// ORCH-3508: an engine gets none of the daemon's secrets, unless its pool's configuration hands it one.
    #[test]
    fn secrets_stay_unless_given() {
        let daemon = pairs(&[
            ("PATH", "/bin"),
            ("AUTH_TOKEN", "s"),
            ("AUTH_TOKEN_FILE", "/f"),
            ("LLORCH_API_TOKEN", "s"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("OCI_PASSWORD", "s"),
            ("HF_TOKEN", "daemon's"),
            ("openai_api_key", "s"),
            ("NOTIFY_SOCKET", "/run/x"),
            ("CUDA_VISIBLE_DEVICES", "0,1"),
            ("HF_HOME", "/models"),
        ]);
        let given = pairs(&[("HF_TOKEN", "pool's"), ("CUDA_VISIBLE_DEVICES", "1")]);
        let expected =
            pairs(&[("PATH", "/bin"), ("HF_HOME", "/models"), ("HF_TOKEN", "pool's"), ("CUDA_VISIBLE_DEVICES", "1")]);
        assert_eq!(of_engine(daemon.into_iter(), &given), expected);
    }
}
