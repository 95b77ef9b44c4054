//! A line to a server that breaks.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Passes connections on and cuts them at random points of their answers, so many times in all.
pub(crate) struct Cutter {
    pub(crate) port: u16,
    cuts: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Cutter {
    /// Cuts `cuts` times, each time after at most `most` bytes.
    pub(crate) async fn before(server: u16, seed: u64, cuts: usize, most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let left = Arc::new(AtomicUsize::new(cuts));
        let random = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
        let shared = Arc::clone(&left);
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let after = random.lock().expect("no holder panics").random_range(0..most);
                let server = SocketAddr::from(([127, 0, 0, 1], server));
                tokio::spawn(carry(client, server, after, Arc::clone(&shared)));
            }
        });
        Self { port, cuts: left, serving }
    }

    /// Cuts still to come.
    pub(crate) fn left(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn carry(client: TcpStream, server: SocketAddr, after: usize, cuts: Arc<AtomicUsize>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    });
    let mut buffer = vec![0; 1 << 14];
    let mut passed = 0;
    while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
        let one_less = |left: usize| left.checked_sub(1);
        let is_due = passed + length > after;
        if is_due && cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            let _ = to_client.write_all(&buffer[..after.saturating_sub(passed)]).await;
            break;
        }
        passed += length;
        if to_client.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    up.abort();
}
