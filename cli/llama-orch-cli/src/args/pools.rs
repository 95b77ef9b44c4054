//! The command line of `pools`, `logs`, `engines` and `devices`.

use std::time::Duration;

use api_types::{EngineId, PoolId};
use clap::Subcommand;

use super::parse_duration;

/// What to do with pools; without a command they are listed.
#[derive(Debug, Subcommand)]
pub(crate) enum PoolsCommand {
    /// Show one pool: what its engine does, what went wrong last and what to do about it.
    Show {
        /// The pool.
        #[arg(value_parser = parse_pool)]
        pool: PoolId,
    },
    /// Let a pool's running tasks end and give it no new ones; its engine stays up. `start` opens it again.
    Drain(DrainArgs),
    /// Serve another model, without breaking a stream. If that does not work, the old one serves on.
    Reload(ReloadArgs),
    /// Start a pool that is stopped, drained or resting after failures.
    Start(StartArgs),
    /// Let a pool's running tasks end, then stop its engine, which frees its GPU. Nothing starts it but `start`.
    Stop(StopArgs),
    /// Free a pool's memory as soon as nothing runs on it. A task that asks for it has it loaded again.
    Unload(StartArgs),
}

/// Options of `pools drain`.
#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    /// The pool.
    #[arg(value_parser = parse_pool)]
    pub(crate) pool: PoolId,

    /// Time that running tasks have, such as 90s or 10m; 0 ends them now. What is left then ends with an error.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_deadline)]
    pub(crate) deadline: Duration,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Options of `pools reload`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReloadArgs {
    /// The pool.
    #[arg(value_parser = parse_pool)]
    pub(crate) pool: PoolId,

    /// The model to serve instead, such as hf:org/repo/file.gguf or file:/path/model.gguf on the server.
    pub(crate) model: String,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Options of `pools start`.
#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// The pool.
    #[arg(value_parser = parse_pool)]
    pub(crate) pool: PoolId,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Options of `pools stop`.
#[derive(Debug, clap::Args)]
pub(crate) struct StopArgs {
    /// The pool.
    #[arg(value_parser = parse_pool)]
    pub(crate) pool: PoolId,

    /// Time that running tasks have, such as 90s or 10m; 0 ends them now. Without it what the pool's configuration says.
    #[arg(long, value_name = "TIME", value_parser = parse_deadline)]
    pub(crate) deadline: Option<Duration>,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Whether the outcome is waited for.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct WaitArgs {
    /// Return as soon as the server has accepted it; do not wait for the outcome.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// Options of `logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// The pool.
    #[arg(value_parser = parse_pool)]
    pub(crate) pool: PoolId,

    /// Go on with what the engine writes from now on, until Ctrl-C.
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Last lines to begin with.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 200)]
    pub(crate) lines: u32,
}

/// What to do with engines.
#[derive(Debug, Subcommand)]
pub(crate) enum EnginesCommand {
    /// List the engines that were built, pulled or downloaded, and who uses them.
    List,
    /// Say what preparing a pool's engine takes; nothing of it is done.
    Plan {
        /// The pool.
        #[arg(value_parser = parse_pool)]
        pool: PoolId,
    },
    /// Remove an engine and its files. One that a pool uses is kept.
    Rm {
        /// The engine, as `engines list` names it.
        #[arg(value_parser = parse_engine)]
        id: EngineId,
    },
}

fn parse_pool(text: &str) -> Result<PoolId, String> {
    match text.trim() {
        "" => Err("a pool has a name; `llama-orch pools` lists them".to_owned()),
        name => Ok(PoolId::from(name)),
    }
}

fn parse_engine(text: &str) -> Result<EngineId, String> {
    match text.trim() {
        "" => Err("an engine has an id; `llama-orch engines list` shows them".to_owned()),
        id => Ok(EngineId::from(id)),
    }
}

/// A time, or none at all.
fn parse_deadline(text: &str) -> Result<Duration, String> {
    match text {
        "0" | "0s" => Ok(Duration::ZERO),
        text => parse_duration(text),
    }
}
