//! The way to this host's engines for whoever knows the relay's secret, and for nobody else.
//!
//! HTTP/1.1. Each request is looked at only as far as its head: it must carry the secret, and its path says which engine is meant. The
//! rest is copied as it comes, both ways, without being framed anew or kept back, so that a token leaves at once. One connection of the
//! orchestrator is one connection to an engine: when either ends the other does, and that is how an engine notices a cancel.

mod connection;
mod head;
mod local;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use auth_min::Authenticator;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use self::connection::Connection;
use super::Shared;

/// Most connections at a time. An orchestrator has about as many as its pools have slots, and some for questions.
const CONNECTIONS: usize = 2048;
/// Pause after a connection could not be taken, such as for want of open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time after which a peer that acknowledges nothing counts as gone. Its engine's slot is free then.
const PEER_TIMEOUT: Duration = Duration::from_secs(10);

/// The relay.
pub(super) struct Relay {
    shared: Arc<Shared>,
    authenticator: Authenticator,
    connections: Arc<Semaphore>,
}

impl Relay {
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        // The secret, wherever a request comes from.
        let authenticator = Authenticator::new(Some(&shared.secret), Some(false), false);
        Arc::new(Self { shared, authenticator, connections: Arc::new(Semaphore::new(CONNECTIONS)) })
    }

    /// Serves whoever calls. Dropping the future ends all connections by and by.
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener) {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        // One too many is closed without a word: whoever knows the secret does not need so many.
                        let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else { continue };
                        tune(&stream);
                        let relay = Arc::clone(&self);
                        connections.spawn(async move {
                            Connection::new(relay, stream).serve().await;
                            drop(permit);
                        });
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// What a socket cannot do costs latency, or the time until a lost peer is found out, and nothing else.
fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(PEER_TIMEOUT / 2).with_interval(PEER_TIMEOUT / 5).with_retries(3);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(PEER_TIMEOUT));
}
