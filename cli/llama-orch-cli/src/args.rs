//! The command line.

mod artifacts;
mod bench;
mod local;
mod models;
mod pools;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use api_types::{API_VERSION, Engine, Priority, SessionId, TaskId, TaskState};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};

pub(crate) use artifacts::{ArtifactsCommand, GetArgs, ListArtifactsArgs, PutArgs};
pub(crate) use bench::{
    AdmitArgs, BenchCommand, Classes, CompareArgs, EngineLink, IdleArgs, PredictArgs, ProxyArgs, SoakArgs, StreamArgs,
};
pub(crate) use local::{ConfigArgs, UpArgs};
pub(crate) use models::{AddArgs, FitArgs, ListModelsArgs, ModelsCommand, lifecycle};
pub(crate) use pools::{EnginesCommand, LogsArgs, PoolsCommand};

use crate::exit;

static VERSION: LazyLock<String> = LazyLock::new(|| format!("{} (API {API_VERSION})", env!("CARGO_PKG_VERSION")));

/// Run tasks on an orchestrator and see how it fares.
#[derive(Debug, Parser)]
#[command(name = "llama-orch", version = VERSION.as_str(), after_help = exit::HELP, propagate_version = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) connection: Connection,

    /// Print JSON instead of text; `run`, `up`, `models pull` and what waits for a pool print one object per event, on a line of
    /// its own.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const CONNECTION: &str = "Connection";

/// Which server, and with which token.
#[derive(clap::Args)]
pub(crate) struct Connection {
    /// The server: `http://host:port`, `https://host`, `unix:/path/of/socket` or `host:port`. For a certificate of one's own
    /// authority, SSL_CERT_FILE names the PEM file to trust instead of the system's.
    #[arg(
        long,
        visible_alias = "addr",
        value_name = "URL",
        env = "LLAMA_ORCH_SERVER",
        default_value = "http://127.0.0.1:8080",
        help_heading = CONNECTION,
        global = true
    )]
    pub(crate) server: String,

    /// The server's token. Other users of this machine can read arguments: prefer AUTH_TOKEN or LLORCH_API_TOKEN.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "AUTH_TOKEN",
        hide_env_values = true,
        help_heading = CONNECTION,
        global = true
    )]
    pub(crate) auth_token: Option<String>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("server", &self.server).finish_non_exhaustive()
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit a task and print its tokens as they come.
    #[command(after_help = exit::HELP)]
    Run(Box<RunArgs>),
    /// List tasks, newest first.
    Tasks(TasksArgs),
    /// Show one task: where it was placed and why, its times and counts.
    Task {
        /// The task's id.
        id: TaskId,
    },
    /// Say why a task went where it went, and what came of the predictions.
    Explain {
        /// The task's id.
        id: TaskId,
    },
    /// Cancel a task.
    Cancel {
        /// The task's id.
        id: TaskId,
    },
    /// List pools with health, slots, queue and memory; or drain, reload, start and stop one.
    #[command(after_help = exit::HELP, args_conflicts_with_subcommands = true)]
    Pools {
        #[command(subcommand)]
        command: Option<PoolsCommand>,
    },
    /// Print what a pool's engine has written.
    Logs(LogsArgs),
    /// Engines that were prepared on the server, and what preparing one takes.
    #[command(subcommand)]
    Engines(EnginesCommand),
    /// List the server's GPUs: load, memory, temperature, and which processes of which pools are on them.
    Devices,
    /// Other hosts that run pools of the server: whether they are there, what they have, what they run.
    Workers,
    /// Check on this machine, without a server, what would keep an engine from starting, and say how to mend it.
    ///
    /// Reads the configuration as orchestratord does, and looks at the driver, the GPUs, folders, ports, models, and at everything
    /// that each pool's engine needs. Nothing is started and nothing is written.
    #[command(after_help = exit::HELP)]
    Doctor(ConfigArgs),
    /// Check this machine, start orchestratord on it if none runs, wait for its pools, and run a first prompt.
    ///
    /// orchestratord runs on in the background, with its log in server.data_dir/orchestratord.log, until `down`. What is there
    /// already is not done again.
    #[command(after_help = exit::HELP)]
    Up(UpArgs),
    /// Stop the orchestratord that `up` has started, and its engines with it.
    Down(ConfigArgs),
    /// List what each pool can do.
    Capabilities,
    /// Show a session's remaining life and budgets.
    Session {
        /// The session's id.
        id: SessionId,
        /// End it instead.
        #[arg(long)]
        end: bool,
    },
    /// Capacity, queues and running tasks in one view.
    Status,
    /// Models: what the catalog knows, fetching them, whether they fit.
    ///
    /// REF is a model's id, or any reference to it: hf:org/repo/file.gguf, a URL, or a path on the server.
    #[command(subcommand, after_help = exit::HELP)]
    Models(ModelsCommand),
    /// Documents that are kept, among them the records that tasks leave.
    #[command(subcommand, after_help = exit::HELP)]
    Artifacts(ArtifactsCommand),
    /// Run a task again on the pool that ran it, and compare the two streams byte by byte.
    #[command(after_help = exit::HELP)]
    Verify(VerifyArgs),
    /// Measure the orchestrator with a simulated engine.
    #[command(subcommand, after_help = bench::HELP)]
    Bench(BenchCommand),
    /// Print a completion script, to be sourced by the shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Options of `tasks`. Filters add up.
