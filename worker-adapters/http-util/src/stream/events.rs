//! From a response to a [`TokenStream`]: reads, events, and the engine's own decoder behind them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adapter_api::{Finish, StreamState, TokenEvent, TokenStream, WorkerError};
use tokio::time::{Instant, Sleep};

use super::{Body, BodyState, ContentType, StreamClient, StreamRequest};
use crate::sse::{SseDecoder, SseEvent};
use crate::status;

/// How long a finished stream waits for its body's end, so that the connection can be used again.
const LINGER: Duration = Duration::from_millis(100);
/// Error bodies are short; what is longer is not worth having.
const MAX_ERROR_BODY: usize = 64 * 1024;
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Reads without an event that a stream takes before somebody else has a turn: an engine that says nothing without end must not
/// keep its caller from looking at the clock.
const MAX_EMPTY_READS: u32 = 16;

/// One engine's reading of its events.
pub trait EventDecoder: Send {
    /// Takes one event, passes on what it holds, and returns the finish once the engine has said that it is done.
    ///
    /// # Errors
    /// When the event reports an error, or is not what the engine's protocol says.
    fn event(
        &mut self,
        event: SseEvent<'_>,
        sink: &mut dyn FnMut(TokenEvent<'_>),
    ) -> Result<Option<Finish>, WorkerError>;

    /// The body ended cleanly and no event was the last one. An error for engines that mark their end.
    ///
    /// # Errors
    /// Unless the end of the body is the engine's way to say that it is done.
    fn body_end(&mut self) -> Result<Finish, WorkerError> {
        Err(WorkerError::WorkerReset("the answer ended without its last event".to_owned()))
    }

    /// The error for an answer with another status than 200. `request` is the body that was sent; nothing of it may be in
    /// the message.
    fn refusal(&self, status: u16, body: &[u8], request: &[u8]) -> WorkerError {
        status::refusal(status, body, request)
    }
}

/// A task's event stream. Dropping it closes the connection.
#[derive(Debug)]
pub struct SseTokenStream<D> {
    body: Body,
    feed: EventFeed<D>,
    started: bool,
    linger: Option<Pin<Box<Sleep>>>,
}

/// Everything between the body's payload and the sink; it can be driven without a connection.
#[derive(Debug)]
pub struct EventFeed<D> {
    sse: SseDecoder,
    decoder: D,
    finish: Option<Finish>,
}

impl<D: EventDecoder> EventFeed<D> {
    /// Nothing taken yet.
    #[must_use]
    pub fn new(decoder: D) -> Self {
        Self { sse: SseDecoder::default(), decoder, finish: None }
    }

    /// What the engine said at its end; `None` before.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// Takes the next piece of the body and passes on the events that it completes.
    ///
    /// # Errors
    /// When the piece is not what the engine's protocol says. That includes an event after the last one, which is not passed on:
    /// [`finish`](Self::finish) stands, but an engine that has lost count must not be trusted with another request here.
    pub fn take(&mut self, payload: &[u8], sink: &mut dyn FnMut(TokenEvent<'_>)) -> Result<(), WorkerError> {
        let Self { sse, decoder, finish } = self;
        sse.feed(payload, |event| {
            if finish.is_some() {
                return Err(WorkerError::Adapter("the engine went on after its last event".to_owned()));
            }
            *finish = decoder.event(event, sink)?;
            Ok(())
        })
    }
}

impl StreamClient {
    /// Sends a request and gives its events to `decoder`. Returns once the engine has answered with a 200 and an event
    /// stream.
    ///
    /// # Errors
    /// When no answer comes, or another one does.
    pub async fn open_events<D: EventDecoder>(
        &self,
        request: &StreamRequest<'_>,
        decoder: D,
    ) -> Result<SseTokenStream<D>, WorkerError> {
        let response = self.send(request).await?;
        let status = response.head.status;
        if status != 200 {
            // A body that cannot be read leaves the status, which says enough.
            let body = response.body.collect(MAX_ERROR_BODY, ERROR_BODY_TIMEOUT).await.unwrap_or_default();
            return Err(decoder.refusal(status, &body, request.body));
        }
        if response.head.content_type != ContentType::EventStream {
            return Err(WorkerError::Adapter(
                "the engine answered with something else than an event stream".to_owned(),
            ));
        }
        Ok(SseTokenStream { body: response.body, feed: EventFeed::new(decoder), started: false, linger: None })
    }
}

impl<D: EventDecoder> SseTokenStream<D> {
    /// One read. `Ready` with the finish when the stream is over.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(TokenEvent<'_>),
    ) -> Poll<Result<Option<Finish>, WorkerError>> {
        let Self { body, feed, .. } = self;
        let state = match body.poll_data(cx, |payload| feed.take(payload, sink)) {
            Poll::Ready(state) => state,
            Poll::Pending => return self.poll_linger(cx),
        };
        Poll::Ready(match (self.feed.finish, state) {
            (None, Ok(BodyState::Open)) => Ok(None),
            (None, Ok(BodyState::Complete)) => self.feed.decoder.body_end().map(Some),
            (None, Err(error)) => Err(error),
            // The connection may still become reusable.
            (Some(_), Ok(BodyState::Open)) => Ok(None),
            // The engine had said that it was done; how its connection ends changes nothing.
            (Some(finish), _) => Ok(Some(finish)),
        })
    }

    /// After the last event: waits a moment for the end of the body.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Finish>, WorkerError>> {
        let Some(finish) = self.feed.finish else { return Poll::Pending };
        let linger = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + LINGER)));
        ready!(linger.as_mut().poll(cx));
        Poll::Ready(Ok(Some(finish)))
    }
}

impl<D: EventDecoder> TokenStream for SseTokenStream<D> {
    fn poll_events(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(TokenEvent<'_>),
    ) -> Poll<Result<StreamState, WorkerError>> {
        let mut delivered = !std::mem::replace(&mut self.started, true);
        if delivered {
            sink(TokenEvent::Started);
        }
        for reads in 0.. {
            let read = if reads < MAX_EMPTY_READS {
                self.poll_read(cx, &mut |event| {
                    delivered = true;
                    sink(event);
                })
            } else {
                cx.waker().wake_by_ref();
                self.poll_linger(cx)
            };
            match read {
                Poll::Ready(Ok(Some(finish))) => {
                    sink(TokenEvent::End(finish));
                    return Poll::Ready(Ok(StreamState::Ended));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // What was delivered must not wait for the next read.
                _ if delivered => return Poll::Ready(Ok(StreamState::Open)),
                // Only framing, comments or held-back text: nothing for the caller to do.
                Poll::Ready(Ok(None)) => {}
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }
}
