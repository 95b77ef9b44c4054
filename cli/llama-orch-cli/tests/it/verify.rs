//! `verify`, and the record that it and `artifacts get --task` read.

use api_types::{KvHint, PlacementMode, Priority, TaskRequest};
use serde_json::{Value, json};

use crate::artifacts::reference;
use crate::command::{Ended, cli};
use crate::server::{Reply, TestServer};

const TASK: &str = "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10";
const SESSION: &str = "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b";

type Frames = Vec<(u64, &'static str, Value)>;

fn started() -> (u64, &'static str, Value) {
    let started = json!({"queue_position": 0, "predicted_start_ms": 0, "seed": 42, "engine_version": "b2",
        "sampler_profile_version": "v1", "model_digest": "sha256:aa"});
    (0, "started", started)
}

fn token(index: u64, text: &str) -> (u64, &'static str, Value) {
    (index + 1, "token", json!({"t": text, "i": index}))
}

fn end(tokens: i32) -> (u64, &'static str, Value) {
    (9, "end", json!({"tokens_out": tokens, "decode_time_ms": 100, "decode_ms": 100, "finish_reason": "stop"}))
}

fn paris() -> Frames {
    vec![started(), token(0, " Paris"), token(1, "."), end(2)]
}

/// A record of a task that was on gpu0, with this stream.
fn bundle(transcript: &Frames, state: &str, determinism: &str) -> Value {
    json!({"job_id": TASK, "session_id": SESSION,
        "request": {"task_id": TASK, "session_id": SESSION, "workload": "completion", "model_ref": "tiny", "engine": "mock",
            "ctx": 300, "priority": "batch", "max_tokens": 16, "deadline_ms": 900_000, "prompt": "The capital of France is",
            "placement": {"mode": "prefer", "prefer_pools": ["gpu1"]}},
        "summary": {"task_id": TASK, "correlation_id": "c", "session_id": SESSION, "state": state, "workload": "completion",
            "model_ref": "tiny", "engine": "mock", "priority": "batch", "seed": 42, "pool_id": "gpu0",
            "predicted_start_ms": 0, "admitted_at_ms": 1_760_000_000_000_i64},
        "model": {"model_ref": "tiny", "digest": "sha256:aa"},
        "engine": {"engine": "mock", "engine_version": "b2", "sampler_profile_version": "v1", "provisioning": "external",
            "compute": "unverified", "determinism": determinism},
        "transcript": Reply::events(transcript).body})
}

/// A server that keeps this record and runs tasks to these streams.
async fn server(bundle: Value, repetition: Frames) -> TestServer {
    TestServer::start(move |request| match request.path.split('?').next().unwrap_or_default() {
        "/v1/artifacts" => {
            let others = reference("trace", &["mine"]);
            let mut kept = reference("trace", &["sse", "stream"]);
            kept["id"] = "beef".into();
            Reply::json(200, json!({"artifacts": [others, kept]}))
        }
        "/v1/artifacts/beef" => {
            let mut record = reference("trace", &[]);
            record["content"] = bundle.clone();
            Reply::json(200, record)
        }
        "/v1/pools" => {
            let health = json!({"live": true, "ready": true, "draining": false, "metrics": {}});
            Reply::json(200, json!({"pools": [{"id": "gpu0", "engine": "mock", "model": "tiny", "provisioning": "external",
                "compute": "unverified", "slots_total": 1, "slots_free": 1, "queue_depth": 0, "queue_capacity": 8, "health": health}]}))
        }
        "/v1/tasks" => Reply::events(&repetition),
        _ => Reply::json(404, json!({"code": "NOT_FOUND", "message": "no such route"})),
    })
    .await
}

async fn verified(bundle: Value, repetition: Frames) -> Ended {
    cli(&server(bundle, repetition).await.url, &["verify", TASK]).await
}

/// ORCH-3045: the same bytes again: the request is the record's, pinned and seeded, under ids of its own.
#[tokio::test]
async fn the_same_again() {
    let mut again = paris();
    again.insert(1, (5, "metrics", json!({"queue_depth": 1, "on_time_probability": 0.5})));
    let server = server(bundle(&paris(), "completed", "strict"), again).await;
    let ended = cli(&server.url, &["verify", TASK]).await;
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{}", ended.out);
    for part in [
        "engine version   b2          b2\n",
        "model digest     sha256:aa   sha256:aa\n",
        "tokens           2           2\n",
        "identical: 2 token events, byte by byte, and the end\n",
    ] {
        assert!(ended.out.contains(part), "{part}\n{}", ended.out);
    }
    assert!(!ended.out.contains("warning") && !ended.out.contains("Paris"), "{}", ended.out);

    let seen = server.seen();
    assert_eq!(seen[0].path, format!("/v1/artifacts?kind=trace&tag=task%3A{TASK}"));
    let sent = seen.iter().find(|request| request.route() == "POST /v1/tasks").expect("submitted");
    let task: TaskRequest = api_types::strict::from_json(sent.body.as_bytes()).expect("what the server would take");
    assert!(task.task_id.to_string() != TASK && task.session_id.to_string() != SESSION);
    assert_eq!((task.seed, task.priority, task.kv_hint), (Some(42), Priority::Interactive, Some(KvHint::Cold)));
    assert_eq!((task.deadline_ms, task.prompt.as_deref()), (900_000, Some("The capital of France is")));
    let placement = task.placement.expect("pinned");
    assert_eq!((placement.mode, placement.pin_pool_id.as_deref()), (PlacementMode::Pin, Some("gpu0")));
    assert_eq!(placement.prefer_pools, None);
}

/// Another output has its own exit code, and is shown where it parts.
#[tokio::test]
async fn another_output() {
    let other = vec![started(), token(0, " Paris"), token(1, "!"), token(2, " Yes"), end(3)];
    let ended = verified(bundle(&paris(), "completed", "strict"), other.clone()).await;
    assert_eq!((ended.code, ended.err.as_str()), (7, ""), "{}", ended.out);
    let expected = "differs at token event 1, after \" Paris\"\n  then: \".\"\n  now:  \"! Yes\"\n";
    assert!(ended.out.ends_with(expected), "{}", ended.out);

    let server = server(bundle(&paris(), "completed", "strict"), other).await;
    let ended = cli(&server.url, &["verify", TASK, "--json"]).await;
    let report: Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!((ended.code, &report["identical"], &report["equal_tokens"]), (7, &json!(false), &json!(1)));
    let difference =
        json!({"what": "token", "index": 1, "then": token(1, ".").2.to_string(), "now": token(1, "!").2.to_string()});
    assert_eq!(report["difference"], difference);
    assert_eq!(report["now"]["engine_version"], "b2");

    let shorter = verified(bundle(&paris(), "completed", "strict"), vec![started(), token(0, " Paris"), end(1)]).await;
    assert!(shorter.code == 7 && shorter.out.contains("now:  nothing more"), "{}", shorter.out);
    let counted =
        verified(bundle(&paris(), "completed", "strict"), vec![started(), token(0, " Paris"), token(1, "."), end(3)])
            .await;
    assert!(counted.out.contains("2 tokens, ended by stop then, 3 tokens, ended by stop now"), "{}", counted.out);
}

/// What weakens the verdict is said beside it.
#[tokio::test]
async fn what_the_verdict_is_worth() {
    let mut record = bundle(&paris(), "completed", "best_effort");
    record["engine"]["engine_version"] = "b1".into();
    record["model"]["digest"] = "sha256:bb".into();
    let ended = verified(record, paris()).await;
    assert_eq!(ended.code, 0);
    for part in ["best_effort", "engine version is another", "model digest is another", "b1", "sha256:bb"] {
        assert!(ended.out.contains(part), "{part}\n{}", ended.out);
    }
    assert_eq!(ended.out.matches("warning: ").count(), 3, "{}", ended.out);
}

/// A task that broke off is compared as far as it came; one that came nowhere is refused.
#[tokio::test]
async fn tasks_that_broke_off() {
    let canceled = (9, "end", json!({"tokens_out": 1, "decode_time_ms": 1, "decode_ms": 1, "canceled": true}));
    let beginning = vec![started(), token(0, " Paris"), canceled];
    let ended = verified(bundle(&beginning, "canceled", "strict"), paris()).await;
    assert_eq!(ended.code, 0, "{}", ended.out);
    assert!(ended.out.contains("identical as far as it came: 1 token events"), "{}", ended.out);
    assert!(ended.out.contains("warning: the task ended as canceled"), "{}", ended.out);

    let kept = server(bundle(&vec![started()], "failed", "strict"), paris()).await;
    let ended = cli(&kept.url, &["verify", TASK]).await;
    assert!(ended.code == 4 && ended.err.contains("(failed) holds no token"), "{ended:?}");
    assert!(!kept.routes().contains(&"POST /v1/tasks".to_owned()), "nothing is run for it");

    let mut homeless = bundle(&paris(), "completed", "strict");
    homeless["summary"]["pool_id"] = "gpu7".into();
    let ended = verified(homeless, paris()).await;
    assert!(ended.code == 4 && ended.err.contains("gpu7") && ended.err.contains("next:"), "{ended:?}");
}

/// A repetition that fails fails the command like any task.
#[tokio::test]
async fn a_repetition_that_fails() {
    let error = json!({"code": "WORKER_RESET", "message": "the engine went away", "retriable": false});
    let ended = verified(bundle(&paris(), "completed", "strict"), vec![started(), (1, "error", error)]).await;
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert!(ended.err.contains("the engine went away"), "{}", ended.err);
    let gone = json!({"tokens_out": 0, "decode_time_ms": 0, "decode_ms": 0, "canceled": true});
    let ended = verified(bundle(&paris(), "completed", "strict"), vec![started(), (1, "end", gone)]).await;
    assert!(ended.code == 130 && ended.err.contains("nothing was compared"), "{ended:?}");
}

/// No record: not kept, not yet there, or not one that can be read.
#[tokio::test]
async fn a_record_that_is_not_there() {
    for (state, exit, part) in [("completed", 4, "[artifacts]"), ("streaming", 6, "comes with its end")] {
        let summary = bundle(&paris(), state, "strict")["summary"].clone();
        let server = TestServer::start(move |request| match request.path.starts_with("/v1/tasks/") {
            true => Reply::json(200, summary.clone()),
            false => Reply::json(200, json!({"artifacts": []})),
        })
        .await;
        for arguments in [&["verify", TASK][..], &["artifacts", "get", "--task", TASK]] {
            let ended = cli(&server.url, arguments).await;
            assert_eq!((ended.code, ended.out.as_str()), (exit, ""), "{arguments:?}");
            assert!(ended.err.contains(part), "{}", ended.err);
        }
    }
    let ended = verified(json!({"secret": "prompt"}), paris()).await;
    assert!(ended.code == 4 && ended.err.contains("no task's record") && !ended.err.contains("secret"), "{ended:?}");
    assert_eq!(cli("http://127.0.0.1:1", &["verify", "no-uuid"]).await.code, 2);
}

/// The stream of a record, as clients got it.
#[tokio::test]
async fn the_transcript_alone() {
    let server = server(bundle(&paris(), "completed", "strict"), paris()).await;
    let get = ["artifacts", "get", "--task", TASK, "--transcript"];
    let text = cli(&server.url, &get).await;
    assert_eq!((text.code, text.out), (0, Reply::events(&paris()).body));
    let json = cli(&server.url, &[&get[..], &["--json"]].concat()).await;
    let lines: Vec<Value> = json.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[1], json!({"id": 1, "event": "token", "data": {"t": " Paris", "i": 0}}));
    assert_eq!(lines.len(), 4);
}
