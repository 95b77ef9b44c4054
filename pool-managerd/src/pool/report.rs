//! How a pool stands.

use std::sync::{Arc, Mutex, PoisonError};

use api_types::{PoolFault, PoolState, ReloadStatus};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::machine::{Machine, Reload};

/// Which engine a pool runs (ORCH-3420).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineIdentity {
    /// Its version.
    pub version: String,
    /// Digest of its program or image.
    pub digest: Option<String>,
    /// Its entry in the catalog of engines.
    pub catalog_id: Option<String>,
}

/// How a pool stands, for everybody who wants to know.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolReport {
    /// What its engine is doing.
    pub state: PoolState,
    /// Whether tasks may be given to the engine.
    pub takes_tasks: bool,
    /// The model that is served, or is to be.
    pub model: String,
    /// What went wrong last, until it serves again.
    pub failure: Option<Failure>,
    /// What is being done just now, in words, and the share of it that is done.
    pub activity: Option<(String, Option<f64>)>,
    /// Times it was started again after a failure.
    pub restarts: u32,
    /// When it is tried again.
    pub next_attempt: Option<Instant>,
    /// The engine's process.
    pub pid: Option<u32>,
    /// The engine, once prepared.
    pub engine: Option<EngineIdentity>,
    /// The last reload, or the one under way.
    pub reload: Option<ReloadStatus>,
    /// The daemon ends, and nothing of the pool is left.
    pub is_over: bool,
}

impl PoolReport {
    pub(super) fn new(machine: &Machine) -> Self {
        Self {
            state: machine.state(),
            takes_tasks: machine.takes_tasks(),
            model: machine.model().to_owned(),
            failure: machine.failure().cloned(),
            activity: None,
            restarts: machine.restarts(),
            next_attempt: None,
            pid: None,
            engine: None,
            reload: machine.reload().map(reload_status),
            is_over: false,
        }
    }

    /// The kind of the last failure.
    #[must_use]
    pub fn fault(&self) -> Option<PoolFault> {
        self.failure.as_ref().map(|failure| failure.fault)
    }
}

fn reload_status(reload: &Reload) -> ReloadStatus {
    ReloadStatus {
        new_model_ref: reload.new.clone(),
        old_model_ref: reload.old.clone(),
        state: reload.state,
        error: reload.error.clone(),
    }
}

/// What long work says of itself while it goes on. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Activity(Arc<Mutex<Option<Doing>>>);

/// What is being done, and the share of it that is done.
type Doing = (String, Option<f64>);

impl Activity {
    /// What is being done, and the share of it that is done, 0 to 1, where that can be told.
    pub fn set(&self, what: impl Into<String>, share: Option<f64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((what.into(), share));
    }

    /// Nothing is being done.
    pub fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What it said last.
    #[must_use]
    pub fn get(&self) -> Option<Doing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
