//! The one test command: every suite of the workspace, those that need a real engine or real servers included.

use std::ffi::OsString;

use crate::cmd::Cmd;
use crate::{engine, servers};

/// Names the real engine's URL for the suites that use it; without it they say that they skip.
pub(crate) const REAL_ENGINE: &str = "LLAMA_ORCH_REAL_ENGINE";

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Do not install or start the real engine; the suites that need it say that they skip.
    #[arg(long)]
    no_engine: bool,
    /// Do not install S3 and OCI servers; the tests that need one say that they skip.
    #[arg(long)]
    no_servers: bool,
    /// Passed on to the test runner, for example a part of a test's name.
    #[arg(last = true)]
    runner_args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // Held until the tests are over.
    let engine = if args.no_engine {
        eprintln!("no real engine: the suites that need one will skip");
        None
    } else {
        Some(engine::Lease::take()?)
    };
    let mut environment = if args.no_servers { Vec::new() } else { servers::find()? };
    environment.extend(engine.as_ref().map(|lease| (REAL_ENGINE, OsString::from(&lease.record.url))));
    if engine.is_some() {
        environment.extend(engine::library()?);
    }
    let with = |command: Cmd| environment.iter().fold(command, |command, (name, value)| command.env(name, value));
    if !has_nextest() {
        eprintln!(
            "cargo-nextest is not installed (`cargo install --locked cargo-nextest`); using cargo test, which is slower"
        );
        return with(Cmd::cargo().args(["test", "--workspace"]).args(&args.runner_args)).run();
    }
    if args.runner_args.is_empty() {
        // The one thing that nextest cannot run; first, so that its summary comes last.
        Cmd::cargo().args(["test", "--workspace", "--doc", "--quiet"]).run()?;
    }
    with(Cmd::cargo().args(["nextest", "run", "--workspace"]).args(&args.runner_args)).run()
}

fn has_nextest() -> bool {
    Cmd::cargo().args(["nextest", "--version"]).succeeds()
}
