//! Listening, accepting and driving connections.
//!
//! One current-thread runtime per core shares one listening socket; a connection stays on the core that accepted it, and so
//! do the streams of the tasks it submits. A work-stealing runtime costs several microseconds per token for moving them about.

mod connections;
mod direct;
mod protocol;
mod requests;
mod socket;
mod tls;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::http::Request;
use config_schema::Server as Settings;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use self::connections::{Connections, Seat};
use self::direct::{Asked, Handover};
use self::protocol::{Protocol, Protocols};
use self::requests::Requests;
use super::gate::{Gate, Peer};

pub use self::socket::bind;
pub use self::tls::Tls;

/// Wait after `accept` failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time a connection over the limit has to ask, and is kept after its answer.
const REFUSED_LINGER: Duration = Duration::from_secs(2);
/// Time for the last words to a connection that has never asked anything.
const FAREWELL: Duration = Duration::from_millis(100);

/// What serves connections: one per daemon, shared by its runtimes.
pub struct Server {
    gate: Arc<Gate>,
    tls: Option<Tls>,
    connections: Arc<Connections>,
    protocols: Protocols,
    head_timeout: Duration,
}

impl Server {
    /// A server that leads to `gate`, by TLS where there is a certificate.
    pub fn new(gate: Arc<Gate>, settings: &Settings, tls: Option<Tls>) -> Self {
        Self {
            gate,
            tls,
            connections: Arc::new(Connections::new(settings)),
            protocols: Protocols::new(settings),
            head_timeout: settings.head_timeout(),
        }
    }

    /// The certificate, when this server speaks TLS.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    async fn serve_clear(self: Arc<Self>, stream: TcpStream, addr: SocketAddr, seat: Seat, stop: CancellationToken) {
        match tokio::time::timeout(self.patience(&seat), protocol::sniff(&stream)).await {
            Ok(Ok(protocol)) => self.drive(stream, protocol, addr, &seat, &stop).await,
            Ok(Err(error)) => debug!(%addr, %error, "connection lost before its first request"),
            Err(_) => debug!(%addr, "connection closed: it sent nothing"),
        }
    }

    async fn serve_tls(self: Arc<Self>, stream: TcpStream, addr: SocketAddr, seat: Seat, stop: CancellationToken) {
        let Some(tls) = &self.tls else { return };
        match tls.accept(stream).await {
            Ok((stream, protocol)) => self.drive(stream, protocol, addr, &seat, &stop).await,
            Err(error) => debug!(%addr, %error, "TLS handshake failed"),
        }
    }

    /// Serves requests until the connection ends, has been idle for too long, or the server stops; the open ones are
    /// then finished.
    async fn drive<Io>(&self, io: Io, protocol: Protocol, addr: SocketAddr, seat: &Seat, stop: &CancellationToken)
    where
        Io: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let requests = Requests::default();
        let peer = Peer { addr, is_over_limit: seat.is_over_limit() };
        let until = Until { requests: &requests, patience: self.patience(seat), stop };
        let result = match protocol {
            Protocol::Http1 => self.drive_http1(io, peer, &until).await,
            // Boxed: the connections that are many are small.
            Protocol::Http2 => Box::pin(self.drive_http2(io, peer, &until)).await,
        };
        if let Err(error) = result {
            debug!(%addr, error = &*error, "connection ended early");
        }
    }

    /// hyper reads the requests and writes the answers, but for streams.
    async fn drive_http1<Io>(&self, mut io: Io, peer: Peer, until: &Until<'_>) -> Result<(), BoxError>
    where
        Io: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        loop {
            let handover = Handover::default();
            let service = service_fn(|request: Request<Incoming>| {
                let (gate, in_progress, handover) = (Arc::clone(&self.gate), until.requests.begin(), &handover);
                async move {
                    let asked = Asked::by(&request);
                    let Ok(response) = gate.handle(peer, request).await;
                    match handover.keep(asked, in_progress.until_sent(response)) {
                        None => std::future::pending().await,
                        Some(response) => Ok::<_, Infallible>(response),
                    }
                }
            });
            let mut connection = self.protocols.http1.serve_connection(TokioIo::new(io), service);
            let Some(response) = until.follow(Pin::new(&mut connection), || handover.take()).await? else {
                return Ok(());
            };
            let has_more;
            (io, has_more) = taken_back(connection.into_parts());
            let may_go_on = direct::send(&mut io, response).await?;
            if has_more || !may_go_on || until.stop.is_cancelled() {
                return Ok(io.shutdown().await?);
            }
        }
    }

    async fn drive_http2<Io>(&self, io: Io, peer: Peer, until: &Until<'_>) -> Result<(), BoxError>
    where
        Io: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let service = service_fn(|request: Request<Incoming>| {
            let (gate, in_progress) = (Arc::clone(&self.gate), until.requests.begin());
            async move { gate.handle(peer, request).await.map(|response| in_progress.until_sent(response)) }
        });
        let connection = pin!(self.protocols.http2.serve_connection(TokioIo::new(io), service));
        until.follow(connection, || None::<Infallible>).await?;
        Ok(())
    }

    /// How long a connection may be without a request.
    fn patience(&self, seat: &Seat) -> Duration {
        if seat.is_over_limit() { REFUSED_LINGER.min(self.head_timeout) } else { self.head_timeout }
    }
}

