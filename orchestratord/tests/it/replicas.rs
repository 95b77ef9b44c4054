use mock::process::MockEngineProcess;
use serde_json::{Value, json};

use crate::harness::{
    Daemon, batch, config_of, eventually_async, id, names, pool, set_faults, start_engine, stat, task, with,
};
use crate::relay::Relay;

const SLOW: &[&str] = &["--token-interval-ms", "20"];

/// One pool `gpu0` with these engines; `settings` are further lines of its section or further sections.
async fn one_pool(urls: &[&str], settings: &str) -> Daemon {
    let daemon = Daemon::start(&config_of(&[pool("gpu0", urls, settings)])).await;
    daemon.all_ready().await;
    daemon
}

/// Waits until so many replicas of the pool take tasks.
async fn usable(daemon: &Daemon, count: usize) {
    eventually_async(&format!("{count} replicas are usable"), async || {
        let health = daemon.json("/v1/pools/gpu0/health").await;
        let replicas = health["metrics"]["replicas"].as_object()?;
        (replicas.values().filter(|replica| replica["ready"] == true).count() == count).then_some(())
    })
    .await;
}

/// Submits a task that its engine takes and never answers, and waits until it has come that far.
async fn hung(daemon: &Daemon, engine: &MockEngineProcess, task: &Value) -> crate::harness::Stream {
    set_faults(engine, json!({"faults": [{"fault": {"stall": {"after_tokens": 0}}, "times": 1}]})).await;
    let stream = daemon.run(task).await;
    eventually_async("the engine has it", async || (stat(engine, "running").await == 1).then_some(())).await;
    stream
}

/// HME-012, FR-PF-001, ORCH-3012: a pool runs as many tasks as its replicas have slots, says so, and spreads them.
#[tokio::test]
async fn replicas_share_the_tasks_of_their_pool() {
    let engines = [start_engine(SLOW), start_engine(SLOW)];
    let daemon = one_pool(&[engines[0].url(), engines[1].url()], "").await;
    usable(&daemon, 2).await;
    assert_eq!(daemon.json("/v1/capabilities").await["engines"][0]["concurrency"], 2);
    let running = [task("Run.", 500), task("Run.", 500)];
    let _streams = [daemon.occupy(&running[0]).await, daemon.occupy(&running[1]).await];
    for (task, replica) in running.iter().zip(["r0", "r1"]) {
        assert_eq!(daemon.look(task).await["replica_id"], replica);
    }
    let health = daemon.json("/v1/pools/gpu0/health").await;
    let busy = json!({"ready": true, "active_leases": 1});
    assert_eq!(health["metrics"]["replicas"], json!({"r0": busy, "r1": busy}));
    let next = task("Next.", 1);
    assert_eq!(daemon.accepted(&next).await["queue_position"], 0);
    assert_eq!(daemon.cancel(id(&running[1])).await, 204);
    assert_eq!(daemon.until(&next, "completed").await["replica_id"], "r1");
}

/// DESIGN section 8, ORCH-3023, ORCH-3009: a replica that is killed before a task's first token loses the task to another one,
/// and all that its client sees is that nothing was warm; the session's budget begins anew, and the pool goes on.
#[tokio::test]
async fn a_pool_survives_a_replica() {
    let mut engines = [start_engine(SLOW), start_engine(SLOW)];
    let settings = "[stream]\nmetrics_interval_ms = 1\n[sessions]\ntokens_budget = 100";
    let daemon = one_pool(&[engines[0].url(), engines[1].url()], settings).await;
    usable(&daemon, 2).await;
    let first = task("First turn.", 5);
    daemon.run(&first).await.rest().await;
    let second = with(task("Second turn.", 3), "session_id", first["session_id"].clone());
    let mut stream = hung(&daemon, &engines[0], &second).await;
    engines[0].kill().expect("the engine can be killed");
    let events = stream.rest().await;
    assert_eq!(names(&events), ["started", "token", "token", "token", "end"], "{events:?}");
    let frames: Vec<_> = events.iter().filter(|event| event.name == "metrics").map(|event| &event.data).collect();
    assert!(!frames.is_empty());
    for frame in frames {
        assert_eq!((&frame["kv_warmth"], &frame["kv_migrated"]), (&json!(false), &json!(false)), "{frame}");
    }
    let seen = daemon.look(&second).await;
    assert_eq!(
        (&seen["replica_id"], &seen["attempts"], &seen["moves"]),
        (&json!("r1"), &json!(2), &Value::Null),
        "{seen}"
    );
    let session = daemon.json(&format!("/v1/sessions/{}", first["session_id"].as_str().expect("text"))).await;
    assert_eq!(session["tokens_budget_remaining"], 97, "the first turn's 5 tokens are forgotten");
    usable(&daemon, 1).await;
    let health = daemon.json("/v1/pools/gpu0/health").await;
    assert_eq!((&health["ready"], &health["metrics"]["slots_total"]), (&json!(true), &json!(1)), "{health}");
    assert!(health["last_error"].as_str().is_some_and(|error| error.contains("replica r0")), "{health}");
    let next = task("Go on.", 1);
    daemon.run(&next).await.rest().await;
    assert_eq!(daemon.look(&next).await["replica_id"], "r1");
    let listen = engines[0].url().trim_start_matches("http://").to_owned();
    let _back = start_engine(&["--listen", &listen]);
    usable(&daemon, 2).await;
}

