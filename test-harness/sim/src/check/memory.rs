//! What is promised of memory, and of the time that models are waited for.

use super::{Broken, Checker, Kept};

impl Checker {
    /// A pool's model is not loaded, or is to go; or it is there.
    pub(crate) fn cold(&mut self, pool: usize, cold: bool) {
        self.pools[pool].cold = cold;
    }

    /// An engine has taken memory that was promised to it, if it `fits`.
    pub(crate) fn took(&self, pool: usize, device: usize, fits: bool) -> Kept {
        fits.then_some(()).ok_or(Broken::OverCommitted { pool: self.pools[pool].spec.id, device })
    }

    /// A pool's engine is ended.
    pub(crate) fn unloads(&self, pool: usize) -> Kept {
        let known = &self.pools[pool];
        (known.running() == 0).then_some(()).ok_or(Broken::Killed { pool: known.spec.id })
    }

    /// A task has started after so long.
    pub(crate) fn waited(&self, pool: usize, task: usize, wait_ms: u64) -> Kept {
        let in_time = self.age_limit_ms.is_none_or(|limit_ms| wait_ms <= limit_ms);
        in_time.then_some(()).ok_or(Broken::TooLate { pool: self.pools[pool].spec.id, task, wait_ms })
    }
}
