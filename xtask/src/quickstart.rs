//! From a fresh clone to a real model's tokens in one command.
//!
//! Builds the daemon and the command-line client, brings the real engine up, starts the daemon on a free port with a
//! generated configuration, sends one prompt through the client, and takes down what it started.

mod daemon;
mod folder;
mod kept;
mod prompt;
mod summary;

use std::time::Instant;

use anyhow::{bail, ensure};

use crate::build::{CLIENT, DAEMON, Profile, build};
use crate::engine;
use crate::progress::seconds;
use daemon::Daemon;
use folder::RunFolder;
use kept::Kept;

/// The model continues text rather than answering questions, so this is a beginning.
const PROMPT: &str = "The quick brown fox jumps over the lazy dog because";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Text for the model to continue.
    #[arg(long, default_value = PROMPT)]
    prompt: String,
    /// Leave the daemon and the engine running, and say how to use and stop them.
    #[arg(long)]
    keep: bool,
    /// Stop what an earlier `--keep` left running.
    #[arg(long, conflicts_with_all = ["prompt", "keep"])]
    stop: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.stop {
        return kept::stop();
    }
    let started = Instant::now();
    if args.keep
        && let Some(kept) = Kept::running()
    {
        // A second one to keep would leave nobody to stop the first.
        bail!("a daemon is kept already, at {}; stop it with `{}`", kept.url, kept::STOP);
    }
    let [daemon_program, client] = build([DAEMON, CLIENT], Profile::Dev)?;
    let engine = engine::Lease::take()?;
    ensure!(
        !engine.record.settings.embedding,
        "the engine that runs serves embeddings only; stop it with `cargo xtask engine down`"
    );
    let folder = RunFolder::create()?;
    let daemon = Daemon::start(&daemon_program, &folder, &engine.record)?;
    let answered = prompt::submit(&client, &daemon.url, &folder, &args.prompt)?;
    summary::print(&client, &daemon.url, &folder, &answered)?;
    if args.keep {
        kept::keep(daemon, engine, &client, &args.prompt)?;
    } else {
        drop(daemon);
        drop(engine);
    }
    eprintln!("quickstart took {}", seconds(started.elapsed()));
    Ok(())
}

/// As a step of CI: the default prompt, nothing kept.
pub(crate) fn once() -> anyhow::Result<()> {
    run(&Args { prompt: PROMPT.to_owned(), keep: false, stop: false })
}
