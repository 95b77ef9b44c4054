//! Processes as the kernel shows them in `/proc`.
//!
//! A process id is used again after its process has gone, so a process is known by its id and its start time together, and is
//! signalled only through a descriptor that is opened first and checked after: what it names can then not change any more.

use std::collections::HashSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// The variable by whose value everything is known that descends from one engine, whatever has become of its parents.
pub(crate) const MARK_VARIABLE: &str = "LLAMA_ORCH_ENGINE_MARK";

/// One process, and no later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// In clock ticks since the host's start.
    pub(crate) start: u64,
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) identity: Identity,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// It has ended, and nobody has taken note yet.
    pub(crate) zombie: bool,
}

impl Process {
    /// The process with this id, if there is one.
    pub(crate) fn read(pid: i32) -> Option<Self> {
        parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Whether its first environment holds the mark. One that writes its title over that place hides it.
    pub(crate) fn carries(&self, mark: &str) -> bool {
        let wanted = [MARK_VARIABLE.as_bytes(), b"=", mark.as_bytes()].concat();
        let environment = fs::read(format!("/proc/{}/environ", self.identity.pid)).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
    }
}

/// A process, its parent, that one's parent, and so on.
pub(crate) fn ancestors(pid: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(pid), |pid| {
        let parent = Process::read(i32::try_from(*pid).ok()?)?.parent;
        u32::try_from(parent).ok().filter(|parent| *parent > 0)
    })
}

/// Every process there is.
pub(crate) fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::read).collect()
}

/// Those of `processes` that descend from one for which `is_root` holds, and these roots themselves.
pub(crate) fn families(processes: &[Process], is_root: impl Fn(&Process) -> bool) -> Vec<Process> {
    let mut found: Vec<Process> = processes.iter().copied().filter(is_root).collect();
    let mut known: HashSet<i32> = found.iter().map(|process| process.identity.pid).collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        for process in processes.iter().filter(|process| process.parent == parent.identity.pid) {
            if known.insert(process.identity.pid) {
                found.push(*process);
            }
        }
        next += 1;
    }
    found
}

/// A living process that is held on to: its id cannot pass to another one.
pub(crate) struct Held {
    descriptor: OwnedFd,
}

impl Held {
    /// Takes hold of the process, unless it has ended.
    pub(crate) fn take(identity: Identity) -> Option<Self> {
        let descriptor = pidfd_open(Pid::from_raw(identity.pid)?, PidfdFlags::empty()).ok()?;
        let now = Process::read(identity.pid)?;
        (now.identity == identity && !now.zombie).then_some(Self { descriptor })
    }

    /// Sends it a signal; one that has ended meanwhile is none the worse for it.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ended_or_not_ours = pidfd_send_signal(&self.descriptor, signal);
    }
}

/// Waits until one of them ends, or the time is over.
pub(crate) fn wait_for_any(held: &[Held], limit: Duration) {
    let mut descriptors: Vec<_> = held.iter().map(|held| PollFd::new(&held.descriptor, PollFlags::IN)).collect();
    // Interrupted or refused: the caller looks again anyway.
    let _looked_at_again = poll(&mut descriptors, Some(&timespec(limit)));
}

/// A duration as the kernel takes it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}

/// Names this start of the host; start times of processes count from it.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn parse_stat(text: &str) -> Option<Process> {
    // The name stands in parentheses and may hold any character, also parentheses and spaces.
    let (head, tail) = text.rsplit_once(')')?;
    let pid = head.split_once(' ')?.0.parse().ok()?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    // Numbered from 1 in proc_pid_stat(5); the third is the first behind the name.
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Process {
        identity: Identity { pid, start: field(22)?.parse().ok()? },
        parent: field(4)?.parse().ok()?,
        group: field(5)?.parse().ok()?,
        zombie: matches!(field(3)?, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests {
    use super::{Identity, Process, families, parse_stat};

    #[test]
    fn a_name_may_hold_anything() {
        let text = "42 (a) R (b) S 7 40 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 2";
        let expected = Process { identity: Identity { pid: 42, start: 98765 }, parent: 7, group: 40, zombie: false };
        assert_eq!(parse_stat(text), Some(expected));
        assert!(parse_stat(&text.replacen("S 7", "Z 7", 1)).expect("a process").zombie);
        assert_eq!(parse_stat("42 (a"), None);
    }

    #[test]
    fn families_hold_roots_and_all_below() {
        let process = |pid, parent| Process { identity: Identity { pid, start: 1 }, parent, group: pid, zombie: false };
        let all = [process(1, 0), process(5, 4), process(4, 2), process(2, 1), process(3, 1)];
        let mut pids: Vec<i32> = families(&all, |p| p.identity.pid == 2).iter().map(|p| p.identity.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [2, 4, 5]);
    }
}