/// DESIGN section 8, LO-ERR-06: without another replica the task goes to another pool, and its record says so. A second loss
/// is the end of it.
#[tokio::test]
async fn a_lost_task_is_tried_once_elsewhere() {
    let mut engines = [start_engine(SLOW), start_engine(SLOW)];
    let pools = [pool("gpu0", &[engines[0].url()], ""), pool("gpu1", &[engines[1].url()], "")];
    let daemon = Daemon::start(&config_of(&pools)).await;
    daemon.all_ready().await;
    let unlucky = task("Be lost.", 3);
    let mut stream = hung(&daemon, &engines[0], &unlucky).await;
    set_faults(&engines[1], json!({"faults": [{"fault": {"stall": {"after_tokens": 0}}, "times": 1}]})).await;
    engines[0].kill().expect("the engine can be killed");
    eventually_async("the other engine has it", async || (stat(&engines[1], "running").await == 1).then_some(())).await;
    let seen = daemon.look(&unlucky).await;
    assert_eq!((&seen["pool_id"], &seen["attempts"]), (&json!("gpu1"), &json!(2)));
    let step = &seen["moves"][0];
    assert_eq!((&step["from"], &step["to"], &step["reason"]), (&json!("gpu0"), &json!("gpu1"), &json!("worker_lost")));
    engines[1].kill().expect("the engine can be killed");
    let error = stream.until("error").await.data;
    assert_eq!((&error["code"], &error["retriable"]), (&json!("WORKER_RESET"), &json!(false)));
    let seen = daemon.look(&unlucky).await;
    assert_eq!((&seen["state"], &seen["attempts"]), (&json!("failed"), &json!(2)));
    assert!(seen["dispatched_at_ms"].is_i64(), "it was handed to an engine: {seen}");
}

/// ORCH-3046: a replica with another engine version than the set's gets no task, and the pool's health says why; it steps in
/// when it is the only one left, or from the start where the operator does not mind.
#[tokio::test]
async fn an_odd_version_is_left_alone() {
    for (settings, count) in [("", 1), ("require_same_engine_version = false", 2)] {
        let (mut plain, odd) = (start_engine(SLOW), start_engine(SLOW));
        let relay = Relay::disguising(&odd).await;
        let daemon = one_pool(&[plain.url(), relay.url()], settings).await;
        eventually_async("the other one is found", async || {
            let log = daemon.log();
            (log.contains("b0-mock") && log.contains("b1-mock")).then_some(())
        })
        .await;
        usable(&daemon, count).await;
        let health = daemon.json("/v1/pools/gpu0/health").await;
        assert_eq!(health["metrics"]["slots_total"], count, "{health}");
        let complaint = health["last_error"].as_str();
        assert_eq!(
            complaint.is_some_and(|error| error.contains("r1 runs another engine version")),
            count == 1,
            "{health}"
        );
        let running = task("Run.", 500);
        let _stream = daemon.occupy(&running).await;
        let second = batch("Second.", 1);
        daemon.accepted(&second).await;
        if count == 1 {
            assert_eq!(daemon.look(&second).await["state"], "queued");
            plain.kill().expect("the engine can be killed");
        }
        assert_eq!(daemon.until(&second, "completed").await["replica_id"], "r1");
    }
}
