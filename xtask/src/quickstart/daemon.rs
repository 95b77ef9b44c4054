//! The daemon of one run.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::folder::RunFolder;
use crate::engine::{MODEL_REF, Record};
use crate::process::{Identity, Live};
use crate::progress::Progress;
use crate::{cmd, interrupt, loopback, repo};

const READY_LIMIT: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_millis(20);
/// More than the daemon's own grace for running streams.
const STOP_GRACE: Duration = Duration::from_secs(40);

/// Settings of the caller's that would win over the generated file.
const FOREIGN_SETTINGS: [&str; 3] = ["ORCHD_ADDR", "BIND_ADDR", "LLAMA_ORCH_CONFIG"];

/// A running orchestratord; dropped, it is stopped.
pub(super) struct Daemon {
    pub(super) url: String,
    pub(super) process: Identity,
    owned: bool,
}

impl Daemon {
    /// Starts it and returns once it is ready to take tasks.
    pub(super) fn start(binary: &Path, folder: &RunFolder, engine: &Record) -> anyhow::Result<Self> {
        let progress = Progress::start("starting orchestratord");
        std::fs::write(folder.config(), config(folder, engine)?)?;
        let process = spawn(binary, folder)?;
        // From here on an early return stops it.
        let mut daemon = Self { url: String::new(), process, owned: true };
        daemon.url = daemon.wait_until_ready(folder)?;
        progress.done();
        Ok(daemon)
    }

    fn wait_until_ready(&self, folder: &RunFolder) -> anyhow::Result<String> {
        let log = folder.daemon_log();
        let live = self.process.open().with_context(|| format!("orchestratord exited; {}", cmd::tail(&log)))?;
        let deadline = Instant::now() + READY_LIMIT;
        while Instant::now() < deadline {
            if let Ok(address) = std::fs::read_to_string(folder.port_file()) {
                let url = format!("http://{}", address.trim());
                if loopback::status(&url, "/readyz") == Some(200) {
                    return Ok(url);
                }
            }
            interrupt::check()?;
            if live.exits_within(PROBE_INTERVAL)? {
                bail!("orchestratord exited before it was ready; {}", cmd::tail(&log));
            }
        }
        bail!("orchestratord was not ready within {} s; {}", READY_LIMIT.as_secs(), cmd::tail(&log));
    }

    /// Lets it run on.
    pub(super) fn keep(mut self) {
        self.owned = false;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.owned
            && let Some(live) = self.process.open()
            && let Err(error) = stop(&live)
        {
            eprintln!("could not stop orchestratord, pid {}: {error:#}", self.process.pid);
        }
    }
}

/// Asks the daemon to stop and gives its streams their time.
pub(super) fn stop(live: &Live) -> anyhow::Result<()> {
    live.stop(STOP_GRACE)
}

fn spawn(binary: &Path, folder: &RunFolder) -> anyhow::Result<Identity> {
    let log = folder.daemon_log();
    let output = File::create(&log).with_context(|| format!("could not write {}", repo::shown(&log)))?;
    let mut command = Command::new(binary);
    command.arg("--config").arg(folder.config()).arg("--port-file").arg(folder.port_file());
    for name in FOREIGN_SETTINGS {
        command.env_remove(name);
    }
    // A process group of its own: a Ctrl-C reaches it through us, after the client has canceled its task.
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
    let child = command.spawn().with_context(|| format!("could not start {}", binary.display()))?;
    Identity::of(child.id().cast_signed()).with_context(|| format!("orchestratord exited at once; {}", cmd::tail(&log)))
}

fn config(folder: &RunFolder, engine: &Record) -> anyhow::Result<String> {
    // A TOML basic string escapes what a JSON string escapes.
    let data_dir = serde_json::to_string(&folder.data())?;
    let Record { url, settings, .. } = engine;
    Ok(format!(
        r#"# Written by `cargo xtask quickstart`.
[server]
bind = "127.0.0.1:0"
data_dir = {data_dir}

[[pools]]
id = "quickstart"
engine = "llamacpp"
model = "{MODEL_REF}"
ctx = {ctx}
slots = {slots}

[pools.provisioning]
mode = "external"

[pools.provisioning.external]
url = "{url}"
"#,
        ctx = settings.ctx / settings.parallel,
        slots = settings.parallel,
    ))
}
