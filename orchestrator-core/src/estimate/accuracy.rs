//! How far off earlier predictions were, and what that says about the next one.

use std::collections::VecDeque;

use api_types::Priority;

use crate::classes::PerClass;

/// Predictions kept of each kind.
const KEPT: usize = 128;
/// Fewer than this say nothing on their own.
const ENOUGH: usize = 8;
/// Weight of what is assumed before anything was seen, in predictions.
const ASSUMED: f64 = 2.0;
/// A prediction is not corrected by more than this factor, either way.
const MOST_CORRECTION: f64 = 4.0;
/// Kinds of wait that are told apart.
const DEPTHS: usize = 6;
/// The one of tasks whose model had to be loaded first: like no other.
const LOADING: usize = DEPTHS - 1;

/// What a prediction was about. Waits behind many tasks average out, short ones do not, so each depth has its own record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// The class.
    pub priority: Priority,
    /// Which of the kinds of wait.
    depth: usize,
}

impl Situation {
    /// A task that starts at once.
    #[must_use]
    pub const fn immediate(priority: Priority) -> Self {
        Self { priority, depth: 0 }
    }

    /// A task whose model has to be loaded first.
    #[must_use]
    pub const fn loading(priority: Priority) -> Self {
        Self { priority, depth: LOADING }
    }

    /// A task that waits with so many ahead.
    #[must_use]
    pub const fn waiting(priority: Priority, ahead: usize) -> Self {
        let depth = match ahead {
            0 => 1,
            1..=3 => 2,
            4..=15 => 3,
            _ => 4,
        };
        Self { priority, depth }
    }
}

/// The record of one pool: for each situation, what became of what was predicted, as ratios of actual to predicted time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accuracy {
    starts: PerClass<[Ratios; DEPTHS]>,
    ends: PerClass<[Ratios; DEPTHS]>,
}

impl Accuracy {
    /// A task started after `actual_ms` that was predicted to start after `predicted_ms`.
    pub fn started(&mut self, situation: Situation, predicted_ms: u64, actual_ms: u64) {
        if situation.depth > 0 && predicted_ms > 0 {
            self.starts.of_mut(situation.priority)[situation.depth].add(actual_ms as f64 / predicted_ms as f64, true);
        }
    }

    /// A task ended after `actual_ms` that was predicted to end after `predicted_ms`, both from its admission. `completed`
    /// is false where it was cut short: it would have taken longer, nobody knows how much.
    pub fn ended(&mut self, situation: Situation, predicted_ms: u64, actual_ms: u64, completed: bool) {
        if predicted_ms > 0 {
            self.ends.of_mut(situation.priority)[situation.depth]
                .add(actual_ms as f64 / predicted_ms as f64, completed);
        }
    }

    /// A predicted start, corrected by how far off the earlier ones in this situation were in the median.
    #[must_use]
    pub fn corrected_start_ms(&self, situation: Situation, predicted_ms: u64) -> u64 {
        let off = nearest(self.starts.of(situation.priority), situation.depth).and_then(Ratios::median);
        match off {
            Some(off) => (predicted_ms as f64 * off.clamp(1.0 / MOST_CORRECTION, MOST_CORRECTION)).round() as u64,
            None => predicted_ms,
        }
    }

    /// What is left of a running task that was predicted to take `predicted_ms` and has run for `elapsed_ms`: what was left on
    /// average of those of its class that had run for as long. One that outlives them all is given a quarter of its
    /// prediction more, again and again.
    #[must_use]
    pub fn remainder_ms(&self, priority: Priority, predicted_ms: u64, elapsed_ms: u64) -> u64 {
        let record = Some(&self.ends.of(priority)[0]).filter(|record| record.sorted.len() >= ENOUGH);
        let elapsed = elapsed_ms as f64 / predicted_ms.max(1) as f64;
        let left = match record.and_then(|record| record.mean_beyond(elapsed)) {
            Some(mean) => ((mean - elapsed) * predicted_ms as f64).round() as u64,
            None => predicted_ms.saturating_sub(elapsed_ms),
        };
        if left > 0 { left } else { predicted_ms / 4 }
    }

