//! The bytes themselves, and where everybody stands in them.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use api_types::sse::{Channel, EventName};
use bytes::{Bytes, BytesMut};
use serde::Serialize;

use crate::encode;
use crate::reader::Behind;
use crate::transcript::Forgotten;

/// Segments start small, because most of them hold a waiting task's `started` event, and double up to the largest.
const SMALLEST_SEGMENT: usize = 512;
const LARGEST_SEGMENT: usize = 8 * 1024;
/// Room that most events but long tokens fit into.
const USUAL_EVENT: usize = 256;
/// Most that a reader at the end of the log copies at once.
const LARGEST_COPY: usize = LARGEST_SEGMENT;

/// One stream's events. Positions count every byte ever appended; those that were dropped leave gaps that readers skip.
#[derive(Debug)]
pub(crate) struct Log {
    /// Full segments, which readers share without copying.
    pieces: VecDeque<Piece>,
    /// The segment being written.
    tail: BytesMut,
    /// Id of the first event in `tail`.
    tail_first_id: u32,
    /// Position of the first byte of `tail`.
    tail_start: usize,
    next_segment: usize,
    /// Bytes in `pieces`.
    kept: usize,
    /// Bytes to keep at most, as far as readers allow.
    limit: usize,
    /// Id of the first event that is kept.
    first_id: u32,
    /// Whether events before `first_id` were dropped for want of room.
    is_trimmed: bool,
    /// Position of the foremost reader that there ever was.
    frontier: usize,
    /// Id of the next event.
    next_id: u32,
    /// Index of the next token.
    next_token: u32,
    /// Nothing but the last event is taken any more.
    closed: bool,
    sealed: bool,
    cursors: Vec<Option<Cursor>>,
    /// Waits for room.
    producer: Option<Waker>,
}

#[derive(Debug, Clone)]
struct Piece {
    start: usize,
    first_id: u32,
    bytes: Bytes,
    /// Holds one event that the next of its kind replaces.
    is_passing: bool,
}

/// Where a reader stands, kept in the log so that the producer can wake it and see how far behind it is.
#[derive(Debug)]
struct Cursor {
    position: usize,
    next_id: u32,
    waker: Option<Waker>,
}

impl Piece {
    fn end(&self) -> usize {
        self.start + self.bytes.len()
    }
}

impl Log {
    pub(crate) fn new(limit: usize, first_id: u32) -> Self {
        Self {
            pieces: VecDeque::new(),
            tail: BytesMut::new(),
            tail_first_id: first_id,
            tail_start: 0,
            next_segment: SMALLEST_SEGMENT,
            kept: 0,
            limit,
            first_id,
            is_trimmed: false,
            frontier: 0,
            next_id: first_id,
            next_token: 0,
            closed: false,
            sealed: false,
            cursors: Vec::new(),
            producer: None,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed
    }

    pub(crate) fn tokens(&self) -> u32 {
        self.next_token
    }

    pub(crate) fn is_trimmed(&self) -> bool {
        self.is_trimmed
    }

    /// All bytes, in order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Bytes> {
        let tail = (!self.tail.is_empty()).then(|| Bytes::copy_from_slice(&self.tail));
        self.pieces.iter().map(|piece| piece.bytes.clone()).chain(tail)
    }

    pub(crate) fn held(&self) -> usize {
        self.kept + self.tail.len()
    }

    pub(crate) fn readers(&self) -> usize {
        self.cursors.iter().flatten().count()
    }

    /// Appends a `token` event.
    pub(crate) fn token(&mut self, text: &str, channel: Channel) {
        self.make_room(encode::token_bound(text));
        encode::token(&mut self.tail, self.next_id, self.next_token, text, channel);
        self.next_id += 1;
        self.next_token += 1;
    }

    /// The event just appended was a token.
    pub(crate) fn count_token(&mut self) {
        self.next_token += 1;
    }

    /// Appends any event.
    pub(crate) fn event<T: Serialize>(&mut self, name: EventName, payload: &T) {
        self.make_room(USUAL_EVENT);
        encode::event(&mut self.tail, self.next_id, name, payload);
        self.next_id += 1;
        // A frame of unknown size; do not let one allocation grow for ever.
        if self.tail.len() >= LARGEST_SEGMENT {
            self.freeze_tail();
        }
    }

