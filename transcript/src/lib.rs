//! A task's stream: an append-only log of ready-to-send SSE bytes, and cursors over it.
//!
//! The producer encodes each event once. Any number of readers follow the log at their own pace, and each of them sends all
//! it has not sent yet in one go, so that a slow reader gets fewer, larger writes and slows nobody. A sealed transcript takes
//! no further event: that is what makes a cancel free of races. Events lie in segments that grow with the stream, so that a
//! task that only waits costs half a kilobyte and a token costs no allocation.
//!
//! Memory is bounded. A log that has reached its limit lets go of what its foremost reader left behind long ago; where that
//! is not enough, [`Transcript::poll_room`] keeps the producer waiting, and no event that must not be lost ever is. A reader
//! that falls behind what is still there is told so ([`Behind`]) and slows nobody either.
//!
//! Decided against: a channel per reader (an allocation and a wake-up per token and reader, and nothing to resume from).

mod encode;
mod kept;
mod log;
mod reader;
mod sync;
mod transcript;
mod writer;

pub use kept::Kept;
pub use reader::{Behind, Reader};
pub use transcript::{Forgotten, Transcript};
pub use writer::Writer;

#[cfg(test)]
mod tests;
