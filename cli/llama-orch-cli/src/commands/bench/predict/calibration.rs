//! Probabilities that were told, against what happened.

use serde::Serialize;

use super::super::statistics::{float, mean};

const BINS: usize = 10;

/// How good probabilities are.
#[derive(Debug, Serialize)]
pub(super) struct Calibration {
    /// Tenths of the scale; those without a task are left out.
    pub(super) tenths: Vec<Tenth>,
    /// Mean distance between what was told and what happened, over the tenths by their tasks; 0 is perfect.
    pub(super) mean_error: f64,
    /// Brier score, the mean square of the distance between what was told and 1 or 0: smaller is better, and saying 50% to
    /// all gives 0.25.
    pub(super) brier: f64,
    /// Brier score of telling everybody the share that was on time: what must be undercut to be of use.
    pub(super) brier_of_share: f64,
}

/// The tasks that were told a probability in one tenth of the scale.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Tenth {
    /// Lower end of the tenth, included; the last tenth includes 1.
    pub(super) from: f64,
    pub(super) tasks: u64,
    /// What they were told, on average.
    pub(super) told: f64,
    /// Share of them that ended in time.
    pub(super) on_time: f64,
}

impl Calibration {
    /// Of probabilities, each with whether the task ended in time.
    pub(super) fn new(tasks: &[(f64, bool)]) -> Self {
        let tenths: Vec<Tenth> = (0..BINS).filter_map(|bin| Tenth::new(bin, tasks)).collect();
        let error = |tenth: &Tenth| float(tenth.tasks) * (tenth.told - tenth.on_time).abs();
        let share = on_time(tasks);
        Self {
            mean_error: tenths.iter().map(error).sum::<f64>() / float(tasks.len() as u64),
            tenths,
            brier: mean(tasks.iter().map(|(told, was)| (told - number(*was)).powi(2))),
            brier_of_share: share * (1.0 - share),
        }
    }
}

impl Tenth {
    fn new(bin: usize, tasks: &[(f64, bool)]) -> Option<Self> {
        let own: Vec<(f64, bool)> = tasks.iter().copied().filter(|(told, _)| bin_of(*told) == bin).collect();
        (!own.is_empty()).then(|| Self {
            from: float(bin as u64) / float(BINS as u64),
            tasks: own.len() as u64,
            told: mean(own.iter().map(|(told, _)| *told)),
            on_time: on_time(&own),
        })
    }
}

fn bin_of(told: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a probability")]
    let bin = (told * float(BINS as u64)) as usize;
    bin.min(BINS - 1)
}

fn on_time(tasks: &[(f64, bool)]) -> f64 {
    mean(tasks.iter().map(|(_, was)| number(*was)))
}

fn number(flag: bool) -> f64 {
    f64::from(u8::from(flag))
}

#[cfg(test)]
mod tests {
    use super::{Calibration, Tenth};

    #[test]
    fn tenths_compare_what_was_told_with_what_happened() {
        let tasks = [(0.0, false), (0.05, true), (0.1, false), (0.95, true), (1.0, true), (1.0, false)];
        let Calibration { tenths, mean_error, brier, brier_of_share } = Calibration::new(&tasks);
        let rounded = |tenth: &Tenth| {
            let round = |value: f64| (value * 1000.0).round() / 1000.0;
            (tenth.from, tenth.tasks, round(tenth.told), round(tenth.on_time))
        };
        let tenths: Vec<_> = tenths.iter().map(rounded).collect();
        assert_eq!(tenths, [(0.0, 2, 0.025, 0.5), (0.1, 1, 0.1, 0.0), (0.9, 3, 0.983, 0.667)]);
        assert!((mean_error - (2.0 * 0.475 + 0.1 + 3.0 * (0.983_333 - 0.666_667)) / 6.0).abs() < 1e-5, "{mean_error}");
        assert!((brier - (0.95_f64.powi(2) + 0.01 + 0.0025 + 1.0) / 6.0).abs() < 1e-9, "{brier}");
        assert_eq!(brier_of_share, 0.25);
    }

    #[test]
    fn no_tasks_tell_nothing() {
        let none = Calibration::new(&[]);
        assert!(none.tenths.is_empty() && none.mean_error.is_nan() && none.brier.is_nan());
    }
}
