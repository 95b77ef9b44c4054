//! Whose turn it is when both classes wait and the operator has given them shares.

use std::num::NonZeroU16;

use api_types::Priority;

use crate::classes::PerClass;

/// Starts in one round while both classes wait: so many interactive entries, then so many batch ones.
pub type Weights = PerClass<NonZeroU16>;

/// Where the present round stands. A round begins anew whenever a class has nothing waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turns {
    interactive: usize,
    batch: usize,
    /// Entries taken in this round.
    taken: usize,
}

impl Turns {
    pub(super) fn new(weights: Weights) -> Self {
        Self { interactive: weights.interactive.get().into(), batch: weights.batch.get().into(), taken: 0 }
    }

    pub(super) const fn next(self) -> Priority {
        if self.taken < self.interactive { Priority::Interactive } else { Priority::Batch }
    }

    /// An entry was taken; `contested` says whether the other class had one waiting too.
    pub(super) fn took(&mut self, priority: Priority, contested: bool) {
        self.taken = match contested {
            false => 0,
            true if priority == self.next() => (self.taken + 1) % (self.interactive + self.batch),
            // Taken out of turn, by a slot that could not run the other.
            true => self.taken,
        };
    }

    /// Entries of the other class that start before the one with `rank` of its own class ahead, if the other class never
    /// runs out.
    pub(super) const fn others_before(self, priority: Priority, rank: usize) -> usize {
        let left_interactive = self.interactive.saturating_sub(self.taken);
        let left_batch = self.batch.saturating_sub(self.taken.saturating_sub(self.interactive));
        match priority {
            Priority::Interactive if rank < left_interactive => 0,
            Priority::Interactive => left_batch + (rank - left_interactive) / self.interactive * self.batch,
            Priority::Batch if rank < left_batch => left_interactive,
            Priority::Batch => left_interactive + ((rank - left_batch) / self.batch + 1) * self.interactive,
        }
    }
}
