//! Ranks, medians and means.

use std::time::Duration;

/// The value that a share of sorted values lies below or at (nearest rank); none of an empty list.
pub(super) fn percentile<Value: Copy>(sorted: &[Value], share: f64) -> Option<Value> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the list")]
    let rank = (share * float(sorted.len() as u64)).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The same of times, in microseconds; not a number for an empty list.
pub(super) fn percentile_us(sorted: &[Duration], share: f64) -> f64 {
    percentile(sorted, share).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

/// The value in the middle, or between the two there; not a number for an empty list.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let values = sorted(values);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

/// The mean; not a number for an empty list.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { f64::NAN } else { sum / float(count) }
}

/// Values in ascending order.
pub(super) fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// A count to compute fractions with.
#[expect(clippy::cast_precision_loss, reason = "figures have a few digits")]
pub(super) const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{mean, median, percentile, percentile_us};

    #[test]
    fn ranks_medians_and_means() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!((percentile_us(&times, 0.5).round(), percentile_us(&times, 0.99).round()), (100.0, 198.0));
        assert_eq!(percentile_us(&times[..1], 0.99).round(), 1.0);
        assert_eq!((percentile(&[7, 8, 9], 1.0), percentile(&[7, 8, 9], 0.0)), (Some(9), Some(7)));
        assert_eq!(percentile::<u8>(&[], 0.5), None);
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(mean([4.0, 1.0, 1.0].into_iter()), 2.0);
        assert!(median(std::iter::empty()).is_nan() && mean(std::iter::empty()).is_nan());
    }
}
