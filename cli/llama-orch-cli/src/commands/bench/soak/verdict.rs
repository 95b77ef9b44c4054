//! What samples and counts say together.

use serde::Serialize;

use super::super::statistics::{float, median};
use super::ledger::{Counts, Wrong};
use super::sample::Sample;

/// Growth from the second quarter to the last that is still flat.
const FLAT: f64 = 1.05;
/// Files more or less that are no growth.
const SOME_FILES: u64 = 8;

/// One thing that must hold.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) holds: bool,
    /// The figures behind it.
    pub(super) detail: String,
}

/// Judges a load.
pub(super) fn judge(samples: &[Sample], before: &Sample, after: &Sample, counts: &Counts, drained: bool) -> Vec<Check> {
    let wrong = |kinds: &[Wrong]| kinds.iter().filter_map(|kind| counts.wrong.get(kind)).sum::<u64>();
    let (accepted, ended) = (counts.accepted, counts.ended_in_all());
    let never = wrong(&[Wrong::NeverEnded, Wrong::WentOn, Wrong::Contradicted]);
    let streams = wrong(&[Wrong::TokenLost, Wrong::BrokeOff]);
    let answers = wrong(&[Wrong::BadAnswer, Wrong::BadRequestTaken]);
    let check = |name, holds, detail| Check { name, holds, detail };
    vec![
        growth("memory is flat", samples, |sample| float(sample.rss_kib) / 1024.0, 0.0, "MiB"),
        growth("open files are flat", samples, |sample| float(sample.open_files), float(SOME_FILES), "files"),
        check(
            "every accepted task ended once",
            drained && accepted > 0 && accepted == ended && never == 0,
            format!("{accepted} accepted, {ended} ended, {never} wrongly"),
        ),
        check("no stream broke off or lost a token", streams == 0, format!("{streams} did")),
        check("every request had an answer in order", answers == 0, format!("{answers} had not")),
        check(
            "nothing is left",
            nothing_left(after, before),
            format!(
                "{} leases, {} waiting, {} running, {} files after {} before",
                after.leases, after.waiting, after.running, after.open_files, before.open_files
            ),
        ),
    ]
}

/// Whether the state after a load is that before it.
pub(super) const fn nothing_left(after: &Sample, before: &Sample) -> bool {
    let Sample { leases, waiting, running, open_files, .. } = after;
    *leases + *waiting + *running == 0 && *open_files <= before.open_files + SOME_FILES
}

/// The last quarter's median against the second quarter's; the first is for arriving at a steady state.
fn growth(name: &'static str, samples: &[Sample], value: fn(&Sample) -> f64, slack: f64, unit: &str) -> Check {
    let quarter = samples.len() / 4;
    let of = |samples: &[Sample]| median(samples.iter().map(value));
    let (second, last) = (of(&samples[quarter..2 * quarter]), of(&samples[samples.len() - quarter..]));
    // Too few samples make a median of nothing, which is no proof.
    let holds = last <= (second * FLAT).max(second + slack);
    let percent = (last / second - 1.0) * 100.0;
    Check { name, holds, detail: format!("{second:.1} to {last:.1} {unit}, {percent:+.1} %") }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::{Counts, Wrong};
    use super::{Sample, judge};

    fn sample(rss_kib: u64, open_files: u64) -> Sample {
        Sample {
            at_s: 0.0,
            rss_kib,
            open_files,
            threads: 1,
            cpu_s: 0.0,
            waiting: 0,
            running: 0,
            leases: 0,
            accepted: 0,
            ended: 0,
            refused: 0,
        }
    }

    fn failing(samples: &[Sample], after: &Sample, counts: &Counts) -> Vec<&'static str> {
        let checks = judge(samples, &sample(0, 20), after, counts, true);
        checks.into_iter().filter(|check| !check.holds).map(|check| check.name).collect()
    }

    /// Memory may grow in the first quarter only.
    #[test]
    fn growth_after_the_first_quarter_is_a_leak() {
        let mut counts = Counts { accepted: 3, ended: [("completed", 2), ("failed", 1)].into(), ..Counts::default() };
        let warm_up = [10, 500, 1000, 1000, 1020, 1000, 1049, 1049].map(|kib| sample(kib, 30));
        let leak = [1000, 1000, 1000, 1000, 1020, 1040, 1060, 1060].map(|kib| sample(kib, 30));
        let well = sample(0, 20);
        assert_eq!(failing(&warm_up, &well, &counts), Vec::<&str>::new());
        assert_eq!(failing(&leak, &well, &counts), ["memory is flat"]);
        assert_eq!(failing(&warm_up[..3], &well, &counts), ["memory is flat", "open files are flat"]);
        let files = [30, 30, 30, 30, 30, 30, 40, 40].map(|files| sample(1000, files));
        assert_eq!(failing(&files, &well, &counts), ["open files are flat"]);
        assert_eq!(failing(&warm_up, &sample(0, 29), &counts), ["nothing is left"]);
        counts.accepted = 4;
        assert_eq!(failing(&warm_up, &well, &counts), ["every accepted task ended once"]);
        counts.accepted = 3;
        counts.wrong.insert(Wrong::TokenLost, 1);
        assert_eq!(failing(&warm_up, &well, &counts), ["no stream broke off or lost a token"]);
    }
}
