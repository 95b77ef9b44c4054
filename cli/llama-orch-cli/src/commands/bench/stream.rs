//! `bench stream`: what stands between a client and an engine's streams adds to them.
//!
//! A simulated engine decodes at a fixed pace, or as fast as it can. One load generator calls it directly, through the
//! orchestrator and through other proxies, in turn, so that the machine's moods fall on all alike.

mod figures;
mod load;

use std::time::Duration;

use serde::Serialize;

use load::{Dialect, Load, Outcome, Target};

use super::PATIENCE;
use super::meter::Meter;
use super::rig::{EngineSpec, Engines, Listen, Nginx, Rig};
use crate::args::{EngineLink, ProxyArgs, StreamArgs};
use crate::failure::Failure;
pub(super) use figures::{Figures, Quantity};

/// Requests of the idle measurement in each round, one after the other.
const IDLE_REQUESTS: u32 = 200;

/// Ten times what the paced streams take by themselves, and a minute a round for the rest.
pub(super) fn time_limit(args: &StreamArgs) -> Duration {
    let paced = Duration::from_millis(u64::from(args.tokens) * u64::from(args.interval_ms)) * 8;
    (paced * 10 + PATIENCE) * args.rounds + PATIENCE
}

/// Measures round after round.
pub(super) async fn measure(args: &StreamArgs) -> Result<Figures, Failure> {
    let test = Test::start(args).await?;
    let meter = test.rig.orchestrator.meter();
    let idle = meter.memory()?;
    // Connections, caches and the allocator settle; not counted.
    round(&test.ways, args, 0).await?;
    let mut rounds = Vec::new();
    for number in 0..args.rounds {
        eprintln!("llama-orch: round {} of {}", number + 1, args.rounds);
        rounds.push(round(&test.ways, args, number as usize).await?);
    }
    let ways: Vec<(Via, Link)> = test.ways.iter().map(|way| (way.via, way.link)).collect();
    Ok(Figures::new(args, &ways, &rounds, idle.rss_kib, meter.memory()?.rss_kib))
}

/// What a request passes on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Via {
    /// Nothing.
    Direct,
    /// An nginx that was started for this.
    Nginx,
    /// The proxy that the command line names.
    Proxy,
    /// The orchestrator.
    Orchestratord,
}

/// How the engine is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Link {
    /// Over TCP on the loopback interface.
    Tcp,
    /// Over a Unix socket.
    Unix,
}

impl Link {
    const fn paced(self) -> &'static str {
        match self {
            Self::Tcp => "bench-paced",
            Self::Unix => "bench-paced-unix",
        }
    }

    const fn flat_out(self) -> &'static str {
        match self {
            Self::Tcp => "bench-flat-out",
            Self::Unix => "bench-flat-out-unix",
        }
    }
}

impl EngineLink {
    const fn links(self) -> &'static [Link] {
        match self {
            Self::Tcp => &[Link::Tcp],
            Self::Unix => &[Link::Unix],
            Self::Both => &[Link::Tcp, Link::Unix],
        }
    }
}

/// All ways to the engines, of which there are two a link: one that keeps a pace and one that does not.
struct Test {
    ways: Vec<Way>,
    rig: Rig,
    _nginx: Option<Nginx>,
}

impl Test {
    async fn start(args: &StreamArgs) -> Result<Self, Failure> {
        let links = args.engine.links();
        let specs: Vec<EngineSpec> = links.iter().flat_map(|link| specs(args, *link)).collect();
        let threads = args.threads.map(|threads| format!("threads = {threads}\n")).unwrap_or_default();
        let settings = format!("{threads}[artifacts]\ntasks = \"{}\"\n", args.records);
        let rig = Rig::start(&specs, &settings).await?;
        let nginx = match args.nginx {
            true => Some(rig.engines.nginx(workers(args.threads), args.streams).await?),
            false => None,
        };
        let mut ways = Vec::new();
        for &link in links {
            ways.push(direct(&rig.engines, link, args.streams)?);
            if let Some(nginx) = &nginx {
                ways.push(pass_through(Via::Nginx, &nginx.url, link, args.streams, nginx.meter())?);
            }
            if let (Link::Tcp, Some(ProxyArgs { proxy, proxy_pid })) = (link, &args.proxy) {
                ways.push(pass_through(Via::Proxy, proxy, link, args.streams, Meter::of(*proxy_pid))?);
            }
            ways.push(through_orchestrator(&rig, link, args.streams)?);
        }
        Ok(Self { ways, rig, _nginx: nginx })
    }
}

