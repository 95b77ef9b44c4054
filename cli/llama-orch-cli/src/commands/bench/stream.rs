//! `bench stream`: what the orchestrator adds to an engine's streams.
//!
//! A simulated engine decodes at a fixed pace, or as fast as it can. One load generator calls it directly and through the
//! orchestrator, in turn, so that the machine's moods fall on both alike.

mod figures;
mod load;

use std::time::Duration;

use figures::{Figures, Round, Settings};
use load::{Dialect, Load, Outcome, Target};

use super::PATIENCE;
use super::rig::{EngineSpec, Rig};
use crate::args::StreamArgs;
use crate::failure::Failure;

/// Requests of the idle measurement in each round, one after the other.
const IDLE_REQUESTS: u32 = 200;
const PACED: &str = "bench-paced";
const FLAT_OUT: &str = "bench-flat-out";

/// Ten times what the paced streams take by themselves, and a minute a round for the rest.
pub(super) fn time_limit(args: &StreamArgs) -> Duration {
    let paced = Duration::from_millis(u64::from(args.tokens) * u64::from(args.interval_ms)) * 2;
    (paced * 10 + PATIENCE) * args.rounds + PATIENCE
}

/// Measures round after round.
pub(super) async fn measure(args: &StreamArgs) -> Result<Figures, Failure> {
    let test = Test::start(args).await?;
    let idle_kib = test.rig.resident_kib()?;
    // Connections, caches and the allocator settle; not counted.
    round(&test, args, false).await?;
    let mut rounds = Vec::new();
    for number in 0..args.rounds {
        eprintln!("llama-orch: round {} of {}", number + 1, args.rounds);
        rounds.push(round(&test, args, number % 2 == 1).await?);
    }
    let settings = Settings::new(args);
    Ok(Figures::new(settings, &rounds, idle_kib, test.rig.resident_kib()?))
}

/// Two engines, one that keeps a pace and one that does not, and how to call them.
struct Test {
    paced: Ways,
    flat_out: Ways,
    rig: Rig,
}

impl Test {
    async fn start(args: &StreamArgs) -> Result<Self, Failure> {
        let spec = |name, interval_ms| EngineSpec {
            unix: args.unix,
            queue: args.streams.max(64),
            ..EngineSpec::new(name, args.streams, interval_ms)
        };
        let rig = Rig::start(&[spec(PACED, args.interval_ms), spec(FLAT_OUT, 0)], "").await?;
        let ways = |model| -> Result<Ways, Failure> {
            Ok(Ways {
                direct: Target::new(rig.engine_url(model), Dialect::Engine, args.streams)?,
                through: Target::new(&rig.url, Dialect::Orchestrator { model }, args.streams)?,
            })
        };
        Ok(Self { paced: ways(PACED)?, flat_out: ways(FLAT_OUT)?, rig })
    }
}

async fn round(test: &Test, args: &StreamArgs, through_first: bool) -> Result<Round, Failure> {
    let Test { paced, flat_out, rig } = test;
    let one_by_one = Load { streams: 1, requests: IDLE_REQUESTS, tokens: 1 };
    let streams = |tokens| Load { streams: args.streams, requests: args.streams, tokens };
    let requests = Load { streams: args.streams, requests: args.requests, tokens: 1 };
    Ok(Round {
        idle: both(rig, flat_out, one_by_one, through_first).await?,
        paced: both(rig, paced, streams(args.tokens), through_first).await?,
        flat_out: both(rig, flat_out, streams(args.tokens), through_first).await?,
        tasks: both(rig, flat_out, requests, through_first).await?,
    })
}

/// One load on both ways.
#[derive(Debug)]
struct Pair {
    direct: Outcome,
    through: Outcome,
    /// Processor time that the orchestrator used for `through`.
    cpu: Duration,
}

/// The two ways to one engine.
#[derive(Debug)]
struct Ways {
    direct: Target,
    through: Target,
}

async fn both(rig: &Rig, ways: &Ways, load: Load, through_first: bool) -> Result<Pair, Failure> {
    if through_first {
        let (through, cpu) = through(rig, ways, load).await?;
        return Ok(Pair { direct: ways.direct.drive(load).await?, through, cpu });
    }
    let direct = ways.direct.drive(load).await?;
    let (through, cpu) = through(rig, ways, load).await?;
    Ok(Pair { direct, through, cpu })
}

async fn through(rig: &Rig, ways: &Ways, load: Load) -> Result<(Outcome, Duration), Failure> {
    let before = rig.cpu_time()?;
    let outcome = ways.through.drive(load).await?;
    Ok((outcome, rig.cpu_time()?.saturating_sub(before)))
}
