//! A task's stream: an append-only log of ready-to-send SSE bytes, and cursors over it.
//!
//! The producer encodes each event once. Any number of readers follow the log at their own pace, and each of them sends all
//! it has not sent yet in one go, so that a slow reader gets fewer, larger writes and slows nobody. A sealed transcript takes
//! no further event: that is what makes a cancel free of races. Events lie in segments that grow with the stream, so that a
//! task that only waits costs half a kilobyte and a token costs no allocation.
//!
//! Decided against: a channel per reader (an allocation and a wake-up per token and reader, and nothing to resume from).

mod encode;
mod reader;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use api_types::sse::{Channel, EventName, NarrationFrame, TokenFrame};
use bytes::{Bytes, BytesMut};
use serde::Serialize;

pub use reader::Reader;

/// Segments start small, because most of them hold a waiting task's `started` event, and double up to the largest.
const SMALLEST_SEGMENT: usize = 512;
const LARGEST_SEGMENT: usize = 8 * 1024;
/// Room that most events but long tokens fit into.
const USUAL_EVENT: usize = 256;

/// The log of one task's stream. Cheap to share; all methods take `&self`.
#[derive(Debug, Default)]
pub struct Transcript {
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    /// What readers have already been given, or what fills a whole segment.
    pieces: Vec<Piece>,
    /// The segment being written, from the first byte no piece holds.
    tail: BytesMut,
    /// Id of the first event in `tail`.
    tail_first_id: u32,
    /// Position of the first byte of `tail` in the whole stream.
    tail_start: usize,
    next_segment: usize,
    /// Id of the first event of all.
    first_id: u32,
    /// Id of the next event.
    next_id: u32,
    /// Index of the next token.
    next_token: u32,
    /// Nothing but the last event is taken any more.
    closed: bool,
    sealed: bool,
    cursors: Vec<Option<Cursor>>,
}

#[derive(Debug, Clone)]
struct Piece {
    start: usize,
    first_id: u32,
    bytes: Bytes,
}

/// Where a reader stands, kept in the log so that the producer can wake it and see how far behind it is.
#[derive(Debug, Default)]
struct Cursor {
    position: usize,
    next_id: u32,
    waker: Option<Waker>,
}

impl Transcript {
    /// A log whose events are numbered from `first_id` on, for a task whose earlier log is lost: who comes back to it with
    /// the id of an earlier event gets the whole new one.
    pub fn starting_at(first_id: u32) -> Self {
        let log = Log { tail_first_id: first_id, next_id: first_id, first_id, ..Log::default() };
        Self { log: Mutex::new(log) }
    }

    /// Locks the log for a batch of events; readers are woken once, when the writer is dropped.
    pub fn write(&self) -> Writer<'_> {
        Writer { log: self.lock() }
    }

    /// Whether the last event has been written.
    pub fn is_sealed(&self) -> bool {
        self.lock().sealed
    }

    /// Memory the events take, in bytes.
    pub fn size(&self) -> usize {
        let log = self.lock();
        log.tail_start + log.tail.len()
    }

    /// How many readers follow the stream.
    pub fn readers(&self) -> usize {
        self.lock().cursors.iter().flatten().count()
    }

    /// A reader of everything after the event with the given id, or of everything.
    pub fn reader(self: &Arc<Self>, after: Option<u32>) -> Reader {
        let mut log = self.lock();
        let next_id = after.map_or(0, |id| id.saturating_add(1)).clamp(log.first_id, log.next_id);
        let cursor = Cursor { position: log.position_of(next_id), next_id, waker: None };
        let slot = if let Some(free) = log.cursors.iter().position(Option::is_none) {
            log.cursors[free] = Some(cursor);
            free
        } else {
            log.cursors.push(Some(cursor));
            log.cursors.len() - 1
        };
        drop(log);
        Reader::new(Arc::clone(self), slot)
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // A panic while writing leaves at worst a half-written frame in a task that is failing anyway.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Exclusive access to the log for one batch of events. Every method says whether the event was taken: a sealed log takes
/// none.
pub struct Writer<'a> {
    log: MutexGuard<'a, Log>,
}

