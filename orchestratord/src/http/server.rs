//! Listening, accepting and driving connections.
//!
//! One current-thread runtime per core shares one listening socket; a connection stays on the core that accepted it, and so
//! do the streams of the tasks it submits. A work-stealing runtime costs several microseconds per token for moving them about.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::gate::Gate;

/// Time a client has to send a request's head, also between two requests of one connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// Most a connection buffers of a request's head.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// HTTP/2 streams a client may have open on one connection.
const MAX_H2_STREAMS: u32 = 1024;
/// Wait after `accept` failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Opens the listening socket.
///
/// # Errors
/// The operating system's, for example when the port is in use.
pub fn bind(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old connections' time-wait to pass.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Accepts connections and serves them on the current runtime, each as one of `connections`, until `stop`; the open ones then
/// finish their request.
pub async fn run(listener: TcpListener, gate: Arc<Gate>, connections: TaskTracker, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(serve(stream, peer, Arc::clone(&gate), stop.clone()));
            }
            Err(error) if is_connection_error(&error) => debug!(%error, "connection lost before it was accepted"),
            Err(error) => {
                warn!(%error, "cannot accept connections; raise the limit on open files if this goes on");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, gate: Arc<Gate>, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "connection lost before it was served");
        return;
    }
    let service = service_fn(|request| Arc::clone(&gate).handle(peer, request));
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEAD_BYTES);
    server.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_H2_STREAMS);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(%peer, error, "connection ended early");
    }
}

/// Errors of one connection that say nothing about the listener.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
