//! `bench idle`: how long a start takes, and what an orchestrator costs that has nothing to do but wait.

mod figures;
mod waiting;

use std::time::Duration;

use api_types::Priority;
use bytes::Bytes;
use rand::SeedableRng as _;
use tokio::time::sleep;

pub(super) use figures::{Figures, Quantity};
use figures::{Measured, Round};
use waiting::{Kind, Waiting};

use super::PATIENCE;
use super::http::address;
use super::meter::{Memory, Meter};
use super::rig::{EngineSpec, Engines, Orchestrator, Role, allow_open_files};
use super::stream::workers;
use super::task::{Rng, Task, task_id};
use crate::args::IdleArgs;
use crate::failure::Failure;

/// Where tasks wait behind one.
const QUEUE: &str = "bench-queue";
/// An engine that sends the first token of every stream and is silent then.
const SILENT: &str = "bench-silent";
/// Less often than this an engine's silence ends a task.
const SLOW_MS: u32 = 20_000;
/// Longer than any measurement.
const SILENCE_MS: u32 = 3_600_000;
const DEADLINE: Duration = Duration::from_secs(3600);
/// Time for everything to settle before memory is looked at.
const SETTLE: Duration = Duration::from_secs(1);
/// How long waiting streams are watched.
const WATCH: Duration = Duration::from_secs(3);
/// Files of a process that are no streams.
const OTHER_FILES: u64 = 512;

/// A minute a round, and as long again for every five thousand streams.
pub(super) fn time_limit(args: &IdleArgs) -> Duration {
    PATIENCE * args.rounds * (1 + args.streams.div_ceil(5000)) + PATIENCE
}

/// Measures round after round.
pub(super) async fn measure(args: &IdleArgs) -> Result<Figures, Failure> {
    // nginx has two sockets a stream.
    allow_open_files(u64::from(args.streams) * if args.nginx { 2 } else { 1 } + OTHER_FILES)?;
    let queue = EngineSpec { queue: args.streams.saturating_add(16), ..EngineSpec::new(QUEUE, 1, SLOW_MS) };
    let mut specs = vec![queue];
    if args.nginx {
        specs.push(EngineSpec { role: Role::Unknown, ..EngineSpec::new(SILENT, args.streams + 1, SILENCE_MS) });
    }
    let engines = Engines::start(&specs).await?;
    let mut rounds = Vec::new();
    for number in 0..args.rounds {
        eprintln!("llama-orch: round {} of {}", number + 1, args.rounds);
        let nginx = match args.nginx {
            true => Some(nginx(args, &engines).await?),
            false => None,
        };
        rounds.push(Round { nginx, orchestratord: orchestratord(args, &engines, number).await? });
    }
    Ok(Figures::new(args, &rounds))
}

async fn orchestratord(args: &IdleArgs, engines: &Engines, number: u32) -> Result<Measured, Failure> {
    let threads = args.threads.map(|threads| format!("threads = {threads}\n")).unwrap_or_default();
    let settings = format!("{threads}[stream]\nattach_timeout_ms = {}\n", DEADLINE.as_millis());
    let orchestrator = engines.orchestrator(&settings).await?;
    let to = address(&orchestrator.url)?;
    let mut rng = Rng::seed_from_u64(number.into());
    let (first_task, taken) = first_task(&orchestrator, &mut rng).await?;
    orchestrator.idle().await?;
    drop(taken);
    let meter = orchestrator.meter();
    sleep(SETTLE).await;
    let idle = meter.memory()?;

    let blocker = task(&mut rng, 1000);
    let blocker_stream = Waiting::open(to, Kind::Task, args.http2, vec![body(&blocker, QUEUE)?]).await?;
    let bodies = (0..args.streams).map(|_| body(&task(&mut rng, 1), QUEUE)).collect::<Result<_, _>>()?;
    let waiting = Waiting::open(to, Kind::Task, args.http2, bodies).await?;
    let (memory, cpu) = watch(&meter).await?;
    orchestrator.client.cancel_task(blocker.id).await?;
    blocker_stream.finish().await?;
    let lost = waiting.finish().await?;
    orchestrator.idle().await?;
    sleep(SETTLE).await;
    let after = meter.memory()?;
    Ok(Measured { start: orchestrator.start, first_task: Some(first_task), idle, waiting: memory, cpu, after, lost })
}

/// Time from the start to the first task that is taken, and its stream.
async fn first_task(orchestrator: &Orchestrator, rng: &mut Rng) -> Result<(Duration, Waiting), Failure> {
    let to = address(&orchestrator.url)?;
    loop {
        let opened = Waiting::open(to, Kind::Task, false, vec![body(&task(rng, 1), QUEUE)?]).await;
        match opened {
            Ok(stream) => return Ok((orchestrator.age(), stream)),
            // The pool is not ready yet.
            Err(failure) if orchestrator.age() > PATIENCE => return Err(failure),
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn nginx(args: &IdleArgs, engines: &Engines) -> Result<Measured, Failure> {
    let nginx = engines.nginx(workers(args.threads), args.streams).await?;
    let to = address(&nginx.url)?;
    let ask = Bytes::from_static(br#"{"prompt":"bench","n_predict":1000,"stream":true,"seed":42}"#);
    let kind = Kind::Completion { path: "/bench-silent/completion" };
    // One stream, as the orchestrator has had one.
    drop(Waiting::open(to, kind, false, vec![ask.clone()]).await?);
    let meter = nginx.meter();
    sleep(SETTLE).await;
    let idle = meter.memory()?;
    let waiting = Waiting::open(to, kind, false, vec![ask; args.streams as usize]).await?;
    let (memory, cpu) = watch(&meter).await?;
    drop(waiting);
    sleep(SETTLE).await;
    let after = meter.memory()?;
    Ok(Measured { start: nginx.start, first_task: None, idle, waiting: memory, cpu, after, lost: 0 })
}

/// Memory and processor time per second of time while nothing happens.
async fn watch(meter: &Meter) -> Result<(Memory, Duration), Failure> {
    sleep(SETTLE).await;
    let before = meter.cpu_time()?;
    sleep(WATCH).await;
    let used = meter.cpu_time()?.saturating_sub(before);
    Ok((meter.memory()?, used.div_f64(WATCH.as_secs_f64())))
}

fn task(rng: &mut Rng, max_tokens: u16) -> Task {
    let id = task_id(rng);
    let at = Duration::ZERO;
    Task { at, id, priority: Priority::Interactive, prompt_tokens: 8, max_tokens, deadline: DEADLINE }
}

fn body(task: &Task, model: &str) -> Result<Bytes, Failure> {
    let json = serde_json::to_vec(&task.request(model));
    json.map(Bytes::from).map_err(|error| Failure::local(format!("cannot write a task as JSON: {error}")))
}