impl Writer<'_> {
    /// Appends a `token` event.
    pub fn token(&mut self, text: &str, channel: Channel) -> bool {
        let log = &mut *self.log;
        if log.closed {
            return false;
        }
        log.make_room(encode::token_bound(text));
        encode::token(&mut log.tail, log.next_id, log.next_token, text, channel);
        log.next_id += 1;
        log.next_token += 1;
        true
    }

    /// Appends a `token` event whose payload is not plain text.
    pub fn token_payload(&mut self, payload: &TokenFrame) -> bool {
        let taken = self.event(EventName::Token, payload);
        self.log.next_token += u32::from(taken);
        taken
    }

    /// Appends any other event that must not be lost.
    pub fn event<T: Serialize>(&mut self, name: EventName, payload: &T) -> bool {
        !self.log.closed && self.append(name, payload)
    }

    fn append<T: Serialize>(&mut self, name: EventName, payload: &T) -> bool {
        let log = &mut *self.log;
        if log.sealed {
            return false;
        }
        log.make_room(USUAL_EVENT);
        encode::event(&mut log.tail, log.next_id, name, payload);
        log.next_id += 1;
        log.close_full_segment();
        true
    }

    /// Takes no event any more but the last one, which is still to come.
    pub fn close(&mut self) {
        self.log.closed = true;
    }

    /// Appends an event that may be lost: it is left out when a reader is more than `lag` events behind.
    pub fn droppable<T: Serialize>(&mut self, name: EventName, payload: &T, lag: u32) -> bool {
        let next_id = self.log.next_id;
        let behind = self.log.cursors.iter().flatten().any(|cursor| next_id - cursor.next_id > lag);
        !behind && self.event(name, payload)
    }

    /// Appends the last event, after a sentence for people if there is one, and seals the log. Only the first caller
    /// succeeds.
    pub fn seal<T: Serialize>(&mut self, narration: Option<&NarrationFrame>, name: EventName, payload: &T) -> bool {
        if let Some(narration) = narration {
            self.append(EventName::Narration, narration);
        }
        if !self.append(name, payload) {
            return false;
        }
        self.log.closed = true;
        self.log.sealed = true;
        self.log.compact();
        true
    }

    /// Number of tokens written so far.
    pub fn tokens(&self) -> u32 {
        self.log.next_token
    }

    /// Whether it takes no event any more but the last one.
    pub fn is_closed(&self) -> bool {
        self.log.closed
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        // Waking under the lock is fine: a reader on this thread is only scheduled, and one on another thread waits for the
        // few nanoseconds until the lock is free.
        for cursor in self.log.cursors.iter_mut().flatten() {
            if let Some(waker) = cursor.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Log {
    /// Makes sure that `bytes` more fit into the segment being written.
    fn make_room(&mut self, bytes: usize) {
        if self.tail.capacity() - self.tail.len() < bytes {
            self.freeze_tail();
            let size = self.next_segment.clamp(SMALLEST_SEGMENT, LARGEST_SEGMENT);
            self.next_segment = size * 2;
            self.tail = BytesMut::with_capacity(size.max(bytes));
        }
    }

    /// A frame of unknown size was appended; do not let one allocation grow for ever.
    fn close_full_segment(&mut self) {
        if self.tail.len() >= LARGEST_SEGMENT {
            self.freeze_tail();
        }
    }

    /// Turns what has been written into a piece that readers can share without copying.
    fn freeze_tail(&mut self) {
        if self.tail.is_empty() {
            return;
        }
        let bytes = self.tail.split().freeze();
        let start = self.tail_start;
        self.tail_start += bytes.len();
        self.pieces.push(Piece { start, first_id: self.tail_first_id, bytes });
        self.tail_first_id = self.next_id;
    }

    /// A finished stream is kept for a while: one exact allocation instead of many half-used ones.
    fn compact(&mut self) {
        self.freeze_tail();
        self.tail = BytesMut::new();
        if self.pieces.len() > 1 {
            let mut whole = Vec::with_capacity(self.tail_start);
            for piece in &self.pieces {
                whole.extend_from_slice(&piece.bytes);
            }
            self.pieces = vec![Piece { start: 0, first_id: self.first_id, bytes: whole.into() }];
        }
    }

    /// The bytes from a position on that can be sent in one go, and the id of the event after them.
    fn read_from(&mut self, position: usize) -> Option<(Bytes, u32)> {
        if position >= self.tail_start {
            self.freeze_tail();
        }
        let index = self.pieces.partition_point(|piece| piece.start + piece.bytes.len() <= position);
        let piece = self.pieces.get(index)?;
        let next_id = self.pieces.get(index + 1).map_or(self.tail_first_id, |next| next.first_id);
        Some((piece.bytes.slice(position - piece.start..), next_id))
    }

    /// Where the event with the given id begins. Every frame ends with the only empty line in it, because JSON holds no raw
    /// line feed.
    fn position_of(&mut self, id: u32) -> usize {
        self.freeze_tail();
        let index = self.pieces.partition_point(|piece| piece.first_id <= id);
        let Some(piece) = index.checked_sub(1).and_then(|index| self.pieces.get(index)) else {
            return 0;
        };
        let skip = (id - piece.first_id) as usize;
        let ends = memchr::memmem::find_iter(&piece.bytes, b"\n\n");
        piece.start + skip.checked_sub(1).and_then(|nth| ends.map(|end| end + 2).nth(nth)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
