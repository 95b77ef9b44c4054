//! Another model, or none, under running streams.

use serde_json::{Value, json};

use super::bench::{Bench, ManagedPool, ask, health, until, until_ready, until_state};
use super::history::History;
use super::model::{BLOATED_BYTES, Model};
use crate::harness::{Daemon, Stream, config, eventually_async, id, names, start_engine, task, with};

/// Streams that run while a pool is reloaded or drained.
const STREAMS: usize = 50;
/// Tokens of each.
const TOKENS: u32 = 60;

/// A pool with a slot for each stream, whose engine takes its time.
async fn fifty() -> (Bench, Daemon) {
    let pool = ManagedPool::new("wide").env("MOCK_ENGINE_TOKEN_INTERVAL_MS", 20);
    let slots = u32::try_from(STREAMS).expect("a few");
    let settings = "determinism = \"best_effort\"".to_owned();
    let bench = Bench::new(vec![ManagedPool { slots, settings, ..pool }]);
    let daemon = bench.start().await;
    until_ready(&daemon, "wide").await;
    (bench, daemon)
}

async fn streams(daemon: &Daemon, task: impl Fn() -> Value) -> Vec<Stream> {
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = daemon.run(&task()).await;
        stream.until("token").await;
        streams.push(stream);
    }
    streams
}

/// Each comes to its end with all that it was to have.
async fn all_whole(streams: Vec<Stream>) {
    for mut stream in streams {
        let events = stream.rest().await;
        let end = events.last().expect("a last frame");
        assert_eq!((end.name.as_str(), &end.data["tokens_out"]), ("end", &json!(TOKENS)), "{}", end.data);
        let tokens = events.iter().filter(|event| event.name == "token").count();
        // The first was read before.
        assert_eq!(tokens, usize::try_from(TOKENS).expect("a few") - 1, "{:?}", names(&events));
    }
}