    /// Probability that a task predicted to end after `predicted_ms` ends after at most `limit_ms`, given that `elapsed_ms`
    /// have passed without its end; all from its admission. Earlier predictions in the same situation decide, together
    /// with two assumed ones, so that the answer is never quite 0 or 1 before the limit itself.
    #[must_use]
    pub fn on_time_probability(&self, situation: Situation, predicted_ms: u64, elapsed_ms: u64, limit_ms: u64) -> f64 {
        if limit_ms == 0 || elapsed_ms >= limit_ms {
            return 0.0;
        }
        let predicted = predicted_ms.max(1) as f64;
        let (elapsed, limit) = (elapsed_ms as f64 / predicted, limit_ms as f64 / predicted);
        let record = nearest(self.ends.of(situation.priority), situation.depth);
        let late = |ratio: f64| {
            let (seen, weight) = record.map_or((0.0, 0.0), |record| (record.share_beyond(ratio), record.weight()));
            (seen * weight + assumed_share_beyond(ratio) * ASSUMED) / (weight + ASSUMED)
        };
        (1.0 - late(limit) / late(elapsed)).clamp(0.0, 1.0)
    }
}

/// The record of a situation, or of the one most like it that has enough to go by.
fn nearest(records: &[Ratios; DEPTHS], depth: usize) -> Option<&Ratios> {
    let distance = |other: &usize| other.abs_diff(depth);
    (0..DEPTHS)
        .filter(|other| (*other == LOADING) == (depth == LOADING) && records[*other].sorted.len() >= ENOUGH)
        .min_by_key(distance)
        .map(|other| &records[other])
}

/// Share of tasks that take more than `ratio` times what was predicted, before anything was seen: half of them take more
/// than predicted, one in five more than twice that, one in ten more than three times (log-logistic, shape 2).
fn assumed_share_beyond(ratio: f64) -> f64 {
    1.0 / (1.0 + ratio * ratio)
}

/// The latest ratios of one kind. Those of tasks that were cut short count as "at least this" (Kaplan and Meier's
/// estimate), or every missed deadline would make the next look safer.
#[derive(Clone, Debug, Default, PartialEq)]
struct Ratios {
    latest: VecDeque<Ratio>,
    sorted: Vec<Ratio>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratio {
    value: f64,
    completed: bool,
}

impl Ratios {
    fn add(&mut self, value: f64, completed: bool) {
        let new = Ratio { value, completed };
        if self.latest.len() == KEPT
            && let Some(old) = self.latest.pop_front()
        {
            self.sorted.remove(self.sorted.partition_point(|other| other.order(&old).is_lt()));
        }
        self.latest.push_back(new);
        self.sorted.insert(self.sorted.partition_point(|other| other.order(&new).is_lt()), new);
    }

    fn weight(&self) -> f64 {
        self.sorted.len() as f64
    }

    fn median(&self) -> Option<f64> {
        self.sorted.get(self.sorted.len() / 2).map(|ratio| ratio.value)
    }

    /// Mean of the ratios beyond a limit, of tasks that completed.
    fn mean_beyond(&self, limit: f64) -> Option<f64> {
        let from = self.sorted.partition_point(|ratio| ratio.value <= limit);
        let beyond = || self.sorted[from..].iter().filter(|ratio| ratio.completed);
        let count = beyond().count();
        (count > 0).then(|| beyond().map(|ratio| ratio.value).sum::<f64>() / count as f64)
    }

    /// Share of tasks that take more than `limit` times what was predicted.
    fn share_beyond(&self, limit: f64) -> f64 {
        let mut share = 1.0;
        for (index, ratio) in self.sorted.iter().enumerate() {
            if ratio.value > limit {
                break;
            }
            if ratio.completed {
                share *= 1.0 - 1.0 / (self.sorted.len() - index) as f64;
            }
        }
        share
    }
}

impl Ratio {
    /// Of equal ratios those that completed come first: the others were still running then.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.value.total_cmp(&other.value).then(other.completed.cmp(&self.completed))
    }
}
