//! `bench compare`: every figure that has an aim, against nginx in the same rounds.

mod rows;

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use rows::{Row, rows};

use super::{DEBUG_BUILD, Outcome, idle, stream};
use crate::args::{CompareArgs, EngineLink, IdleArgs, StreamArgs};
use crate::exit::Exit;
use crate::failure::Failure;

/// What the measurements behind it may take.
pub(super) fn time_limit(args: &CompareArgs) -> Duration {
    stream::time_limit(&streams(args)) + idle::time_limit(&waiting(args))
}

/// Measures streams, then starts and waiting streams.
pub(super) async fn measure(args: &CompareArgs) -> Result<Figures, Failure> {
    let streams = stream::measure(&streams(args)).await?;
    let waiting = idle::measure(&waiting(args)).await?;
    Ok(Figures { rows: rows(&streams, &waiting), streams, waiting, debug_build: cfg!(debug_assertions) })
}

fn streams(args: &CompareArgs) -> StreamArgs {
    let (tokens, requests, rounds) = if args.quick { (100, 1000, 2) } else { (400, 5000, args.rounds) };
    StreamArgs {
        streams: 64,
        tokens,
        interval_ms: 5,
        requests,
        rounds,
        engine: EngineLink::Both,
        records: "all".to_owned(),
        threads: args.threads,
        nginx: true,
        proxy: None,
        engine_port: None,
    }
}

const fn waiting(args: &CompareArgs) -> IdleArgs {
    let (streams, rounds) = if args.quick { (1000, 2) } else { (5000, args.rounds.div_ceil(2)) };
    IdleArgs { streams, http2: false, rounds, threads: args.threads, nginx: true }
}

/// The comparison, and what it comes from.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    rows: Vec<Row>,
    streams: stream::Figures,
    waiting: idle::Figures,
    /// Whether this is a debug build, whose figures mean little.
    debug_build: bool,
}

impl Outcome for Figures {
    /// Missed aims are for people to judge; a lost stream is not.
    fn exit(&self) -> Exit {
        self.waiting.exit()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.debug_build {
            writeln!(f, "{DEBUG_BUILD}")?;
        }
        writeln!(f, "medians over the rounds, with the least and the greatest; ratios within each round\n")?;
        writeln!(f, "{:<46}{:>22}{:>22}{:>20}  aim", "", "nginx", "orchestratord", "ratio")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}
