//! The thread that writes: everything that has queued up becomes one transaction and one commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::WriteError;
use crate::queue::{Queue, Taken};
use crate::store::{Change, Store};

/// How long the writer idles before it looks for ended tasks that have become too old.
const IDLE: Duration = Duration::from_secs(60);

type Outcome = Result<(), WriteError>;

/// A write on its way. Resolves once it is on the disk, or has failed; dropping it does not undo the write.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Outcome>);

impl Future for Receipt {
    type Output = Result<(), WriteError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|outcome| outcome.unwrap_or(Err(WriteError::Closed)))
    }
}

/// The callers' end of the writing thread.
pub(crate) struct Writer {
    queue: Arc<Queue<Write>>,
}

struct Write {
    change: Change,
    receipt: oneshot::Sender<Outcome>,
}

impl Writer {
    /// The thread owns the store and closes it when it stops.
    pub(crate) fn spawn(store: Store) -> std::io::Result<(Self, JoinHandle<()>)> {
        let queue = Arc::new(Queue::default());
        let service = Service { store, queue: Arc::clone(&queue), failing: false };
        let thread = thread::Builder::new().name("state-db-writer".to_owned()).spawn(move || service.run())?;
        Ok((Self { queue }, thread))
    }

    pub(crate) fn write(&self, change: Change, urgent: bool) -> Receipt {
        let (receipt, outcome) = oneshot::channel();
        // A write that nobody takes is dropped, and its receipt with it.
        self.queue.push(Write { change, receipt }, urgent);
        Receipt(outcome)
    }

    /// Lets the thread end after what is queued.
    pub(crate) fn stop(&self) {
        self.queue.end();
    }
}

struct Service {
    store: Store,
    queue: Arc<Queue<Write>>,
    /// Whether the last write failed: an outage is logged once, not for every group.
    failing: bool,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Service {
    fn run(mut self) {
        loop {
            match self.queue.take(IDLE) {
                Taken::Group(writes) => self.commit(writes),
                // The time to tidy up.
                Taken::Idle => self.commit(Vec::new()),
                Taken::Last(writes) => return self.commit(writes),
            }
        }
    }

    fn commit(&mut self, writes: Vec<Write>) {
        let (changes, receipts): (Vec<_>, Vec<_>) =
            writes.into_iter().map(|write| (write.change, write.receipt)).unzip();
        let written = catch_unwind(AssertUnwindSafe(|| self.store.write(&changes)));
        let outcome = written.map_or(Err(WriteError::Panicked), |result| result.map_err(WriteError::from));
        self.log(&outcome, receipts.len());
        for receipt in receipts {
            // Nobody has to wait for it.
            let _ = receipt.send(outcome.clone());
        }
    }

    fn log(&mut self, outcome: &Outcome, changes: usize) {
        match outcome {
            Err(error) if !self.failing => {
                let cause = std::error::Error::source(error).map(tracing::field::display);
                tracing::error!(%error, cause, changes, "state.db was not written");
            }
            Ok(()) if self.failing => tracing::info!("state.db is written again"),
            _ => {}
        }
        self.failing = outcome.is_err();
    }
}
