use serde_json::{Value, json};

use crate::harness::{Daemon, batch, eventually_async, id, start_engine, stat, task, with};

fn due_in(deadline_ms: i64, task: Value) -> Value {
    with(task, "deadline_ms", json!(deadline_ms))
}

/// A pool that has shown its speed refuses what it cannot do in time, because of the task itself or because of what is ahead
/// of it; the sentence has the numbers. Nothing is stored, no turn is used, and what has a chance is taken. Until then a guess
/// refuses nobody: the task is taken and ends as expired.
#[tokio::test]
async fn a_hopeless_deadline_is_refused_once_speeds_are_known() {
    let engine = start_engine(&["--token-interval-ms", "10"]);
    let daemon = Daemon::before(&engine, "").await;
    let hopeless = || due_in(100, task("Ten seconds of work.", 1000));
    let taken = hopeless();
    let error = daemon.run(&taken).await.until("error").await.data;
    assert_eq!((&error["code"], &error["retriable"]), (&json!("DEADLINE_UNMET"), &json!(false)));
    let seen = daemon.look(&taken).await;
    assert_eq!((&seen["state"], &seen["error"]["code"]), (&json!("expired"), &json!("DEADLINE_UNMET")));
    for tokens in [5, 20] {
        daemon.run(&task("Measure.", tokens)).await.rest().await;
    }
    let requests = stat(&engine, "requests").await;
    let refused = hopeless();
    let (status, envelope) = daemon.refusal(&refused).await;
    assert_eq!((status, &envelope["code"], &envelope["retriable"]), (400, &json!("DEADLINE_UNMET"), &json!(false)));
    assert_eq!(envelope["pool_id"], "gpu0");
    let said = envelope["message"].as_str().expect("a sentence");
    assert!(said.contains("deadline_ms 100") && said.contains("ask for fewer tokens"), "{said}");
    assert_eq!(daemon.get(&format!("/v1/tasks/{}", id(&refused))).await.status(), 404);
    let session = format!("/v1/sessions/{}", refused["session_id"].as_str().expect("text"));
    assert_eq!(daemon.get(&session).await.status(), 404);
    assert_eq!(stat(&engine, "requests").await, requests);
    let mut running = daemon.occupy(&task("Half a minute of work.", 3000)).await;
    let (status, envelope) = daemon.refusal(&due_in(1000, task("Next.", 2))).await;
    assert_eq!((status, &envelope["code"]), (400, &json!("DEADLINE_UNMET")), "{envelope}");
    let patient = task("Next.", 2);
    assert!(daemon.accepted(&patient).await["predicted_start_ms"].as_i64() > Some(10_000));
    let chance = daemon.look(&patient).await["on_time_probability"].as_f64().expect("a number");
    assert!((0.5..=1.0).contains(&chance), "{chance}");
    running.until("token").await;
}

/// A waiting task whose deadline passes ends as expired, whatever its class, and those behind it move up.
#[tokio::test]
async fn a_waiting_task_expires() {
    let engine = start_engine(&["--token-interval-ms", "20"]);
    let daemon = Daemon::before(&engine, "").await;
    let _running = daemon.occupy(&task("Run.", 500)).await;
    for late in [task("Too late.", 1), batch("Too late.", 1)] {
        let late = due_in(100, late);
        let mut stream = daemon.run(&late).await;
        let behind = with(task("Behind it.", 1), "priority", late["priority"].clone());
        daemon.accepted(&behind).await;
        let error = stream.until("error").await.data;
        assert_eq!(error["code"], "DEADLINE_UNMET");
        assert!(error["message"].as_str().is_some_and(|said| said.contains("still waiting")), "{error}");
        let seen = daemon.look(&late).await;
        assert_eq!((&seen["state"], &seen["attempts"]), (&json!("expired"), &json!(0)));
        let moved_up = async || (daemon.look(&behind).await["queue_position"] == 0).then_some(());
        eventually_async("the next one moves up", moved_up).await;
        assert_eq!(daemon.cancel(id(&behind)).await, 204);
    }
    assert_eq!(daemon.metric("tasks_rejected_total{").await, 0.0, "an expired task was not rejected");
}
