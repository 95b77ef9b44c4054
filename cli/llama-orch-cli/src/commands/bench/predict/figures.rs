//! From records to figures.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::super::DEBUG_BUILD;
use super::super::statistics::float;
use super::calibration::{Calibration, Tenth};
use super::record::{Course, Record};
use super::waits::{Waits, waits};
use crate::args::{Classes, PredictArgs};

/// What was measured. The tasks of the warm-up count for nothing but the utilisation.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    settings: Settings,
    /// Tasks that were admitted, by the state they ended in.
    ended: BTreeMap<&'static str, u64>,
    /// Of those that expired, the ones that had not been started; they have no wait to compare with.
    expired_waiting: u64,
    /// Tasks that were refused, by the refusal's code.
    refused: BTreeMap<&'static str, u64>,
    /// Share of the slots' time that tasks ran, as it turned out.
    utilisation: f64,
    /// Predicted starts, by groups of tasks.
    waits: Vec<Waits>,
    /// Predicted ends in time.
    calibration: Calibration,
}

/// What was asked for.
#[derive(Debug, Serialize)]
struct Settings {
    tasks: u32,
    warm_up: u32,
    slots: u32,
    utilisation: f64,
    priority: Classes,
    shortest: u32,
    interval_ms: u32,
    seed: u64,
    /// Whether this is a debug build, which is slower than a release.
    debug_build: bool,
}

impl Figures {
    /// From the records of all tasks, those of the warm-up first.
    pub(super) fn new(args: &PredictArgs, records: &[Record]) -> Self {
        let counted = records.get(args.warm_up as usize..).unwrap_or_default();
        let courses = || counted.iter().filter_map(|record| record.course.as_ref());
        let told = |course: &Course| Some((course.on_time_probability?, course.was_on_time()?));
        Self {
            settings: Settings::new(args),
            ended: tally(courses().map(|course| course.state.as_str())),
            expired_waiting: courses()
                .filter(|course| course.dispatched_at_ms.is_none() && course.was_on_time() == Some(false))
                .count() as u64,
            refused: tally(counted.iter().filter_map(|record| Some(record.refused?.as_str()))),
            utilisation: utilisation(args, records),
            waits: waits(counted),
            calibration: Calibration::new(&courses().filter_map(told).collect::<Vec<_>>()),
        }
    }
}

impl Settings {
    fn new(args: &PredictArgs) -> Self {
        let PredictArgs { tasks, warm_up, slots, utilisation, priority, shortest, interval_ms, seed, .. } = *args;
        let debug_build = cfg!(debug_assertions);
        Self { tasks, warm_up, slots, utilisation, priority, shortest, interval_ms, seed, debug_build }
    }
}

fn tally(words: impl Iterator<Item = &'static str>) -> BTreeMap<&'static str, u64> {
    words.fold(BTreeMap::new(), |mut counts, word| {
        *counts.entry(word).or_default() += 1;
        counts
    })
}

/// Share of the slots' time in use between the first and the last admission that count, whoever used it.
fn utilisation(args: &PredictArgs, records: &[Record]) -> f64 {
    let counted = records.iter().skip(args.warm_up as usize);
    let admitted: Vec<i64> = counted.filter_map(|record| Some(record.course.as_ref()?.admitted_at_ms)).collect();
    let (Some(&first), Some(&last)) = (admitted.iter().min(), admitted.iter().max()) else { return f64::NAN };
    let overlap = |record: &Record| {
        let course = record.course.as_ref()?;
        let (from, until) = (course.dispatched_at_ms?.max(first), course.ended_at_ms?.min(last));
        u64::try_from(until - from).ok()
    };
    let busy: u64 = records.iter().filter_map(overlap).sum();
    float(busy) / (float(last.abs_diff(first)) * f64::from(args.slots))
}

impl super::super::Outcome for Figures {}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { tasks, warm_up, slots, utilisation, debug_build, .. } = self.settings;
        if debug_build {
            writeln!(f, "{DEBUG_BUILD}")?;
        }
        let plural = if slots == 1 { "slot" } else { "slots" };
        writeln!(f, "{tasks} tasks after {warm_up} not counted, {slots} {plural}, utilisation {utilisation}\n")?;
        for (state, count) in &self.ended {
            writeln!(f, "{state:<28}{count:>8}")?;
        }
        writeln!(f, "{:<28}{:>8}", "expired before their start", self.expired_waiting)?;
        for (code, count) in &self.refused {
            writeln!(f, "{:<28}{count:>8}", format!("refused, {code}"))?;
        }
        writeln!(f, "{:<28}{:>8.2}\n", "utilisation", self.utilisation)?;
        self.write_waits(f)?;
        self.write_calibration(f)
    }
}

