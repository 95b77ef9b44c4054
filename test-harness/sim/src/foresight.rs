//! An informed forecast: when a task starts, foreseen with the true speeds and the true distribution of lengths, but not the
//! lengths themselves, nor who comes or goes later. What the scheduler's own predictions lack of this is what a better
//! estimate could gain; the rest is chance.

use crate::draw::Draw;
use crate::engine::{Engine, Work};
use crate::load::Traits;
use crate::scenario::{Pool, Scenario, Share};
use crate::world::Life;

/// Shares drawn once to stand for a distribution.
const SHARES: usize = 512;
/// Futures that a forecast is the median of.
const FUTURES: usize = 33;

#[derive(Debug)]
pub(crate) struct Foresight {
    draw: Draw,
    /// For each source, shares of the limit as they may come, ascending.
    shares: Vec<Vec<f64>>,
}

impl Foresight {
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> Self {
        let mut draw = Draw::new(seed, [3, 0, 0]);
        let shares = scenario.sources.iter().map(|source| shares(&mut draw, source.output)).collect();
        Self { draw, shares }
    }

    /// When a task that waits for a pool with these ahead of it starts, in milliseconds from now, if nobody else comes.
    pub(crate) fn start_ms(
        &mut self,
        pool: &Pool,
        engines: &[&Engine],
        lives: &[Life],
        ahead: &[usize],
        now_ms: u64,
    ) -> u64 {
        let mut free = 0;
        let mut running = Vec::new();
        for (engine, replica) in engines.iter().zip(pool.replicas) {
            let tasks = engine.progress(now_ms);
            free += (replica.slots as usize).saturating_sub(tasks.len());
            let pace = engine.full_pace(replica.slots);
            let hidden = |(task, so_far, prefill_ms)| self.hidden(pool, &lives[task], so_far, prefill_ms, pace);
            running.extend(tasks.into_iter().map(hidden));
        }
        if free > ahead.len() {
            return 0;
        }
        let pace = engines[0].full_pace(pool.replicas[0].slots);
        let waiting = |task: &usize| {
            let prefill_ms = Work::new(pool, lives[*task].traits.prompt_tokens, 1, 0.0).prefill_ms;
            self.hidden(pool, &lives[*task], 0, prefill_ms, pace)
        };
        let waiting: Vec<Hidden> = ahead.iter().map(waiting).collect();
        let mut futures: Vec<f64> = (0..FUTURES).map(|_| self.future(free, &running, &waiting)).collect();
        futures.sort_by(f64::total_cmp);
        futures[FUTURES / 2].round() as u64
    }

    /// What can be known of a task that has generated so many tokens.
    fn hidden(&self, pool: &Pool, life: &Life, so_far: u32, prefill_ms: f64, pace: f64) -> Hidden {
        let Traits { limit, expected, .. } = life.traits;
        let so_far = f64::from(so_far);
        let shares = &self.shares[life.client.0];
        let passed = shares.partition_point(|share| share * f64::from(limit) < so_far);
        Hidden {
            source: life.client.0,
            passed: passed.min(shares.len() - 1),
            limit: f64::from(limit),
            expected: expected.map(f64::from),
            so_far,
            prefill_ms: prefill_ms / pace,
            ms_per_token: 1e3 / (pool.decode_tokens_per_s * pace),
        }
    }

    /// The start in one of the possible futures.
    fn future(&mut self, free: usize, running: &[Hidden], waiting: &[Hidden]) -> f64 {
        let mut slots = vec![0.0; free];
        slots.extend(running.iter().map(|task| self.draw_ms(task)));
        for task in waiting {
            *first(&mut slots) += self.draw_ms(task);
        }
        *first(&mut slots)
    }

    /// What is left of a task, in milliseconds, as it may be.
    fn draw_ms(&mut self, task: &Hidden) -> f64 {
        let tokens = if let Some(expected) = task.expected {
            expected / self.draw.factor(0.75, 1.25)
        } else {
            let shares = &self.shares[task.source][task.passed..];
            shares[self.draw.below(shares.len())] * task.limit
        };
        task.prefill_ms + (tokens.clamp(1.0, task.limit) - task.so_far).max(0.0) * task.ms_per_token
    }
}

/// A task as far as it can be known.
struct Hidden {
    source: usize,
    /// How many of the source's shares it has passed.
    passed: usize,
    limit: f64,
    expected: Option<f64>,
    so_far: f64,
    prefill_ms: f64,
    ms_per_token: f64,
}

/// The slot that falls free first.
fn first(slots: &mut [f64]) -> &mut f64 {
    slots.iter_mut().min_by(|one, other| one.total_cmp(other)).expect("every replica has a slot")
}

fn shares(draw: &mut Draw, share: Share) -> Vec<f64> {
    let mut shares: Vec<f64> = (0..SHARES).map(|_| draw.share(share)).collect();
    shares.sort_by(f64::total_cmp);
    shares
}
