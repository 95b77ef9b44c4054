//! The client against a scripted peer on a real socket.

use std::io;
use std::time::Duration;

use adapter_api::{Finish, StreamState, TokenEvent, Usage, WorkerError, next_events};
use api_types::sse::{Channel, FinishReason};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use super::*;
use crate::endpoint::Endpoint;
use crate::sse::SseEvent;
use crate::test_tls::self_signed;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// What the peer does with one connection: answers requests with these bytes, one after the other, and then closes it, or
/// waits until the client does.
#[derive(Clone)]
struct Script {
    answers: Vec<String>,
    then: Then,
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    Close,
    /// Takes one more request and closes without a word.
    TakeAndClose,
    WaitForClose,
}

fn script(answers: &[&str], then: Then) -> Script {
    Script { answers: answers.iter().map(|answer| (*answer).to_owned()).collect(), then }
}

/// Reads one request, if the client sends one.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<String>> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("Content-Length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or("0");
            if body.len() >= length.parse().expect("a length") {
                return Ok(Some(text));
            }
        }
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(None);
        }
    }
}

async fn play(mut stream: impl AsyncRead + AsyncWrite + Unpin, script: Script) -> Vec<String> {
    let mut requests = Vec::new();
    for answer in script.answers {
        let Ok(Some(request)) = read_request(&mut stream).await else { return requests };
        requests.push(request);
        if stream.write_all(answer.as_bytes()).await.and(stream.flush().await).is_err() {
            return requests;
        }
    }
    while script.then != Then::Close
        && let Ok(Some(request)) = read_request(&mut stream).await
    {
        requests.push(request);
        if script.then == Then::TakeAndClose {
            break;
        }
    }
    requests
}

/// A peer for as many connections as there are scripts; gives the requests of each.
async fn peer(scripts: Vec<Script>) -> (Endpoint, JoinHandle<Vec<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/base", listener.local_addr().unwrap()).parse().unwrap();
    let serving = tokio::spawn(async move {
        let mut connections = Vec::new();
        for script in scripts {
            let (stream, _) = listener.accept().await.unwrap();
            connections.push(tokio::spawn(play(stream, script)));
        }
        let mut requests = Vec::new();
        for connection in connections {
            requests.push(connection.await.unwrap());
        }
        requests
    });
    (endpoint, serving)
}

fn client(endpoint: &Endpoint) -> StreamClient {
    StreamClient::new(endpoint.clone(), StreamConfig::default()).unwrap()
}

async fn fetch(client: &StreamClient) -> Result<(u16, String), StreamError> {
    let response = client.send(&StreamRequest::post("/go", b"{}")).await?;
    let body = response.body.collect(1 << 20, Duration::from_secs(60)).await?;
    Ok((response.head.status, String::from_utf8(body).unwrap()))
}

/// The three framings, a remark before the response, and an error status with its body.
#[tokio::test]
async fn bodies_end_as_their_framing_says() {
    let chunked = format!("{CHUNKED}3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n");
    for (answer, status, body) in [
        (chunked.as_str(), 200, "abcde"),
        (OK, 200, "ok"),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", 200, "until the end"),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", 503, "busy"),
    ] {
        let (endpoint, _serving) = peer(vec![script(&[answer], Then::Close)]).await;
        assert_eq!(fetch(&client(&endpoint)).await.unwrap(), (status, body.to_owned()), "{answer}");
    }
}

/// A body that is cut anywhere is an error, never an end.
#[tokio::test]
async fn cut_bodies_are_errors() {
    let whole = format!("{CHUNKED}3\r\nabc\r\n0\r\n\r\n");
    for end in 0..whole.len() {
        let (endpoint, _serving) = peer(vec![script(&[&whole[..end]], Then::Close)]).await;
        let error = fetch(&client(&endpoint)).await.unwrap_err();
        assert!(matches!(error, StreamError::Truncated | StreamError::Receive(_)), "{end}: {error:?}");
    }
    for (answer, malformed) in [("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", false), ("SSH-2.0-x\r\n", true)] {
        let (endpoint, _serving) = peer(vec![script(&[answer], Then::Close)]).await;
        let error = fetch(&client(&endpoint)).await.unwrap_err();
        assert_eq!(matches!(error, StreamError::Malformed(_)), malformed, "{error:?}");
    }
}

