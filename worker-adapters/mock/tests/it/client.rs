//! A bare HTTP/1.1 client, so that nothing stands between a test and the bytes.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use mock::process::MockEngineProcess;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Starts the engine as built for this test.
pub(crate) fn engine(args: &[&str]) -> MockEngineProcess {
    MockEngineProcess::start_binary(Path::new(env!("CARGO_BIN_EXE_mock-engine")), args).expect("mock-engine starts")
}

/// A response, or as much of it as came.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The body came to its end as HTTP wants it.
    pub(crate) complete: bool,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The payloads of its events, `[DONE]` left out.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = self.text();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"))).collect()
    }

    /// The text of a stream of `POST /completion`.
    pub(crate) fn content(&self) -> String {
        self.events().iter().filter_map(|event| event["content"].as_str()).collect()
    }
}

/// Something was sent on a connection, and the answer is still to come.
pub(crate) struct Pending {
    reader: BufReader<TcpStream>,
}

pub(crate) async fn send(url: &str, method: &str, path: &str, body: &str) -> Pending {
    let address: SocketAddr = url.strip_prefix("http://").expect("a TCP address").parse().expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("the engine accepts");
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await.expect("the engine reads");
    Pending { reader: BufReader::new(stream) }
}

impl Pending {
    /// The whole response; `None` when the connection ends before a head.
    pub(crate) async fn response(mut self) -> Option<Response> {
        let mut bytes = Vec::new();
        // A reset is an end like any other here; what came before it counts.
        let _reset = self.reader.read_to_end(&mut bytes).await;
        parse(&bytes)
    }

    /// Reads to the end and tells how many bytes came, or how the connection broke.
    pub(crate) async fn ending(self) -> io::Result<usize> {
        self.bytes().await.1
    }

    /// What came, and how it ended.
    pub(crate) async fn bytes(mut self) -> (Vec<u8>, io::Result<usize>) {
        let mut bytes = Vec::new();
        let end = self.reader.read_to_end(&mut bytes).await;
        (bytes, end)
    }

    /// Reads to the end without keeping anything; how many bytes came.
    pub(crate) async fn skim(mut self) -> u64 {
        tokio::io::copy_buf(&mut self.reader, &mut tokio::io::sink()).await.expect("a clean end")
    }

    /// Waits until `count` events have come.
    pub(crate) async fn events(&mut self, count: usize) {
        let mut line = String::new();
        let mut seen = 0;
        while seen < count {
            line.clear();
            assert_ne!(self.reader.read_line(&mut line).await.expect("a line"), 0, "the stream ended early");
            seen += usize::from(line.starts_with("data: "));
        }
    }
}

pub(crate) async fn call(url: &str, method: &str, path: &str, body: &str) -> Response {
    send(url, method, path, body).await.response().await.expect("a response")
}

pub(crate) async fn get(url: &str, path: &str) -> Response {
    call(url, "GET", path, "").await
}

pub(crate) async fn post(url: &str, path: &str, body: &str) -> Response {
    call(url, "POST", path, body).await
}

/// Waits until the engine's counts are so.
pub(crate) async fn counts(url: &str, query: &str) -> Value {
    get(url, &format!("/mock/stats?{query}")).await.json()
}

/// Takes a raw response apart.
pub(crate) fn parse(bytes: &[u8]) -> Option<Response> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).expect("an ASCII head");
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let raw = &bytes[end + 4..];
    let mut response = Response { status, headers, body: Vec::new(), complete: false };
    if response.header("transfer-encoding") == Some("chunked") {
        response.complete = dechunk(raw, &mut response.body);
    } else {
        let length = response.header("content-length").and_then(|length| length.parse::<usize>().ok());
        response.complete = length.is_none_or(|length| raw.len() >= length);
        response.body = raw.to_vec();
    }
    Some(response)
}

/// Whether the last chunk was there.
fn dechunk(mut raw: &[u8], body: &mut Vec<u8>) -> bool {
    while let Some(end) = raw.windows(2).position(|window| window == b"\r\n") {
        let length = std::str::from_utf8(&raw[..end]).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
        let length = length.expect("a chunk length");
        if length == 0 {
            return true;
        }
        let chunk = &raw[end + 2..];
        body.extend_from_slice(&chunk[..length.min(chunk.len())]);
        raw = chunk.get(length + 2..).unwrap_or_default();
    }
    false
}
