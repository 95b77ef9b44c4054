//! Developer chores behind one door: `cargo xtask <command>`.

mod bench;
mod build;
mod ci;
mod cmd;
mod engine;
mod interrupt;
mod loopback;
mod process;
mod progress;
mod quickstart;
mod regen;
mod repo;
mod servers;
mod simulate;
mod specs;
mod test;
mod venv;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer chores of llama-orch")]
struct Xtask {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build, start a real engine and the daemon, stream one prompt's answer, take everything down.
    Quickstart(quickstart::Args),
    /// Run the whole test suite, with a real engine attached and real servers at hand.
    Test(test::Args),
    /// Everything a merge needs: format, lints, specs, quickstart, tests.
    Ci,
    /// A real engine for development, attached to the daemon as an external one.
    #[command(subcommand)]
    Engine(engine::Command),
    /// Write the OpenAPI documents from the API types.
    RegenOpenapi,
    /// Write the configuration file's JSON Schema from its types.
    RegenSchema,
    /// Write all generated files.
    Regen,
    /// Check `.specs` against the code and list which test proves what.
    Specs(specs::Args),
    /// Write one YAML index of requirements per spec document under `target/specs`.
    SpecExtract,
    /// Play the scheduler through virtual time: what a change of policy does to waits, throughput and fairness.
    Simulate(simulate::Args),
    /// Compare the orchestrator with nginx, figure by figure (`llama-orch bench compare` with release builds).
    Compare(bench::Args),
    /// Load it for a long time and see whether it stays as it is (`llama-orch bench soak` with release builds).
    Soak(bench::Args),
    /// Format, lint, generate, test and check specs: the loop before a commit.
    #[command(name = "dev:loop", alias = "dev-loop")]
    DevLoop,
}

fn main() -> ExitCode {
    match interrupt::install().map_err(anyhow::Error::from).and_then(|()| run(Xtask::parse().command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Quickstart(args) => quickstart::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Ci => ci::run(),
        Command::Engine(command) => engine::run(command),
        Command::RegenOpenapi => regen::openapi(),
        Command::RegenSchema => regen::schema(),
        Command::Regen => regen::all(),
        Command::Specs(args) => specs::run(&args),
        Command::SpecExtract => specs::extract(),
        Command::Simulate(args) => simulate::run(&args),
        Command::Compare(args) => bench::run("compare", &args),
        Command::Soak(args) => bench::run("soak", &args),
        Command::DevLoop => ci::dev_loop(),
    }
}
