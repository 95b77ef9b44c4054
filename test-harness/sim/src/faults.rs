//! When which mishap begins and ends.

use crate::draw::Draw;
use crate::scenario::{Fault, FaultKind};

/// All mishaps of a scenario, each with a generator of its own.
#[derive(Debug)]
pub(crate) struct Faults {
    faults: &'static [Fault],
    draws: Vec<Draw>,
}

impl Faults {
    pub(crate) fn new(faults: &'static [Fault], seed: u64) -> Self {
        Self { faults, draws: (0..faults.len() as u64).map(|index| Draw::new(seed, [2, index, 0])).collect() }
    }

    /// How long after the end of the last one the next one begins.
    pub(crate) fn pause_ms(&mut self, index: usize) -> u64 {
        self.draws[index].time(self.faults[index].every_ms)
    }

    /// How long one lasts that begins now.
    pub(crate) fn length_ms(&mut self, index: usize) -> u64 {
        self.draws[index].time(self.faults[index].lasts_ms)
    }

    /// Which of so many it hits.
    pub(crate) fn victim(&mut self, index: usize, of: usize) -> usize {
        self.draws[index].below(of)
    }
}

/// What is wrong with a replica; several mishaps may hold at the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Condition {
    crashed: u32,
    unready: u32,
    silent: u32,
    loaded: bool,
}

impl Condition {
    /// Nothing is wrong; `loaded` is false while its model is not in memory.
    pub(crate) const fn new(loaded: bool) -> Self {
        Self { crashed: 0, unready: 0, silent: 0, loaded }
    }

    /// Its model comes into memory, or goes.
    pub(crate) const fn load(&mut self, loaded: bool) {
        self.loaded = loaded;
    }

    /// One of this kind begins (`true`) or ends.
    pub(crate) const fn note(&mut self, kind: FaultKind, begins: bool) {
        let count = match kind {
            FaultKind::Crash => &mut self.crashed,
            FaultKind::Unready => &mut self.unready,
            FaultKind::Silent => &mut self.silent,
            FaultKind::Reset | FaultKind::Drain => return,
        };
        *count = if begins { *count + 1 } else { *count - 1 };
    }

    /// Its process runs.
    pub(crate) const fn is_live(self) -> bool {
        self.loaded && self.crashed == 0
    }

    /// What it says of itself.
    pub(crate) const fn is_ready(self) -> bool {
        self.is_live() && self.unready == 0
    }

    /// Its probes are answered.
    pub(crate) const fn answers(self) -> bool {
        self.silent == 0
    }
}
