use mock::process::MockEngineProcess;
use serde_json::{Value, json};

use crate::harness::{Daemon, batch, config_of, eventually_async, id, pool, start_engine, task, with};

const SLOW: &[&str] = &["--token-interval-ms", "20"];

/// Two engines and a daemon with the pools `gpu0` and `gpu1` before them; `settings` are further sections.
async fn two_pools(flags: [&[&str]; 2], settings: &str) -> (Daemon, [MockEngineProcess; 2]) {
    let engines = flags.map(start_engine);
    let first = pool("gpu0", &[engines[0].url()], "devices = [0]");
    let second = pool("gpu1", &[engines[1].url()], &format!("devices = [1]\n{settings}"));
    let daemon = Daemon::start(&config_of(&[first, second])).await;
    daemon.all_ready().await;
    (daemon, engines)
}

fn placed(task: Value, placement: Value) -> Value {
    with(task, "placement", placement)
}

fn pinned(task: Value, pool: &str) -> Value {
    placed(task, json!({"mode": "pin", "pin_pool_id": pool}))
}

/// The changes of a task's pool, without their times.
fn moves(seen: &Value) -> Value {
    let short = |step: &Value| json!([step["from"], step["to"], step["reason"]]);
    seen["moves"].as_array().map_or(json!([]), |steps| steps.iter().map(short).collect())
}

/// ORCH-3903, LO-PLC-05, LO-PLC-03: where the client's own wishes leave no pool, the refusal says which pool is wrong and why,
/// retriable only where waiting helps.
#[tokio::test]
async fn a_wish_that_cannot_be_met_is_explained() {
    let (large, small) = (start_engine(&["--ctx", "8192"]), start_engine(&["--ctx", "2048"]));
    let pools = [
        pool("large", &[large.url()], "devices = [0]"),
        pool("small", &[small.url()], "devices = [1]"),
        pool("down", &["http://127.0.0.1:9"], "devices = [0, 1]"),
    ];
    let daemon = Daemon::start(&config_of(&pools)).await;
    eventually_async("two pools are ready", async || (daemon.json("/readyz").await["pools_ready"] == 2).then_some(()))
        .await;
    let prefer = |pools: Value| json!({"mode": "prefer", "prefer_pools": pools, "allow_fallback": false});
    let cases = [
        (json!({"mode": "pin", "pin_pool_id": "smal"}), 503, "POOL_UNAVAILABLE", false, "did you mean `small`?"),
        (
            json!({"mode": "pin", "pin_pool_id": "small"}),
            400,
            "INVALID_PARAMS",
            false,
            "pinned to pool small: ctx 4096",
        ),
        (json!({"mode": "pin", "pin_pool_id": "down"}), 503, "POOL_UNREADY", true, "pinned to pool down: "),
        (prefer(json!(["nowhere"])), 503, "POOL_UNAVAILABLE", false, "`nowhere`, which does not exist"),
        (prefer(json!(["small"])), 400, "INVALID_PARAMS", false, "allow_fallback is false: ctx 4096"),
        (prefer(json!(["small", "down"])), 503, "POOL_UNREADY", true, "allow_fallback is false: pool down"),
        (prefer(json!([])), 400, "INVALID_PARAMS", false, "prefer_pools"),
        (json!({"avoid_pools": ["large"]}), 503, "POOL_UNREADY", true, "pool down"),
        (json!({"avoid_pools": ["large", "small", "down"]}), 503, "POOL_UNAVAILABLE", false, "avoid_pools"),
        (json!({"require_device_mask": "0,1"}), 503, "POOL_UNREADY", true, "pool down"),
        (json!({"require_device_mask": "7"}), 503, "POOL_UNAVAILABLE", false, "device mask"),
        (json!({"require_device_mask": "1"}), 400, "INVALID_PARAMS", false, "ctx 4096"),
    ];
    for (placement, status, code, retriable, hint) in cases {
        let (got, envelope) = daemon.refusal(&placed(task("Where?", 1), placement.clone())).await;
        assert_eq!((got, &envelope["code"]), (status, &json!(code)), "{placement}: {envelope}");
        assert_eq!(envelope["retriable"], retriable, "{placement}: {envelope}");
        let said = envelope["message"].as_str().expect("a sentence");
        assert!(said.contains(hint), "{placement}: {said:?} should contain {hint:?}");
    }
    assert_eq!(daemon.json("/v1/tasks").await["tasks"], json!([]));
}

