//! What engines have left behind.
//!
//! Guards see to it that nothing is; this is for the daemon and a guard being killed at the same time. Run files name what ran.
//! A process is signalled only if it is one of those, by its id and its start time, or carries the mark that only descendants
//! of that one engine carry.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::proc::{self, Held, Identity, Process};
use crate::process::{ReadRunFileError, RunFile};

/// Gap between two rounds of looking for what has been started meanwhile.
const ROUND: Duration = Duration::from_millis(100);

/// Rounds of killing before what does not end is left to itself.
const ROUNDS: u32 = 50;

/// What became of an engine of an earlier life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Its pool.
    pub pool_id: String,
    /// Its process id; `None` when its run file cannot be read.
    pub pid: Option<i32>,
    /// What was done.
    pub how: How,
}

/// What was done with a run file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// Nothing of it ran any more; the file was removed.
    Gone,
    /// It ended when it was asked to.
    Terminated,
    /// It had to be killed.
    Killed,
    /// So many of its processes cannot be killed, as in a call to a driver that hangs. The file stays.
    Survived(usize),
    /// The file was left alone, because another version of this program wrote it.
    UnknownVersion(u64),
    /// The file was left alone, because it cannot be understood.
    Unreadable(String),
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("nothing of it ran any more"),
            Self::Terminated => f.write_str("it ended when it was asked to"),
            Self::Killed => f.write_str("it had to be killed"),
            Self::Survived(count) => {
                write!(f, "{count} of its processes cannot be killed; a driver that hangs holds them, see `dmesg`")
            }
            Self::UnknownVersion(version) => {
                write!(
                    f,
                    "its run file has version {version}, which another version of llama-orch wrote; end it yourself"
                )
            }
            Self::Unreadable(why) => {
                write!(f, "its run file cannot be understood ({why}); remove the file when nothing runs")
            }
        }
    }
}

/// Ends what run files tell of: asked first, killed after `grace`. Blocks for as long as that takes; call it before any engine
/// is started, when no other daemon uses the folder.
///
/// # Errors
/// When the folder cannot be read. One that does not exist is empty.
pub fn reap(run_dir: &Path, grace: Duration) -> io::Result<Vec<Reaped>> {
    let mut reaped = Vec::new();
    let mut living = Vec::new();
    for (pool_id, read) in read_all(run_dir)? {
        let left_alone = |how| Reaped { pool_id, pid: None, how };
        match read {
            Ok(run_file) => match find_living(&run_file) {
                Some(remains) => living.push(Life { run_file, remains }),
                None => {
                    run_file.remove(run_dir);
                    reaped.push(Reaped { pid: Some(run_file.pid), pool_id: run_file.pool_id, how: How::Gone });
                }
            },
            Err(ReadRunFileError::UnknownVersion(version)) => reaped.push(left_alone(How::UnknownVersion(version))),
            Err(error) => reaped.push(left_alone(How::Unreadable(error.to_string()))),
        }
    }
    // All are asked before any is waited for.
    for life in &living {
        life.terminate();
    }
    let deadline = Instant::now() + grace;
    reaped.extend(living.into_iter().map(|life| life.end(run_dir, deadline)));
    Ok(reaped)
}

/// The pool of each run file, and its content.
fn read_all(run_dir: &Path) -> io::Result<Vec<(String, Result<RunFile, ReadRunFileError>)>> {
    let entries = match fs::read_dir(run_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let pool_id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            files.push((pool_id, RunFile::read(&path)));
        }
    }
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(files)
}

/// An engine of an earlier life that still runs.
struct Life {
    run_file: RunFile,
    remains: Remains,
}

/// How to find what lives of it, if anything does.
fn find_living(run_file: &RunFile) -> Option<Remains> {
    let remains = Remains::of(run_file);
    // Before the host's start other processes had these ids and start times.
    (run_file.boot_id == proc::boot_id() && !remains.find().is_empty()).then_some(remains)
}

impl Life {
    fn terminate(&self) {
        if let Some(engine) = Held::take(self.run_file.engine) {
            engine.signal(Signal::TERM);
        }
    }

    fn end(self, run_dir: &Path, deadline: Instant) -> Reaped {
        let how = if self.remains.wait_until(deadline) {
            How::Terminated
        } else {
            match end(&self.remains) {
                0 => How::Killed,
                left => How::Survived(left),
            }
        };
        if !matches!(how, How::Survived(_)) {
            self.run_file.remove(run_dir);
        }
        Reaped { pid: Some(self.run_file.pid), pool_id: self.run_file.pool_id, how }
    }
}

/// How the processes of one engine are known.
#[derive(Clone, Debug)]
pub(crate) struct Remains {
    mark: String,
    named: HashSet<Identity>,
    group: Option<Identity>,
}

impl Remains {
    /// By what a run file says.
    pub(crate) fn of(run_file: &RunFile) -> Self {
        let own = [run_file.guard, run_file.engine];
        Self {
            mark: run_file.mark.clone(),
            named: own.into_iter().chain(run_file.others.iter().copied()).collect(),
            group: None,
        }
    }

    /// By the process group of the engine as well, while it cannot have passed to others: just after the engine's end.
    pub(crate) fn with_group(mut self, engine: Identity) -> Self {
        self.group = Some(engine);
        self
    }

    /// Those that live, and all that descends from them.
    fn find(&self) -> Vec<Process> {
        let all = proc::all();
        let mut found = proc::families(&all, |process| self.is_ours(process));
        found.retain(|process| !process.zombie);
        found
    }

    fn is_ours(&self, process: &Process) -> bool {
        let in_group = |leader: &Identity| process.group == leader.pid && process.identity.start >= leader.start;
        self.named.contains(&process.identity)
            || self.group.as_ref().is_some_and(in_group)
            || process.carries(&self.mark)
    }

    /// Waits until none is left; false when the time is over first.
    fn wait_until(&self, deadline: Instant) -> bool {
        loop {
            let held = hold(&self.find());
            if held.is_empty() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            proc::wait_for_any(&held, left.min(ROUND));
        }
    }
}

/// Kills all that is left; the number of those that cannot be killed.
pub(crate) fn end(remains: &Remains) -> usize {
    for _ in 0..ROUNDS {
        let held = hold(&remains.find());
        if held.is_empty() {
            return 0;
        }
        for process in &held {
            process.signal(Signal::KILL);
        }
        proc::wait_for_any(&held, ROUND);
    }
    remains.find().len()
}

fn hold(processes: &[Process]) -> Vec<Held> {
    processes.iter().filter_map(|process| Held::take(process.identity)).collect()
}
