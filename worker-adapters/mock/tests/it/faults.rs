//! Every fault as a client sees it.

use std::io::{BufRead as _, BufReader, ErrorKind};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use mock::process::MockEngineProcess;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::client::{Response, counts, engine, get, post, send};

const REQUEST: &str = r#"{"prompt":"x","n_predict":5,"seed":1,"stream":true}"#;

async fn set(engine: &MockEngineProcess, fault: serde_json::Value) {
    let faults = json!({"faults": [fault]}).to_string();
    assert_eq!(post(engine.url(), "/mock/faults", &faults).await.status, 200);
}

/// The answer under a fault for one request; the request after it succeeds.
async fn under(engine: &MockEngineProcess, fault: serde_json::Value) -> Option<Response> {
    set(engine, json!({"fault": fault, "times": 1})).await;
    let response = send(engine.url(), "POST", "/completion", REQUEST).await.response().await;
    let next = post(engine.url(), "/completion", REQUEST).await;
    assert_eq!(next.events().last().expect("events")["stop"], true, "after {fault}");
    response
}

/// Tokens with text in as much of a response as came.
fn tokens(response: &Response) -> usize {
    response.text().lines().filter(|line| line.contains("\"stop\":false") && line.ends_with('}')).count()
}

/// ORCH-3058.
#[tokio::test]
async fn faults_before_the_answer() {
    let engine = engine(&[]);
    let refused = under(&engine, json!({"refuse": {"status": 503}})).await.expect("a response");
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &503.into()));
    let refused = under(&engine, json!({"refuse": {"status": 429, "body": ""}})).await.expect("a response");
    assert_eq!((refused.status, refused.body.len()), (429, 0));
    let page = under(&engine, json!("wrong_content_type")).await.expect("a response");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html")));
    for slow in [json!({"slow_headers": {"ms": 1}}), json!({"trickle_head": {"ms": 0}})] {
        let late = under(&engine, slow).await.expect("a response");
        assert_eq!((late.complete, tokens(&late)), (true, 5));
    }
    set(&engine, json!({"fault": "half_head", "times": 1})).await;
    let cut = send(engine.url(), "POST", "/completion", REQUEST).await.bytes().await;
    assert_eq!((cut.0.len(), cut.1.map_err(|error| error.kind())), (40, Err(ErrorKind::ConnectionReset)));
    let short = under(&engine, json!({"wrong_length": {"bytes": 200}})).await.expect("a response");
    assert_eq!((short.complete, short.body.len()), (true, 200));
    let long = under(&engine, json!({"wrong_length": {"bytes": 1_000_000}})).await.expect("a response");
    assert_eq!((long.complete, tokens(&long)), (false, 5));
}

