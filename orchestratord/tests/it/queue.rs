use serde_json::{Value, json};

use crate::harness::{Daemon, batch, config, eventually_async, id, start_engine, task, with};
use crate::relay::Relay;

/// Slow enough that a task of a few hundred tokens outlives its test.
const SLOW: &[&str] = &["--token-interval-ms", "20"];

/// A task of the class that its name begins with.
fn named(name: &str) -> Value {
    if name.starts_with('b') { batch(name, 1) } else { task(name, 1) }
}

/// LO-ADM-01, OC-CTRL-2011, ORCH-2007, LO-ERR-04: a full queue refuses with everything a client needs to come back, and leaves
/// alone what waits. How long that is follows from what runs and from the measured speed.
#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let engine = start_engine(&["--token-interval-ms", "5"]);
    let daemon = Daemon::before(&engine, "queue = { capacity = 1 }").await;
    for tokens in [5, 20] {
        daemon.run(&task("Measure.", tokens)).await.rest().await;
    }
    let mut waits = Vec::new();
    for tokens in [200, 2000] {
        let running = task("Run.", tokens);
        let _stream = daemon.occupy(&running).await;
        let waiting = named("i");
        daemon.accepted(&waiting).await;
        let refused = daemon.post("/v1/tasks", &named("one too many")).await;
        assert_eq!(refused.status(), 429);
        let header = |name| refused.headers().get(name).and_then(|value| value.to_str().ok()?.parse::<i64>().ok());
        let (seconds, backoff_ms) =
            (header("retry-after").expect("whole seconds"), header("x-backoff-ms").expect("ms"));
        let envelope: Value = refused.json().await.expect("JSON");
        assert_eq!((&envelope["code"], &envelope["policy_label"]), (&json!("ADMISSION_REJECT"), &json!("reject")));
        assert_eq!((&envelope["retriable"], &envelope["retry_after_ms"]), (&json!(true), &json!(backoff_ms)));
        assert_eq!((&envelope["pool_id"], &envelope["engine"]), (&json!("gpu0"), &json!("llamacpp")));
        assert!(seconds == (backoff_ms + 999) / 1000 && backoff_ms > 0, "{seconds} s, {backoff_ms} ms");
        assert_eq!(daemon.look(&waiting).await["queue_position"], 0);
        waits.push(backoff_ms);
        for task in [&waiting, &running] {
            assert_eq!(daemon.cancel(id(task)).await, 204);
        }
    }
    assert!(waits[1] > 3 * waits[0], "ten times the work before the next start: {waits:?}");
}

/// LO-ADM-01: a class may have a limit of its own, which is no limit for the other.
#[tokio::test]
async fn a_class_has_its_own_capacity() {
    let engine = start_engine(SLOW);
    let settings = r#"
        queue = { capacity = 4 }
        admission = { priorities = [{ name = "batch", queue_capacity = 1 }] }"#;
    let daemon = Daemon::before(&engine, settings).await;
    let _running = daemon.occupy(&task("Run.", 500)).await;
    daemon.accepted(&named("b1")).await;
    let (status, envelope) = daemon.refusal(&named("b2")).await;
    assert_eq!((status, &envelope["policy_label"]), (429, &json!("reject")));
    assert!(envelope["message"].as_str().is_some_and(|said| said.contains("1 batch tasks waiting")), "{envelope}");
    for name in ["i1", "i2", "i3"] {
        daemon.accepted(&named(name)).await;
    }
    assert_eq!(daemon.refusal(&named("i4")).await.0, 429, "the queue as a whole is full");
}

/// LO-ADM-02, LO-ADM-04, ORCH-3005: an interactive newcomer takes the place of the oldest batch task, else of the oldest
/// interactive one; a batch newcomer only that of a batch task. Whoever loses its place is told on its stream and counted.
#[tokio::test]
async fn drop_lru_ends_the_streams_it_evicts() {
    let engine = start_engine(SLOW);
    let daemon = Daemon::before(&engine, "queue = { capacity = 3, full_policy = \"drop-lru\" }").await;
    let _running = daemon.occupy(&task("Run.", 500)).await;
    let mut streams = std::collections::BTreeMap::new();
    for name in ["i1", "b1", "b2"] {
        streams.insert(name, daemon.run(&named(name)).await);
    }
    let steps = [("b3", Some("b1")), ("i2", Some("b2")), ("i3", Some("b3")), ("i4", Some("i1")), ("b4", None)];
    for (newcomer, evicted) in steps {
        let Some(evicted) = evicted else {
            let (status, envelope) = daemon.refusal(&named(newcomer)).await;
            assert_eq!(
                (status, &envelope["code"], &envelope["policy_label"], &envelope["retriable"]),
                (429, &json!("QUEUE_FULL_DROP_LRU"), &json!("drop-lru"), &json!(true))
            );
            continue;
        };
        streams.insert(newcomer, daemon.run(&named(newcomer)).await);
        let mut stream = streams.remove(evicted).expect("it waited");
        let error = stream.until("error").await.data;
        assert_eq!((&error["code"], &error["retriable"]), (&json!("QUEUE_FULL_DROP_LRU"), &json!(true)), "{evicted}");
        assert!(error["retry_after_ms"].as_i64() > Some(0) && error["policy_label"] == "drop-lru", "{error}");
        assert_eq!(stream.next().await, None, "ORCH-3407: nothing follows an error");
    }
    assert_eq!(daemon.metric("tasks_rejected_total{engine=\"llamacpp\",reason=\"QUEUE_FULL_DROP_LRU\"}").await, 5.0);
    let waiting = daemon.json("/v1/tasks?state=queued").await;
    assert_eq!(waiting["tasks"].as_array().map(Vec::len), Some(3), "{waiting}");
}

