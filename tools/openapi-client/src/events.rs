//! From a body's bytes to typed events: http-util's decoder, and what it found but nobody has asked for yet.

use std::collections::VecDeque;

use http_util::sse::{SseDecoder, SseError, SseEvent};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Response, StatusCode};

use crate::Client;
use crate::call::{Call, Reply};
use crate::error::ClientError;

/// Longest event, in bytes; an embedding's vector is the longest one there is.
const LIMIT: usize = 16 * 1024 * 1024;

/// What the events of a stream carry.
pub(crate) trait Payload: Sized {
    /// Reads the payload of an event of this name; `None` when the name is not known here.
    fn read(name: &str, data: &str) -> serde_json::Result<Option<Self>>;
}

/// One event as it came.
#[derive(Debug)]
pub(crate) struct Received<P> {
    pub(crate) id: Option<u64>,
    /// The payload's text.
    pub(crate) raw: String,
    /// `None` when its kind is not known here; an error says what it is instead of an event of the contract.
    pub(crate) frame: Result<Option<P>, String>,
}

/// Events in the order they came, each read when its last byte is there.
#[derive(Debug)]
pub(crate) struct EventQueue<P> {
    decoder: SseDecoder,
    waiting: VecDeque<Received<P>>,
}

impl<P> Default for EventQueue<P> {
    fn default() -> Self {
        Self { decoder: SseDecoder::new(LIMIT), waiting: VecDeque::new() }
    }
}

impl<P: Payload> EventQueue<P> {
    /// Takes the next bytes of the body. What is wrong with them comes out behind the events before it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let Self { decoder, waiting } = self;
        let fed = decoder.feed(bytes, |event| {
            waiting.push_back(Received::read(event));
            Ok::<_, SseError>(())
        });
        if fed.is_err() {
            let frame = Err("an event that is too long or not UTF-8".to_owned());
            waiting.push_back(Received { id: None, raw: String::new(), frame });
        }
    }

    /// The next event.
    pub(crate) fn pop(&mut self) -> Option<Received<P>> {
        self.waiting.pop_front()
    }
}

impl<P: Payload> Received<P> {
    fn read(event: SseEvent<'_>) -> Self {
        let frame = P::read(event.name, event.data)
            .map_err(|_| format!("a `{}` event that does not fit the contract", event.name));
        Self { id: event.id.parse().ok(), raw: event.data.to_owned(), frame }
    }
}

/// An answer that is a stream of events.
#[derive(Debug)]
pub(crate) struct EventBody<P> {
    client: Client,
    response: Response,
    queue: EventQueue<P>,
}

impl<P: Payload> EventBody<P> {
    /// The next event, of whatever kind. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Received<P>, ClientError> {
        loop {
            if let Some(received) = self.queue.pop() {
                return Ok(received);
            }
            match self.response.chunk().await.map_err(|error| self.client.transport(error))? {
                Some(bytes) => self.queue.feed(&bytes),
                None => return Err(ClientError::Cut { server: self.client.server().to_string() }),
            }
        }
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    pub(crate) fn misfit(&self, problem: &str) -> ClientError {
        self.client.protocol(problem, self.headers())
    }
}

impl Client {
    /// Opens a stream of events, after the one with id `last_event_id`.
    pub(crate) async fn open_events<P>(
        &self,
        call: &Call,
        last_event_id: Option<u64>,
    ) -> Result<EventBody<P>, ClientError> {
        let mut request = self.request(call).header(ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await.map_err(|error| self.transport(error))?;
        if response.status() != StatusCode::OK {
            let reply = Reply::read(response).await.map_err(|error| self.transport(error))?;
            let reply = reply.successful(self)?;
            return Err(reply.not_a_stream(self));
        }
        let is_stream =
            response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if !is_stream {
            return Err(self.protocol("something else than a stream of events", response.headers()));
        }
        Ok(EventBody { client: self.clone(), response, queue: EventQueue::default() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::any;
    use proptest::{collection, prop_assert_eq, proptest};

    use super::{EventQueue, Received};
    use crate::stream::Frame;

    /// Id and text of each token, id and complaint of what is wrong; `None` for a kind not known here.
    type Seen = (Option<u64>, Option<Result<String, String>>);

    fn decode(pieces: &[&[u8]]) -> Vec<Seen> {
        let mut queue = EventQueue::default();
        let mut seen = Vec::new();
        for piece in pieces {
            queue.feed(piece);
            while let Some(Received { id, frame, .. }) = queue.pop() {
                let text = |frame| match frame {
                    Frame::Token(token) => token.t,
                    other => panic!("{other:?} is no token"),
                };
                seen.push((id, frame.map(|frame| frame.map(text)).transpose()));
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
