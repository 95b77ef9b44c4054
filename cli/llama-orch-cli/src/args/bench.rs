//! The command line of `bench`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde::Serialize;

pub(super) const HELP: &str = "\
It starts mock-engine and orchestratord, which lie beside llama-orch or in PATH, on free ports of this machine and \
stops them again; a running server is neither needed nor touched. Use release builds on a quiet machine.";

const STREAM_HELP: &str = "\
Each round measures, directly and through the orchestrator in turn: one request after the other on an idle machine, \
paced streams, streams as fast as the engine goes, and one-token requests.";

const ADMIT_HELP: &str = "\
The load is open: a task is sent at its time whatever came of those before it, one every 1/RATE seconds, after a \
second of the same that is not counted. `scheduled` latency counts from that time, so that nothing hides behind a slow \
answer; `service` latency counts from the moment a connection was free and the task was sent. Interactive tasks are \
kept in memory; batch tasks are in state.db before the answer. The engine answers each task at once with one token, \
and the processor time is that of whole tasks.";

const PREDICT_HELP: &str = "\
Tasks arrive at random times (Poisson) at one pool, with prompts of 16 to 512 tokens and limits of 16 to 256 tokens, \
both drawn evenly on a logarithmic scale. The engine reads ten prompt tokens in the time of one output token and ends \
each output somewhere below its limit. Half of the tasks have a generous deadline, the others one from hopeless to \
comfortable, so that some are refused with DEADLINE_UNMET and some expire; arrivals make up for what those leave \
unused. With the default options a task runs for about 0.1 s and the whole takes about 5 minutes.\n\n\
The first table holds predicted_start_ms against the time in the queue of all tasks that were started; a relative \
error is (predicted - waited) / waited, bias its median. The second table groups tasks by the on_time_probability they \
were told and says how many really ended in time.";

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// What the orchestrator adds to streams: a simulated engine, called directly and through it.
    #[command(after_help = STREAM_HELP)]
    Stream(StreamArgs),
    /// How long admissions take at a given rate.
    #[command(after_help = ADMIT_HELP)]
    Admit(AdmitArgs),
    /// How good the predictions of starts and of ends in time are at steady load.
    #[command(after_help = PREDICT_HELP)]
    Predict(PredictArgs),
}

/// Options of `bench stream`.
#[derive(Debug, clap::Args)]
pub(crate) struct StreamArgs {
    /// Streams at the same time.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) streams: u32,

    /// Tokens of each stream.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=8000))]
    pub(crate) tokens: u32,

    /// Time from one token of a stream to its next, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) interval_ms: u32,

    /// One-token requests of each round.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) requests: u32,

    /// Rounds; the figures are medians over them.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,

    /// Reach the engine over a Unix socket, directly and from the orchestrator.
    #[arg(long)]
    pub(crate) unix: bool,
}

/// Options of `bench admit`.
#[derive(Debug, clap::Args)]
pub(crate) struct AdmitArgs {
    /// Tasks per second.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) rate: u32,

    /// How long, in seconds.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(crate) seconds: u32,

    /// Classes of the tasks.
    #[arg(long, value_enum, default_value_t = Classes::Both)]
    pub(crate) priority: Classes,

    /// Let no task run: all wait behind one, so that nothing but admissions is at work on the machine.
    #[arg(long)]
    pub(crate) waiting: bool,

    /// Connections, kept open; each carries one task at a time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) connections: u32,

    /// Seed of the load; equal seeds give equal loads.
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,
}

/// Options of `bench predict`.
#[derive(Debug, clap::Args)]
pub(crate) struct PredictArgs {
    /// Tasks that are counted.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) tasks: u32,

    /// Tasks before them, from which the estimates learn.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=20_000))]
    pub(crate) warm_up: u32,

    /// Slots of the pool.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) slots: u32,

    /// Share of the slots' time that the tasks need, 0.01 to 2; above 1 the queue grows and grows.
    #[arg(long, value_name = "X", default_value_t = 0.8, value_parser = parse_utilisation)]
    pub(crate) utilisation: f64,

    /// Classes of the tasks.
    #[arg(long, value_enum, default_value_t = Classes::Batch)]
    pub(crate) priority: Classes,

    /// Shortest output, in percent of its task's limit; lengths are drawn evenly from there up to the limit.
    #[arg(long, value_name = "PERCENT", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) shortest: u32,

    /// Time from one output token to the next, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) interval_ms: u32,

    /// Write what was predicted for each task and what came of it to a file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub(crate) records: Option<PathBuf>,

    /// Seed of the load; equal seeds give equal loads.
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,
}

/// Classes of a load's tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Classes {
    /// Interactive tasks only.
    Interactive,
    /// Batch tasks only.
    Batch,
    /// As many of each.
    Both,
}

fn parse_utilisation(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.01..=2.0).contains(&share) => Ok(share),
        _ => Err("a utilisation is a number from 0.01 to 2, such as 0.8".to_owned()),
    }
}