/// The request as it goes out: one head with the prefix, the key and more headers.
#[tokio::test]
async fn what_is_sent() {
    let (endpoint, serving) = peer(vec![script(&[OK], Then::Close)]).await;
    let config = StreamConfig { api_key: Some("k".into()), late_acks: true, ..StreamConfig::default() };
    let client = StreamClient::new(endpoint.clone(), config).unwrap();
    let headers = [("X-Request-Id", "a b")];
    let request = StreamRequest { headers: &headers, ..StreamRequest::post("/go", b"{\"x\":1}") };
    client.send(&request).await.unwrap();
    let address = endpoint.to_string().trim_start_matches("http://").trim_end_matches("/base").to_owned();
    let expected = format!(
        "POST /base/go HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\
         Authorization: Bearer k\r\nX-Request-Id: a b\r\n\r\n{{\"x\":1}}"
    );
    assert_eq!(serving.await.unwrap(), [[expected]]);
    let split = StreamRequest { headers: &[("X", "a\r\nY: b")], ..request };
    assert!(matches!(client.send(&split).await, Err(StreamError::BadRequest)));
}

/// ORCH-3610: a connection is used again after a clean end, and only then.
#[tokio::test]
async fn connections_are_reused_after_a_clean_end() {
    let (endpoint, serving) = peer(vec![script(&[OK, OK, OK], Then::WaitForClose)]).await;
    let client = client(&endpoint);
    for _ in 0..3 {
        fetch(&client).await.unwrap();
        assert_eq!(client.idle_connections(), 1);
    }
    drop(client.shared.idle.take());
    assert_eq!((client.idle_connections(), serving.await.unwrap()[0].len()), (0, 3));

    let closing = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let talkative = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more";
    for answer in [closing, talkative] {
        let (endpoint, serving) = peer(vec![script(&[answer], Then::WaitForClose)]).await;
        let client = self::client(&endpoint);
        fetch(&client).await.unwrap();
        assert_eq!(client.idle_connections(), 0);
        serving.await.unwrap();
    }
}

/// An idle connection serves the next request on whatever runtime that runs.
#[test]
fn connections_are_reused_across_runtimes() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (serving, first, second) = (runtime(), runtime(), runtime());
    let (endpoint, served) = serving.block_on(peer(vec![script(&[OK, OK, OK], Then::WaitForClose)]));
    let client = client(&endpoint);
    let peer = std::thread::spawn(move || serving.block_on(served).unwrap());
    for runtime in [&first, &second, &first] {
        runtime.block_on(fetch(&client)).unwrap();
    }
    drop(client);
    assert_eq!(peer.join().unwrap()[0].len(), 3, "three requests on one connection");
}

#[tokio::test]
async fn no_more_idle_connections_than_allowed() {
    let (endpoint, serving) = peer(vec![script(&[OK], Then::WaitForClose); 2]).await;
    let client = client(&endpoint);
    let request = StreamRequest::post("/go", b"{}");
    let (first, second) = (client.send(&request).await.unwrap(), client.send(&request).await.unwrap());
    for response in [first, second] {
        response.body.collect(10, Duration::from_secs(60)).await.unwrap();
    }
    assert_eq!(client.idle_connections(), 1);
    drop(client.shared.idle.take());
    assert_eq!(serving.await.unwrap().len(), 2);
}

/// ADAPT-3101: dropping a body in its middle closes the connection, which is how a cancel reaches an engine.
#[tokio::test]
async fn dropping_a_body_closes_its_connection() {
    let begun = format!("{CHUNKED}3\r\nabc\r\n");
    let (endpoint, serving) = peer(vec![script(&[&begun], Then::WaitForClose)]).await;
    let client = client(&endpoint);
    let mut response = client.send(&StreamRequest::post("/go", b"{}")).await.unwrap();
    let mut seen = Vec::new();
    while seen.is_empty() {
        let mut sink = |piece: &[u8]| {
            seen.extend_from_slice(piece);
            Ok::<_, StreamError>(())
        };
        std::future::poll_fn(|cx| response.body.poll_data(cx, &mut sink)).await.unwrap();
    }
    drop(response);
    // The peer ends only when it sees the connection close.
    assert_eq!((serving.await.unwrap().len(), client.idle_connections()), (1, 0));
}

