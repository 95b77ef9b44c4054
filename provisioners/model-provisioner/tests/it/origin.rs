//! A server of files that misbehaves as told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rcgen::CertifiedKey;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Its place among all requests, from 0.
    pub(crate) number: usize,
    /// Path and query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// First byte that is asked for.
    pub(crate) fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
    }

    fn to(&self) -> Option<usize> {
        self.header("range")?.rsplit('-').next()?.parse().ok()
    }

    /// Whether it only asks whether the file is there.
    pub(crate) fn is_probe(&self) -> bool {
        self.header("range") == Some("bytes=0-0")
    }
}

/// What the server answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// The connection is cut after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// Nothing more comes after so many bytes of the body.
    pub(crate) stall: Option<usize>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub(crate) fn json(body: &serde_json::Value) -> Self {
        Self::new(200, body.to_string())
    }

    pub(crate) fn redirect(to: impl Into<String>) -> Self {
        Self::new(302, "").with("location", to)
    }

    /// A file, or the part of it that is asked for.
    pub(crate) fn file(seen: &Seen, content: &[u8], etag: &str) -> Self {
        let is_same = seen.header("if-range").is_none_or(|validator| validator == etag);
        let whole = Self::new(200, content).with("etag", etag);
        match seen.from().filter(|_| is_same) {
            None => whole,
            Some(from) if from >= content.len() => {
                Self::new(416, "").with("content-range", format!("bytes */{}", content.len()))
            }
            Some(from) => {
                let to = seen.to().map_or(content.len() - 1, |to| to.min(content.len() - 1));
                let range = format!("bytes {from}-{to}/{}", content.len());
                Self::new(206, &content[from..=to]).with("content-range", range).with("etag", etag)
            }
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn cut(self, after: usize) -> Self {
        Self { cut: Some(after), ..self }
    }

    pub(crate) fn stall(self, after: usize) -> Self {
        Self { stall: Some(after), ..self }
    }
}

/// A server on a port of its own, gone when this is dropped.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Log>>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Log {
    seen: Vec<Seen>,
    sent: usize,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

impl Origin {
    pub(crate) async fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(Arc::new(handler), None).await
    }

    /// One that speaks TLS as `localhost`, and its certificate.
    pub(crate) async fn start_tls(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> (Self, Arc<[u8]>) {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("known versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("a fitting key");
        let origin = Self::serve(Arc::new(handler), Some(TlsAcceptor::from(Arc::new(config)))).await;
        (origin, cert.pem().into_bytes().into())
    }

    async fn serve(handler: Arc<Handler>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let log = Arc::new(Mutex::new(Log::default()));
        let shared = Arc::clone(&log);
        let server = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (handler, log, tls) = (Arc::clone(&handler), Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    // A client that hangs up is what many tests are about.
                    let _ = match tls {
                        None => answer(socket, &handler, &log).await,
                        Some(tls) => match tls.accept(socket).await {
                            Ok(socket) => answer(socket, &handler, &log).await,
                            Err(error) => Err(error),
                        },
                    };
                });
            }
        });
        Self { address, log, server }
    }

    /// A URL by address.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The same by name, which counts as another host.
    pub(crate) fn named_url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://localhost:{}{path}", self.address.port())
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.log.lock().expect("nobody panicked").seen.clone()
    }

    /// Requests for content.
    pub(crate) fn transfers(&self) -> usize {
        self.seen().iter().filter(|seen| !seen.is_probe()).count()
    }

    /// Bytes of bodies that were written.
    pub(crate) fn sent(&self) -> usize {
        self.log.lock().expect("nobody panicked").sent
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    socket: S,
    handler: &Arc<Handler>,
    log: &Mutex<Log>,
) -> std::io::Result<()> {
    let mut socket = BufReader::new(socket);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let headers = lines[1..].iter().filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    let path = lines[0].split(' ').nth(1).unwrap_or_default().to_owned();
    let seen = {
        let mut log = log.lock().expect("nobody panicked");
        let seen = Seen { number: log.seen.len(), path, headers };
        log.seen.push(seen.clone());
        seen
    };
    let reply = handler(&seen);
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", reply.status);
    let says_length = |(name, _): &(&str, String)| matches!(*name, "content-length" | "transfer-encoding");
    if !reply.headers.iter().any(says_length) {
        head += &format!("content-length: {}\r\n", reply.body.len());
    }
    for (name, value) in reply.headers.iter().filter(|(name, value)| *name != "content-length" || !value.is_empty()) {
        head += &format!("{name}: {value}\r\n");
    }
    socket.write_all(format!("{head}\r\n").as_bytes()).await?;
    let end = reply.cut.or(reply.stall).unwrap_or(reply.body.len()).min(reply.body.len());
    for piece in reply.body[..end].chunks(16 << 10) {
        socket.write_all(piece).await?;
        if !seen.is_probe() {
            log.lock().expect("nobody panicked").sent += piece.len();
        }
    }
    socket.flush().await?;
    if reply.stall.is_some() {
        let _ = socket.read(&mut [0]).await;
    }
    socket.shutdown().await
}
