//! A pool whose engine is a shell script, and looks at processes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pool_managerd::logs::{EngineLog, Followed, Follower};
use pool_managerd::process::{EngineProcess, GuardProgram, OomCounters, ProcessSpec, SpawnError, spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;

/// Longer than anything here takes, unless it hangs.
const LIMIT: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// The program that guards engines in tests.
pub(crate) fn guard() -> GuardProgram {
    GuardProgram::at(env!("CARGO_BIN_EXE_pool-managerd"))
}

/// Folders of a daemon with one pool, `gpu0`.
pub(crate) struct Folders {
    pub(crate) root: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Folders {
    pub(crate) fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a folder");
        Self { root: temporary.path().to_owned(), _temporary: Some(temporary) }
    }

    /// Somebody else's.
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), _temporary: None }
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.root.join("run")
    }

    pub(crate) fn log(&self) -> EngineLog {
        EngineLog::open(&self.root.join("logs"), "gpu0", 1 << 20, 3).expect("a log")
    }

    /// An engine that is any program.
    pub(crate) fn spec(&self, program: impl Into<PathBuf>, arguments: &[&str], log: &EngineLog) -> ProcessSpec {
        ProcessSpec {
            pool_id: "gpu0".to_owned(),
            program: program.into(),
            arguments: arguments.iter().map(OsString::from).collect(),
            environment: Vec::new(),
            work_dir: None,
            port: Some(18080),
            log: log.clone(),
            run_dir: self.run_dir(),
            grace: Duration::from_secs(20),
            oom: OomCounters::at([]),
        }
    }

    pub(crate) fn script(&self, script: &str, log: &EngineLog) -> ProcessSpec {
        self.spec("sh", &["-c", script], log)
    }

    /// The run file of the pool.
    pub(crate) fn run_file(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.run_dir().join("gpu0.json")).expect("a run file")).expect("JSON")
    }

    pub(crate) fn has_run_file(&self) -> bool {
        self.run_dir().join("gpu0.json").exists()
    }

    pub(crate) fn guard_pid(&self) -> i32 {
        self.run_file()["guard"]["pid"].as_i64().expect("a number") as i32
    }
}

/// The engine of a script, once it has said `ready`.
pub(crate) async fn ready(folders: &Folders, script: &str) -> Ready {
    let log = folders.log();
    let mut said = log.follow(0);
    let process = spawn(&guard(), folders.script(script, &log)).await.expect("an engine");
    wait_for(&mut said, "ready").await;
    Ready { process, log, said }
}

pub(crate) struct Ready {
    pub(crate) process: EngineProcess,
    pub(crate) log: EngineLog,
    pub(crate) said: Follower,
}

impl Ready {
    /// The number that the engine said behind this word.
    pub(crate) async fn number(&self, word: &str) -> i32 {
        let lines = self.log.lines(1000).await;
        let number = lines.iter().find_map(|line| line.text.strip_prefix(word)?.trim().parse().ok());
        number.expect("the engine said it")
    }
}

/// Waits for a line of an engine that holds the word.
pub(crate) async fn wait_for(said: &mut Follower, word: &str) -> String {
    loop {
        if let Followed::Line(line) = said.next().await.expect("the log is open")
            && line.text.contains(word)
        {
            return line.text.clone();
        }
    }
}

pub(crate) async fn failed(spec: ProcessSpec) -> SpawnError {
    spawn(&guard(), spec).await.expect_err("no engine")
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a process id"), signal).expect("a process");
}

/// Waits until the process has ended.
pub(crate) fn wait_for_end(pid: i32) {
    let Ok(descriptor) = pidfd_open(Pid::from_raw(pid).expect("a process id"), PidfdFlags::empty()) else { return };
    let ended = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&LIMIT)).expect("a wait");
    assert_eq!(ended, 1, "process {pid} does not end");
}

/// Whether it runs; a zombie does not.
pub(crate) fn lives(pid: i32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// Whether there is such a process, a zombie perhaps.
pub(crate) fn exists(pid: i32) -> bool {
    state(pid).is_some()
}

fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The time a process started, in ticks since the host's start.
pub(crate) fn start_time(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields = stat.rsplit_once(") ").expect("a name").1;
    fields.split(' ').nth(19).expect("a start time").parse().expect("a number")
}
