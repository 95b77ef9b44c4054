//! The tasks the daemon knows: all that have not ended, and the latest that have.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api_types::TaskId;
use tokio::sync::Notify;

use crate::task::Task;

/// Finished tasks kept in memory at most, whatever `stream.retain_ms` says: a flood of short tasks must not fill it.
const MOST_FINISHED: usize = 10_000;
/// Bytes of finished streams kept in memory at most.
const MOST_FINISHED_BYTES: usize = 64 << 20;

/// Tasks by id.
#[derive(Default)]
pub struct TaskStore {
    inner: Mutex<Inner>,
    ended: Notify,
}

#[derive(Default)]
struct Inner {
    tasks: HashMap<TaskId, Arc<Task>>,
    finished: VecDeque<Finished>,
    finished_bytes: usize,
}

struct Finished {
    id: TaskId,
    at_ms: u64,
    bytes: usize,
}

impl TaskStore {
    /// The task with this id.
    pub fn get(&self, id: TaskId) -> Option<Arc<Task>> {
        self.lock().tasks.get(&id).cloned()
    }

    /// Adds a task.
    pub fn insert(&self, task: Arc<Task>) {
        self.lock().tasks.insert(task.id(), task);
    }

    /// The task has ended; it is kept for a while.
    pub fn finished(&self, task: &Task, now_ms: u64, retain_ms: u64) {
        let bytes = task.transcript().size();
        let mut inner = self.lock();
        inner.finished_bytes += bytes;
        inner.finished.push_back(Finished { id: task.id(), at_ms: now_ms, bytes });
        inner.forget_old(now_ms.saturating_sub(retain_ms));
        drop(inner);
        self.ended.notify_waiters();
    }

    /// Waits until no task is living.
    pub async fn all_ended(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Listening comes before looking, or the last end could fall between the two.
            ended.as_mut().enable();
            if self.living().is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// Forgets finished tasks whose time is up.
    pub fn prune(&self, now_ms: u64, retain_ms: u64) {
        self.lock().forget_old(now_ms.saturating_sub(retain_ms));
    }

    /// Every task.
    pub fn all(&self) -> Vec<Arc<Task>> {
        self.lock().tasks.values().cloned().collect()
    }

    /// Every task that has not ended.
    pub fn living(&self) -> Vec<Arc<Task>> {
        self.lock().tasks.values().filter(|task| !task.has_ended()).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget_old(&mut self, oldest_ms: u64) {
        while let Some(oldest) = self.finished.front() {
            let too_many = self.finished.len() > MOST_FINISHED || self.finished_bytes > MOST_FINISHED_BYTES;
            if !too_many && oldest.at_ms >= oldest_ms {
                return;
            }
            self.finished_bytes -= oldest.bytes;
            self.tasks.remove(&oldest.id);
            self.finished.pop_front();
        }
    }
}