/// ORCH-3903, ORCH-3906, ORCH-3908, ORCH-3951: where a wish can be met, the task runs there, and its decision says which filters
/// and tie-breakers acted and why each other pool was not chosen.
#[tokio::test]
async fn a_decision_names_what_acted() {
    let (daemon, _engines) = two_pools([&["--ctx", "8192"], &["--ctx", "2048"]], "").await;
    let small = || with(task("Anywhere.", 1), "ctx", json!(1024));
    let excluded = |pool: &str, reason: &str| json!([{"pool_id": pool, "reason": reason}]);
    let outranked = |pool: &str, by: &str| json!([{"pool_id": pool, "by": by}]);
    let prefer = |fallback: bool| json!({"mode": "prefer", "prefer_pools": ["gpu1"], "allow_fallback": fallback});
    let none = || Value::Null;
    let cases = [
        (small(), "gpu0", none(), outranked("gpu1", "pool_id"), ""),
        (task("Large.", 1), "gpu0", excluded("gpu1", "ctx_too_small"), none(), ""),
        (pinned(small(), "gpu1"), "gpu1", excluded("gpu0", "not_preferred"), none(), "pinned"),
        (placed(small(), prefer(false)), "gpu1", excluded("gpu0", "not_preferred"), none(), ""),
        (placed(task("Large.", 1), prefer(true)), "gpu0", excluded("gpu1", "ctx_too_small"), none(), "fallback_used"),
        (placed(small(), json!({"avoid_pools": ["gpu0"]})), "gpu1", excluded("gpu0", "avoided"), none(), ""),
        (placed(small(), json!({"require_device_mask": "1"})), "gpu1", excluded("gpu0", "mask_mismatch"), none(), ""),
    ];
    for (task, pool, excluded, outranked, flag) in cases {
        let events = daemon.run(&task).await.rest().await;
        assert_eq!(events[0].data["pool_id"], pool, "{task}");
        let seen = daemon.look(&task).await;
        let decision = &seen["placement"];
        assert_eq!((&seen["pool_id"], &decision["selected_pool_id"]), (&json!(pool), &json!(pool)), "{seen}");
        assert_eq!((&decision["excluded"], &decision["outranked"]), (&excluded, &outranked), "{decision}");
        let acted = |list: &Value, member: &str| list.get(0).map_or(json!([]), |first| json!([first[member]]));
        assert_eq!(decision["filters_applied"], acted(&excluded, "reason"), "{decision}");
        assert_eq!(decision["tie_breakers_applied"], acted(&outranked, "by"), "{decision}");
        assert_eq!(decision["candidates_considered"], 2);
        for name in ["pinned", "fallback_used"] {
            assert_eq!(decision[name], name == flag, "{decision}");
        }
    }
    assert_eq!(daemon.metric("placement_decisions_total{").await, 7.0);
}

/// ORCH-3961: what clients may say about placement is the operator's choice.
#[tokio::test]
async fn the_operator_may_forbid_overrides() {
    let (daemon, _engines) = two_pools([&[], &[]], "[admission]\nplacement_overrides = [\"prefer\"]").await;
    let cases = [
        (json!({"mode": "pin", "pin_pool_id": "gpu1"}), Some("`pin`")),
        (json!({"avoid_pools": ["gpu0"]}), Some("`avoid`")),
        (json!({"require_device_mask": "1"}), Some("`require_device_mask`")),
        (json!({"mode": "prefer", "prefer_pools": ["gpu1"]}), None),
        (json!({"mode": "auto"}), None),
    ];
    for (placement, forbidden) in cases {
        let task = placed(task("Where?", 1), placement);
        let Some(name) = forbidden else {
            daemon.accepted(&task).await;
            continue;
        };
        let (status, envelope) = daemon.refusal(&task).await;
        assert_eq!((status, &envelope["code"]), (400, &json!("INVALID_PARAMS")), "{envelope}");
        assert!(envelope["message"].as_str().is_some_and(|said| said.contains(name)), "{envelope}");
    }
}

/// ORCH-3009, ORCH-3480: a session returns to the pool that served it, unless its task asks for no reuse or its pool is gone;
/// its warmth is told.
#[tokio::test]
async fn a_session_returns_to_its_pool() {
    let (daemon, mut engines) = two_pools([SLOW, SLOW], "[stream]\nmetrics_interval_ms = 1").await;
    let session = uuid::Uuid::new_v4().to_string();
    let turn = || with(task("Turn.", 3), "session_id", json!(session));
    let run = async |task: Value| {
        let events = daemon.run(&task).await.rest().await;
        assert_eq!(events.last().expect("frames").name, "end", "{events:?}");
        let seen = daemon.look(&task).await;
        let frames = events.iter().filter(|event| event.name == "metrics");
        let warmth: Vec<Value> = frames.map(|event| event.data["kv_warmth"].clone()).collect();
        (seen["pool_id"].clone(), seen["placement"]["tie_breakers_applied"].clone(), warmth)
    };
    assert_eq!(run(pinned(turn(), "gpu1")).await.0, "gpu1");
    let (pool, tie_breakers, warmth) = run(turn()).await;
    assert_eq!((pool, tie_breakers), (json!("gpu1"), json!(["affinity"])));
    assert!(!warmth.is_empty() && warmth.iter().all(|warm| *warm == true), "{warmth:?}");
    engines[1].kill().expect("the engine can be killed");
    eventually_async("its pool is down", async || (daemon.json("/readyz").await["pools_ready"] == 1).then_some(()))
        .await;
    let (pool, _, warmth) = run(turn()).await;
    assert_eq!(pool, "gpu0");
    assert_eq!(warmth.first(), Some(&json!(false)), "its prefix is not there");
}

