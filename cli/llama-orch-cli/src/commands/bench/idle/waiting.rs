//! Many open streams on which nothing happens.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http_util::sse::{SseDecoder, SseError};
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use tokio::task::JoinSet;

use super::super::http::{Connect, Connection, HttpError, Version, next};
use crate::failure::Failure;

/// Streams that are opened at the same time; a server's backlog of connections is finite.
const AT_ONCE: usize = 64;
/// Ports that a client address is used for; the system has about 28,000 for each.
const PORTS_PER_ADDRESS: usize = 16_384;
/// Streams on one HTTP/2 connection.
const STREAMS_PER_CONNECTION: usize = 512;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// `POST /v1/tasks`.
    Task,
    /// llama-server's `POST /completion`, at this path.
    Completion {
        /// The path.
        path: &'static str,
    },
}

/// Open streams, each of which has given its first event.
pub(super) struct Waiting {
    streams: Vec<Stream>,
    /// Of HTTP/2, which has many streams on each.
    _connections: Vec<Connection>,
}

struct Stream {
    body: Incoming,
    /// Of HTTP/1.1, which has one stream on each.
    _connection: Option<Connection>,
    seen: Seen,
}

/// The events of a stream.
#[derive(Debug, Default)]
struct Seen {
    decoder: SseDecoder,
    started: u32,
    tokens: u32,
    ended: u32,
}

impl Waiting {
    /// Opens a stream for each body and returns once every one has begun.
    pub(super) async fn open(to: SocketAddr, kind: Kind, http2: bool, bodies: Vec<Bytes>) -> Result<Self, Failure> {
        if http2 {
            Self::on_shared_connections(to, kind, bodies).await
        } else {
            Self::on_connections(to, kind, bodies).await
        }
    }

    async fn on_connections(to: SocketAddr, kind: Kind, bodies: Vec<Bytes>) -> Result<Self, Failure> {
        let mut streams = Vec::with_capacity(bodies.len());
        let mut opening = JoinSet::new();
        for (index, body) in bodies.into_iter().enumerate() {
            if opening.len() == AT_ONCE {
                streams.extend(joined(&mut opening).await?);
            }
            let connect = Connect { from: Some(source(index)), ..Connect::to(to, Version::Http1) };
            opening.spawn(async move {
                let mut connection = connect.open().await?;
                let response = connection.post(kind.path(), body).await?;
                Stream::begin(response, kind, Some(connection)).await
            });
        }
        while let Some(stream) = joined(&mut opening).await? {
            streams.push(stream);
        }
        Ok(Self { streams, _connections: Vec::new() })
    }

    async fn on_shared_connections(to: SocketAddr, kind: Kind, bodies: Vec<Bytes>) -> Result<Self, Failure> {
        let (mut streams, mut connections) = (Vec::with_capacity(bodies.len()), Vec::new());
        for bodies in bodies.chunks(STREAMS_PER_CONNECTION) {
            let mut connection = Connect::to(to, Version::Http2).open().await.map_err(failed)?;
            for body in bodies {
                let response = connection.post(kind.path(), body.clone()).await.map_err(failed)?;
                streams.push(Stream::begin(response, kind, None).await.map_err(StreamError::into_failure)?);
            }
            connections.push(connection);
        }
        Ok(Self { streams, _connections: connections })
    }

    /// Reads all streams to their ends; returns how many gave anything but one `started`, one token and one `end`, in this
    /// order.
    pub(super) async fn finish(self) -> Result<u32, Failure> {
        let mut reading = JoinSet::new();
        for stream in self.streams {
            reading.spawn(stream.finish());
        }
        let mut lost = 0;
        while let Some(whole) = reading.join_next().await {
            lost += u32::from(!whole.map_err(failed)?);
        }
        Ok(lost)
    }
}

async fn joined(opening: &mut JoinSet<Result<Stream, StreamError>>) -> Result<Option<Stream>, Failure> {
    match opening.join_next().await {
        None => Ok(None),
        Some(joined) => joined.map_err(failed)?.map(Some).map_err(StreamError::into_failure),
    }
}

