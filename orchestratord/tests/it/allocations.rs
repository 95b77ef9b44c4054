//! What a token costs in allocations, from the engine's socket to the client's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use config_schema::{Config, ProcessEnvironment, Sources};
use rustix::process::{Signal, getpid, kill_process};
use serde_json::{Value, json};

use crate::harness::{PATIENCE, config, start_engine, task, with};

/// ORCH-3400: once a stream runs, a token is read, decoded, encoded and sent without an allocation of its own. What remains is
/// a segment of the transcript for about a hundred of them, and whatever the rest of the daemon does meanwhile.
#[test]
fn a_token_allocates_nothing() {
    for pace in ["0", "0.1"] {
        let engine = start_engine(&["--token-interval-ms", pace, "--ctx", "16384"]);
        let (few, many) = (whole_life(engine.url(), 1_000), whole_life(engine.url(), 9_000));
        let each = (many as f64 - few as f64) / 8_000.0;
        println!("one token each {pace} ms: {each:.3} allocations a token");
        assert!(each < 0.2, "{each} allocations a token at {pace} ms between two");
    }
}

/// Allocations of a daemon on one thread, from its start over one task of so many tokens to its end.
fn whole_life(engine_url: &str, tokens: u32) -> u64 {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("llama-orch.toml");
    let port = dir.path().join("port");
    let data = dir.path().join("data").display().to_string();
    let settings =
        config(engine_url, "").replace("data_dir = \"data\"", &format!("data_dir = \"{data}\"\nthreads = 1"));
    std::fs::write(&file, settings).expect("it is written");
    let mut sources = Sources::new(&ProcessEnvironment);
    sources.file = Some(file);
    let loaded = Config::load(&sources).expect("a good configuration");
    let client = {
        let port = port.clone();
        thread::spawn(move || {
            let _stop = Stop;
            follow(&port, &with(task("Count.", tokens), "ctx", json!(16_384)))
        })
    };
    let measured = allocation_counter::measure(|| {
        orchestratord::daemon::run(loaded, Some(port)).expect("it stops as asked");
    });
    let seen = client.join().expect("the client reads to the end");
    assert_eq!(seen.matches("event: token").count(), tokens as usize);
    measured.count_total
}

/// Stops the daemon of this process when dropped.
struct Stop;

impl Drop for Stop {
    fn drop(&mut self) {
        kill_process(getpid(), Signal::TERM).expect("a process may signal itself");
    }
}

/// Submits a task over one plain connection and reads until the end.
fn follow(port: &Path, task: &Value) -> String {
    let begun = Instant::now();
    let addr: SocketAddr = loop {
        match std::fs::read_to_string(port) {
            Ok(text) if text.ends_with('\n') => break text.trim().parse().expect("an address"),
            _ => pause(),
        }
        assert!(begun.elapsed() < PATIENCE, "the daemon does not listen");
    };
    loop {
        let answer = exchange(addr, &task.to_string());
        if answer.starts_with("HTTP/1.1 200") {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "no pool is ready: {answer}");
        pause();
    }
}

/// Between two looks of a thread that has no runtime.
#[expect(clippy::disallowed_methods, reason = "it has a thread to itself")]
fn pause() {
    thread::sleep(Duration::from_millis(2));
}

fn exchange(addr: SocketAddr, body: &str) -> String {
    let mut connection = TcpStream::connect(addr).expect("it connects");
    let length = body.len();
    let head = format!(
        "POST /v1/tasks HTTP/1.1\r\nHost: {addr}\r\nAccept: text/event-stream\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    connection.write_all(&[head.as_bytes(), body.as_bytes()].concat()).expect("it is sent");
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).expect("it ends");
    String::from_utf8(answer).expect("text")
}