/// Accepts connections and serves them on the current runtime, each as one of `open`, until `stop`; the open ones then finish
/// their request.
pub async fn run(listener: TcpListener, server: Arc<Server>, open: TaskTracker, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, addr)) => start(&server, stream, addr, &open, &stop),
            Err(error) if is_connection_error(&error) => debug!(%error, "connection lost before it was accepted"),
            Err(error) => {
                warn!(%error, "cannot accept connections; raise the limit on open files if this goes on");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection if it finds a seat. Clear and TLS are two futures, so that the small one stays small.
fn start(server: &Arc<Server>, stream: TcpStream, addr: SocketAddr, open: &TaskTracker, stop: &CancellationToken) {
    let Some(seat) = server.connections.seat(addr.ip()) else {
        debug!(%addr, "connection dropped: far too many are open");
        return;
    };
    let (server, stop) = (Arc::clone(server), stop.clone());
    if server.tls.is_some() {
        open.spawn(server.serve_tls(stream, addr, seat, stop));
    } else {
        open.spawn(server.serve_clear(stream, addr, seat, stop));
    }
}

/// When a connection takes no further request.
struct Until<'a> {
    requests: &'a Requests,
    patience: Duration,
    stop: &'a CancellationToken,
}

impl Until<'_> {
    /// Drives a connection until it ends, or until `taken` gives something; once it takes no further request it finishes
    /// those that it has.
    async fn follow<C, T>(&self, mut connection: Pin<&mut C>, taken: impl Fn() -> Option<T>) -> hyper::Result<Option<T>>
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let drive = |connection: Pin<&mut C>, cx: &mut Context<'_>| match connection.poll(cx) {
            Poll::Ready(ended) => Poll::Ready(ended.map(|()| None)),
            Poll::Pending => taken().map_or(Poll::Pending, |taken| Poll::Ready(Ok(Some(taken)))),
        };
        // A set of one, because that polls its future only when it has been woken, and not for every token.
        let mut over = FuturesUnordered::from_iter([self.over()]);
        tokio::select! {
            biased;
            driven = poll_fn(|cx| drive(connection.as_mut(), cx)) => return driven,
            _ = over.next() => connection.as_mut().graceful_shutdown(),
        }
        drop(over);
        let rest = poll_fn(|cx| drive(connection.as_mut(), cx));
        match self.requests.were_made() {
            true => rest.await,
            // It may be waiting for a client's first words without an end.
            false => tokio::time::timeout(FAREWELL, rest).await.unwrap_or(Ok(None)),
        }
    }

    async fn over(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.requests.idle_for(self.patience) => {}
        }
    }
}

/// What hyper gives back, and whether it had read more than the one request; its buffer is gone when this returns.
fn taken_back<Io, S>(parts: http1::Parts<TokioIo<Io>, S>) -> (Io, bool) {
    (parts.io.into_inner(), !parts.read_buf.is_empty())
}

/// Errors of one connection that say nothing about the listener.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
