use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::harness::{Daemon, id, names, start_engine, task, text, with};

/// ORCH-2002, SSE-1002, ORCH-3029, LO-SSE-04, LO-SSE-09, LO-SSE-23: one round trip gives the whole stream in order.
#[tokio::test]
async fn a_task_streams_in_order_with_ids() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    let task = task("Tell me about queues.", 12);
    let mut stream = daemon.run(&task).await;
    assert_eq!(stream.status(), 200);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
        ("connection", "keep-alive"),
    ] {
        assert_eq!(stream.header(name), Some(value), "{name}");
    }
    let correlation = stream.header("x-correlation-id").expect("always there").to_owned();
    let events = stream.rest().await;
    let ids: Vec<u32> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids, (0..u32::try_from(events.len()).expect("few")).collect::<Vec<_>>());
    let names = names(&events);
    assert_eq!((names[0], names[names.len() - 1]), ("started", "end"));
    assert!(names[1..names.len() - 1].iter().all(|name| *name == "token"), "{names:?}");
    let started = &events[0].data;
    assert_eq!(started["job_id"], task["task_id"]);
    assert_eq!(started["correlation_id"], correlation.as_str());
    assert_eq!((&started["seed"], &started["pool_id"]), (&json!(7), &json!("gpu0")));
    assert!(started["queue_position"].is_i64() && started["predicted_start_ms"].is_i64());
    let indexes: Vec<_> = events.iter().filter(|e| e.name == "token").map(|e| e.data["i"].as_u64()).collect();
    assert!(indexes.iter().enumerate().all(|(at, index)| *index == Some(at as u64)), "{indexes:?}");
    let end = &events[events.len() - 1].data;
    assert_eq!((&end["tokens_out"], &end["finish_reason"]), (&json!(12), &json!("length")));
    assert_eq!(end["decode_time_ms"], end["decode_ms"]);
    assert!(end["tokens_in"].as_u64() > Some(0) && end.get("canceled").is_none());
}

/// DESIGN section 8: a client that loses its connection 50 times in 5,000 tokens and resumes each time gets, byte for byte,
/// what an undisturbed reader gets.
#[tokio::test]
async fn a_client_may_lose_its_connection_over_and_over() {
    const DROPS: u32 = 50;
    let engine = start_engine(&["--token-interval-ms", "0.2"]);
    let daemon = Daemon::before(&engine, "[stream]\ndisconnect_grace_ms = 60000\nmetrics_interval_ms = 20").await;
    let task = with(task("A long story.", 5000), "ctx", json!(8192));
    let mut undisturbed = daemon.run(&task).await;
    let whole = async {
        let events = undisturbed.rest().await;
        events.into_iter().map(|event| event.raw).collect::<String>()
    };
    let pieces = async {
        let (mut seen, mut last) = (String::new(), None);
        for drop in 0..=DROPS {
            let mut stream = daemon.follow(id(&task), last).await;
            // Between 0 and 187 frames, then in the middle of whatever is on its way.
            let frames = if drop == DROPS { usize::MAX } else { (drop as usize * 37) % 188 };
            for _ in 0..frames {
                let Some(event) = stream.next().await else { break };
                seen.push_str(&event.raw);
                last = Some(event.id);
            }
        }
        seen
    };
    let (whole, pieces) = tokio::join!(whole, pieces);
    assert_eq!(whole.matches("event: token").count(), 5000);
    assert!(whole == pieces, "{} and {} bytes", whole.len(), pieces.len());
}

/// LO-API-10, LO-DET-02: two live readers, a late one and one that resumes get the same bytes.
#[tokio::test]
async fn every_reader_gets_the_same_bytes() {
    let engine = start_engine(&["--token-interval-ms", "5"]);
    let daemon = Daemon::before(&engine, "").await;
    let task = task("Tell me about readers.", 40);
    assert_eq!(daemon.post("/v1/tasks", &task).await.status(), 202);
    let (mut one, mut two) = (daemon.follow(id(&task), None).await, daemon.follow(id(&task), None).await);
    let (one, two) = tokio::join!(one.rest(), two.rest());
    assert_eq!(one, two);
    let late = daemon.follow(id(&task), None).await.rest().await;
    assert_eq!(one, late, "a finished task is replayed");
    for after in [0, 7, 20] {
        let resumed = daemon.follow(id(&task), Some(after)).await.rest().await;
        assert_eq!(resumed, one[after as usize + 1..]);
    }
    let nothing = daemon.follow(id(&task), Some(one[one.len() - 1].id)).await.rest().await;
    assert_eq!(nothing, []);
}

/// ORCH-3045, OC-CLI-2006: the same seed gives the same bytes, whatever ran in between, although the engine's output depends
/// on its prompt cache; another seed gives others.
#[tokio::test]
async fn a_strict_pool_repeats_itself() {
    let engine = start_engine(&["--cache-sensitive"]);
    let daemon = Daemon::before(&engine, "").await;
    let fresh = || task("Tell me about seeds.", 24);
    let tokens = async |task| {
        let events = daemon.run(&task).await.rest().await;
        events.into_iter().filter(|event| event.name == "token").map(|event| event.data).collect::<Vec<_>>()
    };
    let first = tokens(fresh()).await;
    tokens(task("Tell me about seeds. And now something else.", 24)).await;
    let second = tokens(fresh()).await;
    assert_eq!(first, second);
    assert!(!first.is_empty());
    assert_ne!(tokens(with(fresh(), "seed", json!(8))).await, first);
}

