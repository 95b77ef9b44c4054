//! Python environments with exact packages, made once and stamped.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::cmd::Cmd;
use crate::progress::Progress;
use crate::repo;

/// A Python environment.
pub(crate) struct Venv {
    /// Where it lies, with the logs of its making beside it.
    pub(crate) folder: PathBuf,
    /// What it is for.
    pub(crate) name: &'static str,
    /// What pip installs.
    pub(crate) packages: &'static [&'static str],
    /// What that is, for whoever waits.
    pub(crate) shown: &'static str,
}

impl Venv {
    /// Makes the environment unless a finished one with these packages is there; returns its Python.
    pub(crate) fn install(&self) -> anyhow::Result<PathBuf> {
        let venv = self.folder.join("venv");
        let python = venv.join("bin/python");
        let stamp = venv.join("installed");
        let wanted = self.packages.join("\n");
        if std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && python.exists() {
            return Ok(python);
        }
        std::fs::create_dir_all(&self.folder)?;
        self.create(&venv)?;
        self.fill(&python)?;
        // Written last, so that an environment without it is an unfinished one and made anew.
        std::fs::write(&stamp, wanted).with_context(|| format!("could not write {}", repo::shown(&stamp)))?;
        Ok(python)
    }

    fn create(&self, venv: &Path) -> anyhow::Result<()> {
        let Self { name, .. } = self;
        ensure!(
            Cmd::new("python3").arg("--version").succeeds(),
            "{name} needs python3 (3.10 or newer), which is not on the PATH"
        );
        ensure!(
            Cmd::new("python3").args(["-c", "import venv, ensurepip"]).succeeds(),
            "this python3 cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"
        );
        let progress = Progress::start(format!("making a Python environment for {name}"));
        Cmd::new("python3").args(["-m", "venv", "--clear"]).arg(venv).run_logged(&self.folder.join("venv.log"))?;
        progress.done();
        Ok(())
    }

    fn fill(&self, python: &Path) -> anyhow::Result<()> {
        let progress = Progress::start(format!("installing {}", self.shown));
        Cmd::new(python)
            .args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:"])
            .args(self.packages)
            .run_logged(&self.folder.join("pip.log"))?;
        progress.done();
        Ok(())
    }
}
