//! What lies between a socket and a request: TLS, both protocols, limits, and clients that misbehave or vanish.

mod http2;
mod tls;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{
    Daemon, PATIENCE, batch, config, eventually_async, id, names, set_faults, start_engine, stat, task, with,
};

/// The daemon's configuration with these lines in `[server]`.
fn config_with(engine_url: &str, server: &str) -> String {
    config(engine_url, "").replace("[server]", &format!("[server]\n{server}"))
}

/// A connection that speaks for itself.
struct Raw(TcpStream);

impl Raw {
    async fn open(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.expect("the daemon accepts"))
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("the daemon reads");
    }

    /// The bytes that come until the daemon closes the connection, which it must.
    async fn until_closed(&mut self) -> Vec<u8> {
        let (mut all, mut piece) = (Vec::new(), [0; 4096]);
        while let Ok(length @ 1..) =
            tokio::time::timeout(PATIENCE, self.0.read(&mut piece)).await.expect("the daemon closes the connection")
        {
            all.extend_from_slice(&piece[..length]);
        }
        all
    }

    /// What comes until this is among it.
    async fn until(&mut self, what: &str) -> String {
        let (mut all, mut piece) = (String::new(), [0; 4096]);
        while !all.contains(what) {
            let length = tokio::time::timeout(PATIENCE, self.0.read(&mut piece)).await.expect("in time").expect("open");
            assert!(length > 0, "closed without {what:?}: {all}");
            all.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        all
    }
}

fn post(body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A daemon's resident memory, in KiB.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// SSE-1005: frames are sent as they are, whatever encodings a client would take.
#[tokio::test]
async fn streams_are_not_compressed() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    let request = daemon.http().post(daemon.url("/v1/tasks")).header("accept", "text/event-stream");
    let request = request.header("accept-encoding", "gzip, br, zstd, deflate").json(&task("Plainly.", 5));
    let answer = request.send().await.expect("an answer");
    assert!(!answer.headers().contains_key("content-encoding") && !answer.headers().contains_key("vary"));
    let text = answer.text().await.expect("text");
    assert!(text.starts_with("id: 0\nevent: started\n"), "{text}");
}

