//! The tasks that run now, and the one place where each of them ends.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use adapter_api::{StreamState, TokenEvent, TokenStream, WorkerAdapter, WorkerError};
use api_types::{PoolId, ReplicaId, TaskId};
use tokio_util::sync::CancellationToken;

use crate::narrate;

/// A task on its way to an engine or running there.
pub(crate) struct Task {
    pub(crate) id: TaskId,
    pub(crate) pool: PoolId,
    pub(crate) replica: ReplicaId,
    pub(crate) token: CancellationToken,
    /// The adapter it was given to; a rebind does not change that.
    pub(crate) adapter: Arc<dyn WorkerAdapter>,
    stage: Mutex<Stage>,
}

/// Held while the adapter's stream is polled, so that closing it waits for the events being handed on.
enum Stage {
    Submitting,
    Streaming(Box<dyn TokenStream>),
    Closed,
}

impl Task {
    pub(crate) fn new(
        id: TaskId,
        pool: PoolId,
        replica: ReplicaId,
        token: CancellationToken,
        adapter: Arc<dyn WorkerAdapter>,
    ) -> Self {
        Self { id, pool, replica, token, adapter, stage: Mutex::new(Stage::Submitting) }
    }

    /// Takes the engine's stream in; false when the task was closed meanwhile, and the stream is gone then.
    pub(crate) fn begin(&self, stream: Box<dyn TokenStream>) -> bool {
        let mut stage = self.lock();
        let open = !matches!(*stage, Stage::Closed);
        if open {
            *stage = Stage::Streaming(stream);
        }
        open
    }

    /// Polls the engine's stream; `None` when the task is closed. What ends the stream closes the task in the same breath, so
    /// a cancel comes before it or finds nothing.
    pub(crate) fn poll(
        &self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(TokenEvent<'_>),
    ) -> Option<Poll<Result<StreamState, WorkerError>>> {
        let mut stage = self.lock();
        let Stage::Streaming(stream) = &mut *stage else { return None };
        let polled = stream.poll_events(cx, sink);
        if matches!(polled, Poll::Ready(Ok(StreamState::Ended) | Err(_))) {
            let ended = std::mem::replace(&mut *stage, Stage::Closed);
            drop(stage);
            drop(ended);
        }
        Some(polled)
    }

    /// Closes the task and drops the engine's stream; false when it was closed already. No event is handed on after it.
    pub(crate) fn close(&self) -> bool {
        let closed = std::mem::replace(&mut *self.lock(), Stage::Closed);
        !matches!(closed, Stage::Closed)
    }

    /// Closes the task from a place that cannot wait, and has the engine told from a task of its own, which ends within the
    /// adapter's time limits and has nobody to report to.
    pub(crate) fn abandon(self: &Arc<Self>) {
        if !self.close() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let task = Arc::clone(self);
            runtime.spawn(async move { task.tell_engine().await });
        }
    }

    /// Tells engines that do not notice a dropped stream.
    pub(crate) async fn tell_engine(&self) {
        let told = self.adapter.cancel(self.id).await;
        narrate::canceled(self, told.err().as_ref());
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        // After a panic in an adapter or a reader the stream is whatever it is; closing it is still right.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("pool", &self.pool)
            .field("replica", &self.replica)
            .finish_non_exhaustive()
    }
}

/// The tasks that run now, by id (LO-SSE-01).
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    running: Mutex<HashMap<TaskId, Arc<Task>>>,
}

impl Tasks {
    /// Enters a task; it leaves when the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>, task: Task) -> Result<Entered, WorkerError> {
        let task = Arc::new(task);
        match self.lock().entry(task.id) {
            Entry::Vacant(entry) => entry.insert(Arc::clone(&task)),
            // A second stream of one task would be the duplicate that must never be.
            Entry::Occupied(_) => return Err(WorkerError::Internal(format!("task {} is running already", task.id))),
        };
        Ok(Entered { tasks: Arc::clone(self), task })
    }

    pub(crate) fn find(&self, pool: &PoolId, id: TaskId) -> Option<Arc<Task>> {
        self.lock().get(&id).filter(|task| task.pool == *pool).cloned()
    }

    /// Takes a task out; doing so twice is harmless.
    pub(crate) fn leave(&self, task: &Arc<Task>) {
        let mut running = self.lock();
        // The id may be in use again.
        if running.get(&task.id).is_some_and(|entered| Arc::ptr_eq(entered, task)) {
            running.remove(&task.id);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Arc<Task>>> {
        // Single insertions and removals leave nothing half done.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task's place among those that run.
#[derive(Debug)]
pub(crate) struct Entered {
    tasks: Arc<Tasks>,
    pub(crate) task: Arc<Task>,
}

impl Entered {
    /// Leaves before the guard is dropped.
    pub(crate) fn leave(&self) {
        self.tasks.leave(&self.task);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.leave();
        self.task.abandon();
    }
}
