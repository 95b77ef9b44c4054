//! What processes use, by the kernel's own accounts in `/proc`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::failure::Failure;

/// The kernel tells processor time to user space in hundredths of a second (USER_HZ, `man 5 proc_pid_stat`).
const TICK: Duration = Duration::from_millis(10);

/// A process, or several that do one job.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    pids: Vec<u32>,
}

/// Resident memory of user space, in KiB. What the kernel holds for sockets is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Memory {
    /// All resident pages, shared ones in full.
    pub(super) rss_kib: u64,
    /// The same with shared pages divided among those who share them.
    pub(super) pss_kib: u64,
    /// Pages that nobody else has.
    pub(super) uss_kib: u64,
}

impl Meter {
    /// A process and the children it has now.
    pub(super) fn of(pid: u32) -> Self {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        Self { pids: std::iter::once(pid).chain(children).collect() }
    }

    /// Processor time used so far, user and system together.
    pub(super) fn cpu_time(&self) -> Result<Duration, Failure> {
        self.pids.iter().map(|pid| cpu_time(*pid)).sum()
    }

    /// Resident memory; of several processes the sum, in which only `pss_kib` counts a page they share once.
    pub(super) fn memory(&self) -> Result<Memory, Failure> {
        let mut sum = Memory::default();
        for pid in &self.pids {
            let of_one = memory(&read(&folder(*pid).join("smaps_rollup"))?)
                .ok_or_else(|| Failure::local("this system does not tell a process's memory"))?;
            sum.rss_kib += of_one.rss_kib;
            sum.pss_kib += of_one.pss_kib;
            sum.uss_kib += of_one.uss_kib;
        }
        Ok(sum)
    }

    /// Open file descriptors.
    pub(super) fn open_files(&self) -> Result<u64, Failure> {
        self.count("fd")
    }

    /// Threads.
    pub(super) fn threads(&self) -> Result<u64, Failure> {
        self.count("task")
    }

    fn count(&self, what: &str) -> Result<u64, Failure> {
        self.pids.iter().map(|pid| Ok(list(&folder(*pid).join(what))?.len() as u64)).sum()
    }
}

/// Two accounts, neither of which ever says too much: that of the living threads is exact to the nanosecond, that of the
/// process to two ticks, threads that have ended included.
fn cpu_time(pid: u32) -> Result<Duration, Failure> {
    let total = read(&folder(pid).join("stat"))?;
    let total = ticks(&total).ok_or_else(|| Failure::local("this system does not tell a process's processor time"))?;
    let threads = list(&folder(pid).join("task"))?;
    let running =
        threads.iter().filter_map(|thread| on_processor(&std::fs::read_to_string(thread.join("schedstat")).ok()?));
    Ok(total.max(running.sum()))
}

/// Fields 14 and 15, user and system time. The second field, the program's name, may hold anything but ends with the
/// last parenthesis.
fn ticks(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u32>().ok();
    Some(TICK * (next()? + next()?))
}

/// The first field, in nanoseconds. Source: the kernel's Documentation/scheduler/sched-stats.rst.
fn on_processor(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn memory(rollup: &str) -> Option<Memory> {
    let kib = |name: &str| -> Option<u64> {
        let rest = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse().ok()
    };
    let uss_kib = kib("Private_Clean:")? + kib("Private_Dirty:")?;
    Some(Memory { rss_kib: kib("Rss:")?, pss_kib: kib("Pss:")?, uss_kib })
}

fn folder(pid: u32) -> PathBuf {
    format!("/proc/{pid}").into()
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))
}

fn list(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
    // A thread or a file that goes away meanwhile is not there.
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::local(format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Memory, Meter, memory, on_processor, ticks};

    #[test]
    fn accounts_are_read_behind_an_odd_name() {
        let stat = "7 (a) R (b) S 1 7 7 0 -1 4194560 1 2 3 4 25 6 7 8 20 0 1 0 4711 9 10";
        assert_eq!(ticks(stat), Some(Duration::from_millis(310)));
        assert_eq!(on_processor("1000271691 354935 7\n"), Some(Duration::from_nanos(1_000_271_691)));
        assert_eq!((ticks("nonsense"), on_processor("")), (None, None));
        let rollup = "55-7f ---p 0 [rollup]\nRss:  1692 kB\nPss:   441 kB\nPss_Dirty: 1 kB\nPrivate_Clean:  76 kB\nPrivate_Dirty: 116 kB\n";
        assert_eq!(memory(rollup), Some(Memory { rss_kib: 1692, pss_kib: 441, uss_kib: 192 }));
    }

    #[test]
    fn this_process_has_accounts() {
        let own = Meter::of(std::process::id());
        assert!(own.memory().is_ok_and(|memory| memory.rss_kib >= memory.uss_kib && memory.uss_kib > 0));
        assert!(own.threads().is_ok_and(|count| count > 0) && own.open_files().is_ok_and(|count| count > 0));
        assert!(own.cpu_time().is_ok());
    }
}