/// ADAPT-3005: a reused connection that dies without a word is replaced once; a fresh one is not, and neither is one that
/// had begun to answer.
#[tokio::test]
async fn a_stale_connection_is_replaced_once() {
    for then in [Then::Close, Then::TakeAndClose] {
        let (endpoint, serving) = peer(vec![script(&[OK], then), script(&[OK], Then::Close)]).await;
        let client = client(&endpoint);
        fetch(&client).await.unwrap();
        assert_eq!(fetch(&client).await.unwrap().0, 200);
        serving.await.unwrap();
    }
    let (endpoint, _serving) = peer(vec![script(&[], Then::TakeAndClose)]).await;
    assert!(matches!(fetch(&client(&endpoint)).await, Err(StreamError::Truncated | StreamError::Receive(_))));

    let (endpoint, _serving) = peer(vec![script(&[OK, "HTTP/1.1 2"], Then::Close)]).await;
    let client = client(&endpoint);
    fetch(&client).await.unwrap();
    assert!(matches!(fetch(&client).await, Err(StreamError::Truncated | StreamError::Receive(_))));
}

/// Idle connections are closed when their time is over, here by a virtual clock.
#[tokio::test]
async fn idle_connections_expire() {
    let (endpoint, serving) = peer(vec![script(&[OK], Then::WaitForClose)]).await;
    let client = client(&endpoint);
    fetch(&client).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(client.shared.config.idle_lifetime).await;
    assert!(client.shared.idle.take().is_none());
    assert_eq!((client.idle_connections(), serving.await.unwrap().len()), (0, 1));
}

/// LO-WAD-11: the time for a response's head is limited by itself.
#[tokio::test]
async fn a_silent_engine_runs_into_the_establishment_timeout() {
    let (endpoint, serving) = peer(vec![script(&[], Then::WaitForClose)]).await;
    let limit = Duration::from_millis(50);
    let request = StreamRequest { establish_timeout: Some(limit), ..StreamRequest::post("/", b"") };
    let error = client(&endpoint).send(&request).await.unwrap_err();
    assert!(matches!(error, StreamError::EstablishTimeout(exceeded) if exceeded == limit), "{error:?}");
    // The connection is closed, or the peer would still wait.
    serving.await.unwrap();
}

#[tokio::test]
async fn a_dead_address_is_a_connect_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    assert!(matches!(fetch(&client(&endpoint)).await, Err(StreamError::Connect(_))));
    let socket = "unix:/nowhere/engine.sock".parse().unwrap();
    assert!(matches!(fetch(&client(&socket)).await, Err(StreamError::Connect(_))));
}

#[tokio::test]
async fn large_heads() {
    let head = |padding: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: {}\r\n\r\nok", "x".repeat(padding));
    let (endpoint, _serving) = peer(vec![script(&[&head(60_000)], Then::Close)]).await;
    assert_eq!(fetch(&client(&endpoint)).await.unwrap().1, "ok");
    let (endpoint, _serving) = peer(vec![script(&[&head(70_000)], Then::WaitForClose)]).await;
    assert!(matches!(fetch(&client(&endpoint)).await, Err(StreamError::TooLarge { part: "head", .. })));
}

/// Ends at an event `end`; everything else is a token.
struct UntilEnd;

