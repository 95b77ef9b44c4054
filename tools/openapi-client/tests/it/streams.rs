//! Streams.

use std::sync::Arc;

use api_types::{Engine, FeedQuery, Priority, SessionId, TaskId, TaskRequest, Workload};
use openapi_client::{Budgets, ClientError, Event, FeedFrame, Frame, kept_events};
use serde_json::json;
use tokio::sync::Notify;

use crate::calls::client;
use crate::server::{Reply, TestServer};

pub(crate) fn task() -> TaskRequest {
    serde_json::from_value(json!({
        "task_id": TaskId::random(), "session_id": SessionId::random(), "workload": Workload::Completion,
        "model_ref": "m", "engine": Engine::Mock, "ctx": 64, "priority": Priority::Interactive, "max_tokens": 4,
        "deadline_ms": 60000, "prompt": "x"
    }))
    .expect("a task")
}

fn whole() -> Reply {
    Reply::events(&[
        (0, "started", json!({"queue_position": 0, "predicted_start_ms": 0, "seed": 42})),
        (1, "token", json!({"t": " Paris", "i": 0})),
        (2, "metrics", json!({"queue_depth": 0, "on_time_probability": 1.0})),
        (3, "weather", json!({"sunny": true})),
        (4, "narration", json!({"human": "done", "actor": "orchestratord", "action": "end"})),
        (5, "end", json!({"tokens_out": 1, "decode_time_ms": 3, "decode_ms": 3})),
        (6, "token", json!({"t": "never", "i": 1})),
    ])
}

fn name(event: &Event) -> String {
    serde_json::to_value(event).expect("JSON")["event"].as_str().expect("a name").to_owned()
}

/// ORCH-2002, SSE-1002, OC-CORE-1024: typed frames in order with their ids; unknown ones are skipped; nothing after the last.
#[tokio::test]
async fn frames_come_typed_and_in_order() {
    let server = TestServer::start(|_| {
        whole()
            .header("X-Correlation-Id", "c-9")
            .header("X-Budget-Tokens-Remaining", "1500")
            .header("X-Budget-Cost-Remaining", "0.25")
    })
    .await;
    let mut stream = client(&server.url).submit_stream(&task()).await.expect("a stream");
    assert_eq!(stream.correlation_id().as_deref(), Some("c-9"));
    assert_eq!(stream.budgets(), Budgets { tokens: Some(1500), time_ms: None, cost: Some(0.25) });
    let mut seen = Vec::new();
    while let Some(event) = stream.next().await.expect("an event") {
        seen.push((event.id.expect("an id"), name(&event)));
    }
    let expected = [(0, "started"), (1, "token"), (2, "metrics"), (4, "narration"), (5, "end")];
    assert_eq!(seen, expected.map(|(id, name)| (id, name.to_owned())));
    assert_eq!(stream.next().await.expect("over"), None);
    assert_eq!(server.seen()[0].header("accept"), Some("text/event-stream"));
}

/// A stream that was cut says so, knows where, and goes on from there.
#[tokio::test]
async fn a_cut_stream_can_be_resumed() {
    let server = TestServer::start(|request| match request.header("last-event-id") {
        Some("1") => Reply::events(&[(2, "end", json!({"tokens_out": 1, "decode_time_ms": 3, "decode_ms": 3}))]),
        _ => Reply::events(&[
            (0, "started", json!({"queue_position": 0, "predicted_start_ms": 0})),
            (1, "token", json!({"t": " Paris", "i": 0})),
        ]),
    })
    .await;
    let (client, task) = (client(&server.url), task());
    let mut first = client.submit_stream(&task).await.expect("a stream");
    first.next().await.expect("started");
    first.next().await.expect("a token");
    assert!(matches!(first.next().await, Err(ClientError::Cut { .. })));
    assert_eq!(first.next().await.expect("over"), None);

    let mut second = client.stream(task.task_id, first.last_event_id()).await.expect("a stream");
    let last = second.next().await.expect("an event").expect("the end");
    assert!(matches!(last.frame, Frame::End(_)));
    assert_eq!(server.routes()[1], format!("GET /v1/tasks/{}/stream", task.task_id));
}

