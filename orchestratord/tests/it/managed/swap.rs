//! More models than memory: loaded when a task asks, and out of each other's way.

use serde_json::{Value, json};

use super::bench::{Bench, ManagedPool, ask, health, until, until_ready, until_state};
use super::model::Model;
use crate::harness::{Daemon, Event, eventually_async, id, names, with};

mod fetched;
mod sessions;
mod thousand;

/// MiB that an engine takes for a model whose header says so many layers, and what is foretold of it: see [`Model::Layers`].
const fn takes_mb(layers: u32) -> u64 {
    16 * layers as u64 + 540
}

/// A pool that is loaded when a task asks for it, on the first GPU, for which the engine takes so many GiB.
fn on_demand(id: &str, gib: u32) -> ManagedPool {
    let layers = gib * 64;
    ManagedPool {
        settings: "activation = \"on_demand\"\n".to_owned(),
        model: Model::Layers(layers),
        ..ManagedPool::new(id).env("MOCK_ENGINE_VRAM_MB", takes_mb(layers))
    }
}

/// Runs a task to its end: all events.
async fn run(daemon: &Daemon, task: &Value) -> Vec<Event> {
    let mut stream = daemon.run(task).await;
    stream.rest().await
}

fn is_whole(events: &[Event]) {
    let last = events.last().expect("a last frame");
    assert_eq!((last.name.as_str(), &last.data["canceled"]), ("end", &Value::Null), "{}", last.data);
}

async fn nothing_was_refused(bench: &Bench) {
    let refused = bench.gpus.refused();
    assert!(refused.is_empty(), "memory was over-committed: {refused:?}");
}

/// LO-SWP-01, LO-SWP-03, LO-SWP-05: a task for a model that is not loaded is admitted with a prediction that includes the load, hears
/// of it, and runs; another model makes room for it, and comes back the same way, as long as it was measured to take.
#[tokio::test]
async fn a_task_has_its_model_loaded() {
    let load = |id: &str| on_demand(id, 14).env("MOCK_ENGINE_LOAD_MS", 600);
    let bench = Bench::new(vec![load("a"), load("b")]);
    let daemon = bench.start().await;
    for pool in ["a", "b"] {
        until_state(&daemon, pool, "cold").await;
    }
    assert_eq!(daemon.get("/readyz").await.status(), 200, "tasks are taken");
    let mut stream = daemon.run(&bench.task("a", 8)).await;
    let started = stream.until("started").await;
    let predicted = started.data["predicted_start_ms"].as_u64().expect("a number");
    assert!(predicted >= 1_000, "a load takes a while: {predicted}");
    let events = stream.rest().await;
    is_whole(&events);
    let loading = events.iter().filter(|event| event.name == "metrics" && event.data["phase"] == "loading");
    assert!(loading.count() > 0, "{:?}", names(&events));
    until_ready(&daemon, "a").await;
    // There and back again: both models do not fit.
    for (asked, other) in [("b", "a"), ("a", "b"), ("b", "a")] {
        is_whole(&run(&daemon, &bench.task(asked, 4)).await);
        until_ready(&daemon, asked).await;
        until_state(&daemon, other, "cold").await;
    }
    assert_eq!(daemon.metric("pool_unloads_total{pool_id=\"a\",reason=\"evicted\"}").await, 2.0);
    assert_eq!(daemon.metric("pool_load_ms_count{pool_id=\"b\"}").await, 2.0);
    // By now it is known what a load takes.
    let admitted = daemon.accepted(&bench.task("a", 4)).await;
    let predicted = admitted["predicted_start_ms"].as_u64().expect("a number");
    assert!((600..20_000).contains(&predicted), "{predicted}");
    nothing_was_refused(&bench).await;
}

/// LO-SWP-03: models that fit beside each other stay, on both GPUs; one that is kept is never given up.
#[tokio::test]
async fn what_fits_stays() {
    let on = |pool: ManagedPool, devices: &str| ManagedPool { devices: devices.to_owned(), ..pool };
    let kept = on_demand("kept", 6);
    let kept = ManagedPool { settings: format!("{}keep = true\n", kept.settings), ..kept };
    let small = on_demand("small", 5);
    let bench = Bench::new(vec![kept, small, on(on_demand("other", 9), "[1]"), on_demand("late", 10)]);
    let daemon = bench.start().await;
    for pool in ["kept", "small", "other", "late"] {
        until_state(&daemon, pool, "cold").await;
        is_whole(&run(&daemon, &bench.task(pool, 2)).await);
    }
    // 6, 5 and 10 of 24: all of them.
    for pool in ["kept", "small", "other", "late"] {
        assert_eq!(health(&daemon, pool).await["state"], "ready", "{pool}");
    }
    nothing_was_refused(&bench).await;
}

