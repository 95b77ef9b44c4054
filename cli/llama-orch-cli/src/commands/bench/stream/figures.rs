//! From measurements to figures.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::super::DEBUG_BUILD;
use super::super::series::Series;
use super::super::statistics::{float, percentile_us};
use super::{Cost, Link, Measured, Via};
use crate::args::{EngineLink, StreamArgs};

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    settings: Settings,
    ways: Vec<WayFigures>,
    /// Resident memory of the orchestrator before the first request, in KiB.
    resident_idle_kib: u64,
    /// The same after the last one.
    resident_after_kib: u64,
}

/// What was asked for.
#[derive(Debug, Serialize)]
struct Settings {
    streams: u32,
    tokens: u32,
    interval_ms: u32,
    requests: u32,
    rounds: u32,
    engine: EngineLink,
    /// Whether this is a debug build, whose figures mean little.
    debug_build: bool,
}

/// One way, quantity by quantity; each has one value a round.
#[derive(Debug, Serialize)]
struct WayFigures {
    via: Via,
    engine: Link,
    #[serde(flatten)]
    values: BTreeMap<Quantity, Series>,
}

/// What is measured on a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Quantity {
    /// Time to the first token of one request after the other on an idle machine, in microseconds: the median.
    IdleP50Us,
    /// The same: the 99th percentile.
    IdleP99Us,
    /// What the way adds to the direct one's median.
    AddedIdleP50Us,
    /// What it adds to the direct one's 99th percentile.
    AddedIdleP99Us,
    /// Time to the first token while all streams run at their pace, in microseconds: the median.
    PacedP50Us,
    /// The same: the 99th percentile.
    PacedP99Us,
    /// Tokens per second as fast as the engine goes.
    FlatOutTokensPerS,
    /// One-token requests per second.
    TasksPerS,
    /// Processor time of what is on the way per token at the streams' pace, in microseconds.
    CpuUsPerPacedToken,
    /// The same as fast as the engine goes.
    CpuUsPerTokenFlatOut,
    /// Processor time per one-token request, in microseconds.
    CpuUsPerTask,
}

impl Quantity {
    const ALL: [Self; 11] = [
        Self::IdleP50Us,
        Self::IdleP99Us,
        Self::AddedIdleP50Us,
        Self::AddedIdleP99Us,
        Self::PacedP50Us,
        Self::PacedP99Us,
        Self::FlatOutTokensPerS,
        Self::TasksPerS,
        Self::CpuUsPerPacedToken,
        Self::CpuUsPerTokenFlatOut,
        Self::CpuUsPerTask,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::IdleP50Us => "first token p50, idle, µs",
            Self::IdleP99Us => "first token p99, idle, µs",
            Self::AddedIdleP50Us => "  added to p50",
            Self::AddedIdleP99Us => "  added to p99",
            Self::PacedP50Us => "first token p50, paced, µs",
            Self::PacedP99Us => "first token p99, paced, µs",
            Self::FlatOutTokensPerS => "tokens/s flat out",
            Self::TasksPerS => "one-token requests/s",
            Self::CpuUsPerPacedToken => "CPU, µs per paced token",
            Self::CpuUsPerTokenFlatOut => "CPU, µs per token flat out",
            Self::CpuUsPerTask => "CPU, µs per one-token request",
        }
    }

    /// The value in one round; `direct` is what the way without anything on it took. None where there is no such thing.
    fn of(self, own: &Measured, direct: &Measured) -> Option<f64> {
        let first_token = |cost: &Cost, share| percentile_us(&cost.outcome.first_token, share);
        let added = |share| first_token(&own.idle, share) - first_token(&direct.idle, share);
        let per_s = |cost: &Cost, count: u64| float(count) / cost.outcome.wall.as_secs_f64();
        let cpu_us = |cost: &Cost, count: u64| cost.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / float(count.max(1)));
        let requests = own.tasks.outcome.first_token.len() as u64;
        match self {
            Self::IdleP50Us => Some(first_token(&own.idle, 0.5)),
            Self::IdleP99Us => Some(first_token(&own.idle, 0.99)),
            Self::AddedIdleP50Us => own.idle.cpu.map(|_| added(0.5)),
            Self::AddedIdleP99Us => own.idle.cpu.map(|_| added(0.99)),
            Self::PacedP50Us => Some(first_token(&own.paced, 0.5)),
            Self::PacedP99Us => Some(first_token(&own.paced, 0.99)),
            Self::FlatOutTokensPerS => Some(per_s(&own.flat_out, own.flat_out.outcome.tokens)),
            Self::TasksPerS => Some(per_s(&own.tasks, requests)),
            Self::CpuUsPerPacedToken => cpu_us(&own.paced, own.paced.outcome.tokens),
            Self::CpuUsPerTokenFlatOut => cpu_us(&own.flat_out, own.flat_out.outcome.tokens),
            Self::CpuUsPerTask => cpu_us(&own.tasks, requests),
        }
    }
}

impl Figures {
    /// From all rounds, each of which has a measurement of each way.
    pub(super) fn new(
        args: &StreamArgs,
        ways: &[(Via, Link)],
        rounds: &[Vec<Measured>],
        idle_kib: u64,
        after_kib: u64,
    ) -> Self {
        let StreamArgs { streams, tokens, interval_ms, requests, engine, .. } = *args;
        let direct_of =
            |link| ways.iter().position(|way| *way == (Via::Direct, link)).expect("each link has a direct way");
        let figures = |(index, &(via, link)): (usize, &(Via, Link))| {
            let direct = direct_of(link);
            let series = |quantity: &Quantity| {
                let value = |round: &Vec<Measured>| quantity.of(&round[index], &round[direct]);
                Some((*quantity, rounds.iter().map(value).collect::<Option<Series>>()?))
            };
            WayFigures { via, engine: link, values: Quantity::ALL.iter().filter_map(series).collect() }
        };
        Self {
            settings: Settings {
                streams,
                tokens,
                interval_ms,
                requests,
                rounds: args.rounds,
                engine,
                debug_build: cfg!(debug_assertions),
            },
            ways: ways.iter().enumerate().map(figures).collect(),
            resident_idle_kib: idle_kib,
            resident_after_kib: after_kib,
        }
    }

