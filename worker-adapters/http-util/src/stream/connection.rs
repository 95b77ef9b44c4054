//! A connection with its read buffer: writing a request, reading a head.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use super::StreamError;
use super::head::{self, Head};
use super::transport::{ParkedTransport, Transport};

/// Largest response head.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// A connection and what was read from it but not used yet.
#[derive(Debug)]
pub(super) struct Connection {
    transport: Transport,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

/// An idle connection with its read buffer, which is empty.
#[derive(Debug)]
pub(super) struct Parked {
    transport: ParkedTransport,
    buffer: Box<[u8]>,
}

impl Parked {
    /// Makes it fit for use on the current runtime; `None` when it shows a sign of its end.
    pub(super) fn unpark(self) -> Option<Connection> {
        Some(Connection { transport: self.transport.unpark()?, buffer: self.buffer, start: 0, end: 0 })
    }
}

/// Failure of a request, with the one fact that decides whether it may be sent again elsewhere.
pub(super) struct ExchangeError {
    pub(super) error: StreamError,
    /// Not a byte of a response had come.
    pub(super) silent: bool,
}

impl Connection {
    pub(super) fn new(transport: Transport, buffer_size: usize) -> Self {
        Self { transport, buffer: vec![0; buffer_size.clamp(1024, MAX_HEAD)].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Makes it fit to lie idle; `None` when the system will not have it, and then it is closed.
    pub(super) fn park(self) -> Option<Parked> {
        Some(Parked { transport: self.transport.park()?, buffer: self.buffer })
    }

    /// Bytes read and not used yet.
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// Reads once, behind what is unread. `Ok(0)` is the end of the connection.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let mut space = ReadBuf::new(&mut self.buffer[self.end..]);
        ready!(Pin::new(&mut self.transport).poll_read(cx, &mut space))?;
        let count = space.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }

    /// Sends a request, head and body in one write, and reads the response's head.
    pub(super) async fn exchange(&mut self, head: &[u8], body: &[u8], delay_acks: bool) -> Result<Head, ExchangeError> {
        let sent = self.send(head, body).await;
        if delay_acks {
            self.transport.delay_acks();
        }
        let received = self.receive_head().await;
        match (sent, received) {
            // An engine may answer and close before it has read all of a request that it refuses; the answer counts.
            (_, Ok(head)) => Ok(head),
            (Err(error), Err(_)) => Err(ExchangeError { error: StreamError::Send(error), silent: self.end == 0 }),
            (Ok(()), Err(error)) => {
                let lost = matches!(error, StreamError::Receive(_) | StreamError::Truncated);
                Err(ExchangeError { error, silent: lost && self.end == 0 })
            }
        }
    }

    async fn send(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let mut slices = [IoSlice::new(head), IoSlice::new(body)];
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let written = self.transport.write_vectored(left).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut left, written);
        }
        self.transport.flush().await
    }

    async fn receive_head(&mut self) -> Result<Head, StreamError> {
        loop {
            if let Some((head, length)) = head::parse(self.unread())? {
                self.consume(length);
                // 1xx is a remark; the response comes after it.
                if head.status >= 200 {
                    return Ok(head);
                }
                continue;
            }
            self.make_room()?;
            match std::future::poll_fn(|cx| self.poll_fill(cx)).await {
                Ok(0) => return Err(StreamError::Truncated),
                Ok(_) => {}
                Err(error) => return Err(StreamError::Receive(error)),
            }
        }
    }

    /// Makes sure that a head which fills the buffer can go on.
    fn make_room(&mut self) -> Result<(), StreamError> {
        if self.end < self.buffer.len() {
            return Ok(());
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            return Ok(());
        }
        if self.buffer.len() >= MAX_HEAD {
            return Err(StreamError::TooLarge { part: "head", limit: MAX_HEAD });
        }
        let mut larger = std::mem::take(&mut self.buffer).into_vec();
        larger.resize((larger.len() * 2).clamp(1024, MAX_HEAD), 0);
        self.buffer = larger.into_boxed_slice();
        Ok(())
    }
}
