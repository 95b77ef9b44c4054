//! One connection of the orchestrator.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use auth_min::Denied;
use config_schema::EngineUrl;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::head::{self, Head, HeadError, MAX_HEAD, Route};
use super::{Relay, local};

/// Time for a request's head, from the connection's beginning or the head's first byte.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// Time without a byte in either direction after which a connection is closed. Engines may be silent for long while they read a
/// prompt, and the orchestrator has limits of its own; a peer that is gone is found out much sooner.
const SILENCE_LIMIT: Duration = Duration::from_secs(3600);
/// Time to reach an engine of this host.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Time in which an engine must take what is sent to it.
const SEND_LIMIT: Duration = Duration::from_secs(60);
/// What is read at once.
const CHUNK: usize = 16 * 1024;

/// It, and the engine's that belongs to it.
pub(super) struct Connection {
    relay: Arc<Relay>,
    client: TcpStream,
    /// What came and was not passed on.
    came: Vec<u8>,
    /// Bytes of the present request's body that are to be passed on.
    body_left: u64,
    engine: Option<Engine>,
    head_due: Option<Instant>,
    silent_since: Instant,
}

struct Engine {
    pool: String,
    io: Box<dyn Io>,
    over: CancellationToken,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What the connection woke up for.
enum Woken {
    Client(io::Result<usize>),
    Engine(io::Result<usize>),
    Over,
}

impl Connection {
    pub(super) fn new(relay: Arc<Relay>, client: TcpStream) -> Self {
        let now = Instant::now();
        Self {
            relay,
            client,
            came: Vec::with_capacity(1024),
            body_left: 0,
            engine: None,
            head_due: Some(now + HEAD_LIMIT),
            silent_since: now,
        }
    }

    /// Serves it to its end. What is left of either connection is closed then, whatever was under way.
    pub(super) async fn serve(mut self) {
        let mut chunk = vec![0; CHUNK];
        let mut answer = vec![0; CHUNK];
        loop {
            match self.wait(&mut chunk, &mut answer).await {
                Woken::Client(Ok(0) | Err(_)) | Woken::Engine(Err(_)) | Woken::Over => return,
                Woken::Engine(Ok(0)) => {
                    let _ = self.client.shutdown().await;
                    return;
                }
                Woken::Client(Ok(count)) => {
                    self.came.extend_from_slice(&chunk[..count]);
                    if self.pass_on().await.is_none() {
                        return;
                    }
                }
                Woken::Engine(Ok(count)) => {
                    if self.client.write_all(&answer[..count]).await.is_err() {
                        return;
                    }
                }
            }
            self.silent_since = Instant::now();
        }
    }

    async fn wait(&mut self, chunk: &mut [u8], answer: &mut [u8]) -> Woken {
        let due = self.head_due.unwrap_or(self.silent_since + SILENCE_LIMIT);
        let (engine, over) = match &mut self.engine {
            Some(engine) => (Some(Pin::new(&mut engine.io)), Some(&engine.over)),
            None => (None, None),
        };
        tokio::select! {
            biased;
            read = self.client.read(chunk) => Woken::Client(read),
            read = async { match engine { Some(mut io) => io.read(answer).await, None => std::future::pending().await } } => Woken::Engine(read),
            () = async { match over { Some(over) => over.cancelled().await, None => std::future::pending().await } } => Woken::Over,
            () = sleep_until(due) => Woken::Over,
        }
    }

    /// Passes on what came, as far as it is whole; `None` ends the connection.
    async fn pass_on(&mut self) -> Option<()> {
        while !self.came.is_empty() {
            if self.body_left > 0 {
                let count = self.came.len().min(usize::try_from(self.body_left).unwrap_or(usize::MAX));
                let engine = self.engine.as_mut()?;
                send(&mut engine.io, &self.came[..count]).await?;
                self.came.drain(..count);
                self.body_left -= count as u64;
                continue;
            }
            match head::parse(&self.came) {
                Ok(Some(head)) => self.request(head).await?,
                Ok(None) => {
                    self.head_due.get_or_insert_with(|| Instant::now() + HEAD_LIMIT);
                    return Some(());
                }
                Err(error) => return self.refuse_head(error).await,
            }
        }
        Some(())
    }

