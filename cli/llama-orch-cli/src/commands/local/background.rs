//! The orchestratord in the background: begun by `up`, ended by `down`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use config_schema::{Config, Loaded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, sleep};

use crate::exit::Exit;
use crate::failure::Failure;

const PROGRAM: &str = "orchestratord";
/// Longest wait until it listens. It may have to end engines of an earlier life first.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Gap between two looks whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The files by which it is found.
pub(in crate::commands) struct Files {
    data_dir: PathBuf,
    /// Where it listens, written by itself.
    address: PathBuf,
    pid: PathBuf,
    pub(in crate::commands) log: PathBuf,
}

impl Files {
    pub(in crate::commands) fn of(config: &Config) -> Self {
        let data_dir = &config.server.data_dir;
        let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.clone());
        let run = data_dir.join("run");
        Self {
            address: run.join("orchestratord.addr"),
            pid: run.join("orchestratord.pid"),
            log: data_dir.join("orchestratord.log"),
            data_dir,
        }
    }

    /// Where it listens, or did.
    pub(in crate::commands) fn address(&self) -> Option<SocketAddr> {
        // A line that is not whole is still being written.
        fs::read_to_string(&self.address).ok()?.strip_suffix('\n')?.parse().ok()
    }

    fn prepare(&self) -> io::Result<(File, u64)> {
        let run = self.pid.parent().unwrap_or(&self.data_dir);
        DirBuilder::new().recursive(true).mode(0o700).create(run)?;
        match fs::remove_file(&self.address) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log)?;
        let length = log.metadata()?.len();
        Ok((log, length))
    }
}

/// It runs. Dropping this leaves it alone.
pub(in crate::commands) struct Background {
    pub(in crate::commands) pid: Pid,
    /// Holds the process, so that its number cannot come to mean another one.
    process: OwnedFd,
    file: PathBuf,
}

impl Background {
    /// The one that `up` has started with this configuration, if it still runs.
    pub(in crate::commands) fn find(config: &Config) -> Option<Self> {
        let files = Files::of(config);
        let pid = Pid::from_raw(fs::read_to_string(&files.pid).ok()?.trim().parse().ok()?)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Looked at after the process is held: from here on the number means this one.
        is_ours(pid, &files.address).then_some(Self { pid, process, file: files.pid })
    }

    /// Starts one and waits until it listens; where.
    pub(in crate::commands) async fn start(loaded: &Loaded) -> Result<(Self, SocketAddr), Failure> {
        let files = Files::of(&loaded.config);
        let program = super::program(PROGRAM).ok_or_else(|| {
            Failure::usage(
                format!("{PROGRAM} is not to be found"),
                format!("put {PROGRAM} beside llama-orch or into PATH"),
            )
        })?;
        let (log, before) = files
            .prepare()
            .map_err(|error| Failure::local(format!("cannot write below {}: {error}", files.data_dir.display())))?;
        let mut command = Command::new(&program);
        if let Some(path) = loaded.origin.path() {
            command.arg("--config").arg(path);
        }
        // A group of its own: Ctrl-C in this terminal is not meant for it.
        command.arg("--port-file").arg(&files.address).stdin(Stdio::null()).process_group(0);
        let cannot = |error: io::Error| Failure::local(format!("cannot start {}: {error}", program.display()));
        command.stdout(log.try_clone().map_err(cannot)?).stderr(log);
        let mut child = command.spawn().map_err(cannot)?;
        let found = until_it_listens(&mut child, &files, before).await;
        let address = match found {
            Ok(address) => address,
            Err(failure) => {
                // It may have ended by itself already.
                let _ = child.kill();
                let _ = child.wait();
                return Err(failure);
            }
        };
        let running = Self::of(&child, files.pid)
            .map_err(|error| Failure::local(format!("cannot note down the process of {PROGRAM}: {error}")))?;
        Ok((running, address))
    }

    fn of(child: &Child, file: PathBuf) -> io::Result<Self> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        fs::write(&file, format!("{pid}\n"))?;
        Ok(Self { pid, process: pidfd_open(pid, PidfdFlags::empty())?, file })
    }

    /// Asks it to end and waits until it has, for so long. Whether it has.
    pub(in crate::commands) async fn stop(self, patience: Duration) -> Result<bool, Failure> {
        let cannot = |error: io::Error| Failure::local(format!("cannot stop {PROGRAM}: {error}"));
        match pidfd_send_signal(&self.process, Signal::TERM) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(cannot(error.into())),
        }
        let process = self.process;
        let waiting = tokio::task::spawn_blocking(move || has_ended(&process, patience)).await;
        if !waiting.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())).map_err(cannot)? {
            return Ok(false);
        }
        // Who starts next writes its own.
        let _ = fs::remove_file(&self.file);
        Ok(true)
    }
}

/// Waits for the end of a process, for so long; whether it has come.
fn has_ended(process: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            ended => return Ok(ended? > 0),
        }
    }
}

/// Whether a process is an orchestratord that was told to note down its address in this file.
fn is_ours(pid: Pid, address: &Path) -> bool {
    let Ok(line) = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())) else { return false };
    let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let address = address.as_os_str().as_encoded_bytes();
    arguments.first().is_some_and(|program| program.ends_with(PROGRAM.as_bytes()))
        && arguments.windows(2).any(|pair| pair[0] == b"--port-file" && pair[1] == address)
}

async fn until_it_listens(child: &mut Child, files: &Files, before: u64) -> Result<SocketAddr, Failure> {
    let begun = Instant::now();
    loop {
        if let Some(address) = files.address() {
            return Ok(address);
        }
        let log = files.log.display();
        if let Ok(Some(status)) = child.try_wait() {
            let exit = if status.code() == Some(2) { Exit::Usage } else { Exit::Failed };
            let said = said_since(&files.log, before).unwrap_or_else(|| "it said nothing".to_owned());
            return Err(Failure::new(
                exit,
                format!("{PROGRAM} did not start: {said}"),
                format!("its whole log is {log}"),
            ));
        }
        if begun.elapsed() > START_LIMIT {
            let what = format!("{PROGRAM} does not listen after {} s", START_LIMIT.as_secs());
            return Err(Failure::new(Exit::Failed, what, format!("see its log {log}")));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The last line of the log, if it was written after so many bytes.
fn said_since(log: &Path, before: u64) -> Option<String> {
    let mut file = File::open(log).ok()?;
    file.seek(SeekFrom::Start(before)).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let line = text.lines().rfind(|line| !line.trim().is_empty())?;
    Some(line.trim().strip_prefix("orchestratord: ").unwrap_or(line.trim()).to_owned())
}
