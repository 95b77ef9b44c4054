//! Incremental decoder of server-sent events (WHATWG HTML, section 9.2.6).
//!
//! It takes bytes however they were cut, and hands each event out the moment its blank line is there. An event that lies
//! whole in the input is borrowed from it; only what is cut, or has several `data` lines, goes through a buffer, and that
//! buffer is reused. `retry` lines are read past: nothing here reconnects.

use std::str::Utf8Error;

/// Default limit on one event, in bytes.
pub const DEFAULT_MAX_EVENT: usize = 1024 * 1024;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// Its own `id` line; empty when there is none, whatever earlier events had.
    pub id: &'a str,
    /// Its `event` line; empty when there is none.
    pub name: &'a str,
    /// Its `data` lines, joined by line feeds.
    pub data: &'a str,
}

/// Why bytes are not a stream of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A line, or the data of one event, is longer than allowed.
    #[error("an event is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// An event is not UTF-8.
    #[error("an event is not utf-8")]
    NotUtf8(#[from] Utf8Error),
}

/// The decoder. Once [`feed`](SseDecoder::feed) has failed, the stream is lost.
#[derive(Debug)]
pub struct SseDecoder {
    limit: usize,
    /// Beginning of a line whose end has not come.
    line: Vec<u8>,
    /// Lines of an event whose end has not come.
    event: EventBuffer,
    /// The last byte was a CR, so that a LF belongs to it.
    after_cr: bool,
    /// Nothing but a part of a byte order mark has come.
    at_start: bool,
}

#[derive(Debug, Default)]
struct EventBuffer {
    id: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
}

impl Default for SseDecoder {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_EVENT)
    }
}

impl SseDecoder {
    /// A decoder that refuses events of more than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, line: Vec::new(), event: EventBuffer::default(), after_cr: false, at_start: true }
    }

    /// Takes the next bytes and hands every event that they complete to `sink`, in order.
    ///
    /// # Errors
    /// When an event is too large or not UTF-8, or whatever `sink` returns.
    pub fn feed<E: From<SseError>>(
        &mut self,
        input: &[u8],
        mut sink: impl FnMut(SseEvent<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        // The one data line of an event whose blank line has not been met yet, still in `input`.
        let mut held: Option<&[u8]> = None;
        let mut rest = input;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            let (line, behind) = rest.split_at(end);
            let is_cr = behind[0] == b'\r';
            rest = &behind[1..];
            if is_cr {
                self.after_cr = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            if line.len() + self.line.len() > self.limit {
                return Err(SseError::TooLarge { limit: self.limit }.into());
            }
            if self.line.is_empty() && !self.at_start {
                self.whole_line(line, &mut held, &mut sink)?;
            } else {
                self.line.extend_from_slice(line);
                // Nothing is held: this can only be the input's first line.
                self.cut_line(&mut sink)?;
            }
        }
        if let Some(data) = held {
            self.event.push_data(data, self.limit)?;
        }
        if rest.len() + self.line.len() > self.limit {
            return Err(SseError::TooLarge { limit: self.limit }.into());
        }
        self.line.extend_from_slice(rest);
        Ok(())
    }

    /// A line of which a part came with an earlier input, or the first line of all, which may begin with a mark. It does not
    /// outlive this call, so its data is copied.
    fn cut_line<E: From<SseError>>(&mut self, sink: &mut impl FnMut(SseEvent<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut line = std::mem::take(&mut self.line);
        let is_first = std::mem::take(&mut self.at_start);
        let text = if is_first { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        let outcome = match Field::of(text) {
            Field::Data(value) => self.event.push_data(value, self.limit).map_err(E::from),
            _ => self.whole_line(text, &mut None, sink),
        };
        line.clear();
        self.line = line;
        outcome
    }

    fn whole_line<'a, E: From<SseError>>(
        &mut self,
        line: &'a [u8],
        held: &mut Option<&'a [u8]>,
        sink: &mut impl FnMut(SseEvent<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        match Field::of(line) {
            Field::Data(value) if held.is_none() && !self.event.has_data => *held = Some(value),
            Field::Data(value) => {
                if let Some(earlier) = held.take() {
                    self.event.push_data(earlier, self.limit)?;
                }
                self.event.push_data(value, self.limit)?;
            }
            Field::Name(value) => replace(&mut self.event.name, value),
            Field::Id(value) => replace(&mut self.event.id, value),
            Field::Blank => return self.dispatch(held.take(), sink),
            Field::Other => {}
        }
        Ok(())
    }

    fn dispatch<E: From<SseError>>(
        &mut self,
        held: Option<&[u8]>,
        sink: &mut impl FnMut(SseEvent<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let event = &self.event;
        let data = match held {
            Some(data) => data,
            None if event.has_data => &event.data,
            // Without data there is no event; its name and id are forgotten.
            None => {
                self.event.clear();
                return Ok(());
            }
        };
        let text = |bytes| std::str::from_utf8(bytes).map_err(SseError::from);
        sink(SseEvent { id: text(&event.id)?, name: text(&event.name)?, data: text(data)? })?;
        self.event.clear();
        Ok(())
    }
}

impl EventBuffer {
    fn push_data(&mut self, value: &[u8], limit: usize) -> Result<(), SseError> {
        if self.data.len() + value.len() > limit {
            return Err(SseError::TooLarge { limit });
        }
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(value);
        Ok(())
    }

    fn clear(&mut self) {
        self.id.clear();
        self.name.clear();
        self.data.clear();
        self.has_data = false;
    }
}

fn replace(buffer: &mut Vec<u8>, value: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(value);
}

enum Field<'a> {
    Blank,
    Data(&'a [u8]),
    Name(&'a [u8]),
    Id(&'a [u8]),
    Other,
}

impl<'a> Field<'a> {
    fn of(line: &'a [u8]) -> Self {
        if line.is_empty() {
            return Self::Blank;
        }
        if let Some(value) = line.strip_prefix(b"data") {
            return Self::value(value).map_or(Self::Other, Self::Data);
        }
        if let Some(value) = line.strip_prefix(b"event") {
            return Self::value(value).map_or(Self::Other, Self::Name);
        }
        if let Some(value) = line.strip_prefix(b"id") {
            // The standard has ids with a null ignored.
            return Self::value(value).filter(|id| !id.contains(&0)).map_or(Self::Other, Self::Id);
        }
        Self::Other
    }

    /// What follows a field's name: nothing, or a colon, at most one space, and the value.
    fn value(after_name: &'a [u8]) -> Option<&'a [u8]> {
        match after_name {
            [] => Some(&[]),
            [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
