//! A container that was started, by us or by one of us before.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use crate::arguments::label;
use crate::backend::Backend;
use crate::error::{ClientError, ContainerError, is_not_running};
use crate::narrate;
use crate::runtime::Runtime;
use crate::state::{ContainerState, Inspected, Status};

/// Longer than any container runs.
const FOREVER: Duration = Duration::MAX;

/// A container. Cheap to clone; dropping it changes nothing about the container.
#[derive(Clone, Debug)]
pub struct ContainerHandle {
    pub(crate) runtime: Runtime,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) masked: Arc<[String]>,
}

/// How a container was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// It did not end by itself in time and was killed.
    pub forced: bool,
    /// How it is now.
    pub state: ContainerState,
}

impl ContainerHandle {
    /// The runtime's own id of it, which is never used twice.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pool that it serves.
    #[must_use]
    pub fn pool(&self) -> Option<&str> {
        self.label(label::POOL)
    }

    /// The digest of the spec that it was started from ([`crate::ContainerSpec::digest`]).
    #[must_use]
    pub fn spec_digest(&self) -> Option<&str> {
        self.label(label::SPEC)
    }

    /// A label of it.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }

    /// The same container with these values masked in its log, beside what looks like a secret anyway. One that
    /// [`Runtime::run`] started masks the values of its variables already.
    #[must_use]
    pub fn masking(self, values: impl IntoIterator<Item = String>) -> Self {
        let masked = values.into_iter().filter(|value| is_worth_masking(value)).collect();
        Self { masked, ..self }
    }

    /// How it is.
    ///
    /// # Errors
    /// When it is gone, or the client fails.
    pub async fn inspect(&self) -> Result<ContainerState, ContainerError> {
        match self.runtime.inspect::<Inspected>(&self.id).await {
            Ok(Some(inspected)) => Ok(inspected.state()),
            Ok(None) => Err(ContainerError::Gone { name: self.name.clone() }),
            Err(error) => Err(self.error("inspect", error)),
        }
    }

    /// Waits until it does not run, however long that takes, and says how it ended. May be dropped at any time.
    ///
    /// The kernel tells (a pidfd on the container's first process), so that no client has to run along; where the process
    /// cannot be seen from here, as with a daemon in a virtual machine, the client waits.
    ///
    /// # Errors
    /// When it is gone, or the client fails.
    pub async fn wait(&self) -> Result<ContainerState, ContainerError> {
        loop {
            let state = self.inspect().await?;
            if !state.running {
                return Ok(state);
            }
            match state.pid.and_then(|pid| self.process(pid)) {
                // A pidfd can be read once its process has ended.
                Some(process) if process.readable().await.is_ok() => return self.noticed(state).await,
                _ => self.wait_by_client(FOREVER).await.map_err(|error| self.error("wait for", error))?,
            }
        }
    }

    /// Stops it: SIGTERM, and SIGKILL after `grace` (LO-CTR-06). A container that does not run is stopped. When the future
    /// is dropped, the container may or may not have had its signal.
    ///
    /// # Errors
    /// When it outlives SIGKILL, is gone, or the client fails.
    pub async fn stop(&self, grace: Duration) -> Result<Stopped, ContainerError> {
        let outcome = self.end(grace).await;
        match &outcome {
            Ok(stopped) => narrate::stopped(self, stopped),
            Err(error) => narrate::not_stopped(self, error),
        }
        outcome
    }

