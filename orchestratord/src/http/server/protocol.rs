//! HTTP/1.1 and HTTP/2 on one port: which one a connection speaks, and the limits of each.

use std::io;
use std::time::Duration;

use config_schema::Server as Settings;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;

/// Most of a request's head, in bytes. An HTTP/1.1 connection buffers no more either: pipelined requests wait in the kernel.
const MAX_HEAD_BYTES: u32 = 32 * 1024;
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

/// What a connection speaks, as far as that is known before hyper reads from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
    /// To be found out by reading. That costs an HTTP/1.1 connection 8 KiB, for it makes hyper's buffer grow.
    Either,
}

impl Protocol {
    /// The protocol of a connection that begins with these bytes.
    fn of(start: &[u8]) -> Self {
        let length = start.len().min(HTTP2_PREFACE.len());
        match start[..length] == HTTP2_PREFACE[..length] {
            true if length == HTTP2_PREFACE.len() => Self::Http2,
            true => Self::Either,
            false => Self::Http1,
        }
    }
}

/// Waits for the first bytes and looks at them without taking them.
///
/// # Errors
/// The operating system's, when the connection is lost.
pub(super) async fn sniff(stream: &TcpStream) -> io::Result<Protocol> {
    let mut start = [0; HTTP2_PREFACE.len()];
    let length = stream.peek(&mut start).await?;
    Ok(Protocol::of(&start[..length]))
}

/// The settings of both protocols, shared by all connections.
pub(super) struct Protocols {
    http1: auto::Builder<TokioExecutor>,
    http2: auto::Builder<TokioExecutor>,
    either: auto::Builder<TokioExecutor>,
}

impl Protocols {
    pub(super) fn new(settings: &Settings) -> Self {
        let either = builder(settings);
        Self { http1: either.clone().http1_only(), http2: either.clone().http2_only(), either }
    }

    pub(super) fn of(&self, protocol: Protocol) -> &auto::Builder<TokioExecutor> {
        match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
            Protocol::Either => &self.either,
        }
    }
}

fn builder(settings: &Settings) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.head_timeout())
        .max_buf_size(MAX_HEAD_BYTES as usize);
    // Half of the patience is silence, the other half the wait for the answer to a ping.
    let ping: Duration = settings.peer_timeout() / 2;
    builder
        .http2()
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
    builder
}

#[cfg(test)]
mod tests {
    use super::{HTTP2_PREFACE, Protocol};

    /// SSE-1005: what cannot be told yet is left open.
    #[test]
    fn the_first_bytes_tell_the_protocol() {
        assert_eq!(Protocol::of(b"GET / HTTP/1.1\r\n"), Protocol::Http1);
        assert_eq!(Protocol::of(b"POST /v1/tasks HTTP/1.1\r\nhost: x\r\n"), Protocol::Http1);
        assert_eq!(Protocol::of(HTTP2_PREFACE), Protocol::Http2);
        for length in 0..HTTP2_PREFACE.len() {
            assert_eq!(Protocol::of(&HTTP2_PREFACE[..length]), Protocol::Either, "{length}");
        }
    }
}
