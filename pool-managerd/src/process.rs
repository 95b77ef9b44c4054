//! Engines as processes.
//!
//! Each has a guard between it and the daemon ([`crate::guard`]) and a thread of the daemon that waits for what the guard says;
//! no runtime is ever blocked, and none has to be running for an engine to be cleaned up after.

mod environment;
mod oom;
mod run_file;
mod supervise;

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::{SendFlags, send};
use tokio::sync::{oneshot, watch};

use crate::guard::{Stage, command};
use crate::logs::EngineLog;
pub use oom::OomCounters;
pub(crate) use run_file::{ReadRunFileError, RunFile};

/// The program that guards engines: one that calls [`crate::guard::main`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardProgram {
    path: PathBuf,
}

impl GuardProgram {
    /// The running program itself, also when its file has been replaced since.
    #[must_use]
    pub fn own() -> Self {
        Self { path: PathBuf::from("/proc/self/exe") }
    }

    /// Another program.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

/// The process that is wanted.
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    /// Whose engine it is; names the run file.
    pub pool_id: String,
    /// The program: a path, or a name that is looked up in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables beyond those of the daemon, or instead of them. What the daemon keeps secret reaches an engine only by
    /// standing here.
    pub environment: Vec<(OsString, OsString)>,
    /// Its working directory; unset: the daemon's.
    pub work_dir: Option<PathBuf>,
    /// The port it listens on, for the run file.
    pub port: Option<u16>,
    /// Takes its output.
    pub log: EngineLog,
    /// Where the run file goes.
    pub run_dir: PathBuf,
    /// Time it has to end by itself when the daemon is gone.
    pub grace: Duration,
    /// What tells whether the host killed something for want of memory.
    pub oom: OomCounters,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody knows: its guard was killed, and it was killed then.
    Lost,
}

/// The end of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How its process ended.
    pub exit: Exit,
    /// The kernel killed a process of this host for want of memory in its last seconds. Which one it does not say.
    pub oom_killed: bool,
    /// Everything it had started is gone too. Without this, something of it could not be killed yet, as in a call to a driver
    /// that hangs; it is still waited for.
    pub complete: bool,
}

/// An engine could not be started. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There is no such program.
    #[error("there is no program {program}; prepare the engine again, or correct its path")]
    NotFound {
        /// Which.
        program: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The program may not be run.
    #[error("this user may not run {program}; see its permissions, and whether its disk is mounted noexec")]
    NotPermitted {
        /// Which.
        program: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The file is no program for this machine.
    #[error("{program} is no program that this machine can run; prepare the engine again, for this processor")]
    NotExecutable {
        /// Which.
        program: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Arguments and environment are too long for the system.
    #[error("the arguments of {program} are too long for the system; shorten the pool's flags and env")]
    TooLong {
        /// Which.
        program: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The working directory cannot be entered.
    #[error("the engine's working directory {work_dir} cannot be entered; create it, or correct its permissions")]
    WorkDir {
        /// Which.
        work_dir: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The program could not be run for another reason.
    #[error("{program} could not be run")]
    Program {
        /// Which.
        program: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The guard could not be run.
    #[error("the process that guards engines could not be run; see the limits of processes and memory of this user")]
    Guard(#[source] io::Error),
    /// The guard ended before it had started the engine.
    #[error("the process that guards engines was killed before it had started one; try again")]
    GuardLost,
    /// The run file could not be written. The engine was ended again: without the file a crash could leave it behind.
    #[error("the run file {path} could not be written; make its folder writable and see that its disk is not full")]
    RunFile {
        /// Which.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl SpawnError {
    /// What a guard reports, with the system's number of the error.
    fn reported(at: Stage, errno: i32, spec: &ProcessSpec) -> Self {
        let source = io::Error::from_raw_os_error(errno);
        let program = spec.program.clone();
        match (at, rustix::io::Errno::from_raw_os_error(errno)) {
            (Stage::WorkDir, _) => Self::WorkDir { work_dir: spec.work_dir.clone().unwrap_or_default(), source },
            (Stage::Program | Stage::Guard, rustix::io::Errno::TOOBIG) => Self::TooLong { program, source },
            (Stage::Guard, _) => Self::Guard(source),
            (Stage::Program, rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                Self::NotFound { program, source }
            }
            (Stage::Program, rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
                Self::NotPermitted { program, source }
            }
            (Stage::Program, rustix::io::Errno::NOEXEC) => Self::NotExecutable { program, source },
            (Stage::Program, _) => Self::Program { program, source },
        }
    }
}

/// A running engine. Dropping it kills it and all that it has started; so does the end of this program, whatever ends it.
#[derive(Debug)]
pub struct EngineProcess {
    pid: i32,
    line: Arc<Line>,
    ended: watch::Receiver<Option<Ended>>,
}

/// The way to the guard.
#[derive(Debug)]
struct Line {
    socket: UnixStream,
    kill: AtomicBool,
}

/// Starts an engine. When the future is dropped before it is done, the engine is killed.
///
/// # Errors
/// [`SpawnError`]; nothing of the engine is left then.
pub async fn spawn(guard: &GuardProgram, spec: ProcessSpec) -> Result<EngineProcess, SpawnError> {
    let (started, starting) = oneshot::channel();
    let guard = guard.clone();
    // Starting a program blocks for milliseconds, and the end of this one must be waited for whatever becomes of the runtime.
    let thread = std::thread::Builder::new().name("engine-process".to_owned());
    thread.spawn(move || supervise::run(&guard, spec, started)).map_err(SpawnError::Guard)?;
    starting.await.unwrap_or(Err(SpawnError::GuardLost))
}

impl EngineProcess {
    /// The process id of the engine, not of its guard.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Asks the engine to end: SIGTERM to its process group. Without effect once it has ended.
    pub fn terminate(&self) {
        say(&self.line.socket, command::TERMINATE);
    }

    /// Kills the engine and all that it has started. Without effect once it has ended.
    pub fn kill(&self) {
        self.line.kill.store(true, Ordering::Release);
        say(&self.line.socket, command::KILL);
    }

    /// How it ended, once it and all that it had started has. Dropping the future loses nothing; it can be called again.
    pub async fn exited(&mut self) -> Ended {
        let lost = Ended { exit: Exit::Lost, oom_killed: false, complete: false };
        // Without an answer its thread has panicked.
        self.ended.wait_for(Option::is_some).await.ok().and_then(|ended| *ended).unwrap_or(lost)
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        *self.ended.borrow()
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Never waits. A guard that does not listen any more has ended, or is ended by the thread that waits for it.
fn say(socket: &UnixStream, command: u8) {
    let _not_heard = send(socket.as_fd(), &[command], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}