    /// The values of one way, where it was measured.
    pub(in super::super) fn values(&self, via: Via, link: Link, quantity: Quantity) -> Option<&Series> {
        self.ways.iter().find(|way| way.via == via && way.engine == link)?.values.get(&quantity)
    }
}

impl super::super::Outcome for Figures {}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { streams, tokens, interval_ms, requests, rounds, debug_build, .. } = self.settings;
        if debug_build {
            writeln!(f, "{DEBUG_BUILD}")?;
        }
        writeln!(
            f,
            "{streams} streams of {tokens} tokens, paced: one every {interval_ms} ms; {requests} one-token requests; \
             medians of {rounds} rounds"
        )?;
        for link in [Link::Tcp, Link::Unix] {
            let ways: Vec<&WayFigures> = self.ways.iter().filter(|way| way.engine == link).collect();
            if !ways.is_empty() {
                table(f, link, &ways)?;
            }
        }
        writeln!(f)?;
        for (name, kib) in [("before", self.resident_idle_kib), ("after", self.resident_after_kib)] {
            let name = format!("orchestratord resident {name} the load, MiB");
            writeln!(f, "{name:<44}{:>12.1}", float(kib) / 1024.0)?;
        }
        Ok(())
    }
}

/// A column for each way, and one that sets the orchestrator against the proxy before it.
fn table(f: &mut fmt::Formatter<'_>, link: Link, ways: &[&WayFigures]) -> fmt::Result {
    let head = match link {
        Link::Tcp => "engine over TCP",
        Link::Unix => "engine on a Unix socket",
    };
    write!(f, "\n{head:<44}")?;
    for way in ways {
        write!(f, "{:>15}", way.via.name())?;
    }
    let base = ways.iter().find(|way| matches!(way.via, Via::Nginx | Via::Proxy));
    let own = ways.iter().find(|way| way.via == Via::Orchestratord);
    let ratio = base.zip(own);
    if let Some((base, _)) = ratio {
        write!(f, "{:>15}", format!("ratio to {}", base.via.name()))?;
    }
    writeln!(f)?;
    for quantity in Quantity::ALL {
        write!(f, "{:<44}", quantity.name())?;
        for way in ways {
            match way.values.get(&quantity).map(Series::median) {
                Some(value) if value.abs() < 100.0 => write!(f, "{value:>15.1}")?,
                Some(value) => write!(f, "{value:>15.0}")?,
                None => write!(f, "{:>15}", "")?,
            }
        }
        let pair = ratio.and_then(|(base, own)| base.values.get(&quantity).zip(own.values.get(&quantity)));
        if let Some((base, own)) = pair {
            write!(f, "{:>15.2}", own.ratio(base).median())?;
        }
        writeln!(f)?;
    }
    Ok(())
}

impl Via {
    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Proxy => "proxy",
            Self::Orchestratord => "orchestratord",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Outcome;
    use super::{Cost, EngineLink, Figures, Link, Measured, StreamArgs, Via};

    fn measured(idle_us: u64, cpu_us: Option<u64>) -> Measured {
        let cost = |us| Cost {
            outcome: Outcome { first_token: vec![Duration::from_micros(us)], tokens: 10, wall: Duration::from_secs(2) },
            cpu: cpu_us.map(Duration::from_micros),
        };
        Measured { idle: cost(idle_us), paced: cost(1), flat_out: cost(1), tasks: cost(1) }
    }

    /// DESIGN section 6: what a way adds and costs is compared within a round.
    #[test]
    fn figures_compare_within_a_round() {
        let args = StreamArgs {
            streams: 1,
            tokens: 10,
            interval_ms: 5,
            requests: 1,
            rounds: 3,
            engine: EngineLink::Tcp,
            records: "all".to_owned(),
            threads: None,
            nginx: true,
            proxy: None,
            engine_port: None,
        };
        let round =
            |direct, nginx, own| vec![measured(direct, None), measured(nginx, Some(25)), measured(own, Some(50))];
        let rounds = [round(10, 15, 20), round(100, 110, 130), round(50, 60, 90)];
        let ways = [Via::Direct, Via::Nginx, Via::Orchestratord].map(|via| (via, Link::Tcp));
        let figures = Figures::new(&args, &ways, &rounds, 1024, 2048);
        let json = serde_json::to_value(&figures).expect("JSON");
        let median = |way: usize, name: &str| json["ways"][way][name]["median"].as_f64();
        assert_eq!(median(2, "added_idle_p50_us").map(f64::round), Some(30.0));
        assert_eq!((median(0, "added_idle_p50_us"), median(0, "cpu_us_per_task")), (None, None));
        assert_eq!(median(2, "idle_p50_us").map(f64::round), Some(90.0));
        assert_eq!(median(2, "cpu_us_per_paced_token").map(f64::round), Some(5.0));
        assert_eq!((median(0, "flat_out_tokens_per_s"), median(1, "tasks_per_s")), (Some(5.0), Some(0.5)));
        let text = figures.to_string();
        assert!(text.contains("debug build") && text.contains("ratio to nginx"), "{text}");
    }
}