/// A head that does not come, or only in drops, is cut, first or later on its connection; a stream that is silent for longer
/// than that is not.
#[tokio::test]
async fn slow_heads_are_cut() {
    let engine = start_engine(&["--token-interval-ms", "20"]);
    let daemon = Daemon::start(&config_with(engine.url(), "head_timeout_ms = 500")).await;
    daemon.ready().await;
    set_faults(&engine, json!({"faults": [{"fault": {"stall": {"after_tokens": 2}}}]})).await;
    let stalled = task("Stay.", 10);
    let mut silent = daemon.occupy(&stalled).await;
    let mut attackers = Vec::new();
    for start in ["", "P", "PRI * HTTP/2.0", "GET /healthz HTTP/1.1\r\nhost: loc"] {
        let mut attacker = Raw::open(daemon.addr()).await;
        attacker.send(start).await;
        attackers.push(attacker);
    }
    let mut kept = Raw::open(daemon.addr()).await;
    kept.send("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    kept.until("200 OK").await;
    let mut dripping = Raw::open(daemon.addr()).await;
    dripping.send("GET /healthz HTTP/1.1\r\n").await;
    let drops = async {
        let start = Instant::now();
        while dripping.0.write_all(b"x: y\r\n").await.is_ok() {
            assert!(start.elapsed() < PATIENCE, "still taking drops of a head");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let others = async {
        for attacker in &mut attackers {
            attacker.until_closed().await;
            assert_eq!(daemon.get("/healthz").await.status(), 200, "others are served meanwhile");
        }
        kept.until_closed().await;
    };
    tokio::join!(drops, others);
    daemon.cancel(id(&stalled)).await;
    assert_eq!(silent.rest().await.last().expect("frames").name, "end", "the silent stream was left alone");
}

/// A body that comes in drops is refused in time, with a type and a reason, and its connection closed.
#[tokio::test]
async fn slow_bodies_are_refused() {
    let engine = start_engine(&[]);
    let daemon = Daemon::start(&config_with(engine.url(), "body_timeout_ms = 300")).await;
    daemon.ready().await;
    let mut attacker = Raw::open(daemon.addr()).await;
    attacker.send("POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{\"task_id\"").await;
    assert_eq!(names(&daemon.run(&task("Meanwhile.", 1)).await.rest().await).last(), Some(&"end"));
    let answer = String::from_utf8(attacker.until_closed().await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("INVALID_PARAMS"), "{answer}");
    assert!(answer.contains("server.body_timeout_ms"), "{answer}");
}

/// Beyond the limit a connection gets a typed 429 and is closed, the probes are answered still, and room that is given back
/// is room.
#[tokio::test]
async fn too_many_connections_are_told_so() {
    let engine = start_engine(&[]);
    let settings = "max_connections = 6\nmax_connections_per_address = 3";
    let daemon = Daemon::start(&config_with(engine.url(), settings)).await;
    let ask = async |connection: &mut Raw, path: &str| {
        connection.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        connection.until("\r\n\r\n").await
    };
    let mut first = Vec::new();
    for _ in 0..3 {
        let mut connection = open_from([127, 0, 0, 2], daemon.addr()).await;
        assert!(ask(&mut connection, "/v1/pools").await.starts_with("HTTP/1.1 200"));
        first.push(connection);
    }
    let mut greedy = open_from([127, 0, 0, 2], daemon.addr()).await;
    greedy.send("GET /v1/pools HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let refusal = String::from_utf8(greedy.until_closed().await).expect("text");
    for part in ["HTTP/1.1 429", "retry-after: 1", "x-backoff-ms: 1000", "ADMISSION_REJECT", "server.max_connections"] {
        assert!(refusal.contains(part), "{part} in {refusal}");
    }
    let mut probe = open_from([127, 0, 0, 2], daemon.addr()).await;
    assert!(ask(&mut probe, "/healthz").await.starts_with("HTTP/1.1 200"), "it lives");
    let mut other = open_from([127, 0, 0, 3], daemon.addr()).await;
    assert!(ask(&mut other, "/v1/pools").await.starts_with("HTTP/1.1 200"), "another address is not the worse for it");
    drop((first, probe, greedy));
    eventually_async("the room is free again", async || {
        let mut connection = open_from([127, 0, 0, 2], daemon.addr()).await;
        ask(&mut connection, "/v1/pools").await.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
}

async fn open_from(source: [u8; 4], addr: SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("loopback has many addresses");
    Raw(socket.connect(addr).await.expect("the daemon accepts"))
}

/// SSE-1003.2, LO-SSE-01: a client that reads nothing delays nobody, and when it has taken nothing for long enough it is gone
/// and its task canceled.
#[tokio::test]
async fn a_stalled_reader_delays_nobody_and_is_given_up() {
    let engine = start_engine(&["--slots", "2", "--ctx", "200000", "--token-interval-ms", "1"]);
    let settings = "slots = 2\nctx = 100000\ndeterminism = \"best_effort\"";
    let settings = config(engine.url(), settings).replace("[server]", "[server]\npeer_timeout_ms = 2000");
    let daemon = Daemon::start(&settings).await;
    daemon.ready().await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small window");
    let mut stalled = Raw(socket.connect(daemon.addr()).await.expect("the daemon accepts"));
    let long = with(task("Never read.", 90_000), "ctx", json!(100_000));
    stalled.send(post(&long)).await;
    let events = daemon.run(&task("Read at once.", 20)).await.rest().await;
    assert_eq!(names(&events).last(), Some(&"end"));
    daemon.until(&long, "canceled").await;
    daemon.no_leases().await;
}

/// SSE-1003.2: what waits in a queue is canceled too when its client closes.
#[tokio::test]
async fn a_client_that_leaves_the_queue_is_noticed() {
    let engine = start_engine(&["--token-interval-ms", "20"]);
    let daemon = Daemon::before(&engine, "").await;
    let running = daemon.occupy(&task("Go on.", 3000)).await;
    let waiting = task("Wait.", 3);
    let mut client = Raw::open(daemon.addr()).await;
    client.send(post(&waiting)).await;
    client.until("event: started").await;
    drop(client);
    daemon.until(&waiting, "canceled").await;
    let patient = batch("Nobody reads this.", 1);
    daemon.accepted(&patient).await;
    drop(running);
    daemon.until(&patient, "completed").await;
    eventually_async("the engine is idle", async || (stat(&engine, "running").await == 0).then_some(())).await;
}

/// LO-SSE-04, SSE-1005: a connection serves on after a stream; one that its client wants closed, or on which it has asked for
/// more before its time, ends with the stream, and every stream comes whole.
#[tokio::test]
async fn a_connection_outlives_its_stream() {
    let engine = start_engine(&[]);
    let daemon = Daemon::start(&config_with(engine.url(), "head_timeout_ms = 60000")).await;
    daemon.ready().await;
    let mut connection = Raw::open(daemon.addr()).await;
    for _ in 0..3 {
        connection.send(post(&task("Again.", 5))).await;
        let answer = connection.until("0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("connection: keep-alive"), "{answer}");
        assert_eq!((answer.matches("event: token").count(), answer.matches("event: end").count()), (5, 1), "{answer}");
        connection.send("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        connection.until("200 OK").await;
    }
    let last = post(&task("Last.", 5)).replace("accept:", "connection: close\r\naccept:");
    let early = [post(&task("One.", 5)), post(&task("Two.", 5))].concat();
    for (requests, option) in [(last, "close"), (early, "keep-alive")] {
        let mut connection = Raw::open(daemon.addr()).await;
        connection.send(requests).await;
        let answer = String::from_utf8(connection.until_closed().await).expect("text");
        assert!(answer.contains(&format!("connection: {option}\r\n")), "{answer}");
        assert!(answer.contains("event: end") && answer.ends_with("0\r\n\r\n"), "{answer}");
    }
}
