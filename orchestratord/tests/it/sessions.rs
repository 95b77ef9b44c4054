use serde_json::{Value, json};

use crate::harness::{Daemon, eventually_async, start_engine, task, with};

/// ORCH-3021, LO-SES-02, LO-SES-03, ORCH-2004, ORCH-2005, LO-ERR-08: turns are counted, a session that has used them up is
/// evicted with a typed refusal, and a refused task costs no turn.
#[tokio::test]
async fn sessions_have_turns() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "[sessions]\nmax_turns = 2").await;
    let session = uuid::Uuid::new_v4().to_string();
    let path = format!("/v1/sessions/{session}");
    let turn = |tokens: u32| with(task("Turn.", tokens), "session_id", json!(session));
    assert_eq!(daemon.get(&path).await.status(), 404);
    assert_eq!(daemon.post("/v1/tasks", &with(turn(1), "ctx", json!(1_000_000))).await.status(), 400);
    assert_eq!(daemon.get(&path).await.status(), 404, "a refused task begins no session");
    for expected in [1, 2] {
        daemon.run(&turn(1)).await.rest().await;
        let info = daemon.json(&path).await;
        assert_eq!((&info["turns"], &info["kv_warmth"]), (&json!(expected), &json!(true)));
        assert!(info["ttl_ms_remaining"].as_i64() > Some(0));
    }
    let refused = daemon.post("/v1/tasks", &turn(1)).await;
    assert_eq!(refused.status(), 429);
    let envelope: Value = refused.json().await.expect("JSON");
    assert_eq!(
        (&envelope["code"], &envelope["policy_label"], &envelope["retriable"]),
        (&json!("ADMISSION_REJECT"), &json!("session-turns"), &json!(false))
    );
    assert_eq!(daemon.get(&path).await.status(), 404, "the session was evicted");
    daemon.run(&turn(1)).await.rest().await;
    assert_eq!(daemon.json(&path).await["turns"], 1, "and begins anew");
    for _ in 0..2 {
        assert_eq!(daemon.http().delete(daemon.url(&path)).send().await.expect("an answer").status(), 204);
    }
    assert_eq!(daemon.get(&path).await.status(), 404);
}

/// LO-SES-01: a session that nobody uses expires.
#[tokio::test]
async fn sessions_expire() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "[sessions]\nttl_ms = 200").await;
    let task = task("Once.", 1);
    daemon.run(&task).await.rest().await;
    let path = format!("/v1/sessions/{}", task["session_id"].as_str().expect("text"));
    eventually_async("the session expires", async || (daemon.get(&path).await.status() == 404).then_some(())).await;
}
