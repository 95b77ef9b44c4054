//! Cuts a body into server-sent events, ids included (WHATWG HTML, section 9.2.6).
//!
//! The adapters' decoder is tuned for engines and reads past `id` lines; a client that resumes needs them.

use bytes::BytesMut;

/// Longest unfinished event, in bytes; an embedding's vector is the longest one there is.
const LIMIT: usize = 16 * 1024 * 1024;

/// One event as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawEvent {
    pub(crate) id: Option<u64>,
    pub(crate) name: String,
    pub(crate) data: String,
}

/// An event longer than allowed, or not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAnEvent;

/// The cutter.
#[derive(Debug, Default)]
pub(crate) struct EventDecoder {
    buffer: BytesMut,
    /// Bytes of the buffer known to hold no end of line.
    searched: usize,
    event: RawEvent,
    has_data: bool,
}

impl EventDecoder {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event.
    pub(crate) fn next(&mut self) -> Result<Option<RawEvent>, NotAnEvent> {
        while let Some(length) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(self.searched + length + 1);
            self.searched = 0;
            let line = std::str::from_utf8(&line[..line.len() - 1]).map_err(|_| NotAnEvent)?;
            if let Some(event) = self.line(line.strip_suffix('\r').unwrap_or(line)) {
                return Ok(Some(event));
            }
        }
        self.searched = self.buffer.len();
        if self.buffer.len() + self.event.data.len() > LIMIT { Err(NotAnEvent) } else { Ok(None) }
    }

    fn line(&mut self, line: &str) -> Option<RawEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.event.id = value.parse().ok(),
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.has_data = true;
                self.event.data.push_str(value);
            }
            // Comments (heartbeats) and fields to come.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_oneof};
    use proptest::{collection, prop_assert_eq, proptest};

    use super::{EventDecoder, RawEvent};

    fn decode(pieces: &[&[u8]]) -> Vec<RawEvent> {
        let mut decoder = EventDecoder::default();
        let mut events = Vec::new();
        for piece in pieces {
            decoder.feed(piece);
            while let Some(event) = decoder.next().expect("UTF-8") {
                events.push(event);
            }
        }
        events
    }

    fn event(id: Option<u64>, name: &str, data: &str) -> RawEvent {
        RawEvent { id, name: name.to_owned(), data: data.to_owned() }
    }

    /// LO-SSE-03: heartbeats are invisible; so is a field of the future and an event without data.
    #[test]
    fn reads_what_the_server_writes_and_ignores_the_rest() {
        let text = b": keep-alive\n\nid: 0\nevent: started\ndata: {}\n\nevent: ghost\n\nid:7\r\nevent:token\r\nfuture: x\r\ndata: a\r\ndata: b\r\n\r\n";
        assert_eq!(decode(&[text]), [event(Some(0), "started", "{}"), event(Some(7), "token", "a\nb")]);
    }

    fn any_event() -> impl Strategy<Value = RawEvent> {
        let name = prop_oneof![Just("token".to_owned()), Just("end".to_owned())];
        (proptest::option::of(any::<u64>()), name, "[^\r\n]{0,20}").prop_map(|(id, name, data)| RawEvent {
            id,
            name,
            data,
        })
    }

    proptest! {
        /// SSE-1001: events come out the same wherever the network cuts them.
        #[test]
        fn cuts_do_not_matter(events in collection::vec(any_event(), 0..8), size in 1_usize..40) {
            let mut text = String::new();
            for event in &events {
                if let Some(id) = event.id {
                    text.push_str(&format!("id: {id}\n"));
                }
                text.push_str(&format!("event: {}\ndata: {}\n\n", event.name, event.data));
            }
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            prop_assert_eq!(decode(&pieces), events);
        }
    }
}