    /// Appends an event that the next of its kind replaces.
    pub(crate) fn passing<T: Serialize>(&mut self, name: EventName, payload: &T) {
        self.freeze_tail();
        let mut frame = BytesMut::with_capacity(USUAL_EVENT);
        encode::event(&mut frame, self.next_id, name, payload);
        self.next_id += 1;
        self.push(frame.freeze(), true);
    }

    /// Drops the last event that [`Log::passing`] appended; true when a reader had not read it.
    pub(crate) fn drop_passing(&mut self) -> bool {
        let Some(at) = self.pieces.iter().rposition(|piece| piece.is_passing) else { return false };
        let Some(piece) = self.pieces.remove(at) else { return false };
        self.kept -= piece.bytes.len();
        self.cursors.iter().flatten().any(|cursor| cursor.position < piece.end())
    }

    /// Takes nothing but the last event any more; who waits for room need not.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.wake_producer();
    }

    /// The last event was appended.
    pub(crate) fn seal(&mut self) {
        self.close();
        self.sealed = true;
        self.compact();
    }

    /// Whether a reader is more than so many events behind.
    pub(crate) fn is_anyone_behind(&self, lag: u32) -> bool {
        self.cursors.iter().flatten().any(|cursor| self.next_id - cursor.next_id > lag)
    }

    pub(crate) fn wake_readers(&mut self) {
        for cursor in self.cursors.iter_mut().flatten() {
            if let Some(waker) = cursor.waker.take() {
                waker.wake();
            }
        }
    }

    /// Whether more is kept than should be, even after dropping what may be dropped, and some of it is unread. A single event
    /// may be larger than the limit.
    pub(crate) fn is_full(&mut self) -> bool {
        if self.held() >= self.limit {
            self.trim();
        }
        self.held() >= self.limit && self.frontier < self.end() && !self.closed
    }

    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_full() {
            keep(&mut self.producer, cx);
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// A new reader of what follows the event with the given id, or of everything.
    pub(crate) fn enter(&mut self, after: Option<u32>) -> Result<usize, Forgotten> {
        let next_id = after.map_or(0, |id| id.saturating_add(1));
        if self.is_trimmed && next_id < self.first_id {
            return Err(Forgotten { first_kept: self.first_id });
        }
        let next_id = next_id.clamp(self.first_id, self.next_id);
        let cursor = Some(Cursor { position: self.position_of(next_id), next_id, waker: None });
        if let Some(free) = self.cursors.iter().position(Option::is_none) {
            self.cursors[free] = cursor;
            return Ok(free);
        }
        self.cursors.push(cursor);
        Ok(self.cursors.len() - 1)
    }

    pub(crate) fn leave(&mut self, slot: usize) {
        self.cursors[slot] = None;
    }

    pub(crate) fn poll_read(
        &mut self,
        slot: usize,
        scratch: &mut BytesMut,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Behind>>> {
        let position = self.cursor(slot).position;
        if self.is_trimmed && position < self.pieces.front().map_or(self.tail_start, |first| first.start) {
            return Poll::Ready(Some(Err(Behind)));
        }
        let Some((bytes, end, next_id)) = self.read_from(position, scratch) else {
            return self.poll_more(slot, cx).map(|()| None);
        };
        let cursor = self.cursor(slot);
        (cursor.position, cursor.next_id) = (end, next_id);
        self.frontier = self.frontier.max(end);
        if self.producer.is_some() && !self.is_full() {
            self.wake_producer();
        }
        Poll::Ready(Some(Ok(bytes)))
    }

    pub(crate) fn poll_unread(&mut self, slot: usize, cx: &mut Context<'_>) -> Poll<()> {
        if self.cursor(slot).position < self.end() { Poll::Ready(()) } else { self.poll_more(slot, cx) }
    }

    pub(crate) fn poll_sealed(&mut self, slot: usize, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_more(slot, cx)
    }

    pub(crate) fn is_at_end(&mut self, slot: usize) -> bool {
        self.sealed && self.cursor(slot).position >= self.end()
    }

    /// Registers a reader for the next event, unless there will be none.
    fn poll_more(&mut self, slot: usize, cx: &mut Context<'_>) -> Poll<()> {
        if self.sealed {
            return Poll::Ready(());
        }
        keep(&mut self.cursor(slot).waker, cx);
        Poll::Pending
    }

    fn cursor(&mut self, slot: usize) -> &mut Cursor {
        self.cursors[slot].as_mut().expect("a reader's slot is its own until it is dropped")
    }

    fn end(&self) -> usize {
        self.tail_start + self.tail.len()
    }

    /// Makes sure that `bytes` more fit into the segment being written.
    fn make_room(&mut self, bytes: usize) {
        if self.tail.capacity() - self.tail.len() < bytes {
            self.freeze_tail();
            let size = self.next_segment;
            self.next_segment = (size * 2).min(LARGEST_SEGMENT);
            self.tail = BytesMut::with_capacity(size.max(bytes));
        }
    }

    /// Turns what has been written into a piece that readers can share without copying.
    fn freeze_tail(&mut self) {
        if !self.tail.is_empty() {
            let bytes = self.tail.split().freeze();
            self.push(bytes, false);
        }
    }

    fn push(&mut self, bytes: Bytes, is_passing: bool) {
        let start = self.tail_start;
        self.tail_start += bytes.len();
        self.kept += bytes.len();
        self.pieces.push_back(Piece { start, first_id: self.tail_first_id, bytes, is_passing });
        self.tail_first_id = self.next_id;
    }

    /// Drops what the foremost reader has left behind by more than half of the limit: a client that reconnects asks for what
    /// was on its way to it.
    fn trim(&mut self) {
        let reached = self.frontier.saturating_sub(self.limit / 2);
        while self.held() >= self.limit
            && let Some(first) = self.pieces.front()
            && first.end() <= reached
        {
            self.kept -= first.bytes.len();
            self.pieces.pop_front();
            self.is_trimmed = true;
            self.first_id = self.pieces.front().map_or(self.tail_first_id, |next| next.first_id);
        }
    }

    /// A finished stream is kept for a while: one exact allocation instead of many half-used ones.
    fn compact(&mut self) {
        self.drop_passing();
        self.freeze_tail();
        self.tail = BytesMut::new();
        let Some(first) = self.pieces.front() else { return };
        let start = first.start;
        let mut whole = Vec::with_capacity(self.kept);
        let mut moved: Vec<_> = self.cursors.iter().flatten().map(|_| None).collect();
        for piece in &self.pieces {
            for (cursor, moved) in self.cursors.iter().flatten().zip(&mut moved) {
                if moved.is_none() && cursor.position < piece.end() {
                    *moved = Some(start + whole.len() + cursor.position.saturating_sub(piece.start));
                }
            }
            whole.extend_from_slice(&piece.bytes);
        }
        let end = start + whole.len();
        for (cursor, moved) in self.cursors.iter_mut().flatten().zip(moved) {
            // One that had fallen behind stays so.
            if cursor.position >= start {
                cursor.position = moved.unwrap_or(end);
            }
        }
        self.tail_start = end;
        self.pieces =
            VecDeque::from([Piece { start, first_id: self.first_id, bytes: whole.into(), is_passing: false }]);
    }

    /// Bytes from a position on that can be sent in one go, the position behind them, and the id of the event there.
    fn read_from(&mut self, position: usize, scratch: &mut BytesMut) -> Option<(Bytes, usize, u32)> {
        if position >= self.tail_start {
            let unread = &self.tail[position - self.tail_start..];
            if unread.is_empty() {
                return None;
            }
            if unread.len() <= LARGEST_COPY {
                scratch.extend_from_slice(unread);
                return Some((scratch.split().freeze(), self.end(), self.next_id));
            }
            self.freeze_tail();
        }
        let index = self.pieces.partition_point(|piece| piece.end() <= position);
        let piece = self.pieces.get(index)?;
        let next_id = self.pieces.get(index + 1).map_or(self.tail_first_id, |next| next.first_id);
        // A gap lies before a piece where one was dropped.
        Some((piece.bytes.slice(position.saturating_sub(piece.start)..), piece.end(), next_id))
    }

    /// Where the first event with the given id or a later one begins.
    fn position_of(&self, id: u32) -> usize {
        let index = self.pieces.partition_point(|piece| piece.first_id <= id);
        let (start, bytes) = match index.checked_sub(1).and_then(|index| self.pieces.get(index)) {
            Some(piece) if id < self.tail_first_id => (piece.start, &piece.bytes[..]),
            _ => (self.tail_start, &self.tail[..]),
        };
        start + encode::offset_of(bytes, id)
    }

    fn wake_producer(&mut self) {
        if let Some(waker) = self.producer.take() {
            waker.wake();
        }
    }
}

fn keep(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        none => *none = Some(cx.waker().clone()),
    }
}
