//! What an engine still works on after we have let go of it.
//!
//! An engine notices a dropped stream when it next writes, which in the middle of a long prompt takes seconds. Until then its
//! slot is not free, whatever our own books say.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adapter_api::WorkerError;
use tokio::time::{Instant, sleep};

use crate::narrate;
use crate::task::{Task, Tasks};

/// Gaps between two questions; the last one repeats.
const GAPS_MS: [u64; 6] = [2, 5, 10, 20, 50, 100];

/// Our part in what an engine does.
#[derive(Debug, Default)]
pub(crate) struct Load {
    books: Mutex<Books>,
    /// Held by the one who asks: an engine is never asked by two at once.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Books {
    /// Streams that run.
    streams: usize,
    /// Tasks that were given up, as long as the engine may work on them.
    settling: usize,
}

impl Load {
    pub(crate) fn begin_stream(&self) {
        self.books().streams += 1;
    }

    pub(crate) fn end_stream(&self) {
        self.books().streams -= 1;
    }

    pub(crate) fn settling(&self) -> usize {
        self.books().settling
    }

    /// Whether one of the tasks that settle is not among so many busy slots any more; it is counted out then. Those that run
    /// explain as many busy slots as there were streams all the while.
    fn count_one_out(&self, busy: u32, streams_before: usize) -> bool {
        let mut books = self.books();
        let running = books.streams.min(streams_before);
        let one_is_out = (busy as usize) < running + books.settling;
        if one_is_out {
            books.settling -= 1;
        }
        one_is_out
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Single additions leave nothing half done.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that was given up and that its engine may still work on; settled when dropped.
#[derive(Debug)]
pub(crate) struct Settling {
    tasks: Arc<Tasks>,
    task: Arc<Task>,
    /// Whether it is in the books.
    is_counted: bool,
}

impl Settling {
    pub(crate) fn begin(tasks: Arc<Tasks>, task: Arc<Task>) -> Self {
        task.binding().load.books().settling += 1;
        Self { tasks, task, is_counted: true }
    }

    /// Waits until the engine has let go of the task, at most for the host's limit: on an engine that others use too, their
    /// tasks look like ours.
    pub(crate) async fn run(mut self) {
        let begun = Instant::now();
        let limit = self.tasks.settle_limit;
        let mut gaps = GAPS_MS.into_iter();
        let mut gap = Duration::ZERO;
        while self.is_busy().await {
            if begun.elapsed() >= limit {
                return narrate::not_settled(&self.task, limit);
            }
            gap = gaps.next().map_or(gap, Duration::from_millis);
            sleep(gap).await;
        }
    }

    async fn is_busy(&mut self) -> bool {
        let binding = self.task.binding();
        let _turn = binding.load.turn.lock().await;
        let streams = binding.load.books().streams;
        match binding.adapter.busy_slots().await {
            Ok(Some(busy)) => {
                self.is_counted = !binding.load.count_one_out(busy, streams);
                self.is_counted
            }
            // Some engines answer between two batches only.
            Err(WorkerError::DecodeTimeout(_)) => true,
            // It cannot tell, or is gone.
            Ok(None) | Err(_) => false,
        }
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        if self.is_counted {
            self.task.binding().load.books().settling -= 1;
        }
        self.tasks.has_settled(&self.task);
    }
}
