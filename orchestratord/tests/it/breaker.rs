use serde_json::{Value, json};

use crate::harness::{
    Daemon, config, config_of, eventually_async, id, names, pool, set_faults, start_engine, stat, task,
};

/// A pool whose breaker opens after two failures, and stays open until the test is over or for a moment.
const LONG: &str = "calls = { breaker_failures = 2, breaker_cool_down_ms = 600000 }";
const SHORT: &str = "calls = { breaker_failures = 2, breaker_cool_down_ms = 300 }";

fn refuse(status: u16) -> Value {
    json!({"faults": [{"fault": {"refuse": {"status": status}}}]})
}

async fn error_of(daemon: &Daemon, prompt: &str) -> Value {
    daemon.run(&task(prompt, 3)).await.until("error").await.data["code"].clone()
}

async fn last_error(daemon: &Daemon) -> String {
    daemon.json("/v1/pools/gpu0/health").await["last_error"].as_str().unwrap_or_default().to_owned()
}

/// ORCH-3602, LO-HOST-02: an engine that is well and fails its tasks gets none any more; the other replica serves meanwhile, and
/// health, log and metrics say why.
#[tokio::test]
async fn a_failing_replica_is_left_alone() {
    let engines = [start_engine(&[]), start_engine(&[])];
    let daemon = Daemon::start(&config_of(&[pool("gpu0", &[engines[0].url(), engines[1].url()], LONG)])).await;
    daemon.all_ready().await;
    eventually_async("both are ready", async || {
        (daemon.json("/v1/capabilities").await["engines"][0]["concurrency"] == 2).then_some(())
    })
    .await;
    set_faults(&engines[0], json!({"faults": [{"fault": {"reset": {"after_tokens": 1}}}]})).await;
    for _ in 0..2 {
        assert_eq!(error_of(&daemon, "Fail.").await, "WORKER_RESET");
        eventually_async("the engine is probed", async || {
            let replicas = daemon.json("/v1/pools/gpu0/health").await["metrics"]["replicas"].clone();
            (replicas["r0"]["ready"] == true || last_error(&daemon).await.contains("breaker")).then_some(())
        })
        .await;
    }
    let asked = stat(&engines[0], "requests").await;
    for _ in 0..3 {
        let work = task("Work.", 3);
        assert_eq!(daemon.run(&work).await.rest().await.last().expect("frames").name, "end");
        assert_eq!(daemon.look(&work).await["replica_id"], "r1");
    }
    assert_eq!(stat(&engines[0], "requests").await, asked, "nothing reached it");
    let error = last_error(&daemon).await;
    assert!(error.contains("replica r0: the breaker is open") && error.contains("lost"), "{error}");
    assert!(daemon.log().contains("breaker_open"));
    let labels = r#"{engine="llamacpp",pool_id="gpu0",replica_id="r0"}"#;
    assert_eq!(daemon.metric(&format!("adapter_breaker_trips_total{labels}")).await, 1.0);
    assert_eq!(daemon.metric(&format!("adapter_breaker_state{labels}")).await, 2.0);
    assert_eq!(daemon.metric("adapter_breaker_state").await, 2.0, "the other one is closed");
}

/// ORCH-3602: after the cool-down one task tries the engine, although there are more slots; when it works the others follow.
#[tokio::test]
async fn one_task_tries_the_engine() {
    let engine = start_engine(&["--slots", "3", "--token-interval-ms", "5"]);
    let daemon = Daemon::before(&engine, &format!("slots = 3\n{SHORT}")).await;
    set_faults(&engine, refuse(500)).await;
    for _ in 0..2 {
        assert_eq!(error_of(&daemon, "Fail.").await, "INTERNAL");
    }
    assert!(last_error(&daemon).await.contains("breaker"));
    // The trial hangs before its first token.
    set_faults(&engine, json!({"faults": [{"fault": {"stall": {"after_tokens": 0}}, "times": 1}]})).await;
    daemon.ready().await;
    let waiting: Vec<_> = (0..4).map(|_| task("Wait.", 3)).collect();
    let mut streams = Vec::new();
    for task in &waiting {
        streams.push(daemon.run(task).await);
    }
    eventually_async("the trial runs", async || (stat(&engine, "running").await == 1).then_some(())).await;
    for waits in &waiting[1..] {
        assert_eq!(daemon.look(waits).await["state"], "queued");
    }
    let labels = r#"{engine="llamacpp",pool_id="gpu0",replica_id="r0"}"#;
    assert_eq!(daemon.metric(&format!("adapter_breaker_state{labels}")).await, 1.0);
    assert_eq!(daemon.cancel(id(&waiting[0])).await, 204);
    for stream in &mut streams[1..] {
        assert_eq!(stream.rest().await.last().expect("frames").name, "end", "the next trial works");
    }
    assert_eq!(daemon.metric(&format!("adapter_breaker_state{labels}")).await, 0.0);
    let health = daemon.json("/v1/pools/gpu0/health").await;
    assert_eq!((&health["metrics"]["slots_total"], &health["last_error"]), (&json!(3), &Value::Null), "{health}");
}

