//! From measurements to figures.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::super::DEBUG_BUILD;
use super::super::statistics::{float, median, percentile_us};
use super::{Outcome, Pair};
use crate::args::StreamArgs;

/// The measurements of one round.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) idle: Pair,
    pub(super) paced: Pair,
    pub(super) flat_out: Pair,
    pub(super) tasks: Pair,
}

/// What was measured: medians over the rounds; processor time over all of them together, since the kernel counts it in
/// hundredths of a second.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    settings: Settings,
    /// One request after the other.
    idle: FirstToken,
    /// While all streams run at their pace.
    paced: FirstToken,
    /// Microseconds of the orchestrator's processor time per token at that pace.
    paced_cpu_us_per_token: f64,
    /// Tokens per second as fast as the engine goes.
    flat_out: Rate,
    /// Microseconds of processor time per token then.
    flat_out_cpu_us_per_token: f64,
    /// One-token requests per second.
    tasks: Rate,
    /// Microseconds of processor time per one-token task.
    cpu_us_per_task: f64,
    /// Resident memory of the orchestrator before the first request, in KiB.
    resident_idle_kib: u64,
    /// The same after the last one.
    resident_after_kib: u64,
}

/// What was asked for.
#[derive(Debug, Serialize)]
pub(super) struct Settings {
    streams: u32,
    tokens: u32,
    interval_ms: u32,
    requests: u32,
    rounds: u32,
    unix: bool,
    /// Whether this is a debug build, whose figures mean little.
    debug_build: bool,
}

impl Settings {
    pub(super) fn new(args: &StreamArgs) -> Self {
        let StreamArgs { streams, tokens, interval_ms, requests, rounds, unix } = *args;
        Self { streams, tokens, interval_ms, requests, rounds, unix, debug_build: cfg!(debug_assertions) }
    }
}

/// Time to the first token, in microseconds.
#[derive(Debug, Serialize)]
struct FirstToken {
    direct_p50_us: f64,
    direct_p99_us: f64,
    through_p50_us: f64,
    through_p99_us: f64,
    added_p50_us: f64,
    added_p99_us: f64,
}

/// Something per second.
#[derive(Debug, Serialize)]
struct Rate {
    direct_per_s: f64,
    through_per_s: f64,
}

impl Figures {
    pub(super) fn new(settings: Settings, rounds: &[Round], idle_kib: u64, after_kib: u64) -> Self {
        let tokens = |pair: &Pair| pair.through.tokens;
        let tasks = |pair: &Pair| pair.through.first_token.len() as u64;
        Self {
            settings,
            idle: FirstToken::new(rounds, |round| &round.idle),
            paced: FirstToken::new(rounds, |round| &round.paced),
            paced_cpu_us_per_token: cpu_us_per(rounds, |round| &round.paced, tokens),
            flat_out: Rate::new(rounds, |round| &round.flat_out, |outcome| outcome.tokens),
            flat_out_cpu_us_per_token: cpu_us_per(rounds, |round| &round.flat_out, tokens),
            tasks: Rate::new(rounds, |round| &round.tasks, |outcome| outcome.first_token.len() as u64),
            cpu_us_per_task: cpu_us_per(rounds, |round| &round.tasks, tasks),
            resident_idle_kib: idle_kib,
            resident_after_kib: after_kib,
        }
    }
}

type Way = fn(&Pair) -> &Outcome;

impl FirstToken {
    fn new(rounds: &[Round], of: impl Fn(&Round) -> &Pair) -> Self {
        let over_rounds =
            |share: f64, way: Way| median(rounds.iter().map(|round| percentile_us(&way(of(round)).first_token, share)));
        let (direct, through): (Way, Way) = (|pair| &pair.direct, |pair| &pair.through);
        let added = |share: f64| {
            median(rounds.iter().map(|round| {
                let pair = of(round);
                percentile_us(&pair.through.first_token, share) - percentile_us(&pair.direct.first_token, share)
            }))
        };
        Self {
            direct_p50_us: over_rounds(0.5, direct),
            direct_p99_us: over_rounds(0.99, direct),
            through_p50_us: over_rounds(0.5, through),
            through_p99_us: over_rounds(0.99, through),
            added_p50_us: added(0.5),
            added_p99_us: added(0.99),
        }
    }
}

