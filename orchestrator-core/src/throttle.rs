//! Throttles: how often one caller, or one class of tasks, may submit (ORCH-3006).
//!
//! Each key has a token bucket that counts in billionths of a token, so that nothing is lost to rounding: whoever waits
//! as long as it was told to is admitted.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use api_types::{ErrorKind, PolicyLabel};

use crate::Refusal;

#[cfg(test)]
mod tests;

/// One token in a bucket's own unit.
const TOKEN: u64 = 1_000_000_000;
/// Buckets kept at the same time.
const MOST_KEYS: usize = 65_536;

/// What a bucket holds and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Tokens that come in per second, to the millionth; what is less than one millionth, or no number, counts as one.
    pub rate_per_s: f64,
    /// Most tokens it holds, which is how many may be taken at once; 0 counts as 1.
    pub burst: u32,
}

/// No token is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no token for another {retry_after_ms} ms")]
pub struct Throttled {
    /// Time until one is, in milliseconds.
    pub retry_after_ms: u64,
}

/// A token bucket at a point in time; full at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    capacity: u64,
    /// What comes in per millisecond.
    inflow: u64,
    /// What was there at `at_ms`.
    level: u64,
    at_ms: u64,
}

impl TokenBucket {
    /// A full one.
    #[must_use]
    pub fn new(settings: RateLimit, now_ms: u64) -> Self {
        let capacity = u64::from(settings.burst.max(1)) * TOKEN;
        // Millionths per second are billionths per millisecond.
        let inflow = ((settings.rate_per_s * 1e6).round() as u64).max(1);
        Self { capacity, inflow, level: capacity, at_ms: now_ms }
    }

    /// Time until a token is there, in milliseconds; 0 when one is.
    #[must_use]
    pub fn wait_ms(&self, now_ms: u64) -> u64 {
        self.full_after(TOKEN, now_ms)
    }

    /// Takes a token.
    ///
    /// # Errors
    /// [`Throttled`] when there is none; nothing has changed then.
    pub fn take(&mut self, now_ms: u64) -> Result<(), Throttled> {
        let retry_after_ms = self.wait_ms(now_ms);
        if retry_after_ms > 0 {
            return Err(Throttled { retry_after_ms });
        }
        self.level = self.level_at(now_ms) - TOKEN;
        self.at_ms = self.at_ms.max(now_ms);
        Ok(())
    }

    /// When it is full again if nothing more is taken.
    fn full_at_ms(&self) -> u64 {
        self.at_ms.saturating_add(self.full_after(self.capacity, self.at_ms))
    }

    /// Time until it holds this much. A clock that runs backwards makes the wait longer, never the bucket fuller.
    fn full_after(&self, level: u64, now_ms: u64) -> u64 {
        let missing = level.saturating_sub(self.level_at(now_ms));
        if missing == 0 {
            return 0;
        }
        missing.div_ceil(self.inflow).saturating_add(self.at_ms.saturating_sub(now_ms))
    }

    fn level_at(&self, now_ms: u64) -> u64 {
        let inflow = self.inflow.saturating_mul(now_ms.saturating_sub(self.at_ms));
        self.level.saturating_add(inflow).min(self.capacity)
    }
}

/// One bucket per key, all alike. A bucket that is full again is forgotten; when 65,536 are not full, the one that is
/// nearest to it goes, since that gives the least away.
#[derive(Clone, Debug)]
pub struct Throttles<K> {
    settings: RateLimit,
    whose: &'static str,
    most_keys: usize,
    buckets: HashMap<K, TokenBucket>,
    /// When each bucket is full again, soonest first.
    full: BTreeSet<(u64, K)>,
}

impl<K: Clone + Eq + Hash + Ord> Throttles<K> {
    /// No bucket yet. `whose` says to a client what a key stands for, such as `this API token`.
    #[must_use]
    pub fn new(settings: RateLimit, whose: &'static str) -> Self {
        Self { settings, whose, most_keys: MOST_KEYS, buckets: HashMap::new(), full: BTreeSet::new() }
    }

    /// Whether a token could be taken.
    ///
    /// # Errors
    /// As [`Throttles::take`].
    pub fn check(&self, key: &K, now_ms: u64) -> Result<(), Refusal> {
        match self.buckets.get(key).map_or(0, |bucket| bucket.wait_ms(now_ms)) {
            0 => Ok(()),
            retry_after_ms => Err(self.refusal(Throttled { retry_after_ms })),
        }
    }

    /// Takes a token from the key's bucket.
    ///
    /// # Errors
    /// `ADMISSION_REJECT` labelled `rate-limit` when there is none, with the time until there is one.
    pub fn take(&mut self, key: &K, now_ms: u64) -> Result<(), Refusal> {
        self.forget_full(now_ms);
        if !self.buckets.contains_key(key) {
            self.make_room();
        }
        let bucket = self.buckets.entry(key.clone()).or_insert_with(|| TokenBucket::new(self.settings, now_ms));
        let before_ms = bucket.full_at_ms();
        if let Err(throttled) = bucket.take(now_ms) {
            return Err(self.refusal(throttled));
        }
        let after_ms = bucket.full_at_ms();
        self.full.remove(&(before_ms, key.clone()));
        self.full.insert((after_ms, key.clone()));
        Ok(())
    }

    /// Buckets kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    fn forget_full(&mut self, now_ms: u64) {
        while self.full.first().is_some_and(|(full_ms, _)| *full_ms <= now_ms) {
            self.forget_first();
        }
    }

    fn make_room(&mut self) {
        while self.buckets.len() >= self.most_keys {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, key)) = self.full.pop_first() {
            self.buckets.remove(&key);
        }
    }

    fn refusal(&self, throttled: Throttled) -> Refusal {
        throttled.refusal(self.settings, self.whose)
    }
}

impl Throttled {
    /// What a client is told: who may submit how much, and when to try again.
    #[must_use]
    pub fn refusal(self, limit: RateLimit, whose: &str) -> Refusal {
        let wait_ms = self.retry_after_ms;
        let message = format!("{whose} may submit {}; try again in {wait_ms} ms", spoken(limit.rate_per_s));
        let retry_after_ms = i64::try_from(wait_ms).unwrap_or(i64::MAX);
        Refusal::backpressure(ErrorKind::AdmissionReject, PolicyLabel::RateLimit, retry_after_ms, message)
    }
}

/// A rate in the unit that a person would use.
fn spoken(rate_per_s: f64) -> String {
    let (rate, unit) = if rate_per_s < 1.0 { (rate_per_s * 60.0, "minute") } else { (rate_per_s, "second") };
    let rate = (rate * 1e3).round() / 1e3;
    let noun = if rate == 1.0 { "task" } else { "tasks" };
    format!("{rate} {noun} per {unit}")
}
