//! An event stream over HTTP/1.1, written past hyper, which would keep two buffers of 8 KiB for each connection however little
//! a stream has to say. hyper reads and checks the request and takes the connection back after the stream.

use std::future::poll_fn;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, Request, Response, Version};
use bytes::Bytes;
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::requests::Answer;

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// What a request says about its connection.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// It can be answered in chunks.
    takes_chunks: bool,
    /// It is the connection's last one.
    is_last: bool,
}

impl Asked {
    pub(super) fn by<B>(request: &Request<B>) -> Self {
        let options = request.headers().get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let mut options = options.flat_map(|value| value.split(','));
        Self {
            takes_chunks: request.version() == Version::HTTP_11,
            is_last: options.any(|option| option.trim().eq_ignore_ascii_case("close")),
        }
    }
}

/// The answer that a connection's service has taken from hyper.
#[derive(Default)]
pub(super) struct Handover(Mutex<Option<Response<Answer>>>);

impl Handover {
    /// Keeps the answer if it is a stream that can be written past hyper; gives back any other.
    pub(super) fn keep(&self, asked: Asked, mut response: Response<Answer>) -> Option<Response<Answer>> {
        let kind = response.headers().get(CONTENT_TYPE);
        if !asked.takes_chunks || kind.is_none_or(|kind| kind != "text/event-stream") {
            return Some(response);
        }
        if asked.is_last {
            response.headers_mut().insert(CONNECTION, CLOSE);
        }
        *self.lock() = Some(response);
        None
    }

    /// The answer that was kept.
    pub(super) fn take(&self) -> Option<Response<Answer>> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Response<Answer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes an answer to its end. False when the connection must not be used again: the client wants it closed, or has sent
/// more before its time.
///
/// # Errors
/// When the client is gone, or has fallen behind what is kept of the stream.
pub(super) async fn send<Io>(io: &mut Io, response: Response<Answer>) -> io::Result<bool>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let (parts, body) = response.into_parts();
    let is_last = parts.headers.get(CONNECTION).is_some_and(|option| option == CLOSE);
    let mut out = Vec::with_capacity(512);
    write!(out, "HTTP/1.1 {}\r\n", parts.status)?;
    for (name, value) in &parts.headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    write!(out, "transfer-encoding: chunked\r\ndate: {}\r\n\r\n", httpdate::fmt_http_date(SystemTime::now()))?;
    drop(parts);
    let mut sending = Sending { io, body, out, sent: 0, is_over: false, is_impatient: false };
    poll_fn(|cx| sending.poll(cx)).await?;
    Ok(!is_last && !sending.is_impatient)
}

struct Sending<'a, Io> {
    io: &'a mut Io,
    body: Answer,
    /// What is being written; the head and the first events are one write.
    out: Vec<u8>,
    sent: usize,
    /// The last chunk is in `out`.
    is_over: bool,
    /// The client has sent something that nobody will read.
    is_impatient: bool,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Sending<'_, Io> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // What there is now goes out in one write with what is left of the head.
            while !self.is_over && self.out.len() < LARGEST_WRITE {
                match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Ready(Some(frame)) => {
                        let frame = frame.map_err(io::Error::other)?;
                        self.chunk(&frame.into_data().unwrap_or_default());
                    }
                    Poll::Ready(None) => {
                        self.out.extend_from_slice(b"0\r\n\r\n");
                        self.is_over = true;
                    }
                    Poll::Pending => break,
                }
            }
            if self.out.is_empty() {
                return self.poll_gone(cx);
            }
            ready!(self.poll_write(cx))?;
            if self.is_over {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn chunk(&mut self, data: &Bytes) {
        if !data.is_empty() {
            write!(self.out, "{:x}\r\n", data.len()).expect("a vector takes everything");
            self.out.extend_from_slice(data);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            let written = ready!(Pin::new(&mut *self.io).poll_write(cx, &self.out[self.sent..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        ready!(Pin::new(&mut *self.io).poll_flush(cx))?;
        self.out.clear();
        self.out.shrink_to(USUAL_WRITE);
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Nothing is to be sent: waits for the client's end of the connection, whose loss is an error.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_impatient {
            return Poll::Pending;
        }
        let mut space = [0; 1];
        let mut space = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut *self.io).poll_read(cx, &mut space))?;
        if space.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.is_impatient = true;
        Poll::Pending
    }
}

/// Most that is gathered for one write.
const LARGEST_WRITE: usize = 16 * 1024;
/// Memory that is kept between two writes.
const USUAL_WRITE: usize = 512;
