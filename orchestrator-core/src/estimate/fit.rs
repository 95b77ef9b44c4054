//! Moving averages and a moving straight line.

/// What an older observation keeps of its weight when a newer one comes.
const KEEPS: f64 = 0.95;
/// A line needs inputs that differ by this share of their mean; otherwise it goes through the origin.
const SPREAD: f64 = 0.1;

/// An average of the latest observations: the plain one at first, about that of the last twenty in the long run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Average {
    weight: f64,
    sum: f64,
}

impl Average {
    pub(super) fn add(&mut self, value: f64) {
        *self = Self { weight: self.weight * KEEPS + 1.0, sum: self.sum * KEEPS + value };
    }

    pub(super) fn get(self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// `time = base + slope × tokens`, fitted to the latest observations by least squares.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Line {
    weight: f64,
    sum_x: f64,
    sum_y: f64,
    sum_xx: f64,
    sum_xy: f64,
}

/// A fitted line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fitted {
    /// At no tokens at all.
    pub(super) base: f64,
    /// Per token.
    pub(super) slope: f64,
}

impl Line {
    pub(super) fn add(&mut self, x: f64, y: f64) {
        let old = *self;
        *self = Self {
            weight: old.weight * KEEPS + 1.0,
            sum_x: old.sum_x * KEEPS + x,
            sum_y: old.sum_y * KEEPS + y,
            sum_xx: old.sum_xx * KEEPS + x * x,
            sum_xy: old.sum_xy * KEEPS + x * y,
        };
    }

    /// The line, once something was observed. Inputs too much alike to tell a base from a slope, and fits that make no
    /// sense, give a line through the origin.
    pub(super) fn fitted(&self) -> Option<Fitted> {
        if self.sum_x <= 0.0 {
            return None;
        }
        let (mean_x, mean_y) = (self.sum_x / self.weight, self.sum_y / self.weight);
        let variance = self.sum_xx / self.weight - mean_x * mean_x;
        let slope = (self.sum_xy / self.weight - mean_x * mean_y) / variance;
        let base = mean_y - slope * mean_x;
        let makes_sense = variance > (SPREAD * mean_x).powi(2) && slope > 0.0 && base >= 0.0;
        Some(if makes_sense { Fitted { base, slope } } else { Fitted { base: 0.0, slope: mean_y / mean_x } })
    }
}
