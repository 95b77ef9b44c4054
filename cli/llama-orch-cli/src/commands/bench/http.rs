//! A small HTTP client for loads of many streams: HTTP/1.1 and HTTP/2 alike, each connection by itself.

use std::convert::Infallible;
use std::fmt::{self, Display};
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpSocket, TcpStream};

use crate::failure::Failure;

/// How a connection is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connect {
    /// To whom.
    pub(super) to: SocketAddr,
    /// From which address of this machine; by default the system chooses.
    pub(super) from: Option<Ipv4Addr>,
    /// What the kernel keeps for a reader that is behind, in bytes.
    pub(super) receive_buffer: Option<u32>,
    pub(super) version: Version,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// HTTP/1.1, one stream at a time.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// An open connection. It closes once this and the bodies of its responses are gone.
#[derive(Debug)]
pub(super) struct Connection {
    sender: Sender,
    host: String,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Why an exchange failed.
#[derive(Debug)]
pub(super) enum HttpError {
    /// No connection, or one that broke.
    Io(std::io::Error),
    /// Anything after that.
    Http(hyper::Error),
}

impl Connect {
    /// A connection to an address, as the system makes it.
    pub(super) const fn to(to: SocketAddr, version: Version) -> Self {
        Self { to, from: None, receive_buffer: None, version }
    }

    /// Connects. Requests are carried by a task of their own on this runtime.
    pub(super) async fn open(self) -> Result<Connection, HttpError> {
        let stream = self.connect().await.map_err(HttpError::Io)?;
        let io = TokioIo::new(stream);
        let sender = match self.version {
            Version::Http1 => {
                let (sender, connection) = http1::Builder::new().max_buf_size(8192).handshake(io).await?;
                // How a connection ends is told to those who use it.
                drop(tokio::spawn(connection));
                Sender::Http1(sender)
            }
            Version::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                drop(tokio::spawn(connection));
                Sender::Http2(sender)
            }
        };
        Ok(Connection { sender, host: self.to.to_string() })
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(size) = self.receive_buffer {
            socket.set_recv_buffer_size(size)?;
        }
        if let Some(from) = self.from {
            socket.bind((from, 0).into())?;
        }
        let stream = socket.connect(self.to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Connection {
    /// Sends a POST with a JSON body and waits for the response's head.
    pub(super) async fn post(&mut self, path: &str, body: Bytes) -> Result<Response<Incoming>, HttpError> {
        let request = self.request(Method::POST, path).header(CONTENT_TYPE, "application/json");
        self.send(request.header(ACCEPT, "text/event-stream").body(Full::new(body))).await
    }

    /// Sends a GET for a stream, from behind the event with this index on.
    pub(super) async fn get(&mut self, path: &str, after: Option<u64>) -> Result<Response<Incoming>, HttpError> {
        let mut request = self.request(Method::GET, path).header(ACCEPT, "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        self.send(request.body(Full::default())).await
    }

    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        match self.sender {
            Sender::Http1(_) => Request::builder().method(method).uri(path).header(HOST, &self.host),
            Sender::Http2(_) => Request::builder().method(method).uri(format!("http://{}{path}", self.host)),
        }
    }

    async fn send(
        &mut self,
        request: hyper::http::Result<Request<Full<Bytes>>>,
    ) -> Result<Response<Incoming>, HttpError> {
        let request = request.expect("paths and headers are our own");
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
        }
    }
}

/// The next piece of a body; none at its end.
pub(super) async fn next(body: &mut Incoming) -> Result<Option<Bytes>, HttpError> {
    loop {
        match body.frame().await.transpose()? {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

/// The address in a URL of ours.
pub(super) fn address(url: &str) -> Result<SocketAddr, Failure> {
    let address = url.strip_prefix("http://").and_then(|address| address.parse().ok());
    address.ok_or_else(|| Failure::local(format!("{url} is no address of this machine")))
}

impl From<hyper::Error> for HttpError {
    fn from(error: hyper::Error) -> Self {
        Self::Http(error)
    }
}

impl From<Infallible> for HttpError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Http(error) => error.fmt(f),
        }
    }
}
