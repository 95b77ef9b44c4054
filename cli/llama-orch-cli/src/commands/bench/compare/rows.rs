//! The figures with their aims.

use std::fmt;

use serde::Serialize;

use super::super::series::{Series, Spread};
use super::super::stream::{Link, Via};
use super::super::{idle, stream};

/// One figure.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    nginx: Option<Series>,
    orchestratord: Series,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<Series>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aim: Option<Aim>,
    /// Whether the median is within the aim.
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Aim {
    /// At most so many times what nginx has.
    Ratio(f64),
    /// At most this.
    AtMost(f64),
}

/// The rows, in the order of the design's table.
pub(super) fn rows(streams: &stream::Figures, waiting: &idle::Figures) -> Vec<Row> {
    use stream::Quantity::{AddedIdleP50Us, AddedIdleP99Us, CpuUsPerPacedToken, CpuUsPerTask, CpuUsPerTokenFlatOut};
    let of_streams = |name, quantity, nginx: Link, own: Link, aim| {
        let nginx = streams.values(Via::Nginx, nginx, quantity);
        Row::new(name, nginx.cloned(), streams.values(Via::Orchestratord, own, quantity)?.clone(), aim)
    };
    let of_waiting = |name, quantity, scale: f64, aim| {
        let scaled = |series: &Series| series.each(series, |value, _| value / scale);
        Row::new(name, waiting.nginx(quantity).map(scaled), scaled(waiting.orchestratord(quantity)?), Some(aim))
    };
    let tcp = |name, quantity, aim| of_streams(name, quantity, Link::Tcp, Link::Tcp, Some(aim));
    let unix = |name, quantity, nginx, aim| of_streams(name, quantity, nginx, Link::Unix, aim);
    let ours_at_most = Aim::AtMost;
    [
        tcp("CPU, µs per paced token", CpuUsPerPacedToken, Aim::Ratio(1.0)),
        unix("  ours on a Unix socket, nginx over TCP", CpuUsPerPacedToken, Link::Tcp, Some(Aim::Ratio(0.9))),
        unix("  both on a Unix socket", CpuUsPerPacedToken, Link::Unix, None),
        tcp("CPU, µs per token flat out", CpuUsPerTokenFlatOut, ours_at_most(7.0)),
        tcp("CPU, µs per one-token request", CpuUsPerTask, Aim::Ratio(1.5)),
        tcp("added to first token idle p50, µs", AddedIdleP50Us, ours_at_most(100.0)),
        tcp("added to first token idle p99, µs", AddedIdleP99Us, ours_at_most(150.0)),
        of_waiting("resident per waiting stream, KiB", idle::Quantity::KibPerStream, 1.0, ours_at_most(12.0)),
        of_waiting("start to first answer, ms", idle::Quantity::FirstAnswerMs, 1.0, ours_at_most(20.0)),
        of_waiting("idle resident, MiB (RSS)", idle::Quantity::IdleRssKib, 1024.0, ours_at_most(12.0)),
        of_waiting("idle resident, MiB (PSS)", idle::Quantity::IdlePssKib, 1024.0, ours_at_most(12.0)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Row {
    #[expect(clippy::unnecessary_wraps, reason = "rows without a measurement are none")]
    fn new(name: &'static str, nginx: Option<Series>, orchestratord: Series, aim: Option<Aim>) -> Option<Self> {
        let ratio = nginx.as_ref().map(|nginx| orchestratord.ratio(nginx));
        let met = aim.map(|aim| match aim {
            Aim::Ratio(most) => ratio.as_ref().is_some_and(|ratio| ratio.median() <= most),
            Aim::AtMost(most) => orchestratord.median() <= most,
        });
        Some(Self { name, nginx, orchestratord, ratio, aim, met })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nginx = self.nginx.as_ref().map(|series| shown(series, 1)).unwrap_or_default();
        let ratio = self.ratio.as_ref().map(|series| shown(series, 2)).unwrap_or_default();
        write!(f, "{:<46}{nginx:>22}{:>22}{ratio:>20}", self.name, shown(&self.orchestratord, 1))?;
        match self.aim {
            Some(Aim::Ratio(most)) => write!(f, "  ≤ {most:.1} × nginx")?,
            Some(Aim::AtMost(most)) => write!(f, "  ≤ {most:.0}")?,
            None => {}
        }
        match self.met {
            Some(true) => write!(f, ", met"),
            Some(false) => write!(f, ", missed"),
            None => Ok(()),
        }
    }
}

fn shown(series: &Series, digits: usize) -> String {
    let Spread { median, min, max } = series.spread();
    format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
}

#[cfg(test)]
mod tests {
    use super::{Aim, Row, Series};

    #[test]
    fn aims_are_held_against_medians() {
        let row = |aim| {
            let nginx = Some(Series::from_iter([10.0, 20.0, 30.0]));
            Row::new("x", nginx, Series::from_iter([9.0, 30.0, 24.0]), Some(aim)).expect("a row")
        };
        for (aim, met) in
            [(Aim::Ratio(0.9), true), (Aim::Ratio(0.8), false), (Aim::AtMost(24.0), true), (Aim::AtMost(23.0), false)]
        {
            assert_eq!(row(aim).met, Some(met), "{aim:?}");
        }
        assert_eq!(
            Row::new("x", None, Series::from_iter([1.0]), Some(Aim::Ratio(1.0))).and_then(|row| row.met),
            Some(false)
        );
        let text = row(Aim::Ratio(0.9)).to_string();
        assert!(text.contains("20.0 (10.0–30.0)") && text.ends_with("≤ 0.9 × nginx, met"), "{text}");
    }
}
