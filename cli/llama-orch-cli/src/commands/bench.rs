//! `bench`: what the orchestrator adds to an engine, end to end.
//!
//! A simulated engine decodes at a fixed pace, or as fast as it can. One load generator calls it directly and through the
//! orchestrator, in turn, so that the machine's moods fall on both alike.

mod figures;
mod load;
mod rig;

use std::time::Duration;

use figures::{Figures, Round, Settings};
use load::{Load, Outcome, Target};
use rig::Rig;

use crate::args::BenchArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupts::Interrupts;
use crate::output;

/// Requests of the idle measurement in each round, one after the other.
const IDLE_REQUESTS: u32 = 200;
/// Time for everything that does not depend on the options.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures and prints.
pub(crate) async fn bench(args: &BenchArgs, json: bool) -> Result<Exit, Failure> {
    let mut interrupts = Interrupts::listen()?;
    let figures = tokio::select! {
        figures = tokio::time::timeout(time_limit(args), measure(args)) => figures,
        () = interrupts.next() => return Ok(Exit::Canceled),
    };
    let figures =
        figures.map_err(|_| Failure::local("the benchmark took far longer than it should; see what is stuck"))??;
    if json {
        output::json(&figures)?;
    } else {
        output::write(&figures.to_string())?;
    }
    Ok(Exit::Ok)
}

/// Ten times what the paced streams take by themselves, and a minute a round for the rest.
fn time_limit(args: &BenchArgs) -> Duration {
    let paced = Duration::from_millis(u64::from(args.tokens) * u64::from(args.interval_ms)) * 2;
    (paced * 10 + PATIENCE) * args.rounds + PATIENCE
}

async fn measure(args: &BenchArgs) -> Result<Figures, Failure> {
    let rig = Rig::start(args).await?;
    let idle_kib = rig.resident_kib()?;
    // Connections, caches and the allocator settle; not counted.
    round(&rig, args, false).await?;
    let mut rounds = Vec::new();
    for number in 0..args.rounds {
        eprintln!("llama-orch: round {} of {}", number + 1, args.rounds);
        rounds.push(round(&rig, args, number % 2 == 1).await?);
    }
    let settings = Settings::new(args);
    Ok(Figures::new(settings, &rounds, idle_kib, rig.resident_kib()?))
}

async fn round(rig: &Rig, args: &BenchArgs, through_first: bool) -> Result<Round, Failure> {
    let one_by_one = Load { streams: 1, requests: IDLE_REQUESTS, tokens: 1 };
    let streams = |tokens| Load { streams: args.streams, requests: args.streams, tokens };
    let requests = Load { streams: args.streams, requests: args.requests, tokens: 1 };
    Ok(Round {
        idle: both(rig, &rig.flat_out, one_by_one, through_first).await?,
        paced: both(rig, &rig.paced, streams(args.tokens), through_first).await?,
        flat_out: both(rig, &rig.flat_out, streams(args.tokens), through_first).await?,
        tasks: both(rig, &rig.flat_out, requests, through_first).await?,
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
