//! A stream of tokens as a response body: polled straight from the generation, without a task or channel in between.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::connection::Fate;
use super::response::{BrokenOff, error_event};
use super::{chat, completion};
use crate::faults::{MidStream, OddEnd};
use crate::generation::{Finished, Generation, Prefill, Step, Text, Token};

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

    /// The beginning of an event, up to a place inside its text.
    fn begin_text(&self, out: &mut BytesMut) {
        let head: &[u8] = match self {
            Self::Completion(_) => b"data: {\"index\":0,\"content\":\" ",
            Self::Chat(_) => b"data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\" ",
        };
        out.extend_from_slice(head);
    }

    /// What completes an event from there.
    fn end_text(&self) -> Bytes {
        Bytes::from_static(match self {
            Self::Completion(_) => b"\"}\n\n",
            Self::Chat(_) => b"\"}}]}\n\n",
        })
    }

    /// What follows the last event, in a write of its own, as with llama-server.
    fn farewell(&self) -> Bytes {
        Bytes::from_static(match self {
            Self::Completion(_) => b"",
            Self::Chat(_) => b"data: [DONE]\n\n",
        })
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
#[derive(Debug)]
enum Next {
    Step,
    /// Let what is written reach the socket, then break off.
    BreakOff,
    /// Let what is written reach the socket, then go on byte by byte.
    Trickle(Duration),
    /// So many more bytes of the text of one event.
    LongText(u64),
    /// Say that all has been said.
    Farewell(AfterEnd),
    /// Nothing good.
    AfterEnd(AfterEnd),
    End,
}

/// What comes after the end of a stream.
#[derive(Debug)]
enum AfterEnd {
    Nothing,
    /// The same events once more.
    Again(Bytes),
    /// So many tokens.
    Tokens(u32),
}

/// A piece of a text that is too long to be held.
static FILLER: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// The next piece of so many bytes of filler, and what is left.
pub(super) fn filler(left: u64) -> (Bytes, u64) {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(FILLER.len());
    (Bytes::from_static(&FILLER[..length]), left - length as u64)
}

type Chunk = Option<Result<Bytes, BrokenOff>>;

impl TokenBody {
    pub(super) fn new(generation: Generation, dialect: Dialect, fate: Fate, burst: u32) -> Self {
        // Enough for some dozens of events between two allocations.
        let out = BytesMut::with_capacity(8192);
        Self { generation, dialect, fate, out, room: burst, burst, next: Next::Step }
    }

    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Chunk> {
        match self.next {
            Next::End => return Poll::Ready(None),
            Next::Farewell(_) | Next::AfterEnd(_) | Next::LongText(_) => {
                return Poll::Ready(self.go_on());
            }
            Next::BreakOff | Next::Trickle(_) | Next::Step => {}
        }
        if self.room == 0 {
            // Being pending makes the server write out what it has; that is what keeps a token a write of its own.
            self.room = self.burst;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.next {
            Next::BreakOff => return Poll::Ready(Some(Err(BrokenOff))),
            Next::Trickle(every) => {
                self.fate.trickle(every);
                self.next = Next::Step;
            }
            _ => {}
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

    fn render(&mut self, step: Step) -> Chunk {
        match step {
            Step::Prefill(prefill) => self.dialect.prefill(&prefill, &mut self.out),
            Step::Token(token) => self.dialect.token(&token, &mut self.out),
            Step::Done(finished) => {
                self.dialect.finished(&finished, &mut self.out);
                self.next = Next::Farewell(match finished.odd {
                    Some(OddEnd::Twice) => AfterEnd::Again([&*self.out, &*self.dialect.farewell()].concat().into()),
                    Some(OddEnd::GoesOn(tokens)) => AfterEnd::Tokens(tokens),
                    Some(OddEnd::Reset | OddEnd::ClockJump(_)) | None => AfterEnd::Nothing,
                });
            }
            Step::Fault(fault) => return self.fail(fault),
        }
        Some(Ok(self.out.split().freeze()))
    }

    /// What needs no step of the engine.
    fn go_on(&mut self) -> Chunk {
        let (chunk, next) = match std::mem::replace(&mut self.next, Next::End) {
            Next::LongText(0) => (self.dialect.end_text(), Next::Step),
            Next::LongText(left) => {
                let (piece, left) = filler(left);
                (piece, Next::LongText(left))
            }
            Next::Farewell(AfterEnd::Nothing) => (self.dialect.farewell(), Next::End),
            Next::Farewell(more) => (self.dialect.farewell(), Next::AfterEnd(more)),
            Next::AfterEnd(AfterEnd::Again(events)) => (events, Next::End),
            Next::AfterEnd(AfterEnd::Tokens(left @ 1..)) => {
                let token = Token { text: Text::Loose(" late".to_owned()), id: 0, tokens_out: left };
                self.dialect.token(&token, &mut self.out);
                (self.out.split().freeze(), Next::AfterEnd(AfterEnd::Tokens(left - 1)))
            }
            _ => return None,
        };
        self.next = next;
        Some(Ok(chunk))
    }

    fn fail(&mut self, fault: MidStream) -> Chunk {
        match fault {
            MidStream::CleanEnd => return None,
            MidStream::Reset | MidStream::Crash(_) | MidStream::Stall => {
                self.fate.reset();
                return Some(Err(BrokenOff));
            }
            MidStream::HalfCharacter | MidStream::HalfEvent => {
                self.dialect.begin_text(&mut self.out);
                if fault == MidStream::HalfCharacter {
                    self.out.extend_from_slice(b"\xe6");
                } else {
                    self.fate.reset();
                }
                self.next = Next::BreakOff;
                self.room = 0;
            }
            MidStream::MalformedEvent => self.out.extend_from_slice(b"data: {\"index\":0,\"content\":\n\n"),
            MidStream::OversizedLine(bytes) => {
                self.dialect.begin_text(&mut self.out);
                self.next = Next::LongText(bytes);
            }
            MidStream::Trickle(every) => {
                self.next = Next::Trickle(every);
                self.room = 0;
            }
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
            Step::Fault(MidStream::Trickle(_)) => {}
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
