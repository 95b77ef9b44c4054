//! `bench`: the orchestrator under measurement, end to end, with a simulated engine.
//!
//! All measurements share the processes ([`rig`]), their accounts ([`meter`]) and the arithmetic ([`statistics`],
//! [`series`]); the two that submit tasks at times of their own also share the load generator ([`open_loop`]).

mod admit;
mod compare;
mod http;
mod idle;
mod meter;
mod open_loop;
mod predict;
mod rig;
mod series;
mod soak;
mod statistics;
mod stream;
mod task;

use std::fmt::Display;
use std::time::Duration;

use serde::Serialize;

use crate::args::BenchCommand;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupts::Interrupts;
use crate::output;

/// Time for everything that does not depend on the options.
const PATIENCE: Duration = Duration::from_secs(60);
/// The line above figures that mean little.
const DEBUG_BUILD: &str = "This is a debug build: the figures say nothing about a release.\n";

/// Measures and prints.
pub(crate) async fn bench(command: &BenchCommand, json: bool) -> Result<Exit, Failure> {
    match command {
        BenchCommand::Stream(args) => print(stream::time_limit(args), stream::measure(args), json).await,
        BenchCommand::Idle(args) => print(idle::time_limit(args), idle::measure(args), json).await,
        BenchCommand::Compare(args) => print(compare::time_limit(args), compare::measure(args), json).await,
        BenchCommand::Soak(args) => print(soak::time_limit(args), soak::measure(args), json).await,
        BenchCommand::Admit(args) => print(admit::time_limit(args), admit::measure(args), json).await,
        BenchCommand::Predict(args) => print(predict::time_limit(args), predict::measure(args), json).await,
    }
}

/// What a measurement comes to.
trait Outcome: Serialize + Display {
    /// The exit code; a measurement that also judges has another one for what it condemns.
    fn exit(&self) -> Exit {
        Exit::Ok
    }
}

async fn print<Figures: Outcome>(
    limit: Duration,
    measuring: impl Future<Output = Result<Figures, Failure>>,
    json: bool,
) -> Result<Exit, Failure> {
    let mut interrupts = Interrupts::listen()?;
    let figures = tokio::select! {
        figures = tokio::time::timeout(limit, measuring) => figures,
        () = interrupts.next() => return Ok(Exit::Canceled),
    };
    let figures =
        figures.map_err(|_| Failure::local("the benchmark took far longer than it should; see what is stuck"))??;
    if json {
        output::json(&figures)?;
    } else {
        output::write(&figures.to_string())?;
    }
    Ok(figures.exit())
}
