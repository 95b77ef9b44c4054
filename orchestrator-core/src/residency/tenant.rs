//! A pool, as the memory of its devices sees it.

use api_types::Priority;

use super::Part;
use crate::classes::PerClass;

/// Where a tenant's engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There is none, and one may be loaded.
    Out,
    /// Its model and its program are made present; it needs no memory yet.
    Preparing,
    /// It waits for memory.
    Asking,
    /// Memory was promised to it, since then; it is started and loads.
    Loading {
        /// On the caller's clock, in milliseconds.
        since_ms: u64,
    },
    /// It serves, since then.
    Serving {
        /// On the caller's clock, in milliseconds.
        since_ms: u64,
    },
    /// It ends, and its memory comes back.
    Leaving,
    /// There is none, and none can be loaded now: it failed, or somebody had it stopped.
    Barred,
}

/// Tasks of one class that wait for a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiters {
    /// How many.
    pub count: usize,
    /// When the first of them was admitted, in milliseconds; of no meaning without one.
    pub oldest_ms: u64,
}

/// A pool, as the memory of its devices sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Where its engine is.
    pub stage: Stage,
    /// It is loaded when somebody asks for it, and only then.
    pub on_demand: bool,
    /// It is never evicted.
    pub keep: bool,
    /// It is to be loaded whether or not tasks wait: the operator wants it.
    pub wanted: bool,
    /// Others were fenced or evicted for it, and it was not loaded since: the room that they make is its own.
    pub is_next: bool,
    /// It starts no more tasks, so that it can be evicted.
    pub fenced: bool,
    /// Memory that it takes, device by device; empty while that is not known.
    pub need: Vec<Part>,
    /// Predicted time from the promise of memory until it serves, in milliseconds.
    pub load_ms: u64,
    /// Predicted time from the order to end until its memory is back, in milliseconds.
    pub unload_ms: u64,
    /// Idle time after which it is unloaded, in milliseconds.
    pub idle_unload_ms: Option<u64>,
    /// Tasks that run on it.
    pub running: usize,
    /// Predicted time until those have ended, in milliseconds.
    pub running_ms: u64,
    /// Predicted time until those and all that wait have ended, in milliseconds.
    pub backlog_ms: u64,
    /// Tasks that wait for it.
    pub waiting: PerClass<Waiters>,
    /// When a task of it began, ended or was admitted last, in milliseconds.
    pub last_used_ms: u64,
    /// Usual time between two tasks for it, in milliseconds, once known.
    pub gap_ms: Option<u64>,
}

impl Tenant {
    /// Whether tasks wait for it.
    #[must_use]
    pub const fn has_waiters(&self) -> bool {
        self.waiting.interactive.count + self.waiting.batch.count > 0
    }

    /// When the task that waits longest was admitted, in milliseconds.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        let of = |class| Some(self.waiting.of(class)).filter(|waiters| waiters.count > 0);
        Priority::ALL.iter().filter_map(|class| of(*class)).map(|waiters| waiters.oldest_ms).min()
    }

    /// Whether somebody waits for its engine.
    #[must_use]
    pub const fn is_asked_for(&self) -> bool {
        self.has_waiters() || self.wanted
    }

    /// Predicted time of one of the tasks that wait for it, in milliseconds.
    pub(super) fn task_ms(&self) -> u64 {
        let count = self.waiting.interactive.count + self.waiting.batch.count;
        self.backlog_ms.saturating_sub(self.running_ms).checked_div(count as u64).unwrap_or(0)
    }

    /// Whether nothing runs on it or waits for it.
    pub(super) const fn is_idle(&self) -> bool {
        self.running == 0 && !self.has_waiters()
    }

    /// Whether it uses a device that another uses, too.
    pub(super) fn shares_with(&self, other: &Self) -> bool {
        self.need.iter().any(|part| other.need.iter().any(|theirs| theirs.device == part.device))
    }
}
