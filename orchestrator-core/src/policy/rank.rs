//! The order among feasible pools (ORCH-3902, HME-010).

use std::cmp::Ordering;

use super::{JobSpec, PoolSnapshot, TieBreaker};

/// A feasible pool, with everything the order asks about in one place: a decision among many pools reads each of them
/// once and compares these.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    /// Its index in the input.
    pub(super) index: usize,
    /// `None` when the pool has no hints.
    predicted_end: Option<f64>,
    is_cold: bool,
    is_home: bool,
    /// Busy slots and waiting tasks.
    work: i32,
    slots: i32,
    vram_free_bytes: i64,
    tokens_per_s: f64,
    id: &'a str,
}

impl<'a> Candidate<'a> {
    #[inline]
    pub(super) fn new(index: usize, pool: &'a PoolSnapshot, job: &JobSpec, now_ms: u64) -> Self {
        // A speed that is missing or makes no sense counts as none.
        let tokens_per_s = pool.perf_tokens_per_s.filter(|speed| speed.is_finite() && *speed > 0.0).unwrap_or(0.0);
        let id = pool.id.as_str();
        Self {
            index,
            predicted_end: predicted_end_ms(pool, job, tokens_per_s, now_ms),
            is_cold: pool.cold.is_some(),
            is_home: job.session_affinity_pool.as_ref().is_some_and(|home| home.as_str() == id),
            work: pool.slots_total.saturating_sub(pool.slots_free).saturating_add(pool.queued),
            slots: pool.slots_total.max(1),
            vram_free_bytes: pool.vram_free_bytes,
            tokens_per_s,
            id,
        }
    }
}

/// ORCH-3902.1: the wait for a load and for a slot, then the first token, then the rest at the measured speed.
#[inline]
fn predicted_end_ms(pool: &PoolSnapshot, job: &JobSpec, tokens_per_s: f64, now_ms: u64) -> Option<f64> {
    let load = pool.load?;
    let tokens_out = match (job.expected_tokens, job.max_tokens) {
        (Some(expected), _) => f64::from(expected.max(0)),
        (None, limit) => f64::from(limit?.max(0)) * pool.output_share.unwrap_or(1.0),
    };
    let cold_ms = pool.cold.map_or(0, |cold| cold.wait_ms(now_ms)) as f64;
    let end = cold_ms + load.wait_ms(job.priority, now_ms) + pool.first_token_ms? + tokens_out * 1_000.0 / tokens_per_s;
    Some(end).filter(|end| end.is_finite())
}

/// Milliseconds below which predicted ends do not differ.
const INDISTINCT_MS: f64 = 32.0;

/// A predicted end as coarse as it is known: steps of an eighth of an octave. Ends in the same step are a tie, which leaves
/// room for affinity; steps, unlike "less than 10 % apart", order any number of pools.
#[inline]
fn step_of(end_ms: f64) -> u64 {
    // Exponent and the three highest bits of the mantissa of a positive number grow with it.
    (end_ms + INDISTINCT_MS).to_bits() >> 49
}

impl Candidate<'_> {
    /// Predicted time to the job's end here, in milliseconds.
    pub(super) fn predicted_end_ms(&self) -> Option<u64> {
        self.predicted_end.map(|ms| ms.round() as u64)
    }
}

/// How candidates are compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranking {
    use_hints: bool,
}

impl Ranking {
    /// Predicted ends are compared only if every candidate has one: an order in which some pairs can be compared by them
    /// and others cannot would depend on who is compared first.
    pub(super) fn new(candidates: &[Candidate<'_>]) -> Self {
        Self { use_hints: candidates.iter().all(|candidate| candidate.predicted_end.is_some()) }
    }

    /// `Less` when the first one is better, with what decided.
    #[inline]
    pub(super) fn compare(self, one: &Candidate<'_>, other: &Candidate<'_>) -> (Ordering, TieBreaker) {
        let step = |candidate: &Candidate<'_>| candidate.predicted_end.map_or(0, step_of);
        let end = if self.use_hints { step(one).cmp(&step(other)) } else { Ordering::Equal };
        if end.is_ne() {
            return (end, TieBreaker::PredictedEnd);
        }
        let cold = one.is_cold.cmp(&other.is_cold);
        if cold.is_ne() {
            return (cold, TieBreaker::Loaded);
        }
        let home = other.is_home.cmp(&one.is_home);
        if home.is_ne() {
            return (home, TieBreaker::Affinity);
        }
        // As fractions, cross-multiplied: no rounding makes unequal loads equal.
        let share = |work, slots| i64::from(work) * i64::from(slots);
        let load = share(one.work, other.slots).cmp(&share(other.work, one.slots));
        if load.is_ne() {
            return (load, TieBreaker::LeastLoaded);
        }
        let vram = other.vram_free_bytes.cmp(&one.vram_free_bytes);
        if vram.is_ne() {
            return (vram, TieBreaker::ResidualVram);
        }
        let speed = other.tokens_per_s.total_cmp(&one.tokens_per_s);
        if speed.is_ne() {
            return (speed, TieBreaker::PerfTokensPerS);
        }
        (one.id.cmp(other.id), TieBreaker::PoolId)
    }
}
