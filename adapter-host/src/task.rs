//! A running task as its driver sees it, and the one place where each of them ends.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use adapter_api::{StreamState, TokenEvent, TokenStream, WorkerError};
use api_types::{PoolId, TaskId};
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use crate::binding::{Binding, Call};
use crate::narrate;
use crate::settle::Settling;

/// A task on its way to an engine or running there.
pub(crate) struct Task {
    pub(crate) id: TaskId,
    pub(crate) token: CancellationToken,
    /// Where it was given to; a rebind does not change that.
    binding: Arc<Binding>,
    state: Mutex<State>,
    /// The engine has let go of it after it was given up.
    settled: SetOnce<()>,
}

/// Held while the adapter's stream is polled, so that closing it waits for the events being handed on.
struct State {
    stage: Stage,
    call: Call,
}

enum Stage {
    Submitting,
    Streaming(Box<dyn TokenStream>),
    Closed,
}

impl Task {
    pub(crate) fn new(id: TaskId, token: CancellationToken, call: Call) -> Self {
        let binding = Arc::clone(&call.binding);
        let state = Mutex::new(State { stage: Stage::Submitting, call });
        Self { id, token, binding, state, settled: SetOnce::new() }
    }

    pub(crate) fn binding(&self) -> &Arc<Binding> {
        &self.binding
    }

    /// Takes the engine's stream in; false when the task was closed meanwhile, and the stream is gone then.
    pub(crate) fn begin(&self, stream: Box<dyn TokenStream>) -> bool {
        let mut state = self.lock();
        let open = !matches!(state.stage, Stage::Closed);
        if open {
            self.binding.load.begin_stream();
            state.stage = Stage::Streaming(stream);
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
        let mut state = self.lock();
        let State { stage: Stage::Streaming(stream), call } = &mut *state else { return None };
        let polled =
            if call.is_trial() { poll_trial(stream.as_mut(), call, cx, sink) } else { stream.poll_events(cx, sink) };
        match &polled {
            Poll::Pending | Poll::Ready(Ok(StreamState::Open)) => return Some(polled),
            Poll::Ready(Ok(StreamState::Ended)) => call.worked(),
            Poll::Ready(Err(error)) => call.failed(error),
        }
        let ended = std::mem::replace(&mut state.stage, Stage::Closed);
        drop(state);
        self.binding.load.end_stream();
        drop(ended);
        Some(polled)
    }

    /// The submission failed, or the driver blames the engine for what it is about to give up.
    pub(crate) fn failed(&self, error: &WorkerError) {
        let mut state = self.lock();
        if !matches!(state.stage, Stage::Closed) {
            state.call.failed(error);
        }
    }

    /// Closes the task and drops the engine's stream; `None` when it was closed already. No event is handed on after it. `before`
    /// is called before the stream goes.
    pub(crate) fn close<T>(&self, before: impl FnOnce() -> T) -> Option<T> {
        let mut state = self.lock();
        if matches!(state.stage, Stage::Closed) {
            return None;
        }
        let prepared = before();
        let stage = std::mem::replace(&mut state.stage, Stage::Closed);
        state.call.withdraw();
        drop(state);
        if let Stage::Streaming(stream) = stage {
            drop(stream);
            self.binding.load.end_stream();
        }
        Some(prepared)
    }

    /// Tells engines that do not notice a dropped stream.
    pub(crate) async fn tell_engine(&self) {
        let told = self.binding.adapter.cancel(self.id).await;
        narrate::canceled(self, told.err().as_ref());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // After a panic in an adapter or a reader the stream is whatever it is; closing it is still right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Polls the stream whose fate decides on the breaker: any output is the proof that the engine works.
fn poll_trial(
    stream: &mut dyn TokenStream,
    call: &mut Call,
    cx: &mut Context<'_>,
    sink: &mut dyn FnMut(TokenEvent<'_>),
) -> Poll<Result<StreamState, WorkerError>> {
    let mut worked = false;
    let polled = stream.poll_events(cx, &mut |event| {
        worked |= !matches!(event, TokenEvent::Started | TokenEvent::Metrics(_));
        sink(event);
    });
    if worked {
        call.worked();
    }
    polled
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("pool", &self.binding.pool)
            .field("replica", &self.binding.replica)
            .finish_non_exhaustive()
    }
}

/// The tasks that run now, by id (LO-SSE-01), and those that were given up and that their engines may still work on.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    running: Mutex<HashMap<TaskId, Arc<Task>>>,
    settling: Mutex<HashMap<TaskId, Arc<Task>>>,
    /// Longest that an engine is waited for.
    pub(crate) settle_limit: Duration,
}

impl Tasks {
    pub(crate) fn new(settle_limit: Duration) -> Self {
        Self { settle_limit, ..Self::default() }
    }

    /// Enters a task; it leaves when the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>, task: Task) -> Result<Entered, WorkerError> {
        let task = Arc::new(task);
        match lock(&self.running).entry(task.id) {
            Entry::Vacant(entry) => entry.insert(Arc::clone(&task)),
            // A second stream of one task would be the duplicate that must never be.
            Entry::Occupied(_) => return Err(WorkerError::Internal(format!("task {} is running already", task.id))),
        };
        Ok(Entered { tasks: Arc::clone(self), task })
    }

    pub(crate) fn find(&self, pool: &PoolId, id: TaskId) -> Option<Arc<Task>> {
        lock(&self.running).get(&id).filter(|task| task.binding.pool == *pool).cloned()
    }

    /// Takes a task out; doing so twice is harmless.
    pub(crate) fn leave(&self, task: &Arc<Task>) {
        remove(&self.running, task);
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.running).len()
    }

    /// Closes a task; `None` when it was closed already.
    pub(crate) fn close(self: &Arc<Self>, task: &Arc<Task>) -> Option<Settling> {
        task.close(|| {
            lock(&self.settling).insert(task.id, Arc::clone(task));
            Settling::begin(Arc::clone(self), Arc::clone(task))
        })
    }

    /// Closes a task from a place that cannot wait, and has the engine told, and watched until it has noticed, from a task of
    /// its own, which ends within the time limits and has nobody to report to.
    pub(crate) fn abandon(self: &Arc<Self>, task: &Arc<Task>) {
        let Some(settling) = self.close(task) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let task = Arc::clone(task);
            runtime.spawn(async move {
                task.tell_engine().await;
                settling.run().await;
            });
        }
    }

    /// The engine has let go of a task that was given up.
    pub(crate) fn has_settled(&self, task: &Arc<Task>) {
        remove(&self.settling, task);
        // A task is closed once.
        let _once = task.settled.set(());
    }

    /// Waits until the engine has let go of a task that was given up; returns at once for any other one.
    pub(crate) async fn settled(&self, id: TaskId) {
        let task = lock(&self.settling).get(&id).cloned();
        if let Some(task) = task {
            task.settled.wait().await;
        }
    }
}

fn lock(tasks: &Mutex<HashMap<TaskId, Arc<Task>>>) -> MutexGuard<'_, HashMap<TaskId, Arc<Task>>> {
    // Single insertions and removals leave nothing half done.
    tasks.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remove(tasks: &Mutex<HashMap<TaskId, Arc<Task>>>, task: &Arc<Task>) {
    let mut tasks = lock(tasks);
    // The id may be in use again.
    if tasks.get(&task.id).is_some_and(|entered| Arc::ptr_eq(entered, task)) {
        tasks.remove(&task.id);
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

    /// Gives the task up.
    pub(crate) fn abandon(&self) {
        self.leave();
        self.tasks.abandon(&self.task);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.abandon();
    }
}
