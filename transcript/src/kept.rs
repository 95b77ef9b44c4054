//! A stream that is kept elsewhere when its log is gone.

use bytes::{Bytes, BytesMut};

use crate::encode::{frame_id, offset_of};
use crate::log::Log;
use crate::transcript::Forgotten;

/// All that a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Whole frames.
    pub frames: Bytes,
    /// Whether frames before them were dropped for want of room.
    pub is_trimmed: bool,
}

impl Kept {
    /// Copies nothing when the log is sealed.
    pub(crate) fn of(log: &Log) -> Self {
        let mut pieces = log.pieces();
        let first = pieces.next().unwrap_or_default();
        let mut whole = BytesMut::new();
        for piece in pieces {
            if whole.is_empty() {
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&piece);
        }
        Self { frames: if whole.is_empty() { first } else { whole.freeze() }, is_trimmed: log.is_trimmed() }
    }

    /// What a reader gets that has seen the event with the given id, or nothing: what
    /// [`Transcript::reader`](crate::Transcript::reader) would give.
    ///
    /// # Errors
    /// When part of that was dropped.
    pub fn after(&self, id: Option<u32>) -> Result<Bytes, Forgotten> {
        let next_id = id.map_or(0, |id| id.saturating_add(1));
        let first_kept = if self.frames.is_empty() { 0 } else { frame_id(&self.frames) };
        if self.is_trimmed && next_id < first_kept {
            return Err(Forgotten { first_kept });
        }
        Ok(self.frames.slice(offset_of(&self.frames, next_id)..))
    }
}
