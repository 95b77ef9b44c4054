//! A stream of tokens as a response body: polled straight from the generation, without a task or channel in between.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::connection::Fate;
use super::response::{BrokenOff, error_event};
use super::{chat, completion};
use crate::faults::MidStream;
use crate::generation::{Finished, Generation, Prefill, Step, Token};

/// How events look.
pub(super) enum Dialect {
    /// `POST /completion`.
    Completion(completion::Events),
    /// `POST /v1/chat/completions`.
    Chat(chat::Events),
}

impl Dialect {
    fn prefill(&mut self, prefill: &Prefill, out: &mut BytesMut) {
        match self {
            Self::Completion(events) => events.prefill(prefill, out),
            Self::Chat(events) => events.prefill(prefill, out),
        }
    }

    fn token(&mut self, token: &Token, out: &mut BytesMut) {
        match self {
            Self::Completion(events) => events.token(token, out),
            Self::Chat(events) => events.token(&token.text, out),
        }
    }

    fn finished(&mut self, finished: &Finished, out: &mut BytesMut) {
        match self {
            Self::Completion(events) => events.finished(finished, out),
            Self::Chat(events) => events.finished(finished, out),
        }
    }

    /// The beginning of an event that breaks off after the first byte of a character.
    fn half_character(&self, out: &mut BytesMut) {
        let head: &[u8] = match self {
            Self::Completion(_) => b"data: {\"index\":0,\"content\":\" \xe6",
            Self::Chat(_) => b"data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\" \xe6",
        };
        out.extend_from_slice(head);
    }
}

/// The body.
pub(super) struct TokenBody {
    generation: Generation,
    dialect: Dialect,
    fate: Fate,
    out: BytesMut,
    /// Events that may still go into the same write.
    room: u32,
    burst: u32,
    next: Next,
}

/// What to do when polled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Step,
    /// Let what is written reach the socket, then break off.
    BreakOff,
    /// Like llama-server, which ends a chat in a write of its own.
    Farewell,
    End,
}

impl TokenBody {
    pub(super) fn new(generation: Generation, dialect: Dialect, fate: Fate, burst: u32) -> Self {
        // Enough for some dozens of events between two allocations.
        let out = BytesMut::with_capacity(8192);
        Self { generation, dialect, fate, out, room: burst, burst, next: Next::Step }
    }

    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        match self.next {
            Next::End => return Poll::Ready(None),
            Next::Farewell => {
                self.next = Next::End;
                return Poll::Ready(Some(Ok(Bytes::from_static(b"data: [DONE]\n\n"))));
            }
            Next::BreakOff | Next::Step => {}
        }
        if self.room == 0 {
            // Being pending makes the server write out what it has; that is what keeps a token a write of its own.
            self.room = self.burst;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.next == Next::BreakOff {
            return Poll::Ready(Some(Err(BrokenOff)));
        }
        let step = match self.generation.poll_step(cx) {
            Poll::Ready(step) => step,
            Poll::Pending => {
                self.room = self.burst;
                return Poll::Pending;
            }
        };
        self.room -= 1;
        Poll::Ready(self.render(step))
    }

    fn render(&mut self, step: Step) -> Option<Result<Bytes, BrokenOff>> {
        match step {
            Step::Prefill(prefill) => self.dialect.prefill(&prefill, &mut self.out),
            Step::Token(token) => self.dialect.token(&token, &mut self.out),
            Step::Done(finished) => {
                self.dialect.finished(&finished, &mut self.out);
                self.next = match self.dialect {
                    Dialect::Completion(_) => Next::End,
                    Dialect::Chat(_) => Next::Farewell,
                };
            }
            Step::Fault(fault) => return self.fail(fault),
        }
        Some(Ok(self.out.split().freeze()))
    }

    fn fail(&mut self, fault: MidStream) -> Option<Result<Bytes, BrokenOff>> {
        match fault {
            MidStream::CleanEnd => return None,
            MidStream::Reset | MidStream::Crash(_) | MidStream::Stall => {
                self.fate.reset();
                return Some(Err(BrokenOff));
            }
            MidStream::HalfCharacter => {
                self.dialect.half_character(&mut self.out);
                self.next = Next::BreakOff;
                self.room = 0;
            }
            MidStream::MalformedEvent => self.out.extend_from_slice(b"data: {\"index\":0,\"content\":\n\n"),
            MidStream::ErrorEvent => {
                self.out.extend_from_slice(error_event().as_bytes());
                self.next = Next::End;
            }
        }
        Some(Ok(self.out.split().freeze()))
    }
}

/// The whole answer of a request that does not stream.
pub(super) async fn collect(mut generation: Generation) -> Result<(String, Finished), MidStream> {
    let mut text = String::new();
    loop {
        match generation.step().await {
            Step::Prefill(_) => {}
            Step::Token(token) => text.push_str(token.text.as_str()),
            Step::Fault(fault) => return Err(fault),
            Step::Done(finished) => {
                text.push_str(&finished.rest);
                return Ok((text, finished));
            }
        }
        // Flat out this loop would never give way to the other connections of its thread.
        tokio::task::coop::consume_budget().await;
    }
}