impl Figures {
    fn write_waits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<28}{:>27}{:>37}", "predicted_start_ms", "mean, ms", "relative error of waits ≥ 20 ms")?;
        writeln!(
            f,
            "{:<28}{:>7}{:>10}{:>10}{:>10}{:>9}{:>9}{:>9}",
            "", "tasks", "predicted", "waited", "tasks", "p50", "p90", "bias"
        )?;
        for it in &self.waits {
            writeln!(
                f,
                "{:<28}{:>7}{:>10.0}{:>10.0}{:>10}{:>9}{:>9}{:>9}",
                it.group,
                it.tasks,
                it.predicted_mean_ms,
                it.waited_mean_ms,
                it.tasks_that_waited,
                percent(it.error_p50),
                percent(it.error_p90),
                percent(it.bias)
            )?;
        }
        writeln!(f)
    }

    fn write_calibration(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Calibration { tenths, mean_error, brier, brier_of_share } = &self.calibration;
        writeln!(f, "{:<28}{:>7}{:>10}{:>10}", "on_time_probability", "tasks", "told", "on time")?;
        for Tenth { from, tasks, told, on_time } in tenths {
            let range = format!("{from:.1} to {:.1}", from + 0.1);
            writeln!(f, "{range:<28}{tasks:>7}{:>9.0}%{:>9.0}%", told * 100.0, on_time * 100.0)?;
        }
        writeln!(f, "{:<28}{:>16.1}%", "mean calibration error", mean_error * 100.0)?;
        writeln!(f, "{:<28}{brier:>17.3}", "Brier score")?;
        writeln!(f, "{:<28}{brier_of_share:>17.3}", "  of telling all the same")
    }
}

fn percent(share: f64) -> String {
    if share.is_nan() { "-".to_owned() } else { format!("{:.0}%", share * 100.0) }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{admitted, refused};
    use super::{Classes, Figures, PredictArgs};

    const ARGS: PredictArgs = PredictArgs {
        tasks: 4,
        warm_up: 1,
        slots: 1,
        utilisation: 0.8,
        priority: Classes::Batch,
        shortest: 100,
        interval_ms: 1,
        records: None,
        seed: 1,
    };

    /// The warm-up's task ran in the time that counts, and is in nothing else; a refused one is counted as such.
    #[test]
    fn the_warm_up_counts_for_the_utilisation_only() {
        let mut records = [
            admitted(0, 0, Some(0)),
            admitted(0, 90, Some(100)),
            refused(),
            admitted(1, 0, None),
            admitted(0, 0, Some(0)),
        ];
        if let Some(course) = &mut records[4].course {
            course.admitted_at_ms = 1_400;
        }
        let figures = Figures::new(&ARGS, &records);
        let json = serde_json::to_value(&figures).expect("JSON");
        assert_eq!(json["ended"], serde_json::json!({"completed": 2, "expired": 1}));
        assert_eq!(json["expired_waiting"], 1);
        assert_eq!(json["refused"], serde_json::json!({"DEADLINE_UNMET": 1}));
        assert_eq!(json["waits"][0]["tasks"], 2);
        assert_eq!(json["calibration"]["tenths"][0]["tasks"], 3);
        // Three runs of 100 ms in the 400 ms between the first and the last admission.
        assert_eq!(json["utilisation"].as_f64(), Some(0.75));
        assert!(figures.to_string().contains("refused, DEADLINE_UNMET"));
    }
}
