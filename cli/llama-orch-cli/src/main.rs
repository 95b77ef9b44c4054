//! `llama-orch`: the orchestrator from a terminal or a script.
//!
//! A client only: it knows nothing of queues or engines beyond what the server tells (LO-CLI-01). The exception is what has to
//! work before there is a server: `doctor` and `up` look at this machine through `pool-managerd`. Output goes to stdout
//! and nothing else does; what is said about it goes to stderr. How a command ended is its exit code ([`exit`]).

mod args;
mod commands;
mod connect;
mod exit;
mod failure;
mod interrupts;
mod output;
mod progress;
mod show;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Args, Command};
use crate::exit::Exit;
use crate::failure::Failure;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => Err(Failure::local(format!("cannot start: {error}"))),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report();
            failure.exit.into()
        }
    }
}

async fn run(args: Args) -> Result<Exit, Failure> {
    let Args { connection, json, command } = args;
    let connect = || connect::client(&connection);
    match command {
        Command::Run(run) => commands::run::run(&connect()?, run, json).await,
        Command::Tasks(tasks) => commands::tasks::list(&connect()?, tasks, json).await,
        Command::Task { id } => commands::tasks::show(&connect()?, id, json).await,
        Command::Explain { id } => commands::explain::explain(&connect()?, id, json).await,
        Command::Cancel { id } => commands::tasks::cancel(&connect()?, id).await,
        Command::Pools { command: None } => commands::pools::list(&connect()?, json).await,
        Command::Pools { command: Some(command) } => commands::pools::pools(&connect()?, command, json).await,
        Command::Logs(logs) => commands::logs::logs(&connect()?, &logs).await,
        Command::Engines(engines) => commands::engines::engines(&connect()?, engines, json).await,
        Command::Workers => commands::workers::list(&connect()?, json).await,
        Command::Devices => commands::devices::list(&connect()?, json).await,
        Command::Doctor(config) => commands::doctor::doctor(&connection, &config, json).await,
        Command::Up(up) => commands::up::up(&connection, up, json).await,
        Command::Down(config) => commands::down::down(&connection, &config).await,
        Command::Capabilities => commands::pools::capabilities(&connect()?, json).await,
        Command::Session { id, end } => commands::sessions::session(&connect()?, id, end, json).await,
        Command::Status => commands::status::status(&connect()?, json).await,
        Command::Models(models) => commands::models::models(&connect()?, models, json).await,
        Command::Artifacts(artifacts) => commands::artifacts::artifacts(&connect()?, artifacts, json).await,
        Command::Verify(verify) => commands::verify::verify(&connect()?, &verify, json).await,
        Command::Bench(bench) => commands::bench::bench(&bench, json).await,
        Command::Completions { shell } => commands::completions(shell),
    }
}
