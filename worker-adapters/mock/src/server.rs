//! The simulation as a process: llama-server's HTTP.
//!
//! Shapes, statuses and the moment of each byte follow transcripts of llama.cpp's own server. Two routes are ours:
//! `/mock/faults` (read with GET, replaced with POST) and `/mock/stats` (GET; `?running=0&cancelled=1` waits until the
//! counts are so).

mod body;
mod chat;
mod completion;
mod connection;
mod facts;
mod request;
mod response;
mod routes;

use std::io;
use std::net::SocketAddr;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc::UnboundedSender;

pub use self::connection::Connection;
use crate::{Condition, Simulation};

/// Build of the engine, in llama-server's form: number and commit.
pub const BUILD: &str = "b0-mock";

/// Where requests come in.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// Listens on a fresh port of the loopback interface.
    ///
    /// # Errors
    /// Whatever the system says.
    pub async fn loopback() -> io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        Ok((Self::Tcp(listener), address))
    }

    async fn accept(&self) -> io::Result<Connection> {
        Ok(match self {
            Self::Tcp(listener) => Connection::tcp(listener.accept().await?.0),
            Self::Unix(listener) => Connection::unix(listener.accept().await?.0),
        })
    }
}

/// Serves connections on this runtime until the future is dropped; those that are open live on.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: Listener, sim: Simulation) -> io::Result<()> {
    loop {
        let connection = listener.accept().await?;
        tokio::spawn(handle(connection, sim.clone()));
    }
}

/// Accepts connections and deals them out in turn to workers, each of which calls [`handle`] on its own thread.
///
/// # Errors
/// When the listener fails, or a worker is gone.
pub async fn deal(listener: Listener, workers: &[UnboundedSender<Connection>]) -> io::Result<()> {
    for worker in workers.iter().cycle() {
        let connection = listener.accept().await?.detach()?;
        worker.send(connection).map_err(|_| io::Error::other("a worker thread has ended"))?;
    }
    Ok(())
}

/// Serves one connection to its end.
pub async fn handle(connection: Connection, sim: Simulation) {
    let Ok((stream, fate)) = connection.open() else { return };
    let _connected = sim.connected();
    if sim.condition() == Condition::Crashed {
        fate.reset();
        return;
    }
    let service = service_fn(|request| routes::route(request, sim.clone(), fate.clone()));
    // A token is one small write: copying it beside its chunk header is cheaper than a list of buffers.
    let served = http1::Builder::new()
        .auto_date_header(false)
        .title_case_headers(true)
        .writev(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // An error here is a client that went away or a fault that was asked for; both are counted where they happen.
    drop(served);
}
