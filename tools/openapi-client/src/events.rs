//! From a body's bytes to typed events: http-util's decoder, and what it found but nobody has asked for yet.

use std::collections::VecDeque;

use http_util::sse::{SseDecoder, SseError, SseEvent};

use crate::stream::Frame;

/// Longest event, in bytes; an embedding's vector is the longest one there is.
const LIMIT: usize = 16 * 1024 * 1024;

/// One event as it came.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) id: Option<u64>,
    /// `None` when its kind is not known here; an error says what it is instead of an event of the contract.
    pub(crate) frame: Result<Option<Frame>, String>,
}

/// Events in the order they came, each read when its last byte is there.
#[derive(Debug)]
pub(crate) struct EventQueue {
    decoder: SseDecoder,
    waiting: VecDeque<Received>,
}

impl Default for EventQueue {
    fn default() -> Self {
        Self { decoder: SseDecoder::new(LIMIT), waiting: VecDeque::new() }
    }
}

impl EventQueue {
    /// Takes the next bytes of the body. What is wrong with them comes out behind the events before it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let Self { decoder, waiting } = self;
        let fed = decoder.feed(bytes, |event| {
            waiting.push_back(Received::read(event));
            Ok::<_, SseError>(())
        });
        if fed.is_err() {
            let frame = Err("an event that is too long or not UTF-8".to_owned());
            waiting.push_back(Received { id: None, frame });
        }
    }

    /// The next event.
    pub(crate) fn pop(&mut self) -> Option<Received> {
        self.waiting.pop_front()
    }
}

impl Received {
    fn read(event: SseEvent<'_>) -> Self {
        let frame = Frame::read(event.name, event.data)
            .map_err(|_| format!("a `{}` event that does not fit the contract", event.name));
        Self { id: event.id.parse().ok(), frame }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::any;
    use proptest::{collection, prop_assert_eq, proptest};

    use super::EventQueue;
    use crate::stream::Frame;

    /// Id and text of each token, id and complaint of what is wrong; `None` for a kind not known here.
    type Seen = (Option<u64>, Option<Result<String, String>>);

    fn decode(pieces: &[&[u8]]) -> Vec<Seen> {
        let mut queue = EventQueue::default();
        let mut seen = Vec::new();
        for piece in pieces {
            queue.feed(piece);
            while let Some(received) = queue.pop() {
                let text = |frame| match frame {
                    Frame::Token(token) => token.t,
                    other => panic!("{other:?} is no token"),
                };
                seen.push((received.id, received.frame.map(|frame| frame.map(text)).transpose()));
            }
        }
        seen
    }

    fn token(id: Option<u64>, text: &str) -> Seen {
        (id, Some(Ok(text.to_owned())))
    }

    /// LO-SSE-03: heartbeats are invisible; so is a field of the future and an event without data.
    #[test]
    fn reads_what_the_server_writes_and_ignores_the_rest() {
        let text = b": keep-alive\n\nid: 0\nevent: weather\ndata: {}\n\nevent: ghost\n\nid:7\r\nevent:token\r\nfuture: x\r\ndata: {\"t\":\"a\",\r\ndata: \"i\":0}\r\n\r\n";
        assert_eq!(decode(&[text]), [(Some(0), None), token(Some(7), "a")]);
    }

    /// An event that came before what is wrong is not lost, even when both came at once.
    #[test]
    fn what_is_wrong_waits_for_its_turn() {
        let good = "id: 1\nevent: token\ndata: {\"t\":\"a\",\"i\":0}\n\n";
        let misfit = (Some(2), Some(Err("a `token` event that does not fit the contract".to_owned())));
        assert_eq!(
            decode(&[format!("{good}id: 2\nevent: token\ndata: 5\n\n").as_bytes()]),
            [token(Some(1), "a"), misfit]
        );
        let broken = (None, Some(Err("an event that is too long or not UTF-8".to_owned())));
        assert_eq!(decode(&[&[good.as_bytes(), b"data: \xff\n\n"].concat()]), [token(Some(1), "a"), broken]);
    }

    proptest! {
        /// SSE-1001: events come out the same wherever the network cuts them.
        #[test]
        fn cuts_do_not_matter(
            events in collection::vec((proptest::option::of(any::<u64>()), any::<String>()), 0..8),
            size in 1_usize..40,
        ) {
            let mut body = String::new();
            for (id, text) in &events {
                if let Some(id) = id {
                    body.push_str(&format!("id: {id}\n"));
                }
                let data = serde_json::json!({"t": text, "i": 0});
                body.push_str(&format!("event: token\ndata: {data}\n\n"));
            }
            let pieces: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
            let expected: Vec<_> = events.iter().map(|(id, text)| token(*id, text)).collect();
            prop_assert_eq!(decode(&pieces), expected);
        }
    }
}
