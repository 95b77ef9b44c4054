//! What a client sees while nothing, little or very much happens.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Daemon, batch, eventually_async, id, names, start_engine, task, with};

/// DESIGN section 8: a task that waits says where it stands, at a cadence, and keeps one such frame for those who come late.
#[tokio::test]
async fn a_waiting_task_says_how_things_stand() {
    let engine = start_engine(&["--token-interval-ms", "5"]);
    let daemon = Daemon::before(&engine, "[stream]\nmetrics_interval_ms = 50").await;
    let first = task("Run.", 4000);
    let _running = daemon.occupy(&first).await;
    let second = task("Wait.", 3);
    let mut waiting = daemon.run(&second).await;
    assert_eq!(waiting.next().await.expect("a frame").name, "started");
    let mut ids = Vec::new();
    for _ in 0..3 {
        let metrics = waiting.until("metrics").await;
        assert_eq!((&metrics.data["phase"], &metrics.data["queue_position"]), (&json!("queued"), &json!(0)));
        assert!(metrics.data["predicted_start_ms"].is_u64() && metrics.data["on_time_probability"].is_f64());
        assert_eq!(metrics.data["queue_depth"], 1);
        ids.push(metrics.id);
    }
    assert!(ids.is_sorted());
    daemon.cancel(id(&first)).await;
    let rest = waiting.rest().await;
    assert_eq!(rest.last().expect("frames").name, "end");
    let replayed = daemon.follow(id(&second), None).await.rest().await;
    assert_eq!(names(&replayed), ["started", "token", "token", "token", "end"]);
    assert!(replayed.iter().all(|event| event.data["phase"] != "queued"), "{replayed:?}");
}

/// LO-SSE-03, ORCH-3404: comments keep a silent stream alive, while a task waits and while an engine reads a long prompt.
#[tokio::test]
async fn a_silent_stream_has_a_heartbeat() {
    let engine = start_engine(&["--prefill-speed", "20", "--prefill-batch", "100000"]);
    let daemon = Daemon::before(&engine, "[stream]\nheartbeat_ms = 40\nmetrics_interval_ms = 60000").await;
    let mut readers = Vec::new();
    for _ in 0..2 {
        let body = task(&"word ".repeat(30), 2).to_string();
        let mut reader = TcpStream::connect(daemon.addr()).await.expect("it connects");
        let head = format!(
            "POST /v1/tasks HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            daemon.addr(),
            body.len()
        );
        reader.write_all(head.as_bytes()).await.expect("it is sent");
        readers.push(reader);
    }
    for mut reader in readers {
        let mut answer = String::new();
        reader.read_to_string(&mut answer).await.expect("it ends");
        let beats = answer.matches(": keep-alive\n\n").count();
        let first_token = answer.find("event: token").expect("a token");
        assert!(beats >= 3 && answer[..first_token].contains(": keep-alive"), "{beats} in {answer}");
        assert!(answer.contains("event: end"), "{answer}");
    }
}

/// LO-SSE-02: within the window tokens travel together, in order, and neither the beginning nor the end waits for it.
#[tokio::test]
async fn tokens_may_be_gathered() {
    let engine = start_engine(&["--token-interval-ms", "1"]);
    let alone = Daemon::before(&engine, "").await;
    let gathered = Daemon::before(&engine, "[stream]\nmicrobatch_ms = 50").await;
    let (one, other) = (task("Count.", 200), task("Count.", 200));
    let text = |events: &[crate::harness::Event]| crate::harness::text(events);
    let expected = text(&alone.run(&one).await.rest().await);
    let mut stream = gathered.run(&other).await;
    let events = stream.rest().await;
    assert_eq!(text(&events), expected);
    assert_eq!(names(&events).iter().filter(|name| **name == "token").count(), 200);
    assert!(stream.reads() < 60, "{} reads", stream.reads());
}

/// LO-SSE-05: a sentence now and then for who asks for it, never one per token.
#[tokio::test]
async fn periodic_narration_is_opt_in() {
    let engine = start_engine(&["--token-interval-ms", "2"]);
    let daemon = Daemon::before(&engine, "[stream]\nnarration_period_ms = 50").await;
    let events = daemon.run(&task("Tell me.", 150)).await.rest().await;
    let progress = events.iter().filter(|event| event.data["action"] == "progress").count();
    assert!((1..=20).contains(&progress), "{progress}");
}

/// SSE-1001, SSE-1004: a stream over its limit makes its engine wait for the foremost reader, not longer than the reader
/// needs, and loses no token. What lies far behind cannot be resumed, and the refusal says from where it can.
#[tokio::test]
async fn a_full_stream_waits_for_its_reader() {
    let engine = start_engine(&[]);
    let daemon =
        Daemon::before(&engine, "timeouts = { wall_ms = 60000, idle_ms = 100 }\n[stream]\nmax_bytes = 65536").await;
    let long = with(batch("Much.", 6000), "ctx", json!(8192));
    daemon.accepted(&long).await;
    // It neither ends nor hits the idle limit, however long nobody reads.
    let read_so_far = async || daemon.look(&long).await["tokens_out"].as_u64();
    let stuck = eventually_async("the engine is not read on", async || {
        let before = read_so_far().await.filter(|tokens| *tokens > 0)?;
        daemon.metric("tasks_started").await;
        (read_so_far().await == Some(before)).then_some(before)
    })
    .await;
    assert!(stuck < 6000, "{stuck}");
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(daemon.look(&long).await["state"], "streaming", "longer than the idle limit");
    let events = daemon.follow(id(&long), None).await.rest().await;
    assert_eq!(events.last().expect("frames").data["tokens_out"], 6000);
    let indexes = events.iter().filter(|event| event.name == "token").map(|event| event.data["i"].as_u64());
    assert!(indexes.eq((0..6000).map(Some)), "no gap");
    let late = daemon.get(&format!("/v1/tasks/{}/stream", id(&long))).await;
    assert_eq!(late.status(), 404);
    let refusal: serde_json::Value = late.json().await.expect("JSON");
    let message = refusal["message"].as_str().expect("a sentence");
    let from = message.split("Last-Event-ID: ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a number");
    let resumed = daemon.follow(id(&long), from.parse().ok()).await.rest().await;
    assert_eq!(resumed[..], events[events.len() - resumed.len()..]);
}