/// Waits as long as a refusal says.
async fn as_told(refusal: &Value) {
    let wait_ms = refusal["retry_after_ms"].as_u64().expect("a number");
    assert!((1..=1000).contains(&wait_ms), "{refusal}");
    tokio::time::sleep(std::time::Duration::from_millis(wait_ms)).await;
}

fn assert_throttled((status, envelope): &(u16, Value)) {
    assert_eq!(
        (*status, &envelope["code"], &envelope["policy_label"], &envelope["retriable"]),
        (429, &json!("ADMISSION_REJECT"), &json!("rate-limit"), &json!(true))
    );
}

/// ORCH-3006: a class that comes too fast is throttled before it is queued, the other is not, and whoever waits as long as it
/// was told is taken.
#[tokio::test]
async fn a_class_has_a_rate_limit() {
    let engine = start_engine(&[]);
    let settings = r#"admission = { priorities = [{ name = "batch", rate_limit_rps = 1.0, rate_limit_burst = 2 }] }"#;
    let daemon = Daemon::before(&engine, settings).await;
    for name in ["b1", "b2"] {
        daemon.accepted(&named(name)).await;
    }
    let late = named("b3");
    let refused = daemon.refusal(&late).await;
    assert_throttled(&refused);
    assert_eq!(daemon.get(&format!("/v1/tasks/{}", id(&late))).await.status(), 404);
    daemon.accepted(&named("i1")).await;
    as_told(&refused.1).await;
    daemon.accepted(&late).await;
}

/// ORCH-3006: each API token has its own throttle; what is refused for another reason, or repeated, does not count.
#[tokio::test]
async fn a_caller_has_a_rate_limit() {
    let engine = start_engine(&[]);
    let settings = "[admission]\ntoken_rate_limit_rps = 1.0\ntoken_rate_limit_burst = 1";
    let token = "correct-horse-battery-staple";
    let environment = [("AUTH_TOKEN", token), ("AUTH_OPTIONAL", "true")];
    let daemon = Daemon::start_with(&config(engine.url(), settings), &environment).await;
    daemon.ready().await;
    assert_eq!(daemon.refusal(&with(named("i0"), "max_tokens", json!(-1))).await.0, 400);
    let (first, second) = (named("i1"), named("i2"));
    let admission = daemon.accepted(&first).await;
    let refused = daemon.refusal(&second).await;
    assert_throttled(&refused);
    assert_eq!(daemon.accepted(&first).await, admission, "a safe retry is no new task");
    let other = daemon.http().post(daemon.url("/v1/tasks")).bearer_auth(token).json(&named("i3"));
    assert_eq!(other.send().await.expect("an answer").status(), 202);
    as_told(&refused.1).await;
    daemon.accepted(&second).await;
}

/// ORCH-3904, OC-CORE-1003, OC-CORE-1004, OC-CORE-1005, LO-ADM-05: who starts after whom on one slot: first come first served
/// in a class, interactive before batch, also behind a full batch queue, unless the operator gave both a share. Positions say
/// so from the admission on.
#[tokio::test]
async fn tasks_start_in_order() {
    let full_batch = r#"queue = { capacity = 4 }
        admission = { priorities = [{ name = "batch", queue_capacity = 3 }] }"#;
    let weights =
        r#"admission = { priorities = [{ name = "interactive", weight = 2 }, { name = "batch", weight = 1 }] }"#;
    let cases = [
        ("", "b1 b2 i1 b3 i2", "0 1 0 3 1", "i1 i2 b1 b2 b3"),
        (full_batch, "b1 b2 b3 i1", "0 1 2 0", "i1 b1 b2 b3"),
        (weights, "b1 b2 b3 i1 i2 i3 i4 i5", "0 1 2 0 1 3 4 6", "i1 i2 b1 i3 i4 b2 i5 b3"),
    ];
    for (settings, arriving, positions, starting) in cases {
        let engine = start_engine(&["--token-interval-ms", "20"]);
        let relay = Relay::before(&engine).await;
        let daemon = Daemon::start(&config(relay.url(), settings)).await;
        daemon.ready().await;
        let running = task("Run.", 500);
        let _stream = daemon.occupy(&running).await;
        let mut told = Vec::new();
        let mut canceled = None;
        for name in arriving.split(' ') {
            let task = named(name);
            told.push(daemon.accepted(&task).await["queue_position"].to_string());
            if canceled.is_none() && settings.is_empty() {
                // Somebody who changes their mind changes nothing for the others.
                let other = named("b canceled");
                daemon.accepted(&other).await;
                assert_eq!(daemon.cancel(id(&other)).await, 204);
                canceled = Some(other);
            }
        }
        assert_eq!(told.join(" "), positions, "{arriving}");
        let expected: Vec<&str> = starting.split(' ').collect();
        let list = daemon.json("/v1/tasks?state=queued").await;
        let mut places: Vec<_> =
            list["tasks"].as_array().expect("tasks").iter().map(|task| task["queue_position"].as_u64()).collect();
        places.sort_unstable();
        assert_eq!(places, (0..expected.len() as u64).map(Some).collect::<Vec<_>>(), "each place is somebody's");
        assert_eq!(daemon.cancel(id(&running)).await, 204);
        let done = async || {
            (daemon.json("/v1/tasks?state=completed").await["tasks"].as_array()?.len() == expected.len()).then_some(())
        };
        eventually_async("all have run", done).await;
        assert_eq!(relay.prompts().all()[1..], expected);
    }
}
