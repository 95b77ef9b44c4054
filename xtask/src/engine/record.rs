//! What is known about the engine that was started, kept in `run.json` for the commands after.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::Settings;
use super::install::folder;
use crate::process::Identity;

/// How long the engine has to stop on SIGTERM.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(10);

/// One started engine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) process: Identity,
    pub(crate) url: String,
    pub(crate) settings: Settings,
    pub(crate) log: PathBuf,
}

impl Record {
    /// The engine that runs now. A file that cannot be read or names a process that is gone counts as none.
    pub(super) fn running() -> Option<Self> {
        let text = std::fs::read_to_string(file()).ok()?;
        let record: Self = serde_json::from_str(&text).ok()?;
        record.process.open().map(|_| record)
    }

    pub(super) fn write(&self) -> anyhow::Result<()> {
        std::fs::write(file(), serde_json::to_string_pretty(self)?).context("could not note the engine's process")
    }

    /// Stops the engine, if it still is the one that was started.
    pub(super) fn stop(&self) -> anyhow::Result<()> {
        if let Some(live) = self.process.open() {
            live.stop(STOP_GRACE)?;
        }
        let _ = std::fs::remove_file(file());
        Ok(())
    }
}

fn file() -> PathBuf {
    folder().join("run.json")
}
