//! Starts the engine's process and waits until it serves.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::Settings;
use super::install::folder;
use super::record::{Record, STOP_GRACE};
use crate::process::{Identity, Live};
use crate::progress::Progress;
use crate::{cmd, interrupt, loopback, repo};

/// Loading takes seconds; a busy machine that puts the model together first takes a few more.
const READY_LIMIT: Duration = Duration::from_secs(180);
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// Starts the engine and returns once it answers `/health` with 200.
pub(super) fn launch(python: &Path, settings: &Settings) -> anyhow::Result<Record> {
    let progress = Progress::start("starting llamacpp and loading its model");
    let url_file = folder().join("url");
    let log = folder().join("engine.log");
    let _ = std::fs::remove_file(&url_file);
    let process = spawn(python, settings, &url_file, &log)?;
    let live = process.open().with_context(|| format!("llamacpp exited at once; {}", cmd::tail(&log)))?;
    let url = match wait_until_ready(&live, &url_file, &log) {
        Ok(url) => url,
        Err(error) => {
            live.stop(STOP_GRACE)?;
            return Err(error);
        }
    };
    let record = Record { process, url, settings: settings.clone(), log };
    record.write()?;
    progress.done();
    Ok(record)
}

fn spawn(python: &Path, settings: &Settings, url_file: &Path, log: &Path) -> anyhow::Result<Identity> {
    let output = File::create(log).with_context(|| format!("could not write {}", repo::shown(log)))?;
    let mut command = Command::new(python);
    command
        .arg(script())
        .arg("--model-file")
        .arg(folder().join("model.gguf"))
        .arg("--url-file")
        .arg(url_file)
        .args(["--port", &settings.port.to_string()])
        .args(["--ctx", &settings.ctx.to_string()])
        .args(["--parallel", &settings.parallel.to_string()]);
    if settings.embedding {
        command.arg("--embedding");
    }
    // A process group of its own: a Ctrl-C meant for a command of ours is not meant for the engine.
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
    let child = command.spawn().context("could not start llamacpp")?;
    Identity::of(child.id().cast_signed()).with_context(|| format!("llamacpp exited at once; {}", cmd::tail(log)))
}

fn script() -> PathBuf {
    repo::path("xtask/engines/serve_llamacpp.py")
}

fn wait_until_ready(live: &Live, url_file: &Path, log: &Path) -> anyhow::Result<String> {
    let deadline = Instant::now() + READY_LIMIT;
    while Instant::now() < deadline {
        if let Ok(url) = std::fs::read_to_string(url_file)
            && loopback::status(&url, "/health") == Some(200)
        {
            return Ok(url);
        }
        interrupt::check()?;
        if live.exits_within(PROBE_INTERVAL)? {
            bail!("llamacpp exited before it was ready; {}", cmd::tail(log));
        }
    }
    bail!("llamacpp was not ready within {} s; {}", READY_LIMIT.as_secs(), cmd::tail(log));
}
