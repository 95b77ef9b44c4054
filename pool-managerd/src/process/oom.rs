//! Whether the kernel has killed something for want of memory.

use std::fs;
use std::path::{Path, PathBuf};

/// Counters of the kernel that grow whenever it kills a process for want of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomCounters {
    files: Vec<PathBuf>,
}

impl Default for OomCounters {
    /// Those of this host, and of the control group that limits this program.
    fn default() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let events = own.map(|group| Path::new("/sys/fs/cgroup").join(group).join("memory.events"));
        Self::at([PathBuf::from("/proc/vmstat")].into_iter().chain(events))
    }
}

impl OomCounters {
    /// Files with a line `oom_kill COUNT`, as `/proc/vmstat` and a control group's `memory.events` have.
    pub fn at(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { files: files.into_iter().collect() }
    }

    /// What they count together; a file that cannot be read counts nothing.
    pub(super) fn read(&self) -> u64 {
        let texts = self.files.iter().filter_map(|file| fs::read_to_string(file).ok());
        texts.map(|text| count(&text)).sum()
    }
}

fn count(text: &str) -> u64 {
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    count.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::count;

    /// ORCH-3039: the count of killed processes is told from those that stand beside it.
    #[test]
    fn the_right_line_counts() {
        assert_eq!(count("pgfree 9\noom_kill 3\noom_kill_x 5\n"), 3);
        assert_eq!(count("low 0\nhigh 0\nmax 7\noom 7\noom_kill 2\noom_group_kill 1\n"), 2);
        assert_eq!(count(""), 0);
    }
}
