//! A cursor over a transcript.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Cursor, Log, Transcript};

/// Follows one transcript. Dropping it leaves the transcript as it is.
#[derive(Debug)]
pub struct Reader {
    transcript: Arc<Transcript>,
    slot: usize,
}

impl Reader {
    pub(super) fn new(transcript: Arc<Transcript>, slot: usize) -> Self {
        Self { transcript, slot }
    }

    /// Everything not read yet that lies together, `None` at the end of a sealed transcript.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut log = self.transcript.lock();
        let position = cursor(&mut log, self.slot).position;
        if let Some((bytes, next_id)) = log.read_from(position) {
            let cursor = cursor(&mut log, self.slot);
            cursor.position += bytes.len();
            cursor.next_id = next_id;
            return Poll::Ready(Some(bytes));
        }
        if log.sealed {
            return Poll::Ready(None);
        }
        let cursor = cursor(&mut log, self.slot);
        match &mut cursor.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Whether everything up to the seal has been read.
    pub fn is_at_end(&self) -> bool {
        let mut log = self.transcript.lock();
        let end = log.tail_start + log.tail.len();
        log.sealed && cursor(&mut log, self.slot).position >= end
    }

    /// [`Reader::poll_read`] as a future.
    pub async fn read(&mut self) -> Option<Bytes> {
        std::future::poll_fn(|cx| self.poll_read(cx)).await
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.transcript.lock().cursors[self.slot] = None;
    }
}

fn cursor(log: &mut Log, slot: usize) -> &mut Cursor {
    log.cursors[slot].as_mut().expect("a reader's slot is its own until it is dropped")
}
