//! An adapter in its place: what its engine last said, whether it may be given tasks, and what it still works on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adapter_api::retry::RetryPolicy;
use adapter_api::{WorkerAdapter, WorkerError, WorkerHealth, WorkerProps};
use api_types::{PoolId, ReplicaId};
use tokio::time::Instant;

use crate::breaker::{Breaker, BreakerPolicy, BreakerState, Leave, is_failure};
use crate::cache::Cached;
use crate::narrate;
use crate::settle::Load;

/// How tasks are given to one engine (ORCH-3602).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallPolicy {
    /// When the engine is left alone.
    pub breaker: BreakerPolicy,
    /// How often a submission is repeated that failed for a passing reason before anything was streamed.
    pub retry: RetryPolicy,
}

/// How the calls to a replica go (LO-HOST-02).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallReport {
    /// What its breaker lets through.
    pub breaker: BreakerState,
    /// The failure that opened the breaker, while it is not closed.
    pub tripped_by: Option<WorkerError>,
    /// Repeated submissions since the replica was first bound.
    pub retries: u64,
    /// How often the breaker opened since the replica was first bound.
    pub trips: u64,
    /// Tasks that were given up here and that the engine may still work on.
    pub settling: usize,
}

/// Counts that outlive a rebind.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    retries: AtomicU64,
    trips: AtomicU64,
}

/// An adapter in its place. A new adapter starts with nothing remembered but the counts.
pub(crate) struct Binding {
    pub(crate) pool: PoolId,
    pub(crate) replica: ReplicaId,
    pub(crate) adapter: Arc<dyn WorkerAdapter>,
    pub(crate) policy: CallPolicy,
    pub(crate) health: Cached<WorkerHealth>,
    pub(crate) props: Cached<Arc<WorkerProps>>,
    pub(crate) version: Cached<Arc<str>>,
    pub(crate) load: Load,
    pub(crate) counts: Arc<Counts>,
    guard: Mutex<Guard>,
}

struct Guard {
    breaker: Breaker,
    tripped_by: Option<WorkerError>,
}

impl Binding {
    pub(crate) fn new(
        pool: PoolId,
        replica: ReplicaId,
        adapter: Arc<dyn WorkerAdapter>,
        policy: CallPolicy,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            pool,
            replica,
            adapter,
            policy,
            health: Cached::default(),
            props: Cached::default(),
            version: Cached::default(),
            load: Load::default(),
            counts,
            guard: Mutex::new(Guard { breaker: Breaker::new(policy.breaker), tripped_by: None }),
        }
    }

    /// Leave for a task.
    ///
    /// # Errors
    /// `PoolUnavailable` while the breaker lets nothing through.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Call, WorkerError> {
        let now = Instant::now();
        let mut guard = self.guard();
        match guard.breaker.admit(now) {
            Ok(leave) => {
                drop(guard);
                if leave == Leave::Trial {
                    narrate::half_open(self);
                }
                Ok(Call { binding: Arc::clone(self), leave })
            }
            Err(state) => Err(WorkerError::PoolUnavailable(blocked(state, guard.tripped_by.as_ref(), now))),
        }
    }

    pub(crate) fn report(&self) -> CallReport {
        let guard = self.guard();
        let breaker = guard.breaker.state(Instant::now());
        CallReport {
            breaker,
            tripped_by: guard.tripped_by.clone(),
            retries: self.counts.retries.load(Ordering::Relaxed),
            trips: self.counts.trips.load(Ordering::Relaxed),
            settling: self.load.settling(),
        }
    }

    pub(crate) fn count_retry(&self) {
        self.counts.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) async fn ask_props(&self) -> Result<Arc<WorkerProps>, WorkerError> {
        self.adapter.props().await.map(Arc::new)
    }

    pub(crate) async fn ask_version(&self) -> Result<Arc<str>, WorkerError> {
        self.adapter.engine_version().await.map(Arc::from)
    }

    fn guard(&self) -> MutexGuard<'_, Guard> {
        // Every change is one assignment after another that cannot panic in between.
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn blocked(state: BreakerState, tripped_by: Option<&WorkerError>, now: Instant) -> String {
    let why = tripped_by.map_or_else(String::new, |error| format!(" after too many failures, the last one: {error}"));
    match state {
        BreakerState::Open { until } => {
            let wait_ms = until.saturating_duration_since(now).as_millis();
            format!("its breaker is open for {wait_ms} ms more{why}")
        }
        BreakerState::HalfOpen { .. } | BreakerState::Closed => {
            format!("its breaker is half-open and lets one task through at a time{why}")
        }
    }
}

/// One task's leave to use an engine. What becomes of it is told to the breaker; one dropped in silence says nothing.
pub(crate) struct Call {
    pub(crate) binding: Arc<Binding>,
    leave: Leave,
}

impl Call {
    /// Whether the breaker waits for a word.
    pub(crate) fn is_trial(&self) -> bool {
        self.leave == Leave::Trial
    }

    /// The engine has produced something.
    pub(crate) fn worked(&mut self) {
        if self.is_trial() {
            let mut guard = self.binding.guard();
            guard.breaker.worked(&self.leave);
            guard.tripped_by = None;
            drop(guard);
            self.leave = Leave::Usual;
            narrate::closed(&self.binding);
        }
    }

    /// The call is given up. What the engine does with it from now on says nothing.
    pub(crate) fn withdraw(&mut self) {
        if self.is_trial() {
            self.binding.guard().breaker.withdrawn(&self.leave);
            self.leave = Leave::Usual;
        }
    }

    /// The call failed. Only what is the engine's failure counts.
    pub(crate) fn failed(&mut self, error: &WorkerError) {
        if !is_failure(error) {
            return;
        }
        let mut guard = self.binding.guard();
        let opened = guard.breaker.failed(&self.leave, Instant::now());
        if opened {
            guard.tripped_by = Some(error.clone());
        }
        drop(guard);
        self.leave = Leave::Usual;
        if opened {
            self.binding.counts.trips.fetch_add(1, Ordering::Relaxed);
            narrate::opened(&self.binding, error);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.withdraw();
    }
}
