//! Starts clients. A trait, so that tests can say what a client would (LO-CTR-09).

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::Pin;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncRead;
use tokio::process::{Child, Command};

/// What a client is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The program, looked up on the `PATH`.
    pub program: String,
    /// Its arguments. Everybody on the machine can read them, so no secret is among them.
    pub args: Vec<String>,
    /// What is added to its environment, which only its own user can read.
    pub env: Vec<(String, String)>,
}

/// Where a client's output comes from.
pub type Pipe = Box<dyn AsyncRead + Send + Unpin>;

/// A client that runs. Dropping `exit` asks it to end.
pub struct Spawned {
    /// Its standard output.
    pub stdout: Pipe,
    /// Its standard error.
    pub stderr: Pipe,
    /// Its exit code, 128 plus the signal's number if one ended it.
    pub exit: Pin<Box<dyn Future<Output = io::Result<i32>> + Send>>,
}

/// Starts clients.
pub trait Executor: Debug + Send + Sync {
    /// Starts one without waiting for it.
    ///
    /// # Errors
    /// When it cannot be started; `NotFound` means that it is not installed.
    fn spawn(&self, call: &Call) -> io::Result<Spawned>;
}

/// Starts them for real.
#[derive(Clone, Debug, Default)]
pub struct SystemExecutor {
    env: Vec<(String, String)>,
}

impl SystemExecutor {
    /// Clients inherit our environment.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a variable for every client, such as `CONTAINERS_CONF`.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Executor for SystemExecutor {
    fn spawn(&self, call: &Call) -> io::Result<Spawned> {
        let mut command = Command::new(&call.program);
        command.args(&call.args).envs(self.env.iter().cloned()).envs(call.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A Ctrl-C in our terminal is for us; a client that dies of it halfway leaves half a container.
        command.process_group(0);
        let mut client = Client(command.spawn()?);
        let stdout = Box::new(client.0.stdout.take().expect("it was asked for a pipe"));
        let stderr = Box::new(client.0.stderr.take().expect("it was asked for a pipe"));
        let exit = Box::pin(async move {
            let status = client.0.wait().await?;
            Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
        });
        Ok(Spawned { stdout, stderr, exit })
    }
}

/// A client's process, which is asked to end when nobody waits for it any more. Asked, because podman heeds SIGTERM only
/// where it leaves nothing half done.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        // It has an id until it was waited for, and so the id is nobody else's.
        if let Some(pid) = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}
