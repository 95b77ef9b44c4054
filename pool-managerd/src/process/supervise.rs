//! The thread that waits for one engine.

use std::io::{self, BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::environment;
use super::{Ended, EngineProcess, Exit, GuardProgram, Line, OomCounters, ProcessSpec, RunFile, SpawnError, say};
use crate::guard::{self, Message, Stage, command};
use crate::orphans::{self, Remains};
use crate::proc::{self, Identity, MARK_VARIABLE, Process};

/// Gap between two looks at what cannot be waited for.
const TICK: Duration = Duration::from_secs(1);

/// Ticks between two looks at counters and at what the engine has started.
const TICKS_PER_LOOK: u32 = 10;

/// Time a guard has to kill, or to clear up, before that is done from here.
const GUARD_PATIENCE: Duration = Duration::from_secs(3);

/// Time for the last lines to be read from the pipes.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Starts the engine, tells whether that worked, and stays until all of it has ended.
pub(super) fn run(
    guard: &GuardProgram,
    spec: ProcessSpec,
    started: oneshot::Sender<Result<EngineProcess, SpawnError>>,
) {
    match Watch::start(guard, spec) {
        Ok((watch, process)) => {
            // When nobody waits for it any more, it is dropped here, and killed by that.
            drop(started.send(Ok(process)));
            watch.until_ended();
        }
        Err(error) => drop(started.send(Err(error))),
    }
}

/// An engine as its thread knows it.
struct Watch {
    spec: ProcessSpec,
    guard: Child,
    socket: BufReader<UnixStream>,
    line: Arc<Line>,
    run_file: RunFile,
    output: Receiver<()>,
    oom: OomWatch,
    ended: watch::Sender<Option<Ended>>,
}

impl Watch {
    fn start(guard: &GuardProgram, spec: ProcessSpec) -> Result<(Self, EngineProcess), SpawnError> {
        let oom = OomWatch::new(spec.oom.clone());
        let mark = format!("{:032x}", rand::random::<u128>());
        let (mut child, socket) = spawn_guard(guard, &spec, &mark)?;
        let mut socket = BufReader::new(socket);
        let ready = begin(&mut child, &mut socket, &spec, mark);
        let (run_file, output) = match ready {
            Ok(ready) => ready,
            Err(error) => {
                // What has been started is of no use.
                say(socket.get_ref(), command::KILL);
                drop(socket);
                let _ended = child.wait();
                return Err(error);
            }
        };
        let line = socket.get_ref().try_clone().map_err(SpawnError::Guard)?;
        let line = Arc::new(Line { socket: line, kill: AtomicBool::new(false) });
        let (ended, ending) = watch::channel(None);
        let process = EngineProcess { pid: run_file.pid, line: Arc::clone(&line), ended: ending };
        Ok((Self { spec, guard: child, socket, line, run_file, output, oom, ended }, process))
    }

    fn until_ended(mut self) {
        let exit = self.hear_out().unwrap_or(Exit::Lost);
        // It has closed the socket, so it ends; when it was killed, it has.
        let _known = self.guard.wait();
        if exit == Exit::Lost {
            orphans::end(&self.remains());
        }
        let _closed_or_too_late = self.output.recv_timeout(LAST_LINES);
        self.run_file.remove(&self.spec.run_dir);
        self.tell(exit, true);
    }

    /// Listens until the guard has nothing more to say: how the engine ended, if it said so.
    fn hear_out(&mut self) -> Option<Exit> {
        let mut exit = None;
        let mut text = Vec::new();
        let mut waits = Waits::default();
        let mut ticks = 0_u32;
        loop {
            match self.socket.read_until(b'\n', &mut text) {
                Ok(0) => return exit,
                Ok(_) => {
                    exit = exit.or(parse_exit(&text));
                    text.clear();
                }
                Err(error) if is_timeout(&error) => {}
                Err(_) => return exit,
            }
            if let Some(exit) = exit
                && waits.exceeded(Wait::Clearing, true)
            {
                self.tell(exit, false);
            }
            if waits.exceeded(Wait::Killing, self.line.kill.load(Ordering::Acquire)) {
                // The guard does not do it: stopped, perhaps. It goes too, and is missed by nobody.
                orphans::end(&self.remains());
                let _ended = self.guard.kill();
            }
            ticks += 1;
            // Once it has ended, the run file may be that of the pool's next engine.
            if exit.is_none() && ticks.is_multiple_of(TICKS_PER_LOOK) {
                self.look();
            }
        }
    }

    /// Notes what would be wanted if things went wrong in the next seconds.
    fn look(&mut self) {
        self.oom.look();
        let guard = self.run_file.guard.pid;
        let below = proc::families(&proc::all(), |process| process.parent == guard);
        let mut others: Vec<Identity> =
            below.iter().map(|process| process.identity).filter(|other| *other != self.run_file.engine).collect();
        others.sort_unstable();
        if others != self.run_file.others {
            self.run_file.others = others;
            // The one that stands is of use still.
            let _ = self.run_file.write(&self.spec.run_dir);
        }
    }

    fn tell(&mut self, exit: Exit, complete: bool) {
        let before = *self.ended.borrow();
        // What was seen when it ended stands; later kills are none of its business.
        let oom_killed = before.map_or_else(|| self.oom.has_killed(), |ended| ended.oom_killed);
        self.ended.send_replace(Some(Ended { exit, oom_killed, complete }));
    }

    fn remains(&self) -> Remains {
        Remains::of(&self.run_file).with_group(self.run_file.engine)
    }
}

/// Runs the guard; its stdin is our end's counterpart.
fn spawn_guard(program: &GuardProgram, spec: &ProcessSpec, mark: &str) -> Result<(Child, UnixStream), SpawnError> {
    let spawn = || {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(TICK))?;
        let work_dir = spec.work_dir.as_ref().map(|work_dir| work_dir.clone().into_os_string());
        let mut command = Command::new(&program.path);
        command.args(guard::arguments(spec.grace, work_dir.as_ref())).arg(&spec.program).args(&spec.arguments);
        command.env_clear().envs(environment::of_engine(std::env::vars_os(), &spec.environment));
        command.env(MARK_VARIABLE, mark);
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Not the terminal's: what interrupts the daemon is the daemon's to pass on.
        let child = command.process_group(0).spawn()?;
        Ok((child, ours))
    };
    spawn().map_err(|error: io::Error| match error.raw_os_error() {
        Some(errno) => SpawnError::reported(Stage::Guard, errno, spec),
        None => SpawnError::Guard(error),
    })
}