/// An address of this machine that has ports left for stream number `index`.
fn source(index: usize) -> Ipv4Addr {
    let number = u8::try_from(1 + index / PORTS_PER_ADDRESS).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, 0, 0, number)
}

impl Stream {
    /// Reads the first event.
    async fn begin(
        response: Response<Incoming>,
        kind: Kind,
        connection: Option<Connection>,
    ) -> Result<Self, StreamError> {
        let (head, body) = response.into_parts();
        let mut stream = Self { body, _connection: connection, seen: Seen::default() };
        if head.status != StatusCode::OK {
            let answer = next(&mut stream.body).await?.unwrap_or_default();
            return Err(StreamError::Refused(head.status, String::from_utf8_lossy(&answer).into_owned()));
        }
        while !stream.seen.has_begun(kind) {
            let Some(piece) = next(&mut stream.body).await? else { return Err(StreamError::Ended) };
            stream.seen.feed(&piece)?;
        }
        Ok(stream)
    }

    /// Whether everything came.
    async fn finish(mut self) -> bool {
        while let Ok(Some(piece)) = next(&mut self.body).await {
            if self.seen.feed(&piece).is_err() {
                return false;
            }
        }
        (self.seen.started, self.seen.tokens, self.seen.ended) == (1, 1, 1)
    }
}

impl Seen {
    fn feed(&mut self, piece: &[u8]) -> Result<(), SseError> {
        let Self { decoder, started, tokens, ended } = self;
        decoder.feed(piece, |event| {
            // What comes out of order counts as nothing, and is missed at the end.
            match event.name {
                "started" if (*tokens, *ended) == (0, 0) => *started += 1,
                "token" | "message" | "" if *ended == 0 => *tokens += 1,
                "end" => *ended += 1,
                _ => {}
            }
            Ok::<(), SseError>(())
        })
    }

    /// A task's stream begins before its first token, an engine's with it.
    const fn has_begun(&self, kind: Kind) -> bool {
        match kind {
            Kind::Task => self.started > 0,
            Kind::Completion { .. } => self.tokens > 0,
        }
    }
}

impl Kind {
    const fn path(self) -> &'static str {
        match self {
            Self::Task => "/v1/tasks",
            Self::Completion { path } => path,
        }
    }
}

#[derive(Debug)]
enum StreamError {
    Http(HttpError),
    Events(SseError),
    Refused(StatusCode, String),
    Ended,
}

impl StreamError {
    fn into_failure(self) -> Failure {
        match self {
            Self::Http(error) => failed(error),
            Self::Events(error) => failed(error),
            Self::Refused(status, answer) => failed(format!("refused with {status}: {answer}")),
            Self::Ended => failed("it ended before it began"),
        }
    }
}

impl From<HttpError> for StreamError {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

impl From<SseError> for StreamError {
    fn from(error: SseError) -> Self {
        Self::Events(error)
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::local(format!("a stream could not be opened: {error}"))
}

#[cfg(test)]
mod tests {
    use super::{Ipv4Addr, Seen, source};

    #[test]
    fn a_stream_is_whole_with_one_of_each_in_order() {
        let seen = |text: &str| {
            let mut seen = Seen::default();
            seen.feed(text.as_bytes()).expect("events");
            (seen.started, seen.tokens, seen.ended)
        };
        assert_eq!(seen("event: started\ndata: 1\n\nevent: token\ndata: 1\n\nevent: end\ndata: 1\n\n"), (1, 1, 1));
        assert_eq!(seen("event: end\ndata: 1\n\nevent: token\ndata: 1\n\nevent: started\ndata: 1\n\n"), (0, 0, 1));
        assert_eq!(seen("event: started\ndata: 1\n\nevent: error\ndata: 1\n\n"), (1, 0, 0));
    }

    #[test]
    fn streams_have_addresses_with_ports_left() {
        assert_eq!(source(0), Ipv4Addr::LOCALHOST);
        assert_eq!(source(16_384), Ipv4Addr::new(127, 0, 0, 2));
    }
}
