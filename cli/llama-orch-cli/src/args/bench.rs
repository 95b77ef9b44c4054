//! The command line of `bench`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde::Serialize;

pub(super) const HELP: &str = "\
It starts mock-engine and orchestratord, which lie beside llama-orch or in PATH, on free ports of this machine and \
stops them again; a running server is neither needed nor touched. Use release builds on a quiet machine.";

const STREAM_HELP: &str = "\
Each round measures, on each way in turn: one request after the other on an idle machine, paced streams, streams as \
fast as the engine goes, and one-token requests. The ways are the direct one, the orchestrator, with --nginx an nginx \
that passes requests through, and with --proxy one that you run yourself; below /bench-paced/ and /bench-flat-out/ it \
must pass them to the two ports from --engine-port on. Processor time is user and system time of the processes on the \
way, as the kernel accounts for it; `first token` counts from sending the request, and what is `added` is the \
difference to the direct way in the same round. Through the orchestrator a request is POST /v1/tasks with \
`Accept: text/event-stream`, so that admission, placement and stream are one round trip.";

const IDLE_HELP: &str = "\
Each round starts an orchestrator, measures, and stops it. `First answer` is from the start of the process to 200 from \
GET /healthz, `first task` to the end of the response head of the first task that is taken. Idle memory is what is \
resident a second later. Then one task occupies the only slot, and the streams wait behind it, each an interactive task \
with an open event stream; memory per stream is the growth of resident memory (RSS) by then, divided by the streams. The \
kernel's memory for sockets is not in it. Then the task before them is canceled, and every stream must give `started`, \
its token and `end`. With --nginx the same number of streams is open through nginx to an engine that has sent each its \
first token and is silent since; of its processes the proportional share (PSS) is counted.";

const COMPARE_HELP: &str = "\
Runs `bench stream` with the engine over TCP and on a Unix socket, and `bench idle`, all against nginx in the same \
rounds, and sets the medians against the aims. nginx (`apt-get install nginx-light`) gets as many workers as the \
orchestrator has threads. A figure counts as met when its median is.";

const SOAK_HELP: &str = "\
The load: interactive and batch tasks over HTTP/1.1 and HTTP/2, whose streams are followed, read slowly, read twice, \
dropped, resumed or canceled; bad requests; three engines of two pools, with faults switched on and off, one of them \
killed and started again now and then. The verdict: the last quarter's median of resident memory is at most 5 % above the \
second quarter's, open files as well; every accepted task ended once; nothing is left at the end. The first quarter \
is for arriving at a steady state: records and streams are kept for seconds only.";

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
    /// What the orchestrator adds to streams: a simulated engine, called directly, through it and through other proxies.
    #[command(after_help = STREAM_HELP)]
    Stream(StreamArgs),
    /// How long a start takes, and what idle and waiting streams cost.
    #[command(after_help = IDLE_HELP)]
    Idle(IdleArgs),
    /// Everything that has an aim, against nginx.
    #[command(after_help = COMPARE_HELP)]
    Compare(CompareArgs),
    /// Mixed load with faults for a long time: whether memory stays flat and every task ends.
    #[command(after_help = SOAK_HELP)]
    Soak(SoakArgs),
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

    /// How the engine is reached.
    #[arg(long, value_enum, default_value_t = EngineLink::Tcp)]
    pub(crate) engine: EngineLink,

    /// Threads of the orchestrator and workers of nginx; without it one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,

    /// Which tasks leave a record of prompt and output, as `artifacts.tasks` of the configuration: `off` shows what the
    /// records cost.
    #[arg(long, value_name = "WHICH", default_value = "all", value_parser = ["all", "failed", "off"])]
    pub(crate) records: String,

    /// Measure nginx too, which must be installed (`apt-get install nginx-light`) and need not be running.
    #[arg(long)]
    pub(crate) nginx: bool,

    #[command(flatten)]
    pub(crate) proxy: Option<ProxyArgs>,

    /// Port of the engine that keeps a pace; the other one gets the next. Without it free ones are taken.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..65535))]
    pub(crate) engine_port: Option<u16>,
}

/// A proxy that runs already.
#[derive(Clone, Debug, clap::Args)]
#[group(requires_all = ["proxy", "proxy_pid", "engine_port"])]
pub(crate) struct ProxyArgs {
    /// Measure this proxy too, such as http://127.0.0.1:8000; it passes requests through to the engines.
    #[arg(long, value_name = "URL", required = false)]
    pub(crate) proxy: String,

    /// Its process; the children it has are counted too.
    #[arg(long, value_name = "PID", required = false)]
    pub(crate) proxy_pid: u32,
}

/// How an engine is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EngineLink {
    /// Over TCP.
    Tcp,
    /// On a Unix socket.
    Unix,
    /// Both, in the same rounds.
    Both,
}

/// Options of `bench idle`.
#[derive(Debug, clap::Args)]
pub(crate) struct IdleArgs {
    /// Streams that wait at the same time; each is one open socket here and one there.
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub(crate) streams: u32,

    /// Many streams on each connection.
    #[arg(long)]
    pub(crate) http2: bool,

    /// Rounds; the figures are medians over them.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,

    /// Threads of the orchestrator and workers of nginx; without it one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,

    /// Measure nginx too, which must be installed (`apt-get install nginx-light`) and need not be running.
    #[arg(long)]
    pub(crate) nginx: bool,
}

/// Options of `bench compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// Rounds of streams; starts and waiting streams are measured in half as many.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,

    /// Two rounds with less of everything: a look, not a measurement.
    #[arg(long, conflicts_with = "rounds")]
    pub(crate) quick: bool,

    /// Threads of the orchestrator and workers of nginx; without it one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
}

/// Options of `bench soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct SoakArgs {
    /// How long, in minutes.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_080))]
    pub(crate) minutes: u32,

    /// Processor time that everything together may take, in percent of one core. The rate of the load that takes so much
    /// is found in the first seconds and kept.
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=400))]
    pub(crate) load: u32,

    /// Seed of the load.
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,
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
