//! The curve and the verdict.

use std::fmt;

use serde::Serialize;

use super::super::statistics::{float, median};
use super::super::{DEBUG_BUILD, Outcome};
use super::ledger::Counts;
use super::sample::Sample;
use super::verdict::{Check, judge};
use crate::args::SoakArgs;
use crate::exit::Exit;

/// Most lines of the curve.
const LINES: usize = 60;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What was seen.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    settings: Settings,
    /// What must hold.
    verdict: Vec<Check>,
    counts: Counts,
    /// The state once everything had ended.
    after: Sample,
    samples: Vec<Sample>,
}

/// What was asked for, and the rate that came of it.
#[derive(Debug, Serialize)]
pub(super) struct Settings {
    minutes: u32,
    load_percent: u32,
    seed: u64,
    visits_per_s: f64,
    /// Whether this is a debug build, which takes other time and memory than a release.
    debug_build: bool,
}

impl Settings {
    pub(super) const fn new(args: &SoakArgs, rate: f64) -> Self {
        let SoakArgs { minutes, load, seed } = *args;
        Self { minutes, load_percent: load, seed, visits_per_s: rate, debug_build: cfg!(debug_assertions) }
    }
}

impl Figures {
    pub(super) fn new(
        settings: Settings,
        samples: Vec<Sample>,
        before: &Sample,
        after: Sample,
        counts: Counts,
        drained: bool,
    ) -> Self {
        let verdict = judge(&samples, before, &after, &counts, drained);
        Self { settings, verdict, counts, after, samples }
    }
}

impl Outcome for Figures {
    fn exit(&self) -> Exit {
        if self.verdict.iter().all(|check| check.holds) { Exit::Ok } else { Exit::Failed }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { minutes, visits_per_s, debug_build, .. } = self.settings;
        if debug_build {
            writeln!(f, "{DEBUG_BUILD}")?;
        }
        writeln!(f, "{visits_per_s:.0} visits per second for {minutes} min\n")?;
        curve(f, &self.samples, minutes)?;
        counts(f, &self.counts)?;
        writeln!(f)?;
        for Check { name, holds, detail } in &self.verdict {
            writeln!(f, "{} {name:<40}{detail}", if *holds { "✓" } else { "✗" })?;
        }
        Ok(())
    }
}

/// A line a minute, of a long load one for several.
fn curve(f: &mut fmt::Formatter<'_>, samples: &[Sample], minutes: u32) -> fmt::Result {
    let lines = (minutes as usize).clamp(1, LINES);
    let chunks: Vec<&[Sample]> = samples.chunks(samples.len().div_ceil(lines).max(1)).collect();
    let rss: Vec<f64> = chunks.iter().map(|chunk| median_of(chunk, |sample| float(sample.rss_kib) / 1024.0)).collect();
    writeln!(f, "resident memory {}\n", sparkline(&rss))?;
    writeln!(
        f,
        "{:>8}{:>10}{:>7}{:>9}{:>9}{:>9}{:>8}{:>12}{:>10}{:>8}",
        "minute", "RSS, MiB", "files", "threads", "waiting", "running", "leases", "accepted/s", "ended/s", "CPU, %"
    )?;
    for (chunk, rss) in chunks.iter().zip(rss) {
        let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { continue };
        let per_s = |count: fn(&Sample) -> f64| (count(last) - count(first)) / (last.at_s - first.at_s);
        writeln!(
            f,
            "{:>8.1}{rss:>10.1}{:>7.0}{:>9.0}{:>9.0}{:>9.0}{:>8.0}{:>12.1}{:>10.1}{:>8.1}",
            last.at_s / 60.0,
            median_of(chunk, |sample| float(sample.open_files)),
            median_of(chunk, |sample| float(sample.threads)),
            median_of(chunk, |sample| float(sample.waiting)),
            median_of(chunk, |sample| float(sample.running)),
            median_of(chunk, |sample| float(sample.leases)),
            per_s(|sample| float(sample.accepted)),
            per_s(|sample| float(sample.ended)),
            per_s(|sample| sample.cpu_s) * 100.0,
        )?;
    }
    writeln!(f)
}

fn median_of(samples: &[Sample], value: fn(&Sample) -> f64) -> f64 {
    median(samples.iter().map(value))
}

fn counts(f: &mut fmt::Formatter<'_>, counts: &Counts) -> fmt::Result {
    let ended: Vec<String> = counts.ended.iter().map(|(state, count)| format!("{count} {state}")).collect();
    writeln!(f, "{} tasks accepted; of their records {}", counts.accepted, ended.join(", "))?;
    let refused: Vec<String> = counts.refused.iter().map(|(status, count)| format!("{count} with {status}")).collect();
    writeln!(f, "refused: {}", if refused.is_empty() { "none".to_owned() } else { refused.join(", ") })?;
    counts.examples.iter().try_for_each(|example| writeln!(f, "  {example}"))
}

/// One bar a value, from nothing to the greatest.
fn sparkline(values: &[f64]) -> String {
    let greatest = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let bar = |value: &f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 7")]
        let index = (value / greatest * 7.0).round().clamp(0.0, 7.0) as usize;
        BARS[index]
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::sparkline;

    #[test]
    fn bars_begin_at_nothing() {
        assert_eq!(sparkline(&[0.0, 3.5, 7.0]), "▁▅█");
        assert_eq!(sparkline(&[]), "");
    }
}