impl EventDecoder for UntilEnd {
    fn event(
        &mut self,
        event: SseEvent<'_>,
        sink: &mut dyn FnMut(TokenEvent<'_>),
    ) -> Result<Option<Finish>, WorkerError> {
        if event.data == "end" {
            return Ok(Some(Finish { reason: FinishReason::Stop, usage: Usage::default() }));
        }
        sink(TokenEvent::Token { text: event.data, channel: Channel::Content });
        Ok(None)
    }
}

/// The tokens of a stream that must end well.
async fn tokens(client: &StreamClient) -> usize {
    let mut stream = client.open_events(&StreamRequest::post("/go", b"{}"), UntilEnd).await.unwrap();
    let (mut tokens, mut ends) = (0, 0);
    let mut sink = |event: TokenEvent<'_>| {
        tokens += usize::from(matches!(event, TokenEvent::Token { .. }));
        ends += usize::from(matches!(event, TokenEvent::End(_)));
    };
    while next_events(&mut stream, &mut sink).await.unwrap() == StreamState::Open {}
    assert_eq!(ends, 1);
    tokens
}

/// An answer of these events, each in a chunk.
fn events(events: &[&str]) -> String {
    let chunk = |event: &&str| format!("{:x}\r\ndata: {event}\n\n\r\n", event.len() + 8);
    let chunks: String = events.iter().map(chunk).collect();
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
}

/// ORCH-3610: what comes after the last event is nobody's token, and its connection is not used again.
#[tokio::test]
async fn an_engine_that_goes_on_after_its_end_loses_the_connection() {
    for (answer, reused) in
        [(["a", "b", "end"].as_slice(), 1), (&["a", "b", "end", "c"], 0), (&["a", "b", "end", "end"], 0)]
    {
        let (endpoint, serving) = peer(vec![script(&[&events(answer)], Then::WaitForClose)]).await;
        let client = client(&endpoint);
        assert_eq!((tokens(&client).await, client.idle_connections()), (2, reused), "{answer:?}");
        drop(client);
        serving.await.unwrap();
    }
}

/// An engine that sends comments without end holds nobody up, neither before its last event nor after it.
#[tokio::test]
async fn endless_comments_hold_nobody_up() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    for first in ["", "data: a\n\ndata: end\n\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        // In a thread of its own, so that there is always more to read.
        let babbling = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(format!("{head}{first}").as_bytes()).await.unwrap();
                while stream.write_all(&b": still here\n\n".repeat(5000)).await.is_ok() {}
            });
        });
        let client = client(&endpoint);
        if first.is_empty() {
            let mut stream = client.open_events(&StreamRequest::post("/go", b"{}"), UntilEnd).await.unwrap();
            let mut follow = async || while next_events(&mut stream, &mut |_| ()).await.is_ok() {};
            // `timeout` itself would let the clock have its turn.
            tokio::select! {
                biased;
                () = follow() => panic!("the comments ended"),
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        } else {
            assert_eq!(tokens(&client).await, 1);
        }
        drop(client);
        babbling.join().unwrap();
    }
}

#[tokio::test]
async fn over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        play(stream, script(&[OK, OK], Then::Close)).await
    });
    let client = client(&format!("unix:{}", path.display()).parse().unwrap());
    for _ in 0..2 {
        assert_eq!(fetch(&client).await.unwrap().1, "ok");
    }
    assert!(serving.await.unwrap()[0].starts_with("POST /go HTTP/1.1\r\nHost: localhost\r\n"));
}

/// ORCH-3610, OC-ADAPT-OAI-6021: certificates are checked.
#[tokio::test]
async fn over_tls() {
    let (acceptor, pem) = self_signed();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint: Endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let requests = play(acceptor.accept(stream).await.unwrap(), script(&[OK, OK], Then::Close)).await;
        let (stream, _) = listener.accept().await.unwrap();
        (requests.len(), acceptor.accept(stream).await.is_err())
    });
    let trusting = StreamConfig { ca_pem: Some(pem), ..StreamConfig::default() };
    let trusting = StreamClient::new(endpoint.clone(), trusting).unwrap();
    for _ in 0..2 {
        assert_eq!(fetch(&trusting).await.unwrap().1, "ok");
    }
    assert!(matches!(fetch(&client(&endpoint)).await, Err(StreamError::Tls(_))));
    assert_eq!(serving.await.unwrap(), (2, true));
    let no_pem = StreamConfig { ca_pem: Some(b"nothing".as_slice().into()), ..StreamConfig::default() };
    assert!(matches!(StreamClient::new(endpoint, no_pem), Err(TlsSetupError::Pem)));
}