/// Waits for the engine's program to run, and writes down that it does.
fn begin(
    guard: &mut Child,
    socket: &mut BufReader<UnixStream>,
    spec: &ProcessSpec,
    mark: String,
) -> Result<(RunFile, Receiver<()>), SpawnError> {
    let (stdout, stderr) = (guard.stdout.take(), guard.stderr.take());
    let (stdout, stderr) = stdout.zip(stderr).expect("both were asked for as pipes");
    let pid = match first_message(socket) {
        Some(Message::Pid(pid)) => pid,
        Some(Message::Failed { at, errno }) => return Err(SpawnError::reported(at, errno, spec)),
        Some(Message::Exited(_) | Message::Signal(_)) | None => return Err(SpawnError::GuardLost),
    };
    let name = spec.program.file_name().unwrap_or(spec.program.as_os_str()).to_string_lossy();
    spec.log.begin(&format!("started {name}, pid {pid}"));
    let output = spec.log.capture(stdout.into(), stderr.into()).map_err(SpawnError::Guard)?;
    // Neither has been waited for: the guard's status is ours to take, and the engine's is the guard's.
    let identity = |pid: i32| Process::read(pid).map_or(Identity { pid, start: 0 }, |process| process.identity);
    let run_file = RunFile {
        schema_version: RunFile::VERSION,
        pool_id: spec.pool_id.clone(),
        pid,
        program: spec.program.clone(),
        port: spec.port,
        boot_id: proc::boot_id(),
        mark,
        guard: identity(guard.id().cast_signed()),
        engine: identity(pid),
        others: Vec::new(),
    };
    let unwritten = |source| SpawnError::RunFile { path: RunFile::path(&spec.run_dir, &spec.pool_id), source };
    run_file.write(&spec.run_dir).map_err(unwritten)?;
    Ok((run_file, output))
}

/// Starting takes milliseconds, but a busy disk may hold up the reading of a large program for long.
fn first_message(socket: &mut BufReader<UnixStream>) -> Option<Message> {
    let mut text = Vec::new();
    loop {
        match socket.read_until(b'\n', &mut text) {
            Ok(0) => return None,
            Ok(_) => return serde_json::from_slice(&text).ok(),
            Err(error) if is_timeout(&error) => {}
            Err(_) => return None,
        }
    }
}

fn parse_exit(text: &[u8]) -> Option<Exit> {
    match serde_json::from_slice(text).ok()? {
        Message::Exited(code) => Some(Exit::Code(code)),
        Message::Signal(signal) => Some(Exit::Signal(signal)),
        Message::Pid(_) | Message::Failed { .. } => None,
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// What the guard is given time for.
#[derive(Clone, Copy)]
enum Wait {
    Killing,
    Clearing,
}

/// Since when things are waited for; each is over once.
#[derive(Default)]
struct Waits {
    since: [Option<Instant>; 2],
    over: [bool; 2],
}

impl Waits {
    /// Whether the wait, which goes on as long as `waiting`, has just become too long.
    fn exceeded(&mut self, wait: Wait, waiting: bool) -> bool {
        let index = wait as usize;
        if !waiting || self.over[index] {
            return false;
        }
        let since = *self.since[index].get_or_insert_with(Instant::now);
        self.over[index] = since.elapsed() >= GUARD_PATIENCE;
        self.over[index]
    }
}

/// The counters, now and before: what counts is what the kernel did in the engine's last seconds, not in its life.
struct OomWatch {
    counters: OomCounters,
    /// The last look, and the one before: the last may have been after a kill that we have not heard of yet.
    last: u64,
    before: u64,
}

impl OomWatch {
    fn new(counters: OomCounters) -> Self {
        let now = counters.read();
        Self { counters, last: now, before: now }
    }

    fn look(&mut self) {
        self.before = std::mem::replace(&mut self.last, self.counters.read());
    }

    fn has_killed(&self) -> bool {
        self.counters.read() > self.before
    }
}