/// ORCH-3480: a task that wants a cold start goes where placement would put any task.
#[tokio::test]
async fn a_cold_task_is_not_drawn_to_its_session() {
    let (daemon, _engines) = two_pools([&[], &[]], "").await;
    let session = uuid::Uuid::new_v4().to_string();
    let turn = |hint: &str| with(with(task("Turn.", 1), "session_id", json!(session)), "kv_hint", json!(hint));
    daemon.run(&pinned(turn("reuse"), "gpu1")).await.rest().await;
    for (hint, pool) in [("cold", "gpu0"), ("reuse", "gpu0")] {
        let task = turn(hint);
        daemon.run(&task).await.rest().await;
        assert_eq!(daemon.look(&task).await["pool_id"], pool, "{hint}: where it streamed last");
    }
}

/// DESIGN section 3, FR-PF-001: a waiting task that is not pinned goes to a pool that becomes idle; a pinned one stays.
#[tokio::test]
async fn an_idle_pool_takes_over_what_waits() {
    let (daemon, _engines) = two_pools([SLOW, SLOW], "").await;
    let (first, second) = (task("Run.", 500), task("Run.", 500));
    let _streams = [daemon.occupy(&first).await, daemon.occupy(&second).await];
    let (stays, goes) = (pinned(task("Stay.", 1), "gpu0"), task("Go.", 1));
    daemon.accepted(&stays).await;
    daemon.accepted(&placed(task("Make the other pool as full.", 1), json!({"avoid_pools": ["gpu0"]}))).await;
    daemon.accepted(&goes).await;
    assert_eq!(daemon.look(&goes).await["pool_id"], "gpu0");
    assert_eq!(daemon.cancel(id(&second)).await, 204);
    let seen = daemon.until(&goes, "completed").await;
    assert_eq!((&seen["pool_id"], &moves(&seen)), (&json!("gpu1"), &json!([["gpu0", "gpu1", "idle"]])));
    assert_eq!(seen["placement"]["selected_pool_id"], "gpu0", "as decided at its admission");
    let seen = daemon.look(&stays).await;
    assert_eq!((&seen["state"], &seen["queue_position"]), (&json!("queued"), &json!(0)), "{seen}");
    assert_eq!(daemon.cancel(id(&first)).await, 204);
    assert_eq!(moves(&daemon.until(&stays, "completed").await), json!([]));
}

/// DESIGN section 8: a pool whose engine dies gives its waiting tasks to another one; pinned ones wait for it to come back, and
/// none of them is spent on the dead engine.
#[tokio::test]
async fn a_pool_that_closes_gives_its_tasks_away() {
    let (daemon, mut engines) = two_pools([SLOW, SLOW], "").await;
    let (first, second) = (task("Run.", 500), task("Run.", 500));
    let mut dying = daemon.occupy(&first).await;
    let _stream = daemon.occupy(&second).await;
    let free = [task("Wait.", 1), batch("Wait.", 1)];
    let bound: Vec<Value> = (0..20).map(|_| pinned(batch("Wait for gpu0.", 1), "gpu0")).collect();
    for task in bound.iter().chain(&free) {
        daemon.accepted(task).await;
    }
    let before = [daemon.look(&free[0]).await, daemon.look(&free[1]).await];
    engines[0].kill().expect("the engine can be killed");
    assert_eq!(dying.until("error").await.data["code"], "WORKER_RESET");
    for (task, before) in free.iter().zip(before) {
        let moved = async || (daemon.look(task).await["pool_id"] == "gpu1").then_some(());
        eventually_async("it waits for the other pool", moved).await;
        let expected = if before["pool_id"] == "gpu0" { json!([["gpu0", "gpu1", "closed"]]) } else { json!([]) };
        assert_eq!(moves(&daemon.look(task).await), expected);
    }
    assert_eq!(daemon.cancel(id(&second)).await, 204);
    for task in &free {
        daemon.until(task, "completed").await;
    }
    let listen = engines[0].url().trim_start_matches("http://").to_owned();
    for task in &bound {
        let seen = daemon.look(task).await;
        assert_eq!(
            (&seen["state"], &seen["pool_id"], &seen["attempts"]),
            (&json!("queued"), &json!("gpu0"), &json!(0))
        );
    }
    let _back = start_engine(&["--listen", &listen]);
    for task in &bound {
        assert_eq!(daemon.until(task, "completed").await["attempts"], 1);
    }
}

/// HME-010, FR-PF-001: two pools, one three times as fast as the other, share what waits so that neither is idle: nobody pins,
/// and each does about as much as it can.
#[tokio::test]
async fn unlike_pools_share_a_backlog() {
    let (daemon, _engines) = two_pools([&["--token-interval-ms", "4"], &["--token-interval-ms", "12"]], "").await;
    let tasks: Vec<Value> = (0..40).map(|number| batch(&format!("Task {number}."), 16)).collect();
    for task in &tasks {
        daemon.accepted(task).await;
    }
    let mut fast = 0;
    for task in &tasks {
        fast += usize::from(daemon.until(task, "completed").await["pool_id"] == "gpu0");
    }
    assert!((24..=36).contains(&fast), "{fast} of {} on the fast pool, which is worth 30", tasks.len());
}
