//! One run's folder: configuration, logs, and what came back.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use crate::repo;

/// `target/quickstart/SECONDS-SINCE-1970`.
pub(super) struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    pub(super) fn create() -> anyhow::Result<Self> {
        let stamp = SystemTime::now().duration_since(UNIX_EPOCH).context("this machine's clock is before 1970")?;
        let path = all_runs().join(format!("{}", stamp.as_millis()));
        std::fs::create_dir_all(&path).with_context(|| format!("could not make {}", path.display()))?;
        Ok(Self { path })
    }

    pub(super) fn config(&self) -> PathBuf {
        self.path.join("llama-orch.toml")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Receives the daemon's `host:port`.
    pub(super) fn port_file(&self) -> PathBuf {
        self.path.join("addr")
    }

    pub(super) fn daemon_log(&self) -> PathBuf {
        self.path.join("orchestratord.log")
    }

    /// The client's account of the stream, one event a line.
    pub(super) fn transcript(&self) -> PathBuf {
        self.path.join("stream.jsonl")
    }

    /// The daemon's record of the task.
    pub(super) fn task(&self) -> PathBuf {
        self.path.join("task.json")
    }
}

/// Where the folders of all runs lie.
pub(super) fn all_runs() -> PathBuf {
    repo::path("target/quickstart")
}
