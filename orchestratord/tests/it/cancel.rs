use std::time::{Duration, Instant};

use mock::process::MockEngineProcess;
use serde_json::json;

use crate::harness::{Daemon, eventually_async, id, set_faults, start_engine, stat, task, with};

/// OC-CTRL-2012, ORCH-3026, LO-SSE-08, ORCH-2003: tasks, canceled at random moments of their lives. From the acknowledgement
/// on no token is written, the stream ends with the counts so far, and the engine's slot becomes free; how fast is printed.
/// `CANCEL_ROUNDS=10000` for more of them.
#[tokio::test]
async fn cancel_is_final_every_time() {
    let rounds = std::env::var("CANCEL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(60);
    let engine = start_engine(&["--token-interval-ms", "1", "--prefill-speed", "5000", "--prefill-batch", "4"]);
    let daemon = Daemon::before(&engine, "").await;
    let (mut freed, mut tokens) = (Vec::new(), 0);
    for round in 0..rounds {
        let task = task("Run until canceled, at one moment or another.", 4000);
        let mut stream = daemon.run(&task).await;
        tokio::time::sleep(Duration::from_micros(rand::random_range(0..8000))).await;
        let begun = Instant::now();
        assert_eq!(daemon.cancel(id(&task)).await, 204);
        let sealed = daemon.follow(id(&task), None).await.rest().await;
        idle(&daemon, &engine).await;
        freed.push(begun.elapsed());
        let events = stream.rest().await;
        let last = events.last().expect("a canceled stream ends with a frame");
        assert_eq!((last.name.as_str(), &last.data["canceled"]), ("end", &json!(true)), "round {round}");
        assert_eq!(events, sealed, "round {round}: nothing was added after the acknowledgement");
        tokens += events.iter().filter(|event| event.name == "token").count();
        assert_eq!(daemon.cancel(id(&task)).await, 204, "cancel is idempotent");
        assert_eq!(daemon.look(&task).await["state"], "canceled");
    }
    daemon.no_leases().await;
    freed.sort_unstable();
    let at = |share: usize| freed[(freed.len() - 1) * share / 1000];
    println!(
        "{rounds} cancels, {tokens} tokens before them; engine idle after p50 {:?}, p99 {:?}, max {:?}",
        at(500),
        at(990),
        at(1000)
    );
}

/// Waits until the engine runs nothing.
async fn idle(daemon: &Daemon, engine: &MockEngineProcess) {
    let answer = daemon.http().get(format!("{}/mock/stats?running=0", engine.url())).send().await;
    let answer = answer.expect("the engine answers");
    assert!(answer.status().is_success());
}

/// OC-CORE-1005: a canceled waiter never reaches the engine.
#[tokio::test]
async fn a_waiting_task_is_canceled() {
    let engine = start_engine(&["--token-interval-ms", "10"]);
    let daemon = Daemon::before(&engine, "").await;
    let before = stat(&engine, "requests").await;
    let first = task("Run.", 1000);
    let mut running = daemon.run(&first).await;
    running.until("token").await;
    let waiting = task("Never run.", 5);
    let mut stream = daemon.run(&waiting).await;
    stream.until("started").await;
    assert_eq!(daemon.cancel(id(&waiting)).await, 204);
    let end = stream.until("end").await.data;
    assert_eq!((&end["canceled"], &end["tokens_out"]), (&json!(true), &json!(0)));
    assert_eq!(daemon.cancel(id(&first)).await, 204);
    daemon.no_leases().await;
    assert_eq!(stat(&engine, "requests").await, before + 1);
}

/// SSE-1003.2: a client that goes away cancels its interactive task, and the engine hears of it.
#[tokio::test]
async fn a_lost_reader_cancels() {
    let engine = start_engine(&["--token-interval-ms", "5"]);
    let daemon = Daemon::before(&engine, "").await;
    let task = task("Nobody listens.", 4000);
    let mut stream = daemon.run(&task).await;
    stream.until("token").await;
    drop(stream);
    let path = format!("/v1/tasks/{}", id(&task));
    eventually_async("the task is canceled", async || (daemon.json(&path).await["state"] == "canceled").then_some(()))
        .await;
    idle(&daemon, &engine).await;
    daemon.no_leases().await;
}

/// A reader may come back within the grace; a batch task needs none; `cancel_on_disconnect = false` keeps tasks running.
#[tokio::test]
async fn a_lost_reader_may_come_back() {
    let engine = start_engine(&["--token-interval-ms", "5"]);
    let cases = [
        ("[stream]\ndisconnect_grace_ms = 60000", "interactive"),
        ("[stream]\ncancel_on_disconnect = false", "interactive"),
        ("", "batch"),
    ];
    for (settings, priority) in cases {
        let daemon = Daemon::before(&engine, settings).await;
        let task = with(task("Come back.", 60), "priority", json!(priority));
        let mut stream = daemon.run(&task).await;
        let seen = stream.until("token").await.id;
        drop(stream);
        eventually_async("the daemon noticed", async || {
            (daemon.follow(id(&task), Some(seen)).await.until("token").await.id == seen + 1).then_some(())
        })
        .await;
        let rest = daemon.follow(id(&task), Some(seen)).await.rest().await;
        assert_eq!(rest[0].id, seen + 1);
        assert_eq!(rest[rest.len() - 1].data["tokens_out"], 60, "{settings} {priority}");
    }
}

/// DESIGN section 8: an interactive task whose stream nobody opens is canceled; a batch task is not.
#[tokio::test]
async fn an_unattended_task_is_canceled() {
    let engine = start_engine(&["--token-interval-ms", "10"]);
    let daemon =
        Daemon::before(&engine, "slots = 2\ndeterminism = \"best_effort\"\n[stream]\nattach_timeout_ms = 50").await;
    let (interactive, batch) = (task("Who reads this?", 200), with(task("Nobody.", 30), "priority", json!("batch")));
    for task in [&interactive, &batch] {
        assert_eq!(daemon.post("/v1/tasks", task).await.status(), 202);
    }
    let state = async |task| daemon.json(&format!("/v1/tasks/{}", id(task))).await["state"].clone();
    eventually_async("it is canceled", async || (state(&interactive).await == "canceled").then_some(())).await;
    eventually_async("it is completed", async || (state(&batch).await == "completed").then_some(())).await;
}

/// ORCH-3255: the idle limit ends a task whose engine has gone quiet, and frees the slot.
#[tokio::test]
async fn a_silent_engine_is_given_up() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "timeouts = { wall_ms = 60000, idle_ms = 200 }").await;
    set_faults(&engine, json!({"faults": [{"fault": {"stall": {"after_tokens": 2}}, "times": 1}]})).await;
    let error = daemon.run(&task("Go quiet.", 50)).await.until("error").await.data;
    assert_eq!((&error["code"], &error["retriable"]), (&json!("DECODE_TIMEOUT"), &json!(true)));
    daemon.no_leases().await;
    let after =
        tokio::time::timeout(Duration::from_secs(20), async { daemon.run(&task("Again.", 3)).await.rest().await });
    assert_eq!(after.await.expect("the slot is free").last().expect("frames").name, "end");
}

/// OC-CORE-1022: the wall limit and the deadline end a task that is still running.
#[tokio::test]
async fn a_task_that_takes_too_long_is_ended() {
    let engine = start_engine(&["--token-interval-ms", "10"]);
    let daemon = Daemon::before(&engine, "timeouts = { wall_ms = 150, idle_ms = 100 }").await;
    let error = daemon.run(&task("Too long.", 4000)).await.until("error").await.data;
    assert_eq!(error["code"], "DECODE_TIMEOUT");
    let short = with(task("Too late.", 4000), "deadline_ms", json!(60));
    assert_eq!(daemon.run(&short).await.until("error").await.data["code"], "DEADLINE_UNMET");
    assert_eq!(daemon.json(&format!("/v1/tasks/{}", id(&short))).await["state"], "expired");
    daemon.no_leases().await;
}