#[derive(Debug, clap::Args)]
pub(crate) struct TasksArgs {
    /// Only tasks in one of these states, such as queued,streaming.
    #[arg(long, value_delimiter = ',', value_parser = words(TaskState::ALL, TaskState::as_str))]
    pub(crate) state: Vec<TaskState>,

    /// Only tasks of this class.
    #[arg(long, value_parser = words(Priority::ALL, Priority::as_str))]
    pub(crate) priority: Option<Priority>,

    /// Only tasks placed on this pool.
    #[arg(long, value_name = "ID")]
    pub(crate) pool: Option<String>,

    /// Only tasks of this session.
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<SessionId>,

    /// Only tasks for this model.
    #[arg(long)]
    pub(crate) model: Option<String>,

    /// Only tasks admitted within this time, such as 30m, 2h or 7d; a bare number is seconds.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) since: Option<Duration>,

    /// Only tasks admitted longer ago than this.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) until: Option<Duration>,

    /// Most tasks to list.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The prompt. Without it and without --file it is read from stdin.
    pub(crate) prompt: Option<String>,

    /// Read the prompt from a file; `-` is stdin.
    #[arg(short, long, value_name = "FILE", conflicts_with = "prompt")]
    pub(crate) file: Option<PathBuf>,

    /// Send the prompt as a chat message, for the model's own chat template.
    #[arg(long)]
    pub(crate) chat: bool,

    /// A system message before it.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub(crate) system: Option<String>,

    /// The model; without it the one of the only pool that fits.
    #[arg(long)]
    pub(crate) model: Option<String>,

    /// The kind of engine.
    #[arg(long, value_parser = words(Engine::ALL, Engine::as_str))]
    pub(crate) engine: Option<Engine>,

    /// Use this pool and no other.
    #[arg(long, value_name = "ID")]
    pub(crate) pool: Option<String>,

    /// Most tokens to generate; without it 512, or what the pool allows where that is less.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) max_tokens: Option<i32>,

    /// Context the task needs, prompt and output together, in tokens; without it what the pool allows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) ctx: Option<i32>,

    /// Seed of the sampler; without it one is drawn and shown.
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..4_294_967_295))]
    pub(crate) seed: Option<i64>,

    /// Queue class: waiting interactive tasks start before waiting batch tasks, unless the pool gives the classes weights.
    #[arg(long, default_value = "interactive", value_parser = words(Priority::ALL, Priority::as_str))]
    pub(crate) priority: Priority,

    /// Time from admission to the end, such as 90s, 10m or 1500ms; a bare number is seconds.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub(crate) deadline: Duration,

    /// Continue a session: its warm cache and its budgets.
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<SessionId>,

    /// Byte-identical output for the same seed, on pools that promise it.
    #[arg(long)]
    pub(crate) strict: bool,

    /// How often to wait and ask again when the server says "try later".
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) retries: u32,

    /// Print the output only: no progress, no summary.
    #[arg(short, long)]
    pub(crate) quiet: bool,

    // Last: its heading would hold for what follows it.
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

/// Options of `verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The task's id. Its record must still be kept: `artifacts list --task ID`.
    pub(crate) task: TaskId,

    /// Time for the repetition; without it what the task had, 10m at least.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) deadline: Option<Duration>,

    /// How often to wait and ask again when the server says "try later".
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) retries: u32,
}

/// How the sampler picks tokens; what is not given is the engine's default.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// 0 picks the likeliest token.
    #[arg(long, value_name = "X")]
    pub(crate) temperature: Option<f64>,
    /// Keep the likeliest tokens whose probabilities add up to this.
    #[arg(long, value_name = "X")]
    pub(crate) top_p: Option<f64>,
    /// Keep this many of the likeliest tokens.
    #[arg(long, value_name = "N")]
    pub(crate) top_k: Option<i32>,
    /// Drop tokens less likely than this share of the likeliest one.
    #[arg(long, value_name = "X")]
    pub(crate) min_p: Option<f64>,
    /// Penalty on repeated tokens; 1 is none.
    #[arg(long, value_name = "X")]
    pub(crate) repeat_penalty: Option<f64>,
    /// Text that ends the generation; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
}

/// A parser that knows a closed set's words.
fn words<Word>(all: &'static [Word], word: fn(Word) -> &'static str) -> impl TypedValueParser<Value = Word>
where
    Word: Copy + Send + Sync + 'static,
{
    let names = PossibleValuesParser::new(all.iter().map(|member| word(*member)));
    names.map(move |given| {
        *all.iter().find(|member| word(**member) == given).expect("the parser lets members pass only")
    })
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "a time looks like 90s, 10m, 2h or 1500ms".to_owned())?;
    let millis = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        unit => return Err(format!("`{unit}` is no unit of time; use ms, s, m, h or d")),
    };
    match number.checked_mul(millis) {
        Some(ms @ 1..=9_007_199_254_740_991) => Ok(Duration::from_millis(ms)),
        _ => Err("a time is more than nothing and less than forever".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory as _;

    use super::{Args, parse_duration};

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn times_with_units() {
        let good = [
            ("90", 90_000),
            ("90s", 90_000),
            ("1500ms", 1500),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ];
        for (text, ms) in good {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1s", "0", "5w", "1e3", "99999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