/// As many as the orchestrator has threads.
pub(super) fn workers(threads: Option<u16>) -> usize {
    threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
}

fn specs(args: &StreamArgs, link: Link) -> [EngineSpec; 2] {
    let port = args.engine_port.unwrap_or(0);
    let listen = |port| if link == Link::Unix { Listen::Unix } else { Listen::Port(port) };
    let spec = |name, interval_ms, port| EngineSpec {
        listen: listen(port),
        queue: args.streams.max(64),
        ..EngineSpec::new(name, args.streams, interval_ms)
    };
    let next = if port == 0 { 0 } else { port.saturating_add(1) };
    [spec(link.paced(), args.interval_ms, port), spec(link.flat_out(), 0, next)]
}

/// One way to the two engines of a link.
struct Way {
    via: Via,
    link: Link,
    paced: Target,
    flat_out: Target,
    /// The account of what is on the way.
    meter: Option<Meter>,
}

fn direct(engines: &Engines, link: Link, streams: u32) -> Result<Way, Failure> {
    let target = |name| Target::new(engines.url(name), Dialect::Engine, streams);
    let (paced, flat_out) = (target(link.paced())?, target(link.flat_out())?);
    Ok(Way { via: Via::Direct, link, paced, flat_out, meter: None })
}

fn pass_through(via: Via, url: &str, link: Link, streams: u32, meter: Meter) -> Result<Way, Failure> {
    let target = |name| Target::new(&format!("{}/{name}", url.trim_end_matches('/')), Dialect::Engine, streams);
    let (paced, flat_out) = (target(link.paced())?, target(link.flat_out())?);
    Ok(Way { via, link, paced, flat_out, meter: Some(meter) })
}

fn through_orchestrator(rig: &Rig, link: Link, streams: u32) -> Result<Way, Failure> {
    let target = |model| Target::new(&rig.orchestrator.url, Dialect::Orchestrator { model }, streams);
    let (paced, flat_out) = (target(link.paced())?, target(link.flat_out())?);
    Ok(Way { via: Via::Orchestratord, link, paced, flat_out, meter: Some(rig.orchestrator.meter()) })
}

/// What one way took in one round.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    idle: Cost,
    paced: Cost,
    flat_out: Cost,
    tasks: Cost,
}

/// What came of a load, and the processor time that what is on the way used for it.
#[derive(Clone, Debug)]
struct Cost {
    outcome: Outcome,
    cpu: Option<Duration>,
}

/// Each load on all ways, before the next load; the way that is first changes from round to round.
async fn round(ways: &[Way], args: &StreamArgs, number: usize) -> Result<Vec<Measured>, Failure> {
    let streams = |tokens| Load { streams: args.streams, requests: args.streams, tokens };
    let one_by_one = Load { streams: 1, requests: IDLE_REQUESTS, tokens: 1 };
    let requests = Load { streams: args.streams, requests: args.requests, tokens: 1 };
    let idle = on_all(ways, number, |way| &way.flat_out, one_by_one).await?;
    let paced = on_all(ways, number, |way| &way.paced, streams(args.tokens)).await?;
    let flat_out = on_all(ways, number, |way| &way.flat_out, streams(args.tokens)).await?;
    let tasks = on_all(ways, number, |way| &way.flat_out, requests).await?;
    let each = idle.into_iter().zip(paced).zip(flat_out).zip(tasks);
    Ok(each.map(|(((idle, paced), flat_out), tasks)| Measured { idle, paced, flat_out, tasks }).collect())
}

async fn on_all(ways: &[Way], first: usize, target: fn(&Way) -> &Target, load: Load) -> Result<Vec<Cost>, Failure> {
    let mut costs = vec![None; ways.len()];
    for offset in 0..ways.len() {
        let index = (first + offset) % ways.len();
        let way = &ways[index];
        let before = way.meter.as_ref().map(Meter::cpu_time).transpose()?;
        let outcome = target(way).drive(load).await?;
        let after = way.meter.as_ref().map(Meter::cpu_time).transpose()?;
        let cpu = after.zip(before).map(|(after, before)| after.saturating_sub(before));
        costs[index] = Some(Cost { outcome, cpu });
    }
    Ok(costs.into_iter().flatten().collect())
}