    async fn request(&mut self, head: Head) -> Option<()> {
        self.came.drain(..head.len);
        self.head_due = None;
        if let Err(denied) = self.relay.authenticator.require_token(head.authorization.as_deref()) {
            self.deny(denied).await;
            return None;
        }
        match head.route {
            Route::Engine { pool, head: passed_on } => {
                if !self.reach(&pool).await {
                    let body = format!("the engine of pool {pool} does not answer on its own host");
                    return self.answer("502 Bad Gateway", "text/plain", body.as_bytes()).await;
                }
                // Head and body in one go, where both are here.
                let count = self.came.len().min(usize::try_from(head.body).unwrap_or(usize::MAX));
                let mut first = passed_on;
                first.extend_from_slice(&self.came[..count]);
                self.came.drain(..count);
                self.body_left = head.body - count as u64;
                send(&mut self.engine.as_mut()?.io, &first).await
            }
            Route::Logs { pool, lines, follow } => {
                local::logs(&self.relay.shared, &mut self.client, &pool, lines, follow).await;
                None
            }
            Route::Plan { pool } => {
                let (status, body) = local::plan(&self.relay.shared, &pool);
                self.answer(status, "application/json", &body).await
            }
            Route::Nothing => self.answer("404 Not Found", "text/plain", b"no such route").await,
        }
    }

    /// Connects to a pool's engine, unless that is so already.
    async fn reach(&mut self, pool: &str) -> bool {
        if self.engine.as_ref().is_some_and(|engine| engine.pool == pool && !engine.over.is_cancelled()) {
            return true;
        }
        self.engine = None;
        let Some(target) = self.relay.shared.board.target(pool) else { return false };
        let connected = timeout(CONNECT_LIMIT, connect(&target.url)).await;
        let Ok(Ok(io)) = connected else { return false };
        self.engine = Some(Engine { pool: pool.to_owned(), io, over: target.over });
        true
    }

    async fn refuse_head(&mut self, error: HeadError) -> Option<()> {
        self.answer(error.status(), "text/plain", error.to_string().as_bytes()).await
    }

    async fn deny(&mut self, denied: Denied) {
        let body = serde_json::json!({"code": denied.code(), "message": denied.to_string()}).to_string();
        let head = format!(
            "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = timeout(HEAD_LIMIT, self.client.write_all(head.as_bytes())).await;
        self.close().await;
    }

    /// Answers in the engine's place and closes the connection.
    async fn answer(&mut self, status: &str, kind: &str, body: &[u8]) -> Option<()> {
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let _ = timeout(HEAD_LIMIT, self.client.write_all(&[head.as_bytes(), body].concat())).await;
        self.close().await;
        None
    }

    /// Ends the connection so that the answer arrives: what still comes is read for a moment and thrown away, or the peer would be
    /// told that the connection was reset.
    async fn close(&mut self) {
        let _ = self.client.shutdown().await;
        let mut rest = [0; 1024];
        let mut left = MAX_HEAD;
        let drained = async {
            while let Ok(count @ 1..) = self.client.read(&mut rest).await {
                left = left.saturating_sub(count);
                if left == 0 {
                    return;
                }
            }
        };
        let _ = timeout(Duration::from_secs(1), drained).await;
    }
}

async fn send(engine: &mut Box<dyn Io>, bytes: &[u8]) -> Option<()> {
    timeout(SEND_LIMIT, engine.write_all(bytes)).await.ok()?.ok()
}

async fn connect(url: &EngineUrl) -> io::Result<Box<dyn Io>> {
    if let Some(path) = url.unix_path() {
        return Ok(Box::new(UnixStream::connect(path).await?));
    }
    let addr: Option<SocketAddr> =
        url.as_str().strip_prefix("http://").and_then(|addr| addr.trim_end_matches('/').parse().ok());
    let addr =
        addr.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "an engine of this host has an address"))?;
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}
