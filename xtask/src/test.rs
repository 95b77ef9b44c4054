//! The one test command: every suite of the workspace, those that need a real engine included.

use crate::cmd::Cmd;
use crate::engine;

/// Names the real engine's URL for the suites that use it; without it they say that they skip.
pub(crate) const REAL_ENGINE: &str = "LLAMA_ORCH_REAL_ENGINE";

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Do not install or start the real engine; the suites that need it say that they skip.
    #[arg(long)]
    no_engine: bool,
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
    let url = engine.as_ref().map(|lease| lease.record.url.as_str());
    if !has_nextest() {
        eprintln!(
            "cargo-nextest is not installed (`cargo install --locked cargo-nextest`); using cargo test, which is slower"
        );
        return with_engine(Cmd::cargo().args(["test", "--workspace"]).args(&args.runner_args), url).run();
    }
    if args.runner_args.is_empty() {
        // The one thing that nextest cannot run; first, so that its summary comes last.
        Cmd::cargo().args(["test", "--workspace", "--doc", "--quiet"]).run()?;
    }
    with_engine(Cmd::cargo().args(["nextest", "run", "--workspace"]).args(&args.runner_args), url).run()
}

fn with_engine(command: Cmd, url: Option<&str>) -> Cmd {
    match url {
        Some(url) => command.env(REAL_ENGINE, url),
        None => command,
    }
}

fn has_nextest() -> bool {
    Cmd::cargo().args(["nextest", "--version"]).succeeds()
}
