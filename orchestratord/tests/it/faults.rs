mod matrix;

use serde_json::{Value, json};

use crate::harness::{Daemon, config, eventually_async, id, start_engine, task};

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
