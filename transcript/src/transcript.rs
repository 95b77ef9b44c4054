//! The log as it is shared.

use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};

use crate::kept::Kept;
use crate::log::Log;
use crate::reader::Reader;
use crate::sync::{Mutex, MutexGuard};
use crate::writer::Writer;

/// The log of one task's stream. Cheap to share; all methods take `&self`.
#[derive(Debug)]
pub struct Transcript {
    log: Mutex<Log>,
}

/// What a reader asked for is not kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// The first event that still is.
    pub first_kept: u32,
}

impl Transcript {
    /// An empty log that keeps about `limit` bytes at most. Events are numbered from `first_id` on: other than 0 for a task
    /// whose earlier log is lost, so that who comes back to it with the id of an earlier event gets the whole new one.
    #[must_use]
    pub fn new(limit: usize, first_id: u32) -> Self {
        Self { log: Mutex::new(Log::new(limit, first_id)) }
    }

    /// Locks the log for a batch of events; readers are woken once, when the writer is dropped.
    pub fn write(&self) -> Writer<'_> {
        Writer { log: self.lock() }
    }

    /// Waits until there is room, which a producer does before it takes more from its source. Room comes from readers; a
    /// closed log has room for everything, because it takes nothing.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.lock().poll_room(cx)
    }

    /// Whether the last event has been written.
    pub fn is_sealed(&self) -> bool {
        self.lock().is_sealed()
    }

    /// Memory the events take, in bytes.
    pub fn size(&self) -> usize {
        self.lock().held()
    }

    /// All that is kept of the stream, without reading it: nobody waits for it and nothing is woken.
    pub fn kept(&self) -> Kept {
        Kept::of(&self.lock())
    }

    /// How many readers follow the stream.
    pub fn readers(&self) -> usize {
        self.lock().readers()
    }

    /// A reader of everything after the event with the given id, or of everything.
    ///
    /// # Errors
    /// When part of that is not kept any more.
    pub fn reader(self: &Arc<Self>, after: Option<u32>) -> Result<Reader, Forgotten> {
        let slot = self.lock().enter(after)?;
        Ok(Reader::new(Arc::clone(self), slot))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Log> {
        // A panic while writing leaves at worst a half-written frame in a task that is failing anyway.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
