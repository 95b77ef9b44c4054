//! From measurements to figures.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::super::DEBUG_BUILD;
use super::super::meter::Memory;
use super::super::series::Series;
use super::super::statistics::float;
use crate::args::IdleArgs;
use crate::exit::Exit;

/// The measurements of one round.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) nginx: Option<Measured>,
    pub(super) orchestratord: Measured,
}

/// What one program took in one round.
#[derive(Debug)]
pub(super) struct Measured {
    /// From its start to its first answer.
    pub(super) start: Duration,
    /// From its start to the first task it took.
    pub(super) first_task: Option<Duration>,
    /// Memory before the streams.
    pub(super) idle: Memory,
    /// Memory while they wait.
    pub(super) waiting: Memory,
    /// Processor time per second while they wait.
    pub(super) cpu: Duration,
    /// Memory after them.
    pub(super) after: Memory,
    /// Streams that did not give what they should.
    pub(super) lost: u32,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    settings: Settings,
    orchestratord: Values,
    #[serde(skip_serializing_if = "Option::is_none")]
    nginx: Option<Values>,
    /// Streams that did not give `started`, a token and `end`, of all rounds.
    lost: u32,
}

/// What was asked for.
#[derive(Debug, Serialize)]
struct Settings {
    streams: u32,
    http2: bool,
    rounds: u32,
    /// Whether this is a debug build, whose figures mean little.
    debug_build: bool,
}

type Values = BTreeMap<Quantity, Series>;

/// What is measured of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Quantity {
    /// Milliseconds from the start to the first answer.
    FirstAnswerMs,
    /// Milliseconds from the start to the first task that is taken.
    FirstTaskMs,
    /// Idle memory, shared pages in full.
    IdleRssKib,
    /// The same, shared pages divided among those who share them.
    IdlePssKib,
    /// Of it what nobody else has.
    IdleUssKib,
    /// Growth of resident memory per waiting stream.
    KibPerStream,
    /// Milliseconds of processor time per second while the streams wait.
    WaitingCpuMsPerS,
    /// Resident memory when all streams have ended.
    AfterRssKib,
}

impl Quantity {
    const ALL: [Self; 8] = [
        Self::FirstAnswerMs,
        Self::FirstTaskMs,
        Self::IdleRssKib,
        Self::IdlePssKib,
        Self::IdleUssKib,
        Self::KibPerStream,
        Self::WaitingCpuMsPerS,
        Self::AfterRssKib,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::FirstAnswerMs => "start to the first answer, ms",
            Self::FirstTaskMs => "start to the first task taken, ms",
            Self::IdleRssKib => "idle resident, KiB (RSS)",
            Self::IdlePssKib => "  shared pages divided (PSS)",
            Self::IdleUssKib => "  its own pages (USS)",
            Self::KibPerStream => "resident per waiting stream, KiB",
            Self::WaitingCpuMsPerS => "CPU while they wait, ms per second",
            Self::AfterRssKib => "resident after them, KiB (RSS)",
        }
    }

    fn of(self, measured: &Measured, memory: fn(&Memory) -> u64, streams: u32) -> Option<f64> {
        let Measured { start, first_task, idle, waiting, cpu, after, .. } = measured;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Some(match self {
            Self::FirstAnswerMs => ms(*start),
            Self::FirstTaskMs => ms((*first_task)?),
            Self::IdleRssKib => float(idle.rss_kib),
            Self::IdlePssKib => float(idle.pss_kib),
            Self::IdleUssKib => float(idle.uss_kib),
            Self::KibPerStream => (float(memory(waiting)) - float(memory(idle))) / f64::from(streams),
            Self::WaitingCpuMsPerS => ms(*cpu),
            Self::AfterRssKib => float(after.rss_kib),
        })
    }
}

