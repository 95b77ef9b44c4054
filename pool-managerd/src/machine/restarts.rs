//! How long a pool pauses before another start, and when it has had too many.

use std::collections::VecDeque;

use super::Limits;

/// The restarts of a pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Restarts {
    /// When they happened, the newest last; only those that still count.
    recent: VecDeque<u64>,
    /// Failures since it last served for long enough.
    in_a_row: u32,
    /// Since when it serves.
    serving_since_ms: Option<u64>,
    total: u32,
}

impl Restarts {
    /// All there were.
    pub(super) const fn total(&self) -> u32 {
        self.total
    }

    /// It serves from now on.
    pub(super) const fn serves(&mut self, now_ms: u64) {
        self.serving_since_ms = Some(now_ms);
    }

    /// Somebody starts it by hand: what was counts no more.
    pub(super) fn forget(&mut self) {
        self.recent.clear();
        self.in_a_row = 0;
        self.serving_since_ms = None;
    }

    /// Counts a restart that has no pause of its own.
    pub(super) fn count(&mut self, now_ms: u64) {
        self.recent.push_back(now_ms);
        self.total += 1;
    }

    /// It failed. The pause before the next start, which doubles with each failure in a row; `None` when there were too many
    /// within the window.
    pub(super) fn next(&mut self, limits: &Limits, now_ms: u64) -> Option<u64> {
        // One that served for as long as the longest pause has proved itself.
        let served_ms = self.serving_since_ms.take().map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
        if served_ms >= limits.backoff_max_ms {
            self.in_a_row = 0;
        }
        while self.recent.front().is_some_and(|at_ms| now_ms.saturating_sub(*at_ms) >= limits.circuit_window_ms) {
            self.recent.pop_front();
        }
        if self.recent.len() >= limits.circuit_restarts {
            // It is tried once after the rest; whether that is the first of many is decided then.
            self.recent.clear();
            self.in_a_row = 0;
            self.total += 1;
            return None;
        }
        let pause_ms = limits.backoff_ms.saturating_mul(1 << self.in_a_row.min(32)).min(limits.backoff_max_ms);
        self.in_a_row += 1;
        self.count(now_ms);
        Some(pause_ms)
    }
}
