//! The body of a response, read as it comes.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::chunked::ChunkedDecoder;
use super::connection::Connection;
use super::head::Framing;
use super::{Shared, StreamError};
use std::sync::Arc;

/// Whether more of a body is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyState {
    /// More may come.
    Open,
    /// It ended as its framing says.
    Complete,
}

/// The body of a response. Dropping it before its end closes the connection at once, which is how an engine learns that
/// nobody listens any more; only a body read to its clean end leaves its connection to the next request.
#[derive(Debug)]
pub struct Body {
    /// `None` once the body has ended or failed.
    connection: Option<Connection>,
    progress: Progress,
    keep_alive: bool,
    client: Arc<Shared>,
}

#[derive(Debug)]
enum Progress {
    Length { left: u64 },
    Chunked(ChunkedDecoder),
    UntilClose,
}

impl Progress {
    fn is_done(&self) -> bool {
        match self {
            Self::Length { left } => *left == 0,
            Self::Chunked(decoder) => decoder.is_done(),
            Self::UntilClose => false,
        }
    }

    /// The next payload in `input`, and the bytes behind it.
    fn step<'a>(&mut self, input: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), StreamError> {
        match self {
            Self::UntilClose => Ok((input, &[])),
            Self::Chunked(decoder) => decoder.step(input).map(|step| (step.payload, step.rest)),
            Self::Length { left } => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= taken as u64;
                Ok(input.split_at(taken))
            }
        }
    }
}

impl Body {
    pub(super) fn new(connection: Connection, framing: Framing, keep_alive: bool, client: Arc<Shared>) -> Self {
        let progress = match framing {
            Framing::Length(left) => Progress::Length { left },
            Framing::Chunked => Progress::Chunked(ChunkedDecoder::default()),
            Framing::Close => Progress::UntilClose,
        };
        Self { connection: Some(connection), progress, keep_alive, client }
    }

    /// Waits for one read (or takes what came together with the head) and hands the payload in it to `sink`, in pieces that
    /// lie in the read buffer. The pieces may be none at all when the read held only framing.
    ///
    /// # Errors
    /// Whatever goes wrong with the connection, or whatever `sink` returns; the connection is closed then. A body whose end
    /// was not announced by its framing is [`StreamError::Truncated`], never complete.
    pub fn poll_data<E: From<StreamError>>(
        &mut self,
        cx: &mut Context<'_>,
        sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Poll<Result<BodyState, E>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(Ok(BodyState::Complete));
        };
        if connection.unread().is_empty() && !self.progress.is_done() {
            let read = ready!(connection.poll_fill(cx));
            let ended = match read {
                Ok(1..) => None,
                Ok(0) if matches!(self.progress, Progress::UntilClose) => Some(Ok(BodyState::Complete)),
                Ok(0) => Some(Err(StreamError::Truncated.into())),
                Err(error) => Some(Err(StreamError::Receive(error).into())),
            };
            if let Some(end) = ended {
                self.connection = None;
                return Poll::Ready(end);
            }
        }
        let decoded = self.decode(sink);
        if decoded.is_err() {
            self.connection = None;
        }
        Poll::Ready(decoded)
    }

    /// Decodes everything that has been read.
    fn decode<E: From<StreamError>>(&mut self, mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<BodyState, E> {
        let Some(connection) = &mut self.connection else {
            return Ok(BodyState::Complete);
        };
        let unread = connection.unread();
        let mut rest = unread;
        while !rest.is_empty() && !self.progress.is_done() {
            let (payload, behind) = self.progress.step(rest)?;
            rest = behind;
            if !payload.is_empty() {
                sink(payload)?;
            }
        }
        let used = unread.len() - rest.len();
        connection.consume(used);
        if !self.progress.is_done() {
            return Ok(BodyState::Open);
        }
        self.release();
        Ok(BodyState::Complete)
    }

    /// Gives the connection to the next request, unless the engine wants it closed or said more than it should have.
    fn release(&mut self) {
        if let Some(connection) = self.connection.take()
            && self.keep_alive
            && connection.unread().is_empty()
        {
            let config = &self.client.config;
            self.client.idle.put(config.max_idle, config.idle_lifetime, connection);
        }
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// As [`poll_data`](Self::poll_data), [`StreamError::TooLarge`] beyond `limit` bytes, and
    /// [`StreamError::EstablishTimeout`] when it takes longer than `timeout`.
    pub async fn collect(mut self, limit: usize, timeout: Duration) -> Result<Vec<u8>, StreamError> {
        let mut whole = Vec::new();
        let reading = async {
            loop {
                let mut keep = |piece: &[u8]| {
                    if whole.len() + piece.len() > limit {
                        return Err(StreamError::TooLarge { part: "body", limit });
                    }
                    whole.extend_from_slice(piece);
                    Ok(())
                };
                if std::future::poll_fn(|cx| self.poll_data(cx, &mut keep)).await? == BodyState::Complete {
                    return Ok(());
                }
            }
        };
        tokio::time::timeout(timeout, reading).await.map_err(|_| StreamError::EstablishTimeout(timeout))??;
        Ok(whole)
    }
}
