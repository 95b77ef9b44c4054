//! Random numbers of a task's life. Each client and each fault has its own generator, so that the tasks are the same
//! whatever the scheduler does with them.

use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Beta, Distribution as _, Exp1, StandardNormal};

use crate::scenario::{Share, Size};

/// A generator of its own for one purpose.
#[derive(Clone, Debug)]
pub(crate) struct Draw(Xoshiro256PlusPlus);

impl Draw {
    /// The generator of a seed for one purpose, told by numbers.
    pub(crate) fn new(seed: u64, purpose: [u64; 3]) -> Self {
        let mixed = purpose.into_iter().fold(seed, |mixed, part| {
            // The constants are those of SplitMix64, which makes neighbouring seeds unlike.
            let next = (mixed ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
            let next = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            next ^ (next >> 27)
        });
        Self(Xoshiro256PlusPlus::seed_from_u64(mixed))
    }

    /// An exponentially distributed time, in whole milliseconds.
    pub(crate) fn time(&mut self, mean_ms: f64) -> u64 {
        let unit: f64 = Exp1.sample(&mut self.0);
        (unit * mean_ms).round() as u64
    }

    /// Whether something of this probability happens.
    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        self.0.random_bool(probability)
    }

    /// A number below this one.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    /// A factor from one to the other.
    pub(crate) fn factor(&mut self, from: f64, to: f64) -> f64 {
        self.0.random_range(from..=to)
    }

    /// A standard normal number.
    pub(crate) fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.0)
    }

    /// A number of this kind.
    pub(crate) fn size(&mut self, size: Size) -> u32 {
        match size {
            Size::Fixed(number) => number,
            Size::OneOf(numbers) => numbers.choose(&mut self.0).copied().unwrap_or(0),
            Size::Within(from, to) => {
                let power = self.0.random_range(f64::from(from).ln()..=f64::from(to).ln());
                power.exp().round() as u32
            }
        }
    }

    /// A share of this kind.
    pub(crate) fn share(&mut self, share: Share) -> f64 {
        match share {
            Share::Fixed(share) => share,
            Share::Beta(alpha, beta) => self.beta(alpha, beta),
            Share::Capped { full, beta } => {
                let rest = self.beta(beta.0, beta.1);
                if self.happens(full) { 1.0 } else { rest }
            }
        }
    }

    fn beta(&mut self, alpha: f64, beta: f64) -> f64 {
        Beta::new(alpha, beta).expect("scenarios have positive shapes").sample(&mut self.0)
    }
}
