//! A thread that reads, so that no async thread waits for the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::ReadError;

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// The callers' end of a reading thread.
pub(crate) struct Reader {
    /// Not bounded: each caller waits for its answer, so there are never more jobs than callers.
    jobs: Sender<Message>,
}

enum Message {
    Read(Job),
    Stop,
}

impl Reader {
    /// The thread owns the connection and closes it when it stops.
    pub(crate) fn spawn(name: &str, connection: Connection) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, queue) = channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || serve(&connection, &queue))?;
        Ok((Self { jobs }, thread))
    }

    /// Runs `read` on the thread. A read whose caller has gone before its turn is skipped.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            if !reply.is_closed() {
                let outcome = catch_unwind(AssertUnwindSafe(|| read(connection)));
                let outcome = outcome.map_or(Err(ReadError::Panicked), |result| result.map_err(ReadError::from));
                // The caller may have gone meanwhile.
                let _ = reply.send(outcome);
            }
        });
        // A job that cannot be sent is dropped, and its answer with it.
        let _ = self.jobs.send(Message::Read(job));
        answer.await.unwrap_or(Err(ReadError::Closed))
    }

    /// Lets the thread end after what is queued.
    pub(crate) fn stop(&self) {
        let _ = self.jobs.send(Message::Stop);
    }
}

fn serve(connection: &Connection, queue: &Receiver<Message>) {
    while let Ok(Message::Read(job)) = queue.recv() {
        job(connection);
    }
}
