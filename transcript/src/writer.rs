//! Appending events.

use api_types::sse::{Channel, EventName, NarrationFrame, TokenFrame};
use serde::Serialize;

use crate::log::Log;
use crate::sync::MutexGuard;

/// Exclusive access to the log for one batch of events. Every method says whether the event was taken: a closed log takes
/// none.
pub struct Writer<'a> {
    pub(crate) log: MutexGuard<'a, Log>,
}

impl Writer<'_> {
    /// Appends a `token` event.
    pub fn token(&mut self, text: &str, channel: Channel) -> bool {
        let taken = !self.log.is_closed();
        if taken {
            self.log.token(text, channel);
        }
        taken
    }

    /// Appends a `token` event whose payload is not plain text.
    pub fn token_payload(&mut self, payload: &TokenFrame) -> bool {
        let taken = self.event(EventName::Token, payload);
        if taken {
            self.log.count_token();
        }
        taken
    }

    /// Appends any other event that must not be lost.
    pub fn event<T: Serialize>(&mut self, name: EventName, payload: &T) -> bool {
        let taken = !self.log.is_closed();
        if taken {
            self.log.event(name, payload);
        }
        taken
    }

    /// Appends an event that may be lost: it is left out when a reader is more than `lag` events behind.
    pub fn droppable<T: Serialize>(&mut self, name: EventName, payload: &T, lag: u32) -> bool {
        !self.log.is_anyone_behind(lag) && self.event(name, payload)
    }

    /// Appends an event that only says how things stand now, and takes the place of the one before it: a log holds one of
    /// them at most, however long its task waits. False also when some reader has missed the one before.
    pub fn passing<T: Serialize>(&mut self, name: EventName, payload: &T) -> bool {
        if self.log.is_closed() {
            return false;
        }
        let missed = self.log.drop_passing();
        self.log.passing(name, payload);
        !missed
    }

    /// Takes no event any more but the last one, which is still to come.
    pub fn close(&mut self) {
        self.log.close();
    }

    /// Appends the last event, after a sentence for people if there is one, and seals the log. Only the first caller
    /// succeeds.
    pub fn seal<T: Serialize>(&mut self, narration: Option<&NarrationFrame>, name: EventName, payload: &T) -> bool {
        if self.log.is_sealed() {
            return false;
        }
        if let Some(narration) = narration {
            self.log.event(EventName::Narration, narration);
        }
        self.log.event(name, payload);
        self.log.seal();
        true
    }

    /// Number of tokens written so far.
    pub fn tokens(&self) -> u32 {
        self.log.tokens()
    }

    /// Whether it takes no event any more but the last one.
    pub fn is_closed(&self) -> bool {
        self.log.is_closed()
    }

    /// Whether the limit is reached: the producer should ask [`poll_room`](crate::Transcript::poll_room) before it goes on.
    pub fn is_full(&mut self) -> bool {
        self.log.is_full()
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        // Waking under the lock is fine: a reader on this thread is only scheduled, and one on another thread waits for the
        // few nanoseconds until the lock is free.
        self.log.wake_readers();
    }
}