impl Figures {
    pub(super) fn new(args: &IdleArgs, rounds: &[Round]) -> Self {
        let IdleArgs { streams, http2, .. } = *args;
        let own =
            |round: &Round, quantity: Quantity| quantity.of(&round.orchestratord, |memory| memory.rss_kib, streams);
        // Several processes share most of their pages.
        let nginx =
            |round: &Round, quantity: Quantity| quantity.of(round.nginx.as_ref()?, |memory| memory.pss_kib, streams);
        Self {
            settings: Settings { streams, http2, rounds: args.rounds, debug_build: cfg!(debug_assertions) },
            orchestratord: values(rounds, own),
            nginx: args.nginx.then(|| values(rounds, nginx)),
            lost: rounds.iter().map(|round| round.orchestratord.lost).sum(),
        }
    }

    /// The orchestrator's values.
    pub(in super::super) fn orchestratord(&self, quantity: Quantity) -> Option<&Series> {
        self.orchestratord.get(&quantity)
    }

    /// Those of nginx, where it was measured.
    pub(in super::super) fn nginx(&self, quantity: Quantity) -> Option<&Series> {
        self.nginx.as_ref()?.get(&quantity)
    }
}

fn values(rounds: &[Round], of: impl Fn(&Round, Quantity) -> Option<f64>) -> Values {
    let series = |quantity: &Quantity| {
        let values = rounds.iter().map(|round| of(round, *quantity));
        Some((*quantity, values.collect::<Option<Series>>()?))
    };
    Quantity::ALL.iter().filter_map(series).collect()
}

impl super::super::Outcome for Figures {
    fn exit(&self) -> Exit {
        if self.lost == 0 { Exit::Ok } else { Exit::Failed }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { streams, http2, rounds, debug_build } = self.settings;
        if debug_build {
            writeln!(f, "{DEBUG_BUILD}")?;
        }
        let version = if http2 { "HTTP/2" } else { "HTTP/1.1" };
        writeln!(f, "{streams} waiting streams over {version}, medians of {rounds} rounds; no memory of the kernel\n")?;
        let head = ["orchestratord"].into_iter().chain(self.nginx.is_some().then_some("nginx"));
        write!(f, "{:<44}", "")?;
        head.into_iter().try_for_each(|name| write!(f, "{name:>15}"))?;
        writeln!(f)?;
        for quantity in Quantity::ALL {
            write!(f, "{:<44}", quantity.name())?;
            for values in [Some(&self.orchestratord), self.nginx.as_ref()].into_iter().flatten() {
                match values.get(&quantity).map(Series::median) {
                    Some(value) if value.abs() < 1000.0 => write!(f, "{value:>15.1}")?,
                    Some(value) => write!(f, "{value:>15.0}")?,
                    None => write!(f, "{:>15}", "-")?,
                }
            }
            writeln!(f)?;
        }
        writeln!(f, "{:<44}{:>15}", "streams without started, token and end", self.lost)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Figures, IdleArgs, Measured, Memory, Round};

    /// DESIGN section 6: a stream's memory is the growth of resident memory by its share; of nginx, that of shared pages too.
    #[test]
    fn growth_is_divided_by_the_streams() {
        let kib = |rss_kib, pss_kib| Memory { rss_kib, pss_kib, uss_kib: 1 };
        let measured = |first_task| Measured {
            start: Duration::from_millis(7),
            first_task,
            idle: kib(1000, 500),
            waiting: kib(2000, 900),
            cpu: Duration::from_millis(3),
            after: kib(1500, 1),
            lost: 1,
        };
        let round = || Round { nginx: Some(measured(None)), orchestratord: measured(Some(Duration::from_millis(9))) };
        let args = IdleArgs { streams: 100, http2: false, rounds: 2, threads: None, nginx: true };
        let figures = Figures::new(&args, &[round(), round()]);
        let json = serde_json::to_value(&figures).expect("JSON");
        assert_eq!(json["orchestratord"]["kib_per_stream"]["median"], 10.0);
        assert_eq!(json["nginx"]["kib_per_stream"]["median"], 4.0);
        assert_eq!((&json["orchestratord"]["first_task_ms"]["median"], &json["lost"]), (&9.0.into(), &2.into()));
        assert!(json["nginx"].get("first_task_ms").is_none());
        assert!(figures.to_string().contains("nginx"));
    }
}