async fn reload(daemon: &Daemon, model: &str) -> (u16, Value) {
    let answer = daemon.post("/v1/pools/wide/reload", &json!({"new_model_ref": model})).await;
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

/// Waits until the pool serves after a reload that has come to this, with an error that says so.
async fn until_reload(daemon: &Daemon, state: &str, says: &str) -> Value {
    let came_to = |health: &Value| {
        let error = health["reload"]["error"].as_str().unwrap_or_default();
        health["reload"]["state"] == state && error.contains(says) && health["ready"] == true
    };
    until(daemon, "wide", &format!("ready, its reload {state}: {says}"), came_to).await
}

/// ORCH-3031.2, ORCH-3038.1, LO-POOL-01, OC-CTRL-2003, ORCH-2102: a reload under fifty running streams breaks none of them, also when
/// it fails and the old model has to be brought back.
#[tokio::test]
async fn a_reload_breaks_no_stream() {
    let (bench, daemon) = fifty().await;
    let history = History::open(&daemon).await;
    let (old, new) = (bench.model_ref("wide"), bench.other_model("wide", "new.gguf", Model::Tiny));
    let of = |model: &str| with(bench.task("wide", TOKENS), "model_ref", json!(model));

    let running = streams(&daemon, || of(&old)).await;
    assert_eq!(reload(&daemon, &new).await, (202, json!({"status": "started"})));
    let (status, refusal) = reload(&daemon, &new).await;
    assert_eq!((status, &refusal["code"]), (409, &json!("CONFLICT")), "{refusal}");
    for what in ["drain", "stop"] {
        let answer = daemon.post(&format!("/v1/pools/wide/{what}"), &json!({"deadline_ms": 1})).await;
        assert_eq!(answer.status(), 409, "{what}: {:#}", health(&daemon, "wide").await);
    }
    all_whole(running).await;
    let done = until_reload(&daemon, "done", "").await;
    assert_eq!((&done["reload"]["old_model_ref"], &done["reload"]["new_model_ref"]), (&json!(old), &json!(new)));
    assert_eq!(daemon.metric("drain_events_total{pool_id=\"wide\",reason=\"reload\"}").await, 1.0);
    assert_eq!(daemon.metric("pool_ready{pool_id=\"wide\"}").await, 1.0);
    daemon.run(&of(&new)).await.until("end").await;
    let (status, refusal) = daemon.refusal(&of(&old)).await;
    assert_eq!((status, &refusal["code"]), (400, &json!("INVALID_PARAMS")), "{refusal}");
    assert!(refusal["message"].as_str().is_some_and(|message| message.contains("no pool serves model")), "{refusal}");

    // What cannot be a model never costs the one that serves anything.
    let pid = health(&daemon, "wide").await["pid"].clone();
    let running = streams(&daemon, || of(&new)).await;
    for (bad, says) in
        [(Model::Text, "no GGUF"), (Model::Huge, "MiB of GPU memory"), (Model::Missing, "does not exist")]
    {
        let bad = bench.other_model("wide", "bad.gguf", bad);
        assert_eq!(reload(&daemon, &bad).await.0, 202);
        let back = until_reload(&daemon, "rolled_back", says).await;
        assert_eq!((&back["ready"], &back["state"], &back["pid"]), (&json!(true), &json!("ready"), &pid), "{back:#}");
        assert!(back["last_error"].is_null(), "the pool itself is well: {back:#}");
    }
    all_whole(running).await;

    // An engine that cannot load it costs its start, and the old model comes back.
    let gpu = bench.gpus.state().expect("the state").devices[0].uuid.clone();
    let free = fake_nvml::claims::free_in(&bench.gpus.state_path(), &gpu).expect("a GPU");
    let _stranger = bench.gpus.claim(&[(gpu, free - BLOATED_BYTES / 2)]).expect("there is as much");
    let running = streams(&daemon, || of(&new)).await;
    let mark = history.now();
    assert_eq!(reload(&daemon, &bench.other_model("wide", "bloated.gguf", Model::Bloated)).await.0, 202);
    all_whole(running).await;
    let back = until_reload(&daemon, "rolled_back", "has not the").await;
    assert_ne!(back["pid"], pid, "the engine was started anew");
    assert_eq!(back["restarts"], 0, "nobody had to wait for the old model");
    let told = history.since(mark, "wide");
    let states: Vec<_> = told.iter().filter_map(|health| health["state"].as_str()).collect();
    assert!(!states.contains(&"backing_off") && !states.contains(&"failed"), "{states:?}");
    daemon.run(&of(&new)).await.until("end").await;
    assert!(daemon.log().contains("pool wide stays with"), "the log tells of it");
}

/// ORCH-3505, OC-CTRL-2002, ORCH-2101, LO-POOL-07: a drain takes no new task, lets what runs come to its end, ends what is left at its
/// deadline with an error that may be tried again, and a start opens the pool again.
#[tokio::test]
async fn a_drain_ends_what_is_left_at_its_deadline() {
    let (bench, daemon) = fifty().await;
    let forever = || bench.task("wide", 400);
    let running = streams(&daemon, forever).await;
    let pid = health(&daemon, "wide").await["pid"].clone();
    ask(&daemon, "wide", "drain", json!({"deadline_ms": 600_000})).await;
    let draining = until_state(&daemon, "wide", "draining").await;
    assert_eq!((&draining["draining"], &draining["ready"]), (&json!(true), &json!(false)), "{draining:#}");
    assert_eq!(daemon.metric("pool_ready{pool_id=\"wide\"}").await, 0.0);
    let (status, refusal) = daemon.refusal(&bench.task("wide", 1)).await;
    assert_eq!(
        (status, &refusal["code"], &refusal["retriable"]),
        (503, &json!("POOL_UNREADY"), &json!(true)),
        "{refusal}"
    );
    // The newest wish counts.
    ask(&daemon, "wide", "drain", json!({"deadline_ms": 0})).await;
    for mut stream in running {
        let events = stream.rest().await;
        let last = events.last().expect("a last frame");
        assert_eq!((last.name.as_str(), &last.data["code"]), ("error", &json!("POOL_UNREADY")), "{}", last.data);
        assert_eq!(last.data["retriable"], true, "{}", last.data);
    }
    assert_eq!(daemon.metric("drain_events_total{pool_id=\"wide\",reason=\"drain\"}").await, 1.0);
    ask(&daemon, "wide", "start", json!({})).await;
    let open = until_ready(&daemon, "wide").await;
    assert_eq!(open["pid"], pid, "the engine was up all the time");
    daemon.run(&bench.task("wide", 2)).await.until("end").await;

    // A drain in peace: what runs comes to its end.
    let running = streams(&daemon, || bench.task("wide", TOKENS)).await;
    ask(&daemon, "wide", "drain", json!({"deadline_ms": 600_000})).await;
    all_whole(running).await;
    ask(&daemon, "wide", "stop", json!({})).await;
    let stopped = until_state(&daemon, "wide", "stopped").await;
    assert!(stopped["last_error"].is_null(), "{stopped:#}");
    assert_eq!(
        (&stopped["live"], &stopped["draining"]),
        (&json!(false), &json!(false)),
        "nothing is there: {stopped:#}"
    );
    bench.nothing_left_of("wide").await;
    let answer = daemon.post("/v1/pools/wide/drain", &json!({"deadline_ms": 1})).await;
    assert_eq!(answer.status(), 409, "there is nothing to drain");
}

/// OC-CTRL-2002, ORCH-3505: a pool of somebody else's engine can be drained and opened again, too.
#[tokio::test]
async fn an_external_pool_is_drained() {
    let engine = start_engine(&["--token-interval-ms", "20", "--slots", "2"]);
    let daemon = Daemon::start(&config(engine.url(), "slots = 2\ndeterminism = \"best_effort\"")).await;
    daemon.ready().await;
    let mut short = daemon.occupy(&task("Say something.", TOKENS)).await;
    let endless = task("Say more.", 4000);
    let mut long = daemon.occupy(&endless).await;
    ask(&daemon, "gpu0", "drain", json!({"deadline_ms": 600_000})).await;
    let health = health(&daemon, "gpu0").await;
    assert_eq!((&health["draining"], &health["ready"]), (&json!(true), &json!(false)), "{health:#}");
    let (status, refusal) = daemon.refusal(&task("x", 1)).await;
    assert_eq!((status, &refusal["code"]), (503, &json!("POOL_UNREADY")), "{refusal}");
    assert_eq!(short.rest().await.last().expect("a last frame").name, "end");
    ask(&daemon, "gpu0", "drain", json!({"deadline_ms": 0})).await;
    let last = long.rest().await.pop().expect("a last frame");
    assert_eq!((last.name.as_str(), &last.data["code"]), ("error", &json!("POOL_UNREADY")), "{}", last.data);
    daemon.until(&endless, "failed").await;
    ask(&daemon, "gpu0", "start", json!({})).await;
    daemon.ready().await;
    let again = task("x", 2);
    daemon.run(&again).await.until("end").await;
    eventually_async("it is told", async || (daemon.look(&again).await["state"] == "completed").then_some(())).await;
    assert_ne!(id(&again), id(&endless));
}