/// ORCH-3602: silence is a failure too.
#[tokio::test]
async fn a_silent_engine_is_left_alone() {
    let engine = start_engine(&[]);
    let settings = format!("timeouts = {{ wall_ms = 60000, idle_ms = 100 }}\n{LONG}");
    let daemon = Daemon::before(&engine, &settings).await;
    set_faults(&engine, json!({"faults": [{"fault": "hang", "times": 1}, {"fault": {"stall": {"after_tokens": 0}}}]}))
        .await;
    for _ in 0..2 {
        assert_eq!(error_of(&daemon, "Be silent.").await, "DECODE_TIMEOUT");
    }
    assert!(last_error(&daemon).await.contains("breaker"));
    assert_eq!(daemon.refusal(&task("Work.", 1)).await.0, 503);
}

/// ORCH-3602, ADAPT-3005, LO-HOST-02: what passes before the first token is repeated, and the client sees nothing of it.
#[tokio::test]
async fn a_passing_failure_is_not_seen() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    for status in [503, 429] {
        set_faults(&engine, json!({"faults": [{"fault": {"refuse": {"status": status}}, "times": 2}]})).await;
        let passing = task("Pass.", 3);
        let events = daemon.run(&passing).await.rest().await;
        assert_eq!(names(&events), ["started", "token", "token", "token", "end"], "{events:?}");
        assert_eq!(daemon.look(&passing).await["attempts"], 1);
    }
    assert_eq!(daemon.metric("adapter_retries_total").await, 4.0);
}

/// ADAPT-3005: nothing is repeated once a token was seen.
#[tokio::test]
async fn a_stream_is_never_repeated() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    let before = stat(&engine, "requests").await;
    set_faults(&engine, json!({"faults": [{"fault": {"reset": {"after_tokens": 2}}, "times": 1}]})).await;
    let broken = task("Break.", 9);
    let events = daemon.run(&broken).await.rest().await;
    assert_eq!(names(&events), ["started", "token", "token", "error"]);
    assert_eq!((stat(&engine, "requests").await, &daemon.look(&broken).await["attempts"]), (before + 1, &json!(1)));
}

/// DESIGN section 8: with another engine at hand nothing is repeated on the failing one, and an engine's own error is tried
/// elsewhere as a lost worker is.
#[tokio::test]
async fn another_engine_comes_first() {
    for fault in [503, 500] {
        let engines = [start_engine(&[]), start_engine(&[])];
        let pools = [pool("gpu0", &[engines[0].url()], ""), pool("gpu1", &[engines[1].url()], "")];
        let daemon = Daemon::start(&config_of(&pools)).await;
        daemon.all_ready().await;
        let before = stat(&engines[0], "requests").await;
        set_faults(&engines[0], refuse(fault)).await;
        let moved = task("Move.", 2);
        let events = daemon.run(&moved).await.rest().await;
        assert_eq!(names(&events), ["started", "token", "token", "end"], "{fault}: {events:?}");
        let seen = daemon.look(&moved).await;
        assert_eq!((&seen["pool_id"], &seen["attempts"]), (&json!("gpu1"), &json!(2)), "{fault}");
        assert_eq!(stat(&engines[0], "requests").await, before + 1, "{fault}");
        assert_eq!(daemon.metric("adapter_retries_total").await, 0.0);
    }
}

/// ORCH-3601, OC-CTRL-2012: the slot of a task that was canceled in the middle of its prompt stays busy until the engine has
/// noticed; the client does not wait for that.
#[tokio::test]
async fn a_slot_is_free_when_the_engine_is_idle() {
    let engine = start_engine(&["--prefill-speed", "20", "--prefill-batch", "4096"]);
    let daemon = Daemon::before(&engine, "").await;
    let canceled = task(&"one two three four five six seven eight nine ten ".repeat(4), 3);
    let mut stream = daemon.run(&canceled).await;
    eventually_async("it runs", async || (stat(&engine, "running").await == 1).then_some(())).await;
    let next = task("Next.", 1);
    let mut waiting = daemon.run(&next).await;
    assert_eq!(daemon.cancel(id(&canceled)).await, 204);
    assert_eq!(stream.until("end").await.data["canceled"], true);
    let health = daemon.json("/v1/pools/gpu0/health").await["metrics"].clone();
    assert_eq!((&health["settling"], &health["active_leases"]), (&json!(1), &json!(1)), "{health}");
    assert_eq!((stat(&engine, "running").await, stat(&engine, "deferred").await), (1, 0));
    assert_eq!(waiting.rest().await.last().expect("frames").name, "end");
    assert_eq!(stat(&engine, "cancelled").await, 1);
    daemon.no_leases().await;
    assert_eq!(daemon.json("/v1/pools/gpu0/health").await["metrics"]["settling"], 0);
}

/// ORCH-3603: nobody waits for an engine that does not answer, and its pool is not called ready for long.
#[tokio::test]
async fn a_hung_engine_keeps_nobody_waiting() {
    let engine = start_engine(&[]);
    let daemon = Daemon::start(&config(engine.url(), "")).await;
    daemon.ready().await;
    let hang = |on: &str| json!({"fault": "hang", "on": on});
    set_faults(&engine, json!({"faults": [hang("health"), hang("props"), hang("slots")]})).await;
    eventually_async("it is not ready", async || {
        (daemon.json("/v1/capabilities").await["engines"][0]["ready"] == false).then_some(())
    })
    .await;
    let pool = &daemon.json("/v1/capabilities").await["engines"][0];
    assert_eq!((&pool["engine_version"], &pool["slots_total"]), (&json!("llama.cpp b0-mock"), &json!(1)), "{pool}");
    assert_eq!(daemon.refusal(&task("x", 1)).await.0, 503);
}
