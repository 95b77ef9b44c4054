//! One value a round, and what the rounds say together.

use serde::Serialize;

use super::statistics::{median, sorted};

/// The values of a quantity, one a round. In JSON: their median, the least and the greatest.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(into = "Spread")]
pub(super) struct Series(Vec<f64>);

/// A median with what lies around it; not numbers where nothing was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Series {
    /// The median.
    pub(super) fn median(&self) -> f64 {
        median(self.0.iter().copied())
    }

    /// Median, least and greatest.
    pub(super) fn spread(&self) -> Spread {
        let sorted = sorted(self.0.iter().copied());
        let end = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        Spread { median: self.median(), min: end(sorted.first()), max: end(sorted.last()) }
    }

    /// This against another one, round by round: what disturbs a round disturbs both.
    pub(super) fn each(&self, other: &Self, compare: impl Fn(f64, f64) -> f64) -> Self {
        self.0.iter().zip(&other.0).map(|(own, other)| compare(*own, *other)).collect()
    }

    /// The ratio to another one, round by round.
    pub(super) fn ratio(&self, base: &Self) -> Self {
        self.each(base, |own, base| own / base)
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<Values: IntoIterator<Item = f64>>(values: Values) -> Self {
        Self(values.into_iter().collect())
    }
}

impl From<Series> for Spread {
    fn from(series: Series) -> Self {
        series.spread()
    }
}

#[cfg(test)]
mod tests {
    use super::Series;

    /// A ratio is the median of the rounds' ratios, not the ratio of medians from different rounds.
    #[test]
    fn series_compare_within_a_round() {
        let base = Series::from_iter([10.0, 100.0, 50.0]);
        let own = Series::from_iter([20.0, 130.0, 90.0]);
        assert_eq!(own.each(&base, |own, base| own - base).median(), 30.0);
        assert_eq!(own.ratio(&base).median(), 1.8);
        let json = serde_json::to_value(&own).expect("JSON");
        assert_eq!(json, serde_json::json!({"median": 90.0, "min": 20.0, "max": 130.0}));
        assert!(Series::default().median().is_nan() && Series::default().spread().max.is_nan());
    }
}
