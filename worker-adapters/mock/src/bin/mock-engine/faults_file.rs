//! A file of faults, as it was read last.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mock::{Faults, Simulation};

use crate::args::parse_faults;

/// Gap between two looks at the file.
const LOOK_GAP: Duration = Duration::from_millis(50);

pub(crate) struct FaultsFile {
    path: PathBuf,
    text: String,
}

impl FaultsFile {
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { path, text })
    }

    pub(crate) fn faults(&self) -> Result<Faults> {
        parse_faults(&self.text)
    }

    /// Sets the faults whenever the file changes; what cannot be read or understood leaves them as they are.
    pub(crate) async fn watch(mut self, sim: Simulation) {
        loop {
            tokio::time::sleep(LOOK_GAP).await;
            let Ok(now) = Self::open(self.path.clone()) else { continue };
            if now.text == self.text {
                continue;
            }
            self = now;
            match self.faults() {
                Ok(faults) => sim.set_faults(faults),
                Err(problem) => eprintln!("{}: {problem:#}", self.path.display()),
            }
        }
    }
}
