//! The guard's life: one thread that waits for the daemon, for the engine, and for the end of a grace.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group, set_child_subreaper, wait,
};
use rustix::stdio::dup2_stdin;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::{EXEC, Engine, Message, NAME, SUBCOMMAND, Stage, command};
use crate::proc::{self, Held};

/// Gap between two rounds of killing, while something does not end.
const ROUND: Duration = Duration::from_millis(100);

/// Starts the engine and stays until it and everything below it has ended.
pub(super) fn run(grace: Duration, engine: &Engine) -> io::Result<()> {
    rustix::thread::set_name(NAME)?;
    set_child_subreaper(Some(getpid()))?;
    let daemon = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    dup2_stdin(std::fs::File::open("/dev/null")?)?;
    let children = catch_signals()?;
    match start(engine)? {
        Ok(pid) => {
            // A daemon that is gone closes the socket, which is seen soon enough.
            let _gone = send(&daemon, Message::Pid(pid.as_raw_pid()));
            Watch { daemon: Some(daemon), children, pid, grace, kill_at: None }.until_ended()
        }
        Err(failed) => send(&daemon, failed),
    }
}

/// Something can be read of the stream when a child has ended. What asks other programs to end leaves a guard alone: it ends
/// when its engine has.
fn catch_signals() -> io::Result<UnixStream> {
    // Handlers, unlike ignored signals, do not pass to the engine.
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    let (read, write) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGCHLD, write)?;
    read.set_nonblocking(true)?;
    Ok(read)
}

/// The engine's process id once its program runs, or why it does not.
fn start(engine: &Engine) -> io::Result<Result<Pid, Message>> {
    let (mut report, reporter) = io::pipe()?;
    let mut stage = Command::new("/proc/self/exe");
    stage.arg0(NAME.to_str().expect("the name is ASCII"));
    stage.args([SUBCOMMAND, EXEC, "--guard", &getpid().as_raw_pid().to_string()]);
    if let Some(work_dir) = &engine.work_dir {
        stage.arg("--work-dir").arg(work_dir);
    }
    stage.arg("--").args(&engine.command).stdin(reporter).process_group(0);
    let spawned = stage.spawn();
    // Its end of the pipe, which would keep the report from ending.
    drop(stage);
    let child = match spawned {
        Ok(child) => child,
        Err(error) => return Ok(Err(failed(Stage::Guard, &error))),
    };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    // Ends when the engine's program runs, because the kernel closes it then.
    let mut text = String::new();
    report.read_to_string(&mut text)?;
    if text.is_empty() { Ok(Ok(pid)) } else { Ok(Err(parse_report(&text))) }
}

fn parse_report(text: &str) -> Message {
    let (stage, errno) = text.split_once(' ').unwrap_or((text, ""));
    let at = Stage::ALL.into_iter().find(|known| known.as_str() == stage).unwrap_or(Stage::Guard);
    Message::Failed { at, errno: errno.parse().unwrap_or_else(|_| Errno::IO.raw_os_error()) }
}

fn failed(at: Stage, error: &io::Error) -> Message {
    Message::Failed { at, errno: error.raw_os_error().unwrap_or_else(|| Errno::IO.raw_os_error()) }
}

fn send(mut daemon: &UnixStream, message: Message) -> io::Result<()> {
    let mut line = serde_json::to_vec(&message)?;
    line.push(b'\n');
    daemon.write_all(&line)
}

struct Watch {
    /// `None` once it is gone.
    daemon: Option<UnixStream>,
    children: UnixStream,
    pid: Pid,
    grace: Duration,
    /// From when on everything is killed.
    kill_at: Option<Instant>,
}

impl Watch {
    fn until_ended(mut self) -> io::Result<()> {
        let message = loop {
            if let Some(message) = self.reap().0 {
                break message;
            }
            if self.kill_at.is_some_and(|at| at <= Instant::now()) {
                kill_everything();
            }
            self.wait_for_something();
        };
        if let Some(daemon) = &self.daemon {
            let _gone = send(daemon, message);
        }
        // The engine has ended; what it leaves behind has nobody to serve.
        while self.reap().1 {
            kill_everything();
            self.kill_at = Some(Instant::now());
            self.wait_for_something();
        }
        Ok(())
    }

    /// Takes note of the children that have ended: how the engine did, if it is among them, and whether any is left.
    fn reap(&mut self) -> (Option<Message>, bool) {
        let mut ended = None;
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.pid => ended = message(status),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return (ended, true),
                Err(_) => return (ended, false),
            }
        }
    }

    fn wait_for_something(&mut self) {
        let limit = self.kill_at.map(|at| at.saturating_duration_since(Instant::now()).max(ROUND));
        let mut sources = vec![PollFd::new(&self.children, PollFlags::IN)];
        sources.extend(self.daemon.as_ref().map(|daemon| PollFd::new(daemon, PollFlags::IN)));
        // Interrupted or not, the caller looks at everything again.
        let _looked_at_again = poll(&mut sources, limit.map(proc::timespec).as_ref());
        let daemon_speaks = sources.get(1).is_some_and(|source| !source.revents().is_empty());
        drop(sources);
        while matches!((&self.children).read(&mut [0; 64]), Ok(1..)) {}
        if daemon_speaks {
            self.hear();
        }
    }

    fn hear(&mut self) {
        let Some(mut daemon) = self.daemon.as_ref() else { return };
        let mut bytes = [0; 64];
        match daemon.read(&mut bytes) {
            Ok(count @ 1..) => {
                for byte in &bytes[..count] {
                    match *byte {
                        command::TERMINATE => self.terminate(),
                        command::KILL => self.kill_at = Some(Instant::now()),
                        _ => {}
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => {
                self.daemon = None;
                self.terminate();
                self.kill_at.get_or_insert(Instant::now() + self.grace);
            }
        }
    }

    /// The engine has not been waited for, so its id is still its own.
    fn terminate(&self) {
        if kill_process_group(self.pid, Signal::TERM).is_err() {
            // It has left its group; when it has ended, we shall see.
            let _ended = kill_process(self.pid, Signal::TERM);
        }
    }
}

fn message(status: WaitStatus) -> Option<Message> {
    status.exit_status().map(Message::Exited).or_else(|| status.terminating_signal().map(Message::Signal))
}

/// Everything below this process, also what has left its group or session. What is started meanwhile is met in the next round.
fn kill_everything() {
    let own = getpid().as_raw_pid();
    let below = proc::families(&proc::all(), |process| process.parent == own);
    for held in below.iter().filter(|process| !process.zombie).filter_map(|process| Held::take(process.identity)) {
        held.signal(Signal::KILL);
    }
}
