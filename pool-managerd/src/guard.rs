//! A small process between the daemon and an engine, so that nothing of an engine outlives the daemon.
//!
//! ```text
//! daemon ── socket, pipes ── guard ── engine ── what the engine starts
//! ```
//!
//! The guard is the parent of the engine and of every orphan below it. It tells the daemon how the engine ended, and ends all
//! of it when the daemon's end of the socket closes, which the kernel sees to however the daemon came to its end. Should the
//! guard itself be killed, the engine is killed by the kernel, and the daemon ends what is left.
//!
//! A program that embeds this crate calls [`run_if_asked`] before it does anything else.

mod exec;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// First argument of a program that is to be a guard.
pub const SUBCOMMAND: &str = "guard";

/// Second argument of the stage between guard and engine.
const EXEC: &str = "exec";

/// What `ps` shows.
const NAME: &std::ffi::CStr = c"llorch-guard";

const EXIT_USAGE: u8 = 2;

/// What a guard says, one to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    /// The engine runs, under this process id.
    Pid(i32),
    /// It could not be started.
    Failed {
        /// What failed.
        at: Stage,
        /// The system's number of the error.
        errno: i32,
    },
    /// It ended by itself.
    Exited(i32),
    /// A signal ended it.
    Signal(i32),
}

/// A step on the way to a running engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The guard itself.
    Guard,
    /// Going to the engine's working directory.
    WorkDir,
    /// Running the engine's program.
    Program,
}

impl Stage {
    const ALL: [Self; 3] = [Self::Guard, Self::WorkDir, Self::Program];

    fn as_str(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::WorkDir => "work_dir",
            Self::Program => "program",
        }
    }
}

/// What the daemon says, a byte each. Closing the socket says: end it, politely first.
pub(crate) mod command {
    /// Ask the engine to end.
    pub(crate) const TERMINATE: u8 = b'T';
    /// Kill it, and everything below it.
    pub(crate) const KILL: u8 = b'K';
}

/// The engine that a guard is to start.
struct Engine {
    work_dir: Option<OsString>,
    /// Program and arguments.
    command: Vec<OsString>,
}

/// Runs as a guard if this program was started as one: if its first argument is [`SUBCOMMAND`]. `None` otherwise.
#[must_use]
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    arguments.next().is_some_and(|first| first == SUBCOMMAND).then(|| main(arguments))
}

/// Runs as a guard, given the arguments behind [`SUBCOMMAND`]: `[--grace-ms N] [--work-dir DIR] -- PROGRAM ARGUMENTS…`. Ends
/// when the engine and all that it has started have ended.
///
/// The process must have no other thread.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter().peekable();
    let is_exec = arguments.next_if(|first| first == EXEC).is_some();
    let Some((number, engine)) = parse(arguments) else {
        eprintln!("{SUBCOMMAND} is for the daemon to start");
        return ExitCode::from(EXIT_USAGE);
    };
    if is_exec {
        return i32::try_from(number).map_or(ExitCode::from(EXIT_USAGE), |guard| exec::run(guard, &engine));
    }
    match watch::run(Duration::from_millis(number), &engine) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{SUBCOMMAND}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Arguments of the daemon for a guard.
pub(crate) fn arguments(grace: Duration, work_dir: Option<&OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        vec![SUBCOMMAND.into(), "--grace-ms".into(), grace.as_millis().to_string().into()];
    if let Some(work_dir) = work_dir {
        arguments.extend(["--work-dir".into(), work_dir.clone()]);
    }
    arguments.push("--".into());
    arguments
}

/// A number, which is the grace of a guard and the guard of an `exec`, and the engine.
fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<(u64, Engine)> {
    let mut number = None;
    let mut work_dir = None;
    loop {
        match arguments.next()?.to_str()? {
            "--grace-ms" | "--guard" => number = Some(arguments.next()?.to_str()?.parse().ok()?),
            "--work-dir" => work_dir = Some(arguments.next()?),
            "--" => break,
            _ => return None,
        }
    }
    let command: Vec<OsString> = arguments.collect();
    (!command.is_empty()).then_some((number?, Engine { work_dir, command }))
}
