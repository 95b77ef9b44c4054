//! Processes that outlive the command that started them: who they are, whether they live, how to stop them.
//!
//! A pid alone may be somebody else's by now; together with the start time it names one process for good. Signals and
//! waits go through a pidfd, which cannot change its mind either.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Names one process of this machine since its boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Clock ticks from boot to the process's start. Source: proc(5), `/proc/PID/stat` field 22.
    start_ticks: u64,
}

impl Identity {
    /// The process that has this pid now; `None` when there is none or it is a zombie.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let start_ticks = start_ticks(&stat)?;
        Some(Self { pid, start_ticks })
    }

    /// A hold on the process while it lives.
    pub(crate) fn open(&self) -> Option<Live> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Looked at after the pidfd exists: if the identity holds now, the pidfd is that process's.
        (Self::of(self.pid).as_ref() == Some(self)).then_some(Live { pidfd })
    }
}

/// A process that lived when this was opened.
pub(crate) struct Live {
    pidfd: OwnedFd,
}

impl Live {
    /// Waits for the process to exit, at most this long; says whether it did.
    pub(crate) fn exits_within(&self, limit: Duration) -> anyhow::Result<bool> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec::try_from(limit)?)) {
            Ok(ready) => Ok(ready > 0),
            // A signal to us: the caller looks at it and comes back.
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error).context("waiting for a process"),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // It may have exited in between, which is all that a signal could ask of it.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Asks the process to stop, and ends it when it does not within `grace`.
    pub(crate) fn stop(&self, grace: Duration) -> anyhow::Result<()> {
        self.signal(Signal::TERM);
        if !self.exits_within(grace)? {
            self.signal(Signal::KILL);
            self.exits_within(grace)?;
        }
        Ok(())
    }
}

/// The command's name is in parentheses and may hold anything, parentheses too; the fields after it are plain.
fn start_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::{Identity, start_ticks};

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn reads_the_start_time_behind_an_odd_name() {
        let stat = "7 (a) R (b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 10";
        assert_eq!(start_ticks(stat), Some(4711));
        assert_eq!(start_ticks(&stat.replace(") S", ") Z")), None, "a zombie runs no more");
        assert_eq!(start_ticks("nonsense"), None);
    }

    #[test]
    fn stops_only_the_process_it_names() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let identity = Identity::of(child.id().cast_signed()).unwrap();
        assert!(Identity { start_ticks: identity.start_ticks + 1, ..identity.clone() }.open().is_none());

        let live = identity.open().unwrap();
        assert!(!live.exits_within(Duration::ZERO).unwrap());
        live.stop(LONG).unwrap();
        assert!(identity.open().is_none(), "gone, though nobody has reaped it yet");
        child.wait().unwrap();
        assert!(live.exits_within(LONG).unwrap());
    }
}
