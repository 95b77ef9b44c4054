//! The thread that makes, writes and removes documents that nobody waits for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::document::Draft;
use crate::queue::{Make, Queue, Taken};
use crate::shared::{Kept, Shared};

/// Time between two looks for documents that are too old.
const IDLE: Duration = Duration::from_secs(60);
/// Longest that a document is not on the disk, as long as the disk keeps up.
const SYNC_EVERY: Duration = Duration::from_secs(1);

struct Service {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    /// When something was written that may not be on the disk yet.
    dirty_since: Option<Instant>,
    /// Whether the last write failed: an outage is logged once, not for every group.
    failing: bool,
}

/// Starts the thread; it ends when the queue does.
pub(crate) fn spawn(shared: Arc<Shared>, queue: Arc<Queue>) -> std::io::Result<JoinHandle<()>> {
    let service = Service { shared, queue, dirty_since: None, failing: false };
    thread::Builder::new().name("artifacts".to_owned()).spawn(move || service.run())
}

impl Service {
    fn run(mut self) {
        self.trim();
        loop {
            let patience = self.dirty_since.map_or(IDLE, |since| SYNC_EVERY.saturating_sub(since.elapsed()));
            match self.queue.take(patience) {
                Taken::Group(group) => {
                    let count = group.len();
                    self.write(group);
                    if let Some(turned_away) = self.queue.written(count) {
                        tracing::warn!(turned_away, "records of tasks were not kept: the disk did not keep up");
                    }
                }
                Taken::Idle => {}
                Taken::Over => return self.sync(),
            }
            if self.dirty_since.is_none_or(|since| since.elapsed() >= SYNC_EVERY) {
                self.sync();
                self.trim();
            }
        }
    }

    fn write(&mut self, group: Vec<Make>) {
        let count = group.len();
        let drafts: Vec<_> = group.into_iter().filter_map(made).collect();
        let Kept { count: kept, failure } = self.shared.put_group(drafts);
        self.shared.drop_some(count - kept);
        match &failure {
            Some(error) if !self.failing => {
                let cause = std::error::Error::source(error).map(tracing::field::display);
                tracing::error!(%error, cause, dropped = count - kept, "artifacts were not written");
            }
            None if self.failing => tracing::info!("artifacts are written again"),
            _ => {}
        }
        self.failing = failure.is_some();
        self.dirty_since.get_or_insert_with(Instant::now);
    }

    fn sync(&mut self) {
        if self.dirty_since.take().is_some()
            && let Err(error) = self.shared.sync()
        {
            tracing::error!(%error, "artifacts may not be on the disk");
        }
    }

    fn trim(&self) {
        if let Err(error) = self.shared.trim() {
            let cause = std::error::Error::source(&error).map(tracing::field::display);
            tracing::error!(%error, cause, "old artifacts were not removed");
        }
    }
}

fn made(make: Make) -> Option<Draft> {
    match catch_unwind(AssertUnwindSafe(|| Draft::of(make()))) {
        Ok(Ok(draft)) => Some(draft),
        Ok(Err(error)) => {
            tracing::error!(%error, "an artifact cannot be written as JSON");
            None
        }
        Err(_) => {
            tracing::error!("making an artifact ended in a panic");
            None
        }
    }
}
