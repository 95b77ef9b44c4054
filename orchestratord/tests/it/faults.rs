use serde_json::{Value, json};

use crate::harness::{Daemon, config, eventually_async, id, set_faults, start_engine, task};

/// SSE-1002, ORCH-3406, ORCH-3407, LO-ERR-06: whatever the engine does, the stream ends in exactly one typed frame, the slot
/// is free again and the next task runs. What hits before the first token hits twice: the task is tried once more.
#[tokio::test]
async fn every_fault_ends_typed() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(
        &engine,
        "timeouts = { wall_ms = 60000, idle_ms = 300 }\ncalls = { retries = 0, breaker_failures = 99 }",
    )
    .await;
    let cases = [
        (json!({"refuse": {"status": 500}}), "INTERNAL"),
        (json!({"refuse": {"status": 500, "body": ""}}), "INTERNAL"),
        (json!({"refuse": {"status": 400}}), "INVALID_PARAMS"),
        (json!({"refuse": {"status": 503}}), "POOL_UNAVAILABLE"),
        (json!({"refuse": {"status": 429}}), "REPLICA_EXHAUSTED"),
        (json!("hang"), "DECODE_TIMEOUT"),
        (json!("wrong_content_type"), "INTERNAL"),
        (json!({"reset": {"after_tokens": 0}}), "WORKER_RESET"),
        (json!({"reset": {"after_tokens": 3}}), "WORKER_RESET"),
        (json!({"stall": {"after_tokens": 3}}), "DECODE_TIMEOUT"),
        (json!({"half_character": {"after_tokens": 3}}), "WORKER_RESET"),
        (json!({"malformed_event": {"after_tokens": 3}}), "INTERNAL"),
        (json!({"clean_end": {"after_tokens": 3}}), "WORKER_RESET"),
        (json!({"error_event": {"after_tokens": 3}}), "INTERNAL"),
    ];
    for (fault, code) in cases {
        let is_lost = ["POOL_UNAVAILABLE", "REPLICA_EXHAUSTED"].contains(&code) || fault["reset"]["after_tokens"] == 0;
        set_faults(&engine, json!({"faults": [{"fault": fault, "times": if is_lost { 2 } else { 1 }}]})).await;
        let events = daemon.run(&task("Fail.", 50)).await.rest().await;
        let ends: Vec<_> = events.iter().filter(|event| event.name == "end" || event.name == "error").collect();
        assert_eq!(ends.len(), 1, "{fault}: {events:?}");
        let last = events.last().expect("frames");
        assert_eq!((last.name.as_str(), &last.data["code"]), ("error", &json!(code)), "{fault}: {}", last.data);
        assert_eq!(last.data["engine"], "llamacpp");
        daemon.no_leases().await;
        daemon.ready().await;
        let next = daemon.run(&task("Work.", 3)).await.rest().await;
        assert_eq!(next.last().expect("frames").name, "end", "after {fault}: {next:?}");
    }
}

/// The engine is killed in the middle of a stream: typed end, free slot, unready pool; and it comes back with the engine.
#[tokio::test]
async fn a_killed_engine_is_a_worker_reset() {
    let mut engine = start_engine(&["--token-interval-ms", "10"]);
    let daemon = Daemon::before(&engine, "").await;
    let task_before = task("Be killed.", 4000);
    let mut stream = daemon.run(&task_before).await;
    stream.until("token").await;
    engine.kill().expect("the engine can be killed");
    let error = stream.until("error").await.data;
    assert_eq!((&error["code"], &error["retriable"]), (&json!("WORKER_RESET"), &json!(false)));
    assert_eq!(stream.next().await, None);
    daemon.no_leases().await;
    eventually_async("the pool is unready", async || (daemon.get("/readyz").await.status() == 503).then_some(())).await;
    let health = daemon.json("/v1/pools/gpu0/health").await;
    assert!(health["last_error"].as_str().is_some_and(|error| error.contains("start it")), "{health}");
    let summary = daemon.json(&format!("/v1/tasks/{}", id(&task_before))).await;
    assert_eq!((&summary["state"], &summary["error"]["code"]), (&json!("failed"), &json!("WORKER_RESET")));
    let listen = engine.url().trim_start_matches("http://").to_owned();
    let _engine = start_engine(&["--listen", &listen]);
    daemon.ready().await;
    let events = daemon.run(&task("Back again.", 3)).await.rest().await;
    assert_eq!(events.last().expect("frames").name, "end");
}

/// An engine that is not there at start: the daemon is up, the pool is not, and says what to do.
#[tokio::test]
async fn a_missing_engine_does_not_keep_the_daemon_down() {
    let daemon = Daemon::start(&config("http://127.0.0.1:9", "")).await;
    assert_eq!(daemon.get("/healthz").await.status(), 200);
    let readiness = daemon.get("/readyz").await;
    assert_eq!(readiness.status(), 503);
    let readiness: Value = readiness.json().await.expect("JSON");
    assert_eq!((&readiness["pools_ready"], &readiness["pools_total"]), (&json!(0), &json!(1)));
    eventually_async("the pool says why", async || {
        let error = daemon.json("/v1/pools/gpu0/health").await["last_error"].clone();
        error.as_str().is_some_and(|error| error.contains("provisioning.external")).then_some(())
    })
    .await;
    assert_eq!(daemon.post("/v1/tasks", &task("x", 1)).await.status(), 503);
}

/// An engine on a Unix socket works like any other.
#[tokio::test]
async fn an_engine_may_listen_on_a_unix_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("engine.sock");
    let _engine = start_engine(&["--unix", socket.to_str().expect("text")]);
    let daemon = Daemon::start(&config(&format!("unix:{}", socket.display()), "")).await;
    daemon.ready().await;
    let events = daemon.run(&task("Over a socket.", 5)).await.rest().await;
    assert_eq!(events.last().expect("frames").data["tokens_out"], 5);
}