impl Rate {
    fn new(rounds: &[Round], of: impl Fn(&Round) -> &Pair, count: impl Fn(&Outcome) -> u64) -> Self {
        let rate = |outcome: &Outcome| float(count(outcome)) / outcome.wall.as_secs_f64();
        Self {
            direct_per_s: median(rounds.iter().map(|round| rate(&of(round).direct))),
            through_per_s: median(rounds.iter().map(|round| rate(&of(round).through))),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { streams, tokens, interval_ms, requests, rounds, unix, debug_build } = self.settings;
        if debug_build {
            writeln!(f, "{DEBUG_BUILD}")?;
        }
        let socket = if unix { ", engine on a Unix socket" } else { "" };
        writeln!(f, "{streams} streams of {tokens} tokens, {requests} one-token requests, {rounds} rounds{socket}\n")?;
        writeln!(f, "{:<44}{:>12}{:>12}{:>12}", "", "direct", "through", "added")?;
        let paced = format!("one token every {interval_ms} ms");
        for (name, it) in [("idle", &self.idle), (paced.as_str(), &self.paced)] {
            row(f, &format!("first token p50, {name}, µs"), [it.direct_p50_us, it.through_p50_us, it.added_p50_us])?;
            row(f, &format!("first token p99, {name}, µs"), [it.direct_p99_us, it.through_p99_us, it.added_p99_us])?;
        }
        for (name, it) in [("tokens/s flat out", &self.flat_out), ("one-token tasks/s", &self.tasks)] {
            row(f, name, [it.direct_per_s, it.through_per_s])?;
        }
        writeln!(f)?;
        for (name, value) in [
            ("orchestratord CPU, µs per paced token", self.paced_cpu_us_per_token),
            ("orchestratord CPU, µs per token flat out", self.flat_out_cpu_us_per_token),
            ("orchestratord CPU, µs per one-token task", self.cpu_us_per_task),
        ] {
            writeln!(f, "{name:<44}{value:>12.1}")?;
        }
        for (name, kib) in [("before", self.resident_idle_kib), ("after", self.resident_after_kib)] {
            let name = format!("orchestratord resident {name} the load, MiB");
            writeln!(f, "{name:<44}{:>12.1}", float(kib) / 1024.0)?;
        }
        Ok(())
    }
}

fn row<const N: usize>(f: &mut fmt::Formatter<'_>, name: &str, values: [f64; N]) -> fmt::Result {
    write!(f, "{name:<44}")?;
    values.into_iter().try_for_each(|value| write!(f, "{value:>12.0}"))?;
    writeln!(f)
}

fn cpu_us_per(rounds: &[Round], of: impl Fn(&Round) -> &Pair, count: impl Fn(&Pair) -> u64) -> f64 {
    let cpu: Duration = rounds.iter().map(|round| of(round).cpu).sum();
    let count: u64 = rounds.iter().map(|round| count(of(round))).sum();
    cpu.as_secs_f64() * 1e6 / float(count.max(1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Figures, Outcome, Pair, Round, Settings};

    fn pair(direct_us: u64, through_us: u64) -> Pair {
        let outcome =
            |us| Outcome { first_token: vec![Duration::from_micros(us)], tokens: 10, wall: Duration::from_secs(2) };
        Pair { direct: outcome(direct_us), through: outcome(through_us), cpu: Duration::from_micros(50) }
    }

    /// What is added is the median of each round's difference, not the difference of medians from different rounds.
    #[test]
    fn figures_compare_within_a_round() {
        let round = |direct, through| Round {
            idle: pair(direct, through),
            paced: pair(1, 1),
            flat_out: pair(1, 1),
            tasks: pair(1, 1),
        };
        let settings =
            Settings { streams: 1, tokens: 10, interval_ms: 5, requests: 1, rounds: 3, unix: false, debug_build: true };
        let figures = Figures::new(settings, &[round(10, 20), round(100, 130), round(50, 90)], 1024, 2048);
        let json = serde_json::to_value(&figures).expect("JSON");
        assert_eq!(json["idle"]["added_p50_us"].as_f64().map(f64::round), Some(30.0));
        assert_eq!(json["idle"]["through_p50_us"].as_f64().map(f64::round), Some(90.0));
        assert_eq!(json["paced_cpu_us_per_token"].as_f64().map(f64::round), Some(5.0));
        assert_eq!(
            (json["flat_out"]["direct_per_s"].as_f64(), json["tasks"]["through_per_s"].as_f64()),
            (Some(5.0), Some(0.5))
        );
        assert!(figures.to_string().contains("debug build"));
    }
}