/// LO-SWP-03, LO-SWP-04: a running stream is never broken for another model; when others have waited long enough it is the last that
/// runs, and those that wait behind it go on after the swap back.
#[tokio::test]
async fn a_busy_pool_is_fenced_not_evicted() {
    let slow = |id: &str| on_demand(id, 14).env("MOCK_ENGINE_TOKEN_INTERVAL_MS", 20);
    let mut bench = Bench::new(vec![slow("a"), slow("b")]);
    bench.more = "[swap]\nage_limit_ms = 4000\n".to_owned();
    let daemon = bench.start().await;
    until_state(&daemon, "a", "cold").await;
    let mut running = daemon.occupy(&bench.task("a", 150)).await;
    let queued: Vec<_> = (0..3).map(|_| with(bench.task("a", 60), "priority", json!("batch"))).collect();
    for task in &queued {
        daemon.accepted(task).await;
    }
    let waiting = with(bench.task("b", 3), "priority", json!("batch"));
    let admitted = daemon.accepted(&waiting).await;
    assert_eq!(admitted["queue_position"], 0);
    let done = daemon.until(&waiting, "completed").await;
    is_whole(&running.rest().await);
    let left = {
        let mut left = 0;
        for task in &queued {
            left += usize::from(daemon.look(task).await["state"] != "completed");
        }
        left
    };
    assert!(left > 0, "it ran before all that waited for the other model: {done}");
    for task in &queued {
        daemon.until(task, "completed").await;
    }
    nothing_was_refused(&bench).await;
}

/// LO-SWP-08: a load that nobody waits for any more is called off, and nothing of it is left.
#[tokio::test]
async fn a_load_for_nobody_is_called_off() {
    let bench = Bench::new(vec![on_demand("a", 4).env("MOCK_ENGINE_LOAD_MS", 20_000)]);
    let daemon = bench.start().await;
    until_state(&daemon, "a", "cold").await;
    let task = bench.task("a", 4);
    daemon.accepted(&task).await;
    until_state(&daemon, "a", "starting").await;
    assert_eq!(daemon.cancel(id(&task)).await, 204);
    until_state(&daemon, "a", "cold").await;
    bench.nothing_left_of("a").await;
    assert_eq!(daemon.metric("pool_unloads_total{pool_id=\"a\",reason=\"unwanted\"}").await, 1.0);
}

/// LO-SWP-05: what never fits is refused before anything is loaded, with by how much and what would.
#[tokio::test]
async fn what_never_fits_is_refused_with_what_would() {
    let bench = Bench::new(vec![ManagedPool { model: Model::Huge, ..on_demand("a", 1) }]);
    let daemon = bench.start().await;
    until(&daemon, "a", "looked at", |health| health["state"] == "cold").await;
    let (status, error) = eventually_async("it is known to be too large", async || {
        let (status, error) = daemon.refusal(&bench.task("a", 4)).await;
        error["message"].as_str().is_some_and(|text| text.contains("in all")).then_some((status, error))
    })
    .await;
    let message = error["message"].as_str().expect("a text");
    assert_eq!((status, &error["retriable"]), (503, &json!(false)), "{message}");
    for part in ["GPU 0", "24576 MiB in all", "would fit"] {
        assert!(message.contains(part), "no `{part}` in {message}");
    }
    assert!(bench.left_of("a").is_empty());
}

/// LO-SWP-06: an idle pool is unloaded when its time is over; the operator can have it loaded, unloaded and stopped, too.
#[tokio::test]
async fn idle_pools_are_unloaded() {
    let pool = on_demand("a", 4);
    let bench = Bench::new(vec![
        ManagedPool { settings: format!("{}idle_unload_ms = 400\n", pool.settings), ..pool },
        on_demand("b", 4),
    ]);
    let daemon = bench.start().await;
    until_state(&daemon, "a", "cold").await;
    is_whole(&run(&daemon, &bench.task("a", 2)).await);
    until_state(&daemon, "a", "cold").await;
    assert_eq!(daemon.metric("pool_unloads_total{pool_id=\"a\",reason=\"idle\"}").await, 1.0);
    ask(&daemon, "b", "start", json!({})).await;
    until_ready(&daemon, "b").await;
    ask(&daemon, "b", "unload", json!({})).await;
    until_state(&daemon, "b", "cold").await;
    bench.nothing_left_of("b").await;
    is_whole(&run(&daemon, &bench.task("b", 2)).await);
    ask(&daemon, "b", "stop", json!({"deadline_ms": 0})).await;
    until_state(&daemon, "b", "stopped").await;
    let (status, error) = daemon.refusal(&bench.task("b", 2)).await;
    assert_eq!((status, error["code"].as_str()), (503, Some("POOL_UNREADY")), "{error}");
    ask(&daemon, "b", "start", json!({})).await;
    until_ready(&daemon, "b").await;
}

/// LO-SWP-05, ORCH-3039: an engine that takes more than was foretold fails, and is foretold better the next time: others make room.
#[tokio::test]
async fn what_was_foretold_wrong_is_corrected() {
    let mut greedy = on_demand("greedy", 4);
    greedy.env = vec![("MOCK_ENGINE_VRAM_MB".to_owned(), "16000".to_owned())];
    let bench = Bench::new(vec![on_demand("a", 14), greedy]);
    let daemon = bench.start().await;
    until_state(&daemon, "greedy", "cold").await;
    is_whole(&run(&daemon, &bench.task("a", 2)).await);
    is_whole(&run(&daemon, &bench.task("greedy", 2)).await);
    until_state(&daemon, "a", "cold").await;
    let refused = bench.gpus.refused();
    assert_eq!(refused.len(), 1, "it was tried once with too little: {refused:?}");
    // It is remembered over a restart of the engine.
    is_whole(&run(&daemon, &bench.task("a", 2)).await);
    is_whole(&run(&daemon, &bench.task("greedy", 2)).await);
    assert_eq!(bench.gpus.refused().len(), 1, "what it takes was learned");
}
