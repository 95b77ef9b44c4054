//! How a container is, as `inspect` tells it.

use serde::Deserialize;

/// How a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerState {
    /// In one word.
    pub status: Status,
    /// Whether its process runs; also while it is paused.
    pub running: bool,
    /// Its first process, by this machine's count, while it runs.
    pub pid: Option<u32>,
    /// How its first process ended: 128 plus the signal's number if one ended it. `None` while it runs, when it never did,
    /// and when the runtime does not know.
    pub exit_code: Option<i32>,
    /// The runtime says that it was killed for memory. Podman before 5.0 never says so; see
    /// [`ContainerState::perhaps_out_of_memory`].
    pub oom_killed: bool,
    /// The limit of its memory.
    pub memory_limit_bytes: Option<u64>,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// RFC 3339.
    pub finished_at: Option<String>,
    /// What the runtime has to say about its end, redacted.
    pub error: Option<String>,
}

/// A container's state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Never started.
    #[serde(alias = "configured", alias = "initialized")]
    Created,
    /// Runs.
    #[serde(alias = "restarting", alias = "stopping")]
    Running,
    /// Runs and is held.
    Paused,
    /// Ended.
    #[serde(alias = "stopped", alias = "dead", alias = "removing")]
    Exited,
    /// A word that was not known when this was written.
    #[serde(other)]
    Unknown,
}

impl ContainerState {
    /// Whether it was killed for memory, or may have been: SIGKILL within a limit. That it was not somebody who killed it is
    /// for the caller to know.
    #[must_use]
    pub fn perhaps_out_of_memory(&self) -> bool {
        self.oom_killed || (self.exit_code == Some(137) && self.memory_limit_bytes.is_some())
    }
}

/// What `container inspect` says about one container; both clients.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Inspected {
    state: State,
    host_config: HostConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: Status,
    running: bool,
    #[serde(rename = "OOMKilled", default)]
    oom_killed: bool,
    pid: u32,
    exit_code: i32,
    #[serde(default)]
    error: String,
    #[serde(default)]
    started_at: String,
    #[serde(default)]
    finished_at: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    memory: u64,
}

impl Inspected {
    pub(crate) fn state(self) -> ContainerState {
        let Self { state, host_config } = self;
        // Podman says -1 when it has lost track.
        let ended = !state.running && state.status == Status::Exited && state.exit_code >= 0;
        let error = narration_core::redact(&state.error).into_owned();
        ContainerState {
            status: state.status,
            running: state.running,
            pid: (state.running && state.pid > 0).then_some(state.pid),
            exit_code: ended.then_some(state.exit_code),
            oom_killed: state.oom_killed,
            memory_limit_bytes: (host_config.memory > 0).then_some(host_config.memory),
            started_at: moment(state.started_at),
            finished_at: moment(state.finished_at),
            error: (!error.is_empty()).then_some(error),
        }
    }
}

/// Both clients say year 1 for never.
fn moment(text: String) -> Option<String> {
    (!text.is_empty() && !text.starts_with("0001-")).then_some(text)
}
