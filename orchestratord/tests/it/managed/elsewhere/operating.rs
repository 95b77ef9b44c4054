//! What operators want of a pool reaches the host that runs it.

use std::time::Duration;

use serde_json::json;

use super::super::bench::{ManagedPool, ask, health, until, until_ready, until_state};
use super::super::model::Model;
use super::house::{Host, House, of_worker, pool_on};
use crate::harness::eventually_async;

fn slow(worker: &str, id: &str) -> ManagedPool {
    pool_on(worker, id).env("MOCK_ENGINE_TOKEN_INTERVAL_MS", 20)
}

/// LO-HST-05, ORCH-3505: a stop lets a task come to its end that only the orchestrator knows of, ends the engine after it, and a start
/// brings it back.
#[tokio::test]
async fn a_stop_waits_for_the_tasks_of_the_orchestrator() {
    let house = House::up(vec![Host::new("box2", vec![slow("box2", "far")])]).await;
    let (daemon, bench) = (&house.daemon, &house.hosts[0].bench);
    let pid = health(daemon, "far").await["pid"].clone();
    let mut stream = daemon.occupy(&bench.task("far", 100)).await;
    ask(daemon, "far", "stop", json!({"deadline_ms": 600_000})).await;
    let draining = until_state(daemon, "far", "draining").await;
    assert_eq!((&draining["draining"], &draining["pid"]), (&json!(true), &pid), "{draining:#}");
    let (status, refusal) = daemon.refusal(&bench.task("far", 1)).await;
    assert_eq!((status, &refusal["code"]), (503, &json!("POOL_UNREADY")), "{refusal}");
    assert_eq!(stream.rest().await.last().expect("a last frame").name, "end");
    until_state(daemon, "far", "stopped").await;
    bench.nothing_left_of("far").await;
    ask(daemon, "far", "start", json!({})).await;
    until_ready(daemon, "far").await;
    daemon.run(&bench.task("far", 2)).await.until("end").await;
    // At its deadline a drain ends what is left, and the engine stays.
    let mut endless = daemon.occupy(&bench.task("far", 400)).await;
    ask(daemon, "far", "drain", json!({"deadline_ms": 100})).await;
    let last = endless.rest().await.pop().expect("a last frame");
    assert_eq!((last.name.as_str(), &last.data["code"]), ("error", &json!("POOL_UNREADY")), "{}", last.data);
    ask(daemon, "far", "start", json!({})).await;
    until_ready(daemon, "far").await;
    daemon.run(&bench.task("far", 2)).await.until("end").await;
}

/// LO-HST-05, OC-CTRL-2003: a reload under a running task; one that fails brings the old model back.
#[tokio::test]
async fn a_reload_reaches_the_host() {
    let house = House::up(vec![Host::new("box2", vec![slow("box2", "far")])]).await;
    let (daemon, bench) = (&house.daemon, &house.hosts[0].bench);
    let new = bench.other_model("far", "other.gguf", Model::Tiny);
    let mut stream = daemon.occupy(&bench.task("far", 60)).await;
    ask(daemon, "far", "reload", json!({"new_model_ref": new})).await;
    let answer = daemon.post("/v1/pools/far/reload", &json!({"new_model_ref": new})).await;
    assert_eq!(answer.status(), 409, "one at a time");
    assert_eq!(stream.rest().await.last().expect("a last frame").name, "end");
    until(daemon, "far", "reloaded", |health| health["reload"]["state"] == "done" && health["ready"] == true).await;
    let pools = daemon.json("/v1/pools").await;
    assert_eq!(pools["pools"][0]["model"], json!(new));
    let bad = bench.other_model("far", "bad.gguf", Model::Truncated);
    ask(daemon, "far", "reload", json!({"new_model_ref": bad})).await;
    let back = until(daemon, "far", "rolled back", |health| health["reload"]["state"] == "rolled_back").await;
    assert!(back["reload"]["error"].as_str().is_some_and(|error| error.contains("bad.gguf")), "{back:#}");
    until_ready(daemon, "far").await;
    // Nobody may have any file of that host read by naming it.
    ask(daemon, "far", "reload", json!({"new_model_ref": "file:/etc/hostname"})).await;
    let denied = until(daemon, "far", "denied", |health| {
        health["reload"]["error"].as_str().is_some_and(|error| error.contains("models_dir"))
    });
    denied.await;
}

/// LO-HST-05: what an engine writes on its host is read here, also as it comes; and what preparing it takes.
#[tokio::test]
async fn logs_and_plans_come_from_the_host() {
    let house = House::up(vec![Host::new("box2", vec![pool_on("box2", "far")])]).await;
    let (daemon, bench) = (&house.daemon, &house.hosts[0].bench);
    let text = daemon.get("/v1/pools/far/logs?lines=1000").await.text().await.expect("text");
    assert!(text.contains("model"), "{text}");
    let mut follow = daemon.get("/v1/pools/far/logs?lines=0&follow=true").await;
    ask(daemon, "far", "stop", json!({})).await;
    let line = tokio::time::timeout(Duration::from_secs(20), follow.chunk()).await.expect("a line comes");
    assert!(line.expect("the log goes on").is_some_and(|line| line.ends_with(b"\n")));
    drop(follow);
    let plan = daemon.json("/v1/pools/far/plan").await;
    assert!(plan["steps"].as_array().is_some_and(|steps| !steps.is_empty()), "{plan:#}");
    bench.nothing_left_of("far").await;
}

/// LO-HST-02: an engine that dies there is started again there, and its task tried again.
#[tokio::test]
async fn an_engine_that_dies_comes_back() {
    let house = House::up(vec![Host::new("box2", vec![slow("box2", "far")])]).await;
    let (daemon, bench) = (&house.daemon, &house.hosts[0].bench);
    let pid = health(daemon, "far").await["pid"].as_i64().expect("a process");
    let mut stream = daemon.occupy(&bench.task("far", 400)).await;
    super::super::bench::signal(pid, "-KILL");
    let last = stream.rest().await.pop().expect("a last frame");
    assert_eq!((last.name.as_str(), &last.data["code"]), ("error", &json!("WORKER_RESET")), "{}", last.data);
    let back = until(daemon, "far", "back", |health| health["ready"] == true && health["pid"] != json!(pid)).await;
    assert_eq!(back["restarts"], 1, "{back:#}");
    let task = bench.task("far", 2);
    daemon.run(&task).await.until("end").await;
    eventually_async("it is told", async || (daemon.look(&task).await["state"] == "completed").then_some(())).await;
}

/// LO-HST-02: a pool that is loaded when a task asks for it is loaded there, and makes room there for another one.
#[tokio::test]
async fn pools_are_loaded_there_when_tasks_ask_for_them() {
    let on_demand = |id: &str| {
        // Both do not fit.
        let pool = ManagedPool { model: Model::Large, ..ManagedPool::new(id) };
        let settings = format!("{}activation = \"on_demand\"\n", pool.settings);
        of_worker("box2", ManagedPool { settings, ..pool })
    };
    let mut house = House::without_workers(vec![Host::new("box2", vec![on_demand("one"), on_demand("two")])], "").await;
    let url = house.daemon.url("");
    house.hosts[0].start(&url).await;
    let (daemon, bench) = (&house.daemon, &house.hosts[0].bench);
    for id in ["one", "two"] {
        until_state(daemon, id, "cold").await;
    }
    for id in ["one", "two", "one"] {
        let task = bench.task(id, 2);
        daemon.run(&task).await.until("end").await;
        assert_eq!(daemon.until(&task, "completed").await["pool_id"], id);
    }
}
