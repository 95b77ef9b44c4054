//! A cursor over a transcript.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use crate::transcript::Transcript;

/// The reader was so slow that what it should read next is not kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reader has fallen behind what is kept of the stream")]
pub struct Behind;

/// Follows one transcript. Dropping it leaves the transcript as it is.
#[derive(Debug)]
pub struct Reader {
    transcript: Arc<Transcript>,
    slot: usize,
    /// Where the end of the log is copied to; its memory comes back when what was read has been sent.
    scratch: BytesMut,
}

impl Reader {
    pub(crate) fn new(transcript: Arc<Transcript>, slot: usize) -> Self {
        Self { transcript, slot, scratch: BytesMut::new() }
    }

    /// Everything not read yet that lies together, in whole frames; `None` at the end of a sealed transcript.
    ///
    /// # Errors
    /// When the reader has fallen behind what is kept.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Behind>>> {
        self.transcript.lock().poll_read(self.slot, &mut self.scratch, cx)
    }

    /// Waits until there is something to read, or nothing more to come.
    pub fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.transcript.lock().poll_unread(self.slot, cx)
    }

    /// Waits until nothing more is to come.
    pub fn poll_sealed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.transcript.lock().poll_sealed(self.slot, cx)
    }

    /// Whether everything up to the seal has been read.
    pub fn is_at_end(&self) -> bool {
        self.transcript.lock().is_at_end(self.slot)
    }

    /// [`Reader::poll_read`] as a future.
    ///
    /// # Errors
    /// As [`Reader::poll_read`].
    pub async fn read(&mut self) -> Option<Result<Bytes, Behind>> {
        std::future::poll_fn(|cx| self.poll_read(cx)).await
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.transcript.lock().leave(self.slot);
    }
}
