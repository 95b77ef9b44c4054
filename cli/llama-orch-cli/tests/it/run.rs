//! `run`.

use std::io::Read as _;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use api_types::{Engine, Priority, TaskRequest};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::command::{cli, command, ended, finish, with_a_pool};
use crate::server::{Reply, Request, TestServer};

fn started() -> (u64, &'static str, Value) {
    (
        0,
        "started",
        json!({"queue_position": 0, "predicted_start_ms": 0, "seed": 42, "pool_id": "gpu0", "sampler_profile_version": "v1"}),
    )
}

fn token(index: u64, text: &str) -> (u64, &'static str, Value) {
    (index + 1, "token", json!({"t": text, "i": index}))
}

fn end(id: u64, tokens: i32, canceled: bool) -> (u64, &'static str, Value) {
    let mut end = json!({"tokens_out": tokens, "decode_time_ms": 100, "decode_ms": 100});
    if canceled {
        end["canceled"] = true.into();
    }
    (id, "end", end)
}

fn paris() -> Reply {
    Reply::events(&[started(), token(0, " Paris"), token(1, "."), end(3, 2, false)])
}

fn submitted(server: &TestServer) -> TaskRequest {
    let seen = server.seen();
    let request = seen.iter().find(|request| request.route() == "POST /v1/tasks").expect("submitted");
    api_types::strict::from_json(request.body.as_bytes()).expect("a task that the server would take")
}

/// LO-CLI-01, LO-CLI-07: tokens and nothing else on stdout; the seed and the profile with the result.
#[tokio::test]
async fn tokens_go_to_stdout_and_the_rest_to_stderr() {
    let server = TestServer::start(with_a_pool(|_| paris())).await;
    let ended = cli(&server.url, &["run", "The capital of France is", "--seed", "42", "--strict"]).await;
    assert_eq!((ended.code, ended.out.as_str()), (0, " Paris."), "{ended:?}");
    for part in ["2 tokens", "pool gpu0", "seed 42", "sampler profile v1"] {
        assert!(ended.err.contains(part), "{part}: {}", ended.err);
    }
    let task = submitted(&server);
    assert_eq!((task.model_ref.as_str(), task.engine, task.ctx, task.max_tokens), ("tiny", Engine::Mock, 300, 299));
    assert_eq!((task.priority, task.deadline_ms, task.seed), (Priority::Interactive, 600_000, Some(42)));
    assert_eq!(task.prompt.as_deref(), Some("The capital of France is"));
    assert!(task.determinism.is_some() && task.sampling.is_none() && task.placement.is_none());

    let quiet = cli(&server.url, &["run", "--quiet", "x"]).await;
    assert_eq!((quiet.code, quiet.err.as_str()), (0, ""));
}

/// OC-CORE-1024: where budgets are configured, the summary says what the session has left after the task.
#[tokio::test]
async fn the_summary_has_what_is_left() {
    let server = TestServer::start(with_a_pool(|request| match request.path.starts_with("/v1/sessions/") {
        true => Reply::json(
            200,
            json!({"ttl_ms_remaining": 1, "turns": 1, "kv_bytes": 0, "kv_warmth": true, "tokens_budget_remaining": 98,
                "time_budget_remaining_ms": 1400}),
        ),
        false => paris().header("X-Budget-Tokens-Remaining", "100"),
    }))
    .await;
    let ended = cli(&server.url, &["run", "x"]).await;
    assert!(ended.err.contains("tokens left 98, time left 1.4 s"), "{}", ended.err);
    let session = submitted(&server).session_id;
    assert_eq!(server.routes().last(), Some(&format!("GET /v1/sessions/{session}")));

    let asked = server.routes().len();
    assert_eq!(cli(&server.url, &["run", "x", "--quiet"]).await.err, "");
    assert_eq!(server.routes().len(), asked + 2, "nobody would see it");
}

/// With --json each event is one line, ids included.
#[tokio::test]
async fn json_prints_one_event_per_line() {
    let server = TestServer::start(with_a_pool(|_| paris())).await;
    let ended = cli(&server.url, &["run", "x", "--json"]).await;
    let lines: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let names: Vec<&str> = lines.iter().map(|line| line["event"].as_str().expect("a name")).collect();
    assert_eq!(names, ["started", "token", "token", "end"]);
    assert_eq!(lines[1], json!({"id": 1, "event": "token", "data": {"t": " Paris", "i": 0}}));
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
}

