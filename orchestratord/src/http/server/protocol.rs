//! HTTP/1.1 and HTTP/2 on one port: which one a connection speaks, and the limits of each.

use std::io;
use std::time::Duration;

use config_schema::Server as Settings;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::net::TcpStream;

/// Most of a request's head, in bytes.
const MAX_HEAD_BYTES: u32 = 32 * 1024;
/// Most an HTTP/1.1 connection buffers in each direction; pipelined requests wait in the kernel beyond that.
const HTTP1_BUFFER_BYTES: usize = 64 * 1024;
/// Most of a body that an HTTP/2 client may send ahead of us, on one stream and on all of a connection.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Most that is copied out of a transcript ahead of what an HTTP/2 client takes.
const SEND_BUFFER_BYTES: usize = 16 * 1024;
/// HTTP/2 streams reset before they were looked at, and streams we had to reset, after which the connection ends
/// (CVE-2023-44487 and its relatives).
const MAX_PENDING_RESETS: usize = 32;
const MAX_LOCAL_RESETS: usize = 256;

const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// First wait for the rest of what may become a preface; it doubles.
const PREFACE_PAUSE: Duration = Duration::from_millis(1);

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// The protocol of a connection that begins with these bytes; `None` when it takes more of them to tell.
    fn of(start: &[u8]) -> Option<Self> {
        let length = start.len().min(HTTP2_PREFACE.len());
        match start[..length] == HTTP2_PREFACE[..length] {
            true => (length == HTTP2_PREFACE.len()).then_some(Self::Http2),
            false => Some(Self::Http1),
        }
    }
}

/// Waits for the first bytes and looks at them without taking them: hyper's buffer would grow to the double if it got them
/// in two pieces.
///
/// # Errors
/// The operating system's, when the connection is lost.
pub(super) async fn sniff(stream: &TcpStream) -> io::Result<Protocol> {
    let (mut start, mut pause) = ([0; HTTP2_PREFACE.len()], PREFACE_PAUSE);
    loop {
        let length = stream.peek(&mut start).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(protocol) = Protocol::of(&start[..length]) {
            return Ok(protocol);
        }
        // The socket stays readable, so there is nothing to wait for but time.
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// Both protocols with their limits; the same for all connections.
pub(super) struct Protocols {
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<TokioExecutor>,
}

impl Protocols {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(settings.head_timeout())
            .max_header_size(MAX_HEAD_BYTES as usize)
            // A token is one small write: copying it beside its chunk's size is cheaper than a list of buffers.
            .writev(false)
            .max_buf_size(HTTP1_BUFFER_BYTES);
        // Half of the patience is silence, the other half the wait for the answer to a ping.
        let ping = settings.peer_timeout() / 2;
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(ping)
            .keep_alive_timeout(ping)
            .max_concurrent_streams(settings.max_streams_per_connection.get())
            .max_header_list_size(MAX_HEAD_BYTES)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_LOCAL_RESETS)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES);
        Self { http1, http2 }
    }
}

#[cfg(test)]
mod tests {
    use super::{HTTP2_PREFACE, Protocol};

    /// SSE-1005: the first bytes tell the protocol as soon as they can.
    #[test]
    fn the_first_bytes_tell_the_protocol() {
        assert_eq!(Protocol::of(b"GET / HTTP/1.1\r\n"), Some(Protocol::Http1));
        assert_eq!(Protocol::of(b"PO"), Some(Protocol::Http1));
        assert_eq!(Protocol::of(b"PRI * HTTP/1.1\r\n\r\n"), Some(Protocol::Http1));
        assert_eq!(Protocol::of(HTTP2_PREFACE), Some(Protocol::Http2));
        for length in 0..HTTP2_PREFACE.len() {
            assert_eq!(Protocol::of(&HTTP2_PREFACE[..length]), None, "{length}");
        }
    }
}
