//! What a running task produces.

use std::task::{Context, Poll};

use api_types::sse::{Channel, FinishReason};

use crate::WorkerError;

/// One event of a running task (ADAPT-3001). Text is borrowed from the adapter's own buffer, so that an event costs no
/// allocation; whoever wants to keep it copies it.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenEvent<'a> {
    /// The engine took the task. At most one, before everything else.
    Started,
    /// A piece of output. Never empty.
    Token {
        /// Whole characters only; an adapter holds back an incomplete one.
        text: &'a str,
        /// What it belongs to.
        channel: Channel,
    },
    /// The vector of input number `index`.
    Embedding {
        /// Which input.
        index: u32,
        /// The vector.
        vector: &'a [f32],
    },
    /// The score of document number `index` against the query of a rerank task, on the engine's own scale.
    Score {
        /// Which document, counted from 0 without the query.
        index: u32,
        /// Higher fits better.
        score: f32,
    },
    /// How far the engine is; may come at any time and carries no output.
    Metrics(Progress),
    /// The engine is done and says that it ended as meant. Nothing follows.
    End(Finish),
}

/// How far an engine is with a task. What it does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Share of the prompt read, 0 to 1.
    pub prefill: Option<f64>,
    /// Tokens generated so far, by the engine's own count.
    pub tokens_out: Option<u32>,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finish {
    /// Why the engine stopped.
    pub reason: FinishReason,
    /// What it counted.
    pub usage: Usage,
}

/// An engine's own counts and timings of one task. What it does not tell is `None`; nothing here is ever derived from
/// counting events, because engines send several tokens in one event.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Prompt tokens.
    pub tokens_in: Option<u32>,
    /// Prompt tokens that came from the engine's cache.
    pub tokens_cached: Option<u32>,
    /// Generated tokens.
    pub tokens_out: Option<u32>,
    /// Time the engine spent on the prompt, in milliseconds.
    pub prefill_ms: Option<f64>,
    /// Time the engine spent on the output, in milliseconds.
    pub decode_ms: Option<f64>,
    /// The slot it ran in, which holds what it read and wrote until another task runs there.
    pub slot: Option<u32>,
}

/// Whether more is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// More events may come.
    Open,
    /// [`TokenEvent::End`] was delivered.
    Ended,
}

/// A running task on an engine. Dropping it cancels the task there.
pub trait TokenStream: Send {
    /// Waits for the engine's next bytes and hands every event they complete to `sink`, in order. One call handles one
    /// read, so that a caller can pass on all of it in one write.
    ///
    /// After `Ended` or an error it must not be called again. A stream that ends without [`TokenEvent::End`] is an error,
    /// never `Ended`: only what the engine calls success is success.
    fn poll_events(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(TokenEvent<'_>),
    ) -> Poll<Result<StreamState, WorkerError>>;
}

/// [`TokenStream::poll_events`] as a future. Dropping the future loses nothing; the next call goes on where it stood.
///
/// # Errors
/// Whatever the stream reports.
pub async fn next_events(
    stream: &mut dyn TokenStream,
    sink: &mut dyn FnMut(TokenEvent<'_>),
) -> Result<StreamState, WorkerError> {
    std::future::poll_fn(|cx| stream.poll_events(cx, sink)).await
}
