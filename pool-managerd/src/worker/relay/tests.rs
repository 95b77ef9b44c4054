//! The relay in front of an engine that a test plays.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api_types::PoolId;
use auth_min::BearerToken;
use config_schema::{Config, Worker};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::super::Shared;
use super::Relay;
use crate::pool::PoolReport;

const SECRET: &str = "0123456789abcdef";
/// Longest that anything here may take.
const LONG: Duration = Duration::from_secs(20);

struct Stage {
    shared: Arc<Shared>,
    relay: SocketAddr,
    engine: TcpListener,
}

impl Stage {
    /// A relay that leads to an engine as pool `gpu1`; pool `gpu2` has none.
    async fn new() -> Self {
        let worker: Worker =
            serde_json::from_str(r#"{"id": "box2", "orchestrator": "http://127.0.0.1:1"}"#).expect("a worker");
        let token = |text: &str| BearerToken::parse(text).expect("a token");
        let shared = Arc::new(Shared {
            config: Config::default(),
            id: worker.id(),
            worker,
            token: token("of-the-orchestrator"),
            boot_id: "b".to_owned(),
            secret: token(SECRET),
            board: Arc::default(),
            lives: super::super::Lives::default(),
            devices: Vec::new(),
        });
        let engine = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let report = |pool: &str| (PoolId::from(pool), PoolReport::stopped("m", false));
        shared.board.set([report("gpu1"), report("gpu2")].into_iter());
        let url = format!("http://{}", engine.local_addr().expect("an address"));
        shared.board.bind(&PoolId::from("gpu1"), url.parse().expect("a URL"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let relay = listener.local_addr().expect("an address");
        tokio::spawn(Relay::new(Arc::clone(&shared)).run(listener));
        Self { shared, relay, engine }
    }

    async fn call(&self, request: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.relay).await.expect("the relay listens");
        client.write_all(request.as_bytes()).await.expect("it takes it");
        client
    }

    async fn engine(&self) -> TcpStream {
        timeout(LONG, self.engine.accept()).await.expect("it is called").expect("a connection").0
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: box2\r\nauthorization: Bearer {SECRET}\r\n\r\n")
}

/// Reads until this has come.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(end.as_bytes()) {
        let count = timeout(LONG, stream.read(&mut byte)).await.expect("it comes").expect("it is open");
        assert_eq!(count, 1, "it ends with {:?}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).expect("text")
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // Whether it ends in order or with a reset.
    let _ = timeout(LONG, stream.read_to_end(&mut text)).await.expect("it ends");
    String::from_utf8(text).expect("text")
}

/// LO-HST-06, AUTH-1003: without the relay's secret, with another one, or with the orchestrator's token nobody gets as far as an
/// engine; the connection is closed.
#[tokio::test]
async fn nobody_gets_through_without_the_secret() {
    let stage = Stage::new().await;
    for authorization in [
        "",
        "authorization: Bearer wrong\r\n",
        "authorization: Basic eDp5\r\n",
        "authorization: Bearer of-the-orchestrator\r\n",
    ] {
        for path in ["/engines/gpu1/health", "/engines/nobody/health", "/logs/gpu1", "/plan/gpu1", "/"] {
            let mut client = stage.call(&format!("GET {path} HTTP/1.1\r\n{authorization}\r\n")).await;
            let answer = rest(&mut client).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{path} with {authorization:?}: {answer}");
            assert!(!answer.contains("gpu1"), "{answer}");
        }
    }
    let called = timeout(Duration::from_millis(50), stage.engine.accept()).await;
    assert!(called.is_err(), "the engine was called");
    // Each request must have it, not only the first.
    let mut client = stage.call(&(get("/engines/gpu1/health") + "GET /engines/gpu1/props HTTP/1.1\r\n\r\n")).await;
    let mut engine = stage.engine().await;
    until(&mut engine, "\r\n\r\n").await;
    assert_eq!(rest(&mut engine).await, "", "the second request did not come through");
    assert!(rest(&mut client).await.starts_with("HTTP/1.1 401 "));
}

/// LO-HST-06: a pool that has no engine, or that there is not, is no way to another.
#[tokio::test]
async fn other_pools_have_no_engine() {
    let stage = Stage::new().await;
    for (path, status) in
        [("/engines/gpu2/health", "502"), ("/engines/gpu3/health", "502"), ("/engines/../gpu1", "502"), ("/x", "404")]
    {
        let answer = rest(&mut stage.call(&get(path)).await).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
}

/// LO-HST-06: what an engine writes leaves at once and as it is, request after request on one connection; the secret stays here.
#[tokio::test]
async fn nothing_is_held_back() {
    let stage = Stage::new().await;
    let body = "{\"prompt\": \"x\"}";
    let head = format!(
        "POST /engines/gpu1/completion HTTP/1.1\r\nauthorization: Bearer {SECRET}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut client = stage.call(&head).await;
    let mut engine = stage.engine().await;
    let asked = until(&mut engine, "\r\n\r\n").await;
    assert!(
        asked.starts_with("POST /completion HTTP/1.1\r\n") && !asked.to_lowercase().contains("authorization"),
        "{asked}"
    );
    // The body comes in two parts.
    for part in [&body[..5], &body[5..]] {
        client.write_all(part.as_bytes()).await.expect("it is taken");
        until(&mut engine, part).await;
    }
    engine.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.expect("it is taken");
    until(&mut client, "\r\n\r\n").await;
    for token in ["5\r\nHello\r\n", "3\r\n wo\r\n", "0\r\n\r\n"] {
        // The next one is written only when this one has arrived.
        engine.write_all(token.as_bytes()).await.expect("it is taken");
        assert_eq!(until(&mut client, token).await, token);
    }
    client.write_all(get("/engines/gpu1/slots").as_bytes()).await.expect("it is taken");
    assert!(until(&mut engine, "\r\n\r\n").await.starts_with("GET /slots "), "the same connection");
}

/// LO-HST-06: either side's end is the other's at once: that is how an engine notices a cancel.
#[tokio::test]
async fn ends_are_passed_on() {
    let stage = Stage::new().await;
    let client = stage.call(&get("/engines/gpu1/stream")).await;
    let mut engine = stage.engine().await;
    until(&mut engine, "\r\n\r\n").await;
    engine.write_all(b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n").await.expect("it is taken");
    drop(client);
    assert_eq!(rest(&mut engine).await, "");

    let mut client = stage.call(&get("/engines/gpu1/stream")).await;
    let engine = stage.engine().await;
    drop(engine);
    assert_eq!(rest(&mut client).await, "");

    // Another engine takes its place: what led to the old one ends.
    let mut client = stage.call(&get("/engines/gpu1/stream")).await;
    let mut engine = stage.engine().await;
    until(&mut engine, "\r\n\r\n").await;
    stage.shared.board.bind(&PoolId::from("gpu1"), "http://127.0.0.1:1".parse().expect("a URL"));
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(rest(&mut engine).await, "");
}
