//! Every way a streamed exchange can fail.

use std::io;
use std::time::Duration;

/// Failure of a request sent by [`StreamClient`](super::StreamClient), or of its body.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Nobody listens there, the name is unknown, or the socket's path does not exist.
    #[error("could not connect")]
    Connect(#[source] io::Error),
    /// No connection within the connect timeout.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// The certificate is not trusted, or the peer does not speak TLS.
    #[error("tls handshake failed")]
    Tls(#[source] io::Error),
    /// The request's path or a header cannot be written into a request.
    #[error("the request cannot be sent as http")]
    BadRequest,
    /// The connection broke while the request was being written.
    #[error("the connection broke while sending")]
    Send(#[source] io::Error),
    /// No response head within the establishment timeout (LO-WAD-11).
    #[error("no response within {0:?}")]
    EstablishTimeout(Duration),
    /// The response is not HTTP/1.1.
    #[error("malformed response: {0}")]
    Malformed(&'static str),
    /// A limit on the response was exceeded.
    #[error("the response's {part} is larger than {limit} bytes")]
    TooLarge {
        /// Which part.
        part: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The connection broke before the response was complete.
    #[error("the connection broke in the middle of the response")]
    Receive(#[source] io::Error),
    /// The connection was closed before the response was complete: before its head, before the last chunk, or short of its
    /// `Content-Length`.
    #[error("the connection was closed before the response was complete")]
    Truncated,
}