/// ORCH-3408: a refusal before the stream is an error of the call, not an event.
#[tokio::test]
async fn a_refused_stream_is_an_error() {
    let server = TestServer::start(|request| match request.method.as_str() {
        "POST" => {
            Reply::json(400, json!({"code": "INVALID_PARAMS", "message": "ctx is too large", "retriable": false}))
        }
        _ => Reply::json(200, "{}"),
    })
    .await;
    let client = client(&server.url);
    assert!(matches!(client.submit_stream(&task()).await, Err(ClientError::Refused(_))));
    assert!(matches!(client.stream(TaskId::random(), None).await, Err(ClientError::Protocol { .. })));
}

/// SSE-1001: an event is handed out when it is there, not when the stream ends.
#[tokio::test]
async fn a_token_does_not_wait_for_the_next() {
    let released = Arc::new(Notify::new());
    let held = Arc::clone(&released);
    let server =
        TestServer::start(move |_| Reply::events(&[(0, "token", json!({"t": "a", "i": 0}))]).held_until(&held, ""))
            .await;
    let mut stream = client(&server.url).submit_stream(&task()).await.expect("a stream");
    assert!(matches!(stream.next().await.expect("an event").expect("one").frame, Frame::Token(_)));
    released.notify_one();
    assert!(stream.next().await.is_err());
}

/// A kept stream reads like a live one, payloads byte for byte; what is cut off at its end is not an event.
#[test]
fn a_kept_stream_has_the_same_events() {
    let text = format!("{}id: 7\nevent: token\ndata: {{\"t\"", whole().body);
    let events = kept_events(&text).expect("events");
    assert_eq!(
        events.iter().map(name).collect::<Vec<_>>(),
        ["started", "token", "metrics", "narration", "end", "token"]
    );
    assert_eq!(events[1].raw, r#"{"i":0,"t":" Paris"}"#);
    let error = kept_events("event: token\ndata: {\"secret\": 1}\n\n").expect_err("no token");
    assert_eq!(error.to_string(), "the kept stream holds a `token` event that does not fit the contract");
}

/// The feed hands out what it knows, in order; its end is a lost connection.
#[tokio::test]
async fn the_feed_is_typed() {
    let server = TestServer::start(|_| {
        let job = json!({"model_id": "m", "kind": "pull", "state": "running", "bytes_done": 1, "files_done": 0, "files_total": 1,
            "started_ms": 1});
        Reply::events(&[
            (0, "model_job", job),
            (1, "weather", json!({})),
            (2, "model", json!({"model_id": "m"})),
            (3, "gap", json!({"missed": 4})),
        ])
    })
    .await;
    let query = FeedQuery { events: Some("model,model_job".to_owned()) };
    let mut feed = client(&server.url).watch_events(&query).await.expect("a feed");
    assert!(matches!(feed.next().await.expect("a job"), FeedFrame::ModelJob(job) if job.bytes_done == 1));
    let change = feed.next().await.expect("a change");
    assert_eq!(serde_json::to_value(&change).expect("JSON"), json!({"event": "model", "data": {"model_id": "m"}}));
    assert!(matches!(feed.next().await.expect("a gap"), FeedFrame::Gap(gap) if gap.missed == 4));
    assert!(matches!(feed.next().await, Err(ClientError::Cut { .. })));
    assert_eq!(server.routes(), ["GET /v1/events?events=model%2Cmodel_job"]);
}

/// A document comes as it is; a cut one is an error, and so is a refusal.
#[tokio::test]
async fn a_download_is_whole_or_fails() {
    let server = TestServer::start(|request| match request.path.as_str() {
        "/v1/artifacts/aa/download" => Reply::json(200, "{\"a\": 1}"),
        "/v1/artifacts/bb/download" => Reply::json(200, "{").header("Content-Length", "9"),
        _ => Reply::json(404, json!({"code": "NOT_FOUND", "message": "no such artifact"})),
    })
    .await;
    let client = client(&server.url);
    let mut whole = client.download_artifact(&"aa".into()).await.expect("a document");
    assert_eq!(whole.next().await.expect("bytes").as_deref(), Some(&b"{\"a\": 1}"[..]));
    assert_eq!(whole.next().await.expect("the end"), None);
    let mut cut = client.download_artifact(&"bb".into()).await.expect("a document");
    let end = loop {
        match cut.next().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Err(ClientError::Broken { .. })), "{end:?}");
    assert!(matches!(client.download_artifact(&"cc".into()).await, Err(ClientError::Refused(_))));
}
