//! `explain`: a task's record as sentences.

use serde_json::{Value, json};

use crate::command::cli;
use crate::server::{Reply, TestServer};

const TASK: &str = "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10";
const ADMITTED: i64 = 1_760_000_000_000;

/// A record of any age: what every version had, and these members besides.
fn record(members: Value) -> Value {
    let mut task = json!({"task_id": TASK, "correlation_id": "c-1", "session_id": "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b",
        "state": "completed", "workload": "completion", "model_ref": "tiny", "engine": "mock", "priority": "batch",
        "seed": 42, "pool_id": "gpu0", "predicted_start_ms": 1800, "admitted_at_ms": ADMITTED, "deadline_ms": 60_000,
        "max_tokens": 128, "attempts": 1});
    let (Some(task_members), Value::Object(members)) = (task.as_object_mut(), members) else { panic!("objects") };
    task_members.extend(members);
    task
}

fn placement(members: Value) -> Value {
    let mut placement = json!({"selected_pool_id": "gpu0", "candidates_considered": 3, "filters_applied": [],
        "tie_breakers_applied": [], "pinned": false, "fallback_used": false});
    let (Some(known), Value::Object(members)) = (placement.as_object_mut(), members) else { panic!("objects") };
    known.extend(members);
    placement
}

async fn explained(task: Value, options: &[&str]) -> String {
    let server = TestServer::start(move |_| Reply::json(200, task.clone())).await;
    let ended = cli(&server.url, &[&["explain", TASK], options].concat()).await;
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert_eq!(server.routes(), [format!("GET /v1/tasks/{TASK}")]);
    ended.out
}

/// LO-PLC-17: who won and why, who lost and why, where it went then, and what came of the predictions.
#[tokio::test]
async fn the_whole_story_of_a_task() {
    let task = record(json!({
        "pool_id": "gpu1", "queue_time_ms": 400, "ended_at_ms": ADMITTED + 2000, "tokens_out": 128, "tokens_in": 13,
        "input_tokens": {"tokens": 12, "source": "estimate"}, "on_time_probability": 0.987, "attempts": 2, "recovered": true,
        "placement": placement(json!({
            "candidates_considered": 7, "filters_applied": ["ctx_too_small"], "tie_breakers_applied": ["predicted_end"],
            "excluded": [{"pool_id": "gpu2", "reason": "ctx_too_small"}],
            "outranked": [{"pool_id": "gpu1", "by": "predicted_end"}, {"pool_id": "gpu3", "by": "moon_phase"}],
            "unlisted": 3, "predicted_end_ms": 2300})),
        "moves": [{"at_ms": ADMITTED + 350, "from": "gpu0", "to": "gpu1", "reason": "idle"},
                  {"at_ms": ADMITTED + 360, "from": "gpu1", "to": "gpu1", "reason": "recovered"}]
    }));
    let expected = "\
Task 7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10, batch of tiny: it ended as meant on pool gpu1.

Placement
  gpu0 was chosen at admission from 7 pools: it was predicted to end the task first.
  gpu1 could have taken it, but it was predicted to end the task later.
  gpu3 could have taken it, but moon_phase.
  gpu2 could not take it: its context is too small.
  3 further pools lost or could not take it.

Moves
  After 350 ms from gpu0 to gpu1: the new pool had a free slot first.
  After 360 ms placed again on gpu1: it was taken up again after a restart of the orchestrator.

Prediction and outcome
  Predicted to start after 1.8 s; it started after 400 ms.
  Predicted to end after 2.3 s; it ended after 2.0 s.
  It had 1 min 0 s from admission to its end; its chance to make it was estimated as 99 %; 58.0 s were left.

Run
  Its prompt was taken for 12 tokens, an estimate; the engine counted 13.
  It was handed to an engine 2 times.
  It was taken up again after a restart of the orchestrator.
  It generated 128 tokens of at most 128.
";
    assert_eq!(explained(task, &[]).await, expected);
}

/// A task that waits: its place now, and what is not known yet.
#[tokio::test]
async fn a_task_that_waits() {
    let task = record(
        json!({"state": "queued", "queue_position": 2, "attempts": 0, "placement": placement(json!({"pinned": true,
        "excluded": [{"pool_id": "gpu1", "reason": "not_preferred"}], "predicted_end_ms": 2300}))}),
    );
    let text = explained(task, &[]).await;
    for part in [
        "it waits on pool gpu0, behind 2 tasks, since ",
        "of 3 pools it was the only one that could take it",
        "The client pinned the pool.",
        "gpu1 could not take it: the client asked for other pools.",
        "Predicted to start after 1.8 s; it has not started yet.",
        "it has not ended yet",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("Moves") && !text.contains("Run"), "{text}");
}

/// How a task failed, and what to do about it.
#[tokio::test]
async fn a_task_that_failed() {
    for (state, error, parts) in [
        (
            "failed",
            json!({"code": "REPLICA_EXHAUSTED", "message": "all replicas are busy", "retriable": true, "retry_after_ms": 1500}),
            ["it failed on pool gpu0", "REPLICA_EXHAUSTED: all replicas are busy.", "Next: try again in 1.5 s."],
        ),
        (
            "failed",
            json!({"code": "WORKER_RESET", "message": "the engine died", "retriable": false}),
            ["WORKER_RESET: the engine died.", "Next: look for the correlation id", "it never started"],
        ),
        (
            "expired",
            json!({"code": "DEADLINE_UNMET", "message": "60000 ms were not enough"}),
            ["its deadline passed", "60000 ms were not enough.", "from admission to its end; it did not."],
        ),
    ] {
        let task = record(json!({"state": state, "ended_at_ms": ADMITTED + 60_000, "error": error}));
        let text = explained(task, &[]).await;
        for part in parts {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}

/// A record that an older server wrote still says what it knows; --json is the server's own.
#[tokio::test]
async fn an_older_record() {
    let mut task =
        record(json!({"placement": placement(json!({"candidates_considered": 1, "filters_applied": ["draining"],
        "fallback_used": true}))}));
    let members = task.as_object_mut().expect("an object");
    for younger in ["deadline_ms", "max_tokens", "attempts"] {
        members.remove(younger);
    }
    let text = explained(task.clone(), &[]).await;
    for part in
        ["it is the only pool", "for these reasons: it was draining", "None of the pools that the client prefers"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("0 ms from admission") && !text.contains("0 times"), "{text}");
    let nothing = explained(record(json!({})), &[]).await;
    assert!(nothing.contains("The server has no record of it."), "{nothing}");

    let task = record(json!({"input_tokens": {"tokens": 1, "source": "exact"}}));
    assert!(explained(task.clone(), &[]).await.contains("Its prompt has 1 token, by the engine's own tokenizer."));
    assert_eq!(serde_json::from_str::<Value>(&explained(task.clone(), &["--json"]).await).expect("JSON"), task);
}