    /// Removes it with its volumes, and ends it first if it runs. One that is gone is removed.
    ///
    /// # Errors
    /// When the client fails.
    pub async fn remove(&self) -> Result<(), ContainerError> {
        match self.signal("KILL").await {
            Ok(()) => {}
            Err(ContainerError::Gone { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        if self.runtime.backend() == Backend::Podman {
            self.kill_unstarted().await;
        }
        let mut outcome = self.remove_once().await;
        if matches!(outcome, Err(ContainerError::Client { .. })) {
            // Where its monitor was killed, podman looks for an exit code that nobody wrote, fails, and knows better then.
            outcome = self.remove_once().await;
        }
        match outcome {
            Ok(()) => narrate::removed(self),
            Err(ContainerError::Gone { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Ends the process of a container that podman holds for not started. Where its client was killed between making the process
    /// and letting it go, `podman rm` forgets the container and leaves the process, which would wait for ever.
    async fn kill_unstarted(&self) {
        let Ok(Some(Unstarted { pid_file: Some(file) })) = self.runtime.inspect::<Unstarted>(&self.id).await else {
            return;
        };
        let pid = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
        let Some(process) = pid.and_then(|pid| self.process(pid)) else { return };
        if pidfd_send_signal(process.get_ref(), Signal::KILL).is_ok() {
            let _ = timeout(self.runtime.limits().end, process.readable()).await;
        }
    }

    async fn remove_once(&self) -> Result<(), ContainerError> {
        let call = self.runtime.command(["rm", "--force", "--volumes", &self.id]);
        let answer = self.runtime.ask(&call, self.runtime.limits().end).await;
        answer.map(drop).map_err(|error| self.error("remove", error))
    }

    async fn end(&self, grace: Duration) -> Result<Stopped, ContainerError> {
        self.signal("TERM").await?;
        if let Ok(state) = timeout(grace, self.wait()).await {
            return Ok(Stopped { forced: false, state: state? });
        }
        self.signal("KILL").await?;
        let waited = self.runtime.limits().end;
        match timeout(waited, self.wait()).await {
            Ok(state) => Ok(Stopped { forced: true, state: state? }),
            Err(_) => Err(ContainerError::StillRunning { name: self.name.clone(), waited }),
        }
    }

    /// Sends a signal; to one that does not run, none.
    async fn signal(&self, signal: &str) -> Result<(), ContainerError> {
        let call = self.runtime.command(["kill", "--signal", signal, &self.id]);
        match self.runtime.ask(&call, self.runtime.limits().ask).await {
            Err(error) if !is_not_running(&error) => Err(self.error("signal", error)),
            _ => Ok(()),
        }
    }

    /// A hold on the container's first process, if it can be seen from here. Taken before the question whether it is the
    /// container's, so that a number that was given to another process cannot pass for it.
    fn process(&self, pid: u32) -> Option<AsyncFd<OwnedFd>> {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let process = pidfd_open(number, PidfdFlags::empty()).ok()?;
        let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        if !group.contains(&self.id) {
            return None;
        }
        #[expect(
            deprecated,
            reason = "sound for an `OwnedFd`, which stays open and the same; its successor is unsafe code"
        )]
        AsyncFd::with_interest(process, Interest::READABLE).ok()
    }

    async fn wait_by_client(&self, limit: Duration) -> Result<(), ClientError> {
        let call = self.runtime.command(["wait", &self.id]);
        self.runtime.ask(&call, limit).await.map(drop)
    }

    /// How it ended, once the runtime has noticed as well. Where that never happens, as when podman's monitor was killed, it
    /// has ended all the same.
    async fn noticed(&self, before: ContainerState) -> Result<ContainerState, ContainerError> {
        // Its failure, such as that podman's monitor has left no exit code, shows in the state.
        let _ = self.wait_by_client(self.runtime.limits().notice).await;
        let state = self.inspect().await?;
        if !state.running {
            return Ok(state);
        }
        let error = format!("its process has ended, which {} has not noticed", self.runtime.backend());
        Ok(ContainerState { status: Status::Exited, running: false, pid: None, error: Some(error), ..before })
    }

    pub(crate) fn error(&self, doing: &'static str, error: ClientError) -> ContainerError {
        ContainerError::of(doing, &self.name, error)
    }
}

/// Where podman keeps the number of a container's first process.
#[derive(Deserialize)]
struct Unstarted {
    #[serde(rename = "PidFile")]
    pid_file: Option<PathBuf>,
}

/// Short values are words that stand in a log for other reasons.
pub(crate) fn is_worth_masking(value: &str) -> bool {
    value.len() >= 8
}
