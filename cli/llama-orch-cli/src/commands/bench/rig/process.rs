//! A program under measurement, which ends with its owner.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::super::meter::Meter;
use crate::commands::local;
use crate::exit::Exit;
use crate::failure::Failure;

/// Longest wait for a program to be up.
pub(super) const START_LIMIT: Duration = Duration::from_secs(20);
/// Time during which a start is watched so closely that its duration is known.
const CLOSE_WATCH: Duration = Duration::from_millis(200);
const CLOSE_POLL: Duration = Duration::from_micros(200);
/// Gap between two looks after that.
pub(super) const START_POLL: Duration = Duration::from_millis(5);

/// A program that lies beside this one, else the one that PATH names, with an environment and a home
/// that hold nothing of the caller's.
pub(super) fn program(name: &str, home: &Path) -> Result<Command, Failure> {
    let program = local::program(name).ok_or_else(|| {
        let next = format!("put {name} beside llama-orch or into PATH");
        Failure::new(Exit::Usage, format!("{name} is not to be found"), next)
    })?;
    Ok(command(&program, home))
}

/// A program to run in a home of its own.
pub(super) fn command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("HOME", home).stdin(Stdio::null());
    command
}

/// A process that ends with its owner.
pub(super) struct Process {
    child: Child,
    pub(super) name: String,
    log: PathBuf,
    begun: Instant,
}

impl Process {
    pub(super) fn spawn(mut command: Command, log: &Path, name: &str) -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| Failure::local(format!("cannot start {name}: {error}"));
        let file = File::create(log).map_err(cannot)?;
        command.stdout(file.try_clone().map_err(cannot)?).stderr(file);
        let begun = Instant::now();
        Ok(Self { child: command.spawn().map_err(cannot)?, name: name.to_owned(), log: log.to_owned(), begun })
    }

    /// Time since it was started.
    pub(super) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Its account. Children that it starts later are not in it.
    pub(super) fn meter(&self) -> Meter {
        Meter::of(self.child.id())
    }

    /// Waits until something about the process is there.
    pub(super) async fn until<T>(&mut self, mut look: impl FnMut() -> Option<T>) -> Result<T, Failure> {
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if !matches!(self.child.try_wait(), Ok(None)) {
                return Err(self.failed("ended at once"));
            }
            match self.age() {
                age if age > START_LIMIT => return Err(self.failed("did not start in time")),
                age if age < CLOSE_WATCH => nap(),
                _ => tokio::time::sleep(START_POLL).await,
            }
        }
    }

    /// Ends it now.
    pub(super) fn kill(&mut self) {
        // It may have ended by itself; there is nothing to lose in it either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end and waits until it has: a program that is killed leaves its children behind.
    pub(super) fn terminate(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if pid.is_some_and(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok()) {
            let _ = self.child.wait();
        }
    }

    pub(super) fn failed(&self, how: &str) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        Failure::local(format!("{} {how}; it said: {}", self.name, log.lines().last().unwrap_or("nothing")))
    }
}

#[expect(clippy::disallowed_methods, reason = "the runtime's timer is too coarse, and nothing else runs meanwhile")]
fn nap() {
    std::thread::sleep(CLOSE_POLL);
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