/// ORCH-3058.
#[tokio::test]
async fn faults_inside_the_answer() {
    let engine = engine(&[]);
    for after in [0, 3] {
        set(&engine, json!({"fault": {"reset": {"after_tokens": after}}, "times": 1})).await;
        let broken = send(engine.url(), "POST", "/completion", REQUEST).await.ending().await;
        assert_eq!(broken.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
        let clean = under(&engine, json!({"clean_end": {"after_tokens": after}})).await.expect("a response");
        assert_eq!((clean.complete, tokens(&clean)), (true, after));
        let told = under(&engine, json!({"error_event": {"after_tokens": after}})).await.expect("a response");
        assert_eq!((told.complete, tokens(&told)), (true, after));
        assert_eq!(told.events().last().expect("an event")["error"]["code"], 500);
        let half = under(&engine, json!({"half_character": {"after_tokens": after}})).await.expect("a response");
        assert_eq!((half.complete, tokens(&half)), (false, after));
        assert_eq!(std::str::from_utf8(&half.body).expect_err("half a character").error_len(), None);
        set(&engine, json!({"fault": {"half_event": {"after_tokens": after}}, "times": 1})).await;
        let (bytes, end) = send(engine.url(), "POST", "/completion", REQUEST).await.bytes().await;
        assert_eq!(end.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
        assert!(bytes.ends_with(b"\"content\":\" \r\n"), "{}", bytes.escape_ascii());
        let slow = under(&engine, json!({"trickle": {"after_tokens": after, "ms": 0}})).await.expect("a response");
        assert_eq!((slow.complete, tokens(&slow)), (true, 5));
        let odd = under(&engine, json!({"malformed_event": {"after_tokens": after}})).await.expect("a response");
        assert_eq!((odd.complete, tokens(&odd)), (true, 5));
        assert!(odd.text().contains("data: {\"index\":0,\"content\":\n\n"));
    }
}

/// ORCH-3058: one line of any length, made while it is sent: the engine's memory does not grow with it.
#[tokio::test]
async fn a_line_of_any_length() {
    let engine = engine(&[]);
    let wide = under(&engine, json!({"oversized_line": {"after_tokens": 2, "bytes": 200_000}})).await;
    let wide = wide.expect("a response");
    assert_eq!((wide.complete, tokens(&wide)), (true, 5));
    assert!(wide.content().contains(&"x".repeat(200_000)));
    set(&engine, json!({"fault": {"oversized_line": {"after_tokens": 2, "bytes": 100_000_000}}})).await;
    let before = peak_kib(&engine);
    let read = send(engine.url(), "POST", "/completion", REQUEST).await.skim().await;
    assert!(read > 100_000_000, "{read}");
    assert!(peak_kib(&engine) < before + 8 * 1024, "{before} KiB became {} KiB", peak_kib(&engine));
    set(&engine, json!({"fault": {"oversized_line": {"after_tokens": 2, "bytes": 300_000}}, "on": "health"})).await;
    assert_eq!(get(engine.url(), "/health").await.body.len(), 300_000);
}

/// Most memory that the engine has had.
fn peak_kib(engine: &MockEngineProcess) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", engine.pid())).expect("its status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// ORCH-3058: everything came, and then something is wrong with the end.
#[tokio::test]
async fn faults_at_the_end() {
    let engine = engine(&[]);
    let cut = async |path: &str, request: &str| {
        set(&engine, json!({"fault": "reset_before_end", "times": 1})).await;
        let (bytes, end) = send(engine.url(), "POST", path, request).await.bytes().await;
        assert_eq!(end.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let text = cut("/completion", REQUEST).await;
    assert_eq!((text.matches("\"stop\":false").count(), text.contains("\"stop\":true")), (5, false));
    let twice = under(&engine, json!("duplicate_end")).await.expect("a response");
    let events = twice.events();
    assert_eq!((events.len(), &events[5], &events[5]["stop"]), (7, &events[6], &json!(true)));
    let on = under(&engine, json!({"tokens_after_end": {"tokens": 3}})).await.expect("a response");
    let stops: Vec<_> = on.events().iter().map(|event| event["stop"] == true).collect();
    assert_eq!((on.complete, &stops[4..]), (true, &[false, true, false, false, false][..]));
    let predicted_ms = async |jump: serde_json::Value| {
        let odd = under(&engine, json!({"clock_jump": jump})).await.expect("a response");
        odd.events().pop().expect("a last event")["timings"]["predicted_ms"].clone()
    };
    assert!(predicted_ms(json!({"ms": -3_600_000})).await.as_f64() < Some(-3_000_000.0));
    assert!(predicted_ms(json!({"ms": i64::MAX})).await.as_f64() > Some(9e18));
    assert!(predicted_ms(json!({})).await.is_null());
}

/// ORCH-3058: an engine that accepts and reads nothing does so until its faults are replaced; more than fits into the buffers
/// in between cannot be sent.
#[tokio::test]
async fn a_request_may_never_be_read() {
    let engine = engine(&[]);
    set(&engine, json!({"fault": "no_read"})).await;
    let address = engine.url().trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the engine accepts");
    let head = "POST /completion HTTP/1.1\r\nHost: test\r\nContent-Length: 100000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("a head fits");
    let sending = tokio::spawn(async move { stream.write_all(&vec![b'x'; 100_000_000]).await });
    counts(engine.url(), "connections=2&requests=0").await;
    set(&engine, json!({"fault": "hang", "on": "slots"})).await;
    sending.await.expect("no panic").expect_err("it was not read");
    counts(engine.url(), "connections=1").await;
}

/// A request that hangs, or stalls after some tokens, ends when its client goes.
#[tokio::test]
async fn silent_faults_last_until_the_client_goes() {
    let engine = engine(&[]);
    set(&engine, json!({"fault": "hang", "times": 1})).await;
    let hanging = send(engine.url(), "POST", "/completion", REQUEST).await;
    counts(engine.url(), "requests=1&running=0").await;
    drop(hanging);
    set(&engine, json!({"fault": {"stall": {"after_tokens": 2}}, "times": 1})).await;
    let mut stalled = send(engine.url(), "POST", "/completion", REQUEST).await;
    stalled.events(2).await;
    drop(stalled);
    counts(engine.url(), "running=0&cancelled=1").await;
}

#[tokio::test]
async fn a_crash_ends_the_process() {
    let mut engine = engine(&["--faults", r#"{"faults":[{"fault":{"crash":{"after_tokens":2,"code":3}}}]}"#]);
    let cut = send(engine.url(), "POST", "/completion", REQUEST).await.response().await;
    assert!(cut.is_none_or(|cut| !cut.complete && tokens(&cut) <= 2));
    assert_eq!(engine.wait().expect("it ends").code(), Some(3));
}

/// Dies as llama.cpp does when the GPU fails it: SIGABRT, and the reason on standard error.
#[tokio::test]
async fn a_cuda_error_aborts_the_process() {
    let faults = r#"{"faults":[{"fault":{"cuda_error":{"after_tokens":2}}}]}"#;
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_mock-engine"))
        .args(["--faults", faults])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mock-engine starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let url = line.trim().strip_prefix("listening ").expect("a URL");
    let cut = send(url, "POST", "/completion", REQUEST).await.response().await;
    assert!(cut.is_none_or(|cut| !cut.complete && tokens(&cut) <= 2));
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.signal(), Some(6));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("\nCUDA error: an illegal memory access was encountered\n  current device: 0, in function"),
        "{said}"
    );
}

/// A file of faults is read again when it changes; one that makes no sense changes nothing, and none is started with.
#[tokio::test]
async fn faults_may_come_from_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("faults.json");
    let refuse = |status: u16| json!({"faults": [{"fault": {"refuse": {"status": status}}}]}).to_string();
    std::fs::write(&path, refuse(503)).expect("written");
    let engine = engine(&["--faults-file", path.to_str().expect("text")]);
    assert_eq!(post(engine.url(), "/completion", REQUEST).await.status, 503);
    for (text, status) in [(r#"{"faults":[{"fault":"nap"}]}"#.to_owned(), 503), (refuse(429), 429)] {
        std::fs::write(&path, text).expect("written");
        while post(engine.url(), "/completion", REQUEST).await.status != status {
            tokio::task::yield_now().await;
        }
    }
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_mock-engine"))
        .args(["--faults-file", "/nowhere"])
        .output()
        .expect("it runs");
    assert!(!refused.status.success());
}

/// A fault on one route leaves the others alone, and bad faults are refused.
#[tokio::test]
async fn faults_are_set_per_route() {
    let engine = engine(&[]);
    set(&engine, json!({"fault": {"refuse": {"status": 500}}, "on": "health"})).await;
    assert_eq!(get(engine.url(), "/health").await.status, 500);
    assert_eq!(post(engine.url(), "/completion", REQUEST).await.status, 200);
    assert_eq!(get(engine.url(), "/mock/faults").await.json()["faults"][0]["on"], "health");
    assert_eq!(post(engine.url(), "/mock/faults", r#"{"faults":[{"fault":"nap"}]}"#).await.status, 400);
    set(&engine, json!({"fault": {"slow_load": {"ms": 3_600_000}}})).await;
    assert_eq!(post(engine.url(), "/completion", REQUEST).await.status, 503);
}