/// The prompt also comes from a file or from stdin, byte by byte, and may be a chat message.
#[tokio::test]
async fn the_prompt_has_three_sources() {
    let server = TestServer::start(with_a_pool(|_| paris())).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("prompt.txt");
    std::fs::write(&file, "from a file\n").expect("written");
    assert_eq!(cli(&server.url, &["run", "-f", file.to_str().expect("UTF-8")]).await.code, 0);
    assert_eq!(submitted(&server).prompt.as_deref(), Some("from a file\n"));

    let server = TestServer::start(with_a_pool(|_| paris())).await;
    let options = [
        "run",
        "--chat",
        "--system",
        "Be brief.",
        "--pool",
        "gpu0",
        "--temperature",
        "0",
        "--stop",
        "a",
        "--stop",
        "b",
    ];
    assert_eq!(finish(command(&server.url, &options), "from stdin").await.code, 0);
    let task = submitted(&server);
    let turns = task.messages.expect("a chat");
    let turns: Vec<_> = turns.iter().map(|turn| (turn.role.as_str(), turn.content.clone().expect("text"))).collect();
    assert_eq!(turns, [("system", json!("Be brief.")), ("user", json!("from stdin"))]);
    assert_eq!(task.placement.expect("pinned").pin_pool_id.as_deref(), Some("gpu0"));
    assert_eq!(task.sampling.expect("given").stop, Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(task.prompt, None);

    assert_eq!(cli(&server.url, &["run"]).await.code, 2, "an empty prompt");
    assert_eq!(cli(&server.url, &["run", "-f", "/no/such/file"]).await.code, 2);
}

/// A lost stream goes on where it was cut: no token twice, none missing.
#[tokio::test]
async fn a_lost_connection_is_resumed() {
    let server = TestServer::start(with_a_pool(|request: &Request| match request.header("last-event-id") {
        None => Reply::events(&[started(), token(0, "a"), token(1, "b")]),
        Some("2") => Reply::events(&[token(2, "c")]),
        Some(_) => Reply::events(&[token(3, "d"), end(5, 4, false)]),
    }))
    .await;
    let ended = cli(&server.url, &["run", "x"]).await;
    assert_eq!((ended.code, ended.out.as_str()), (0, "abcd"), "{ended:?}");
    let stream = format!("GET /v1/tasks/{}/stream", submitted(&server).task_id);
    assert_eq!(server.routes(), ["GET /v1/capabilities", "POST /v1/tasks", &stream, &stream]);
}

/// OC-CLI-2802, LO-CLI-08: a refusal that passes is waited out, with the same task.
#[tokio::test]
async fn try_later_is_tried_later() {
    let tries = AtomicU32::new(0);
    let server = TestServer::start(with_a_pool(move |_| match tries.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => full().header("X-Backoff-Ms", "5"),
        _ => paris(),
    }))
    .await;
    let ended = cli(&server.url, &["run", "x"]).await;
    assert_eq!((ended.code, ended.out.as_str()), (0, " Paris."), "{ended:?}");
    let bodies: Vec<String> = server.seen().into_iter().skip(1).map(|request| request.body).collect();
    assert!(bodies.len() == 3 && bodies.iter().all(|body| *body == bodies[0]), "the same task each time");
}

/// … and not for ever.
#[tokio::test]
async fn try_later_ends_when_told_so() {
    let server = TestServer::start(with_a_pool(|_| full().header("X-Backoff-Ms", "60000"))).await;
    let ended = cli(&server.url, &["run", "x", "--retries", "0"]).await;
    assert_eq!(ended.code, 6);
    assert!(ended.err.contains("try again in 1 min 0 s"), "{}", ended.err);
}

fn full() -> Reply {
    let body = json!({"code": "ADMISSION_REJECT", "message": "the queue is full", "retriable": true, "policy_label": "reject"});
    Reply::json(429, body)
}

/// ORCH-3026: Ctrl-C cancels on the server, waits for its word, prints no further token and exits with 130.
#[tokio::test]
async fn ctrl_c_cancels_the_task() {
    let released = Arc::new(Notify::new());
    let held = Arc::clone(&released);
    let rest = Reply::events(&[token(1, "late"), end(3, 1, true)]).body;
    let server = TestServer::start(with_a_pool(move |request: &Request| match request.path.as_str() {
        "/v1/tasks" => Reply::events(&[started(), token(0, "a")]).held_until(&held, &rest),
        _ => {
            held.notify_one();
            Reply::json(204, "")
        }
    }))
    .await;
    let child = printing(command(&server.url, &["run", "x"]).spawn().expect("starts")).await;
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let ended = ended(child).await;
    assert_eq!((ended.code, ended.out.as_str()), (130, ""), "{ended:?}");
    assert!(ended.err.contains("canceled, 1 token "), "{}", ended.err);
    assert_eq!(server.routes().last(), Some(&format!("POST /v1/tasks/{}/cancel", submitted(&server).task_id)));
}

/// When whoever read the output goes away, the task is canceled and nothing is complained about.
#[tokio::test]
async fn a_closed_pipe_cancels_quietly() {
    let released = Arc::new(Notify::new());
    let held = Arc::clone(&released);
    let rest = Reply::events(&[token(1, "unread")]).body;
    let server = TestServer::start(with_a_pool(move |request: &Request| match request.path.as_str() {
        "/v1/tasks" => Reply::events(&[started(), token(0, "a")]).held_until(&held, &rest),
        _ => Reply::json(204, ""),
    }))
    .await;
    let mut child = printing(command(&server.url, &["run", "x"]).spawn().expect("starts")).await;
    drop(child.stdout.take());
    released.notify_one();
    let ended = ended(child).await;
    assert_eq!((ended.code, ended.err.as_str()), (141, ""));
    assert!(server.routes().last().expect("asked").ends_with("/cancel"));
}

/// Waits until a command has printed its first byte, and takes that byte.
async fn printing(mut child: Child) -> Child {
    let reading = tokio::task::spawn_blocking(move || {
        child.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("output");
        child
    });
    reading.await.expect("no panic")
}