/// LO-SSE-05: narration only at start and end, never per token; and it can be switched off.
#[tokio::test]
async fn narration_is_rare() {
    let engine = start_engine(&[]);
    for (settings, expected) in [("", 2), ("[stream]\nnarration = false", 0)] {
        let daemon = Daemon::before(&engine, settings).await;
        let events = daemon.run(&task("Tell me a story.", 200)).await.rest().await;
        assert_eq!(events.iter().filter(|event| event.name == "narration").count(), expected);
    }
}

/// ADAPT-3101, OC-ADAPT-5001: chat goes through the engine's own template and streams the same way.
#[tokio::test]
async fn a_chat_streams_too() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    let chat = with(task("", 9), "prompt", serde_json::Value::Null);
    let chat = with(chat, "messages", json!([{"role": "user", "content": "Say hello."}]));
    let events = daemon.run(&chat).await.rest().await;
    let names = names(&events);
    assert_eq!((names[0], names[names.len() - 1]), ("started", "end"));
    assert!(!text(&events).is_empty());
    assert_eq!(events[events.len() - 1].data["tokens_out"], 9);
}

/// Embeddings come as one `token` event per input.
#[tokio::test]
async fn embeddings_come_one_per_input() {
    let engine = start_engine(&["--embedding-width", "16"]);
    let daemon = Daemon::before(&engine, "").await;
    let request = with(task("", 0), "prompt", serde_json::Value::Null);
    let request = with(with(request, "workload", json!("embedding")), "inputs", json!(["one", "two words"]));
    let events = daemon.run(&request).await.rest().await;
    assert_eq!(names(&events), ["started", "token", "token", "end"], "{events:?}");
    let vectors: Vec<_> = events.iter().filter_map(|event| event.data["embedding"].as_array()).collect();
    assert_eq!(vectors.iter().map(|vector| vector.len()).collect::<Vec<_>>(), [16, 16]);
}

/// ORCH-2001: what is known about a task while it waits and after it has ended.
#[tokio::test]
async fn a_task_can_be_looked_at() {
    let engine = start_engine(&["--token-interval-ms", "20"]);
    let daemon = Daemon::before(&engine, "").await;
    let (first, second) = (task("Run for a while.", 60), task("Wait.", 3));
    let mut running = daemon.run(&first).await;
    running.until("token").await;
    let mut waiting = daemon.run(&second).await;
    let seen = daemon.json(&format!("/v1/tasks/{}", id(&second))).await;
    assert_eq!((&seen["state"], &seen["queue_position"]), (&json!("queued"), &json!(0)));
    assert_eq!(daemon.json(&format!("/v1/tasks/{}", id(&first))).await["state"], "streaming");
    tokio::join!(running.rest(), waiting.rest());
    let done = daemon.json(&format!("/v1/tasks/{}", id(&second))).await;
    assert_eq!(
        (&done["state"], &done["tokens_out"], &done["pool_id"]),
        (&json!("completed"), &json!(3), &json!("gpu0"))
    );
    assert!(done["queue_time_ms"].as_u64() > Some(0), "{done}");
    assert_eq!(done["placement"]["selected_pool_id"], "gpu0");
    let list = daemon.json("/v1/tasks?limit=1").await;
    assert_eq!(list["tasks"][0]["task_id"], second["task_id"], "the newest first");
}

/// Any deadline may be asked for, the largest number too.
#[tokio::test]
async fn a_deadline_may_be_far_away() {
    let engine = start_engine(&[]);
    let daemon =
        Daemon::before(&engine, "timeouts = { wall_ms = 9223372036854775807, idle_ms = 9223372036854775807 }").await;
    let events = daemon.run(&with(task("No hurry.", 2), "deadline_ms", json!(i64::MAX))).await.rest().await;
    assert_eq!(events.last().expect("frames").name, "end");
}

/// SSE-1004: a reader that takes nothing costs nobody else a token, and the engine is not slowed.
#[tokio::test]
async fn a_reader_that_takes_nothing_holds_nobody_up() {
    let engine = start_engine(&["--ctx", "100000"]);
    let daemon = Daemon::before(&engine, "").await;
    let task = with(task("Talk for a long time.", 60_000), "ctx", json!(100_000));
    assert_eq!(daemon.post("/v1/tasks", &task).await.status(), 202);
    let mut idle = tokio::net::TcpStream::connect(daemon.addr()).await.expect("a connection");
    let request = format!("GET /v1/tasks/{}/stream HTTP/1.1\r\nhost: localhost\r\n\r\n", id(&task));
    idle.write_all(request.as_bytes()).await.expect("sent");
    let events = daemon.follow(id(&task), None).await.rest().await;
    let last = events.last().expect("frames");
    assert_eq!((last.name.as_str(), &last.data["tokens_out"]), ("end", &json!(60_000)));
    drop(idle);
}
