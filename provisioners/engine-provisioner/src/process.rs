//! Programs that are run to their end: in a process group of their own, which ends with them.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use narration_core::redact;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

/// Time that programs have to end when they are asked to.
const GRACE: Duration = Duration::from_secs(2);
/// Time for output that is still on its way when a program has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Longest line that is told as one.
const LONGEST_LINE: usize = 16 << 10;
/// Last lines that are kept.
const TAIL: usize = 200;

/// A program and what it is run with. It inherits nothing of the environment.
pub(crate) struct Run {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) environment: BTreeMap<String, String>,
    /// Held open by the program and all it starts, so that the lock on it is theirs too: should this process be killed, nobody
    /// takes the lock while they still run.
    pub(crate) lock: Option<File>,
    /// Longest run.
    pub(crate) limit: Option<Duration>,
}

/// A program that has ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// The last lines of its output and errors, without secrets.
    pub(crate) lines: Vec<String>,
}

/// Why a program did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("it cannot be started: {0}")]
    Start(#[source] io::Error),
    #[error("its output cannot be read: {0}")]
    Output(#[source] io::Error),
    #[error("it did not end within {0:?}")]
    TooLong(Duration),
    #[error("it was canceled")]
    Canceled,
}

impl Run {
    pub(crate) fn new(program: &Path, environment: BTreeMap<String, String>) -> Self {
        Self { program: program.to_owned(), args: Vec::new(), folder: None, environment, lock: None, limit: None }
    }

    pub(crate) fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub(crate) fn within(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    pub(crate) fn at_most(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Runs it. Each line of its output, without secrets, goes to `told`. Its whole group is ended when this is canceled,
    /// dropped, or takes too long.
    pub(crate) async fn finish(
        self,
        cancel: &CancellationToken,
        mut told: impl FnMut(&str) + Send,
    ) -> Result<Ended, RunError> {
        let (mut group, output) = self.start().map_err(RunError::Start)?;
        let mut lines = Lines::default();
        let limit = self.limit.unwrap_or(Duration::MAX);
        let ended = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(RunError::Canceled),
            ended = tokio::time::timeout(limit, follow(&mut group, output, &mut lines, &mut told)) => {
                ended.unwrap_or(Err(RunError::TooLong(limit)))
            }
        };
        match ended {
            Ok(status) => {
                lines.end(&mut told);
                Ok(Ended { status, lines: lines.kept.into() })
            }
            Err(error) => {
                group.end().await;
                Err(error)
            }
        }
    }

    fn start(&self) -> io::Result<(Group, pipe::Receiver)> {
        let (reader, writer) = io::pipe()?;
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.args).env_clear().envs(&self.environment).process_group(0);
        command.stdout(writer.try_clone()?).stderr(writer).stdin(match &self.lock {
            Some(lock) => Stdio::from(lock.try_clone()?),
            None => Stdio::null(),
        });
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let child = command.spawn()?;
        drop(command);
        let number = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok((Group { leader: child, number }, pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?))
    }
}

/// Reads until the program has ended and nobody writes any more.
async fn follow(
    group: &mut Group,
    mut output: pipe::Receiver,
    lines: &mut Lines,
    told: &mut (impl FnMut(&str) + Send),
) -> Result<ExitStatus, RunError> {
    let mut buffer = vec![0; 16 << 10];
    let mut read = async |lines: &mut Lines, told: &mut _| match output.read(&mut buffer).await {
        Ok(0) => Ok(false),
        Ok(length) => {
            lines.take(&buffer[..length], told);
            Ok(true)
        }
        Err(error) => Err(RunError::Output(error)),
    };
    let mut open = true;
    let status = loop {
        tokio::select! {
            more = read(lines, told), if open => open = more?,
            status = group.leader.wait() => break status.map_err(RunError::Output)?,
        }
    };
    let rest = async {
        while open {
            open = read(lines, told).await?;
        }
        Ok::<_, RunError>(())
    };
    // What it has left running in its group would hold the output open.
    match tokio::time::timeout(LAST_WORDS, rest).await {
        Ok(done) => done?,
        // Whoever holds it is of the group, whose number is therefore still its own.
        Err(_) => signal(group.number, Signal::KILL),
    }
    Ok(status)
}

/// A program's process group. Dropping it before the program has ended kills all of it.
struct Group {
    leader: Child,
    number: Option<Pid>,
}

fn signal(group: Option<Pid>, signal: Signal) {
    let _ = group.map(|group| kill_process_group(group, signal));
}

impl Group {
    /// Signals it, as long as its leader has not been waited for, so that its number is still its own.
    fn signal(&self, what: Signal) {
        signal(self.number.filter(|_| self.leader.id().is_some()), what);
    }

    /// Politely, then firmly.
    async fn end(&mut self) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(GRACE, self.gone()).await.is_err() {
            self.signal(Signal::KILL);
            // What waits for a disk that does not answer dies when it does.
            let _ = tokio::time::timeout(GRACE, self.gone()).await;
        }
        let _ = self.leader.wait().await;
    }

    /// When none of it is left but a leader that nobody has waited for yet.
    async fn gone(&self) {
        while self.leader.id().is_some_and(|id| !is_alone_and_dead(id)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Whether of the group only its dead leader is left. Source: proc_pid_stat(5).
fn is_alone_and_dead(leader: u32) -> bool {
    let Ok(all) = std::fs::read_dir("/proc") else { return false };
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().all(|pid| {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
        let Some((_, fields)) = stat.rsplit_once(") ") else { return true };
        let mut fields = fields.split(' ');
        let (state, group) = (fields.next(), fields.nth(1));
        group != Some(leader.to_string().as_str()) || state == Some("Z")
    })
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Output, cut into lines.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
    kept: VecDeque<String>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], told: &mut (impl FnMut(&str) + Send)) {
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => self.end(told),
                _ if self.partial.len() >= LONGEST_LINE => {}
                byte => self.partial.push(*byte),
            }
        }
    }

    fn end(&mut self, told: &mut (impl FnMut(&str) + Send)) {
        if self.partial.is_empty() {
            return;
        }
        let line = redact(&String::from_utf8_lossy(&self.partial)).into_owned();
        self.partial.clear();
        told(&line);
        if self.kept.len() == TAIL {
            self.kept.pop_front();
        }
        self.kept.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Run {
        let environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        Run::new(Path::new("/bin/sh"), environment).args(["-c", script])
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    /// Both outputs arrive in their order and without secrets, and the environment is not inherited.
    #[test]
    fn output_is_told_line_by_line() {
        let cancel = CancellationToken::new();
        let mut told = Vec::new();
        let run = shell(
            "echo one; echo two >&2; printf 'thr\\ree'; echo; echo \"home=$HOME\"; echo 'Authorization: Bearer hunter2hunter2'; exit 3",
        );
        let ended = block_on(run.finish(&cancel, |line| told.push(line.to_owned()))).unwrap();
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!(told[..5], ["one", "two", "thr", "ee", "home="]);
        assert!(!told[5].contains("hunter2"), "{}", told[5]);
        assert_eq!(ended.lines, told);
    }

    /// A cancel ends what a program has started, also when that does not listen; so does a limit.
    #[test]
    fn the_whole_group_ends() {
        let cancel = CancellationToken::new();
        let mut children = Vec::new();
        let run = shell("sh -c 'trap \"\" TERM; echo $$; sleep 1000' & echo $!; wait");
        let stop = cancel.clone();
        let result = block_on(run.finish(&cancel, |line| {
            children.push(line.trim().parse::<i32>().unwrap());
            if children.len() == 2 {
                stop.cancel();
            }
        }));
        assert!(matches!(result, Err(RunError::Canceled)));
        assert_eq!(children[0], children[1]);
        let child = Pid::from_raw(children[0]).unwrap();
        let is_gone = || rustix::process::test_kill_process(child).is_err() || is_zombie(children[0]);
        assert!(is_gone(), "the child still runs");
        let result =
            block_on(shell("sleep 1000").at_most(Duration::from_millis(50)).finish(&CancellationToken::new(), |_| ()));
        assert!(matches!(result, Err(RunError::TooLong(_))));
    }

    /// A process whose parent died before it is reaped by init, at its own pace.
    fn is_zombie(pid: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    }
}
