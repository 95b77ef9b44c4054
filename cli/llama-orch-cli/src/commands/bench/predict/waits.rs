//! Predicted starts against the time that tasks really waited.

use api_types::Priority;
use serde::Serialize;

use super::super::statistics::{mean, median, percentile, sorted};
use super::record::{Course, Record};

/// Shorter waits have no relative error worth a figure, in milliseconds.
const SHORTEST_WAIT_MS: f64 = 20.0;

/// How good the predicted starts of some tasks are. A relative error is `(predicted - waited) / waited`.
#[derive(Debug, Serialize)]
pub(super) struct Waits {
    /// Which tasks.
    pub(super) group: &'static str,
    /// How many.
    pub(super) tasks: u64,
    /// Their predicted waits on average, in milliseconds.
    pub(super) predicted_mean_ms: f64,
    /// Their waits on average, in milliseconds.
    pub(super) waited_mean_ms: f64,
    /// Those that waited at least 20 ms; the errors are theirs.
    pub(super) tasks_that_waited: u64,
    /// Median of the relative errors without their signs.
    pub(super) error_p50: f64,
    /// Their 90th percentile.
    pub(super) error_p90: f64,
    /// Median of the relative errors: below 0 where more tasks start later than predicted.
    pub(super) bias: f64,
}

/// A task's prediction and wait, in milliseconds.
type Wait = (f64, f64);
/// Whether a task belongs to a group.
type Test = dyn Fn(&Record, &Course) -> bool;

/// Groups of tasks: all of them, each class where there are both, and by the place in the queue at the admission.
/// Groups without tasks are left out; tasks that were never dispatched are in none.
pub(super) fn waits(records: &[Record]) -> Vec<Waits> {
    let is_mixed = Priority::ALL.iter().all(|class| records.iter().any(|record| record.priority == *class));
    let groups: [(&str, bool, &Test); 8] = [
        ("all", true, &|_, _| true),
        ("interactive", is_mixed, &|record, _| record.priority == Priority::Interactive),
        ("batch", is_mixed, &|record, _| record.priority == Priority::Batch),
        ("told to start at once", true, &|_, course| course.predicted_start_ms == 0),
        ("next, told to wait", true, &|_, course| place(course) == Some(0)),
        ("1 to 3 ahead", true, &|_, course| place(course).is_some_and(|ahead| (1..=3).contains(&ahead))),
        ("4 to 15 ahead", true, &|_, course| place(course).is_some_and(|ahead| (4..=15).contains(&ahead))),
        ("16 or more ahead", true, &|_, course| place(course).is_some_and(|ahead| ahead >= 16)),
    ];
    let of_group = |is_in: &Test| -> Vec<Wait> {
        let courses = records.iter().filter_map(|record| Some((record, record.course.as_ref()?)));
        courses.filter(|(record, course)| is_in(record, course)).filter_map(|(_, course)| wait(course)).collect()
    };
    let shown = groups.into_iter().filter(|(_, is_shown, _)| *is_shown);
    shown.map(|(group, _, is_in)| Waits::new(group, &of_group(is_in))).filter(|waits| waits.tasks > 0).collect()
}

/// Tasks ahead of one that was told to wait.
fn place(course: &Course) -> Option<i32> {
    (course.predicted_start_ms > 0).then_some(course.queue_position)
}

/// A task that expired in the queue would have waited longer, nobody knows how long.
fn wait(course: &Course) -> Option<Wait> {
    course.dispatched_at_ms?;
    let ms = |ms: i64| u32::try_from(ms).ok().map(f64::from);
    Some((ms(course.predicted_start_ms)?, ms(course.queue_time_ms?)?))
}

impl Waits {
    fn new(group: &'static str, waits: &[Wait]) -> Self {
        let long = waits.iter().filter(|(_, waited)| *waited >= SHORTEST_WAIT_MS);
        let errors: Vec<f64> = long.map(|(predicted, waited)| (predicted - waited) / waited).collect();
        let absolute = sorted(errors.iter().map(|error| error.abs()));
        Self {
            group,
            tasks: waits.len() as u64,
            predicted_mean_ms: mean(waits.iter().map(|(predicted, _)| *predicted)),
            waited_mean_ms: mean(waits.iter().map(|(_, waited)| *waited)),
            tasks_that_waited: errors.len() as u64,
            error_p50: median(absolute.iter().copied()),
            error_p90: percentile(&absolute, 0.9).unwrap_or(f64::NAN),
            bias: median(errors.into_iter()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{admitted, refused};
    use super::waits;

    #[test]
    fn errors_are_relative_to_the_wait_and_grouped_by_place() {
        let records = [
            // Place, predicted, waited.
            admitted(0, 0, Some(0)),
            admitted(0, 0, Some(40)),
            admitted(0, 50, Some(100)),
            admitted(0, 300, Some(10)),
            admitted(2, 300, Some(200)),
            admitted(3, 90, Some(100)),
            admitted(20, 900, None),
            refused(),
        ];
        let waits = waits(&records);
        let groups: Vec<_> = waits.iter().map(|group| (group.group, group.tasks, group.tasks_that_waited)).collect();
        assert_eq!(
            groups,
            [("all", 6, 4), ("told to start at once", 2, 1), ("next, told to wait", 2, 1), ("1 to 3 ahead", 2, 2)]
        );
        let all = &waits[0];
        assert_eq!((all.predicted_mean_ms, all.waited_mean_ms), (740.0 / 6.0, 75.0));
        // -1, -0.5, 0.5 and -0.1.
        assert_eq!((all.error_p50, all.error_p90), (0.5, 1.0));
        assert!((all.bias + 0.3).abs() < 1e-9, "{}", all.bias);
    }
}
