//! The thread that writes: everything that has queued up becomes one transaction and one commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::store::{Change, Store};
use crate::{Urgency, WriteError};

/// Changes in one transaction at most, which bounds how long the first of them waits for the last.
const MAX_GROUP: usize = 512;
/// How long a change that is not urgent waits for company.
const SOON: Duration = Duration::from_millis(50);
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
    /// Not bounded: a caller must never wait here, and the daemon's queues bound how many tasks it accepts.
    queue: Sender<Message>,
}

enum Message {
    Write { change: Change, urgency: Urgency, receipt: oneshot::Sender<Outcome> },
    Stop,
}

impl Writer {
    /// The thread owns the store and closes it when it stops.
    pub(crate) fn spawn(store: Store) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (queue, messages) = channel();
        let service = Service { store, messages, failing: false };
        let thread = thread::Builder::new().name("state-db-writer".to_owned()).spawn(move || service.run())?;
        Ok((Self { queue }, thread))
    }

    pub(crate) fn write(&self, change: Change, urgency: Urgency) -> Receipt {
        let (receipt, outcome) = oneshot::channel();
        // A message that cannot be sent is dropped, and its receipt with it.
        let _ = self.queue.send(Message::Write { change, urgency, receipt });
        Receipt(outcome)
    }

    /// Lets the thread end after what is queued.
    pub(crate) fn stop(&self) {
        let _ = self.queue.send(Message::Stop);
    }
}

struct Service {
    store: Store,
    messages: Receiver<Message>,
    /// Whether the last write failed: an outage is logged once, not for every group.
    failing: bool,
}

/// Changes that share a transaction, and who waits for each.
#[derive(Default)]
struct Group {
    changes: Vec<Change>,
    receipts: Vec<oneshot::Sender<Outcome>>,
}

impl Service {
    fn run(mut self) {
        let mut stopping = false;
        while !stopping {
            let group;
            (group, stopping) = self.next_group();
            self.commit(group);
        }
    }

    /// Waits for the first change and takes what comes until the most urgent one must be committed. True when it is the
    /// last group; an empty one is the time to tidy up.
    fn next_group(&self) -> (Group, bool) {
        let mut group = Group::default();
        let mut until = Instant::now() + IDLE;
        while group.changes.len() < MAX_GROUP {
            match self.messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Message::Write { change, urgency, receipt }) => {
                    let wait = if urgency == Urgency::Now { Duration::ZERO } else { SOON };
                    until = until.min(Instant::now() + wait);
                    group.changes.push(change);
                    group.receipts.push(receipt);
                }
                Ok(Message::Stop) => return (group, true),
                Err(_) => break,
            }
        }
        (group, false)
    }

    fn commit(&mut self, group: Group) {
        let Group { changes, receipts } = group;
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
