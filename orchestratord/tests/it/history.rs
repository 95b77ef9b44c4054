use serde_json::{Value, json};

use crate::harness::{Daemon, batch, id, start_engine, task, with};

const SLOW: &[&str] = &["--token-interval-ms", "20"];

fn ids(tasks: &[Value]) -> Vec<&str> {
    tasks.iter().map(id).collect()
}

/// ORCH-2001: the filters of `GET /v1/tasks` add up, and what they let through comes newest first; after a restart the history
/// answers each query as memory did before, to the letter.
#[tokio::test]
async fn filters_add_up_before_and_after_a_restart() {
    let engine = start_engine(SLOW);
    let mut daemon = Daemon::before(&engine, "").await;
    let first = task("Completed.", 1);
    let second = with(batch("Completed.", 1), "session_id", first["session_id"].clone());
    for task in [&first, &second] {
        daemon.run(task).await.rest().await;
    }
    let running = task("Running.", 500);
    let _stream = daemon.occupy(&running).await;
    let expired = with(batch("Expired.", 1), "deadline_ms", json!(50));
    let canceled = task("Canceled.", 1);
    let queued = batch("Queued.", 1);
    for task in [&expired, &canceled, &queued] {
        daemon.accepted(task).await;
    }
    assert_eq!(daemon.cancel(id(&canceled)).await, 204);
    daemon.until(&expired, "expired").await;
    for (state, task) in [("streaming", &running), ("queued", &queued), ("dispatched,queued", &queued)] {
        assert_eq!(ids(&daemon.list(&format!("state={state}"), 10).await), [id(task)], "{state}");
    }
    for task in [&queued, &running] {
        assert_eq!(daemon.cancel(id(task)).await, 204);
    }
    let admitted_at = daemon.look(&running).await["admitted_at_ms"].as_i64().expect("a time");
    let session = first["session_id"].as_str().expect("text");
    let cases = [
        (String::new(), vec![&queued, &canceled, &expired, &running, &second, &first]),
        ("state=completed".to_owned(), vec![&second, &first]),
        ("state=canceled,expired".to_owned(), vec![&queued, &canceled, &expired, &running]),
        ("state=failed".to_owned(), vec![]),
        ("priority=batch".to_owned(), vec![&queued, &expired, &second]),
        ("priority=batch&state=completed".to_owned(), vec![&second]),
        (format!("session_id={session}"), vec![&second, &first]),
        ("pool_id=gpu0&priority=interactive".to_owned(), vec![&canceled, &running, &first]),
        ("pool_id=gpu1".to_owned(), vec![]),
        ("model_ref=mock-model&state=expired".to_owned(), vec![&expired]),
        ("model_ref=other".to_owned(), vec![]),
        (format!("since_ms={admitted_at}&priority=interactive"), vec![&canceled, &running]),
        (format!("until_ms={admitted_at}"), vec![&second, &first]),
    ];
    let mut before = Vec::new();
    for (query, expected) in &cases {
        let listed = daemon.list(query, 2).await;
        let mut sorted = listed.clone();
        sorted.sort_by_key(|task| std::cmp::Reverse((task["admitted_at_ms"].as_i64(), id(task).to_owned())));
        assert_eq!(ids(&listed), ids(&sorted), "the newest first");
        let (mut listed_ids, mut expected): (Vec<_>, Vec<_>) =
            (ids(&listed), expected.iter().map(|task| id(task)).collect());
        listed_ids.sort_unstable();
        expected.sort_unstable();
        assert_eq!(listed_ids, expected, "{query}");
        before.push(listed);
    }
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await.code(), Some(0));
    daemon.start_again().await;
    for ((query, _), before) in cases.iter().zip(before) {
        assert_eq!(daemon.list(query, 3).await, before, "{query}");
    }
    assert_eq!(daemon.look(&expired).await["state"], "expired");
    let stream = daemon.get(&format!("/v1/tasks/{}/stream", id(&first))).await;
    assert_eq!(stream.status(), 200, "its artifact has it");
    assert_eq!(daemon.cancel(id(&first)).await, 204, "it has ended");
}

/// Pages of any size fit together without gaps or repetitions over history and memory, also while tasks end and leave memory.
#[tokio::test]
async fn pages_fit_together() {
    let engine = start_engine(&["--token-interval-ms", "2"]);
    let mut daemon = Daemon::before(&engine, "[stream]\nretain_ms = 1").await;
    let submit = async |daemon: &Daemon, count| {
        let tasks: Vec<Value> = (0..count).map(|_| batch("Page.", 3)).collect();
        for task in &tasks {
            daemon.accepted(task).await;
        }
        tasks
    };
    let mut all = submit(&daemon, 7).await;
    for task in &all {
        daemon.until(task, "completed").await;
    }
    daemon.kill();
    daemon.start_again().await;
    daemon.ready().await;
    all.extend(submit(&daemon, 40).await);
    let mut known = ids(&all);
    known.sort_unstable();
    let mut walks = 0;
    loop {
        let completed = daemon.list("state=completed", 4).await.len();
        for limit in [1, 3, 100] {
            let listed = daemon.list("", limit).await;
            let mut listed = ids(&listed);
            listed.sort_unstable();
            assert_eq!(listed, known, "limit {limit}, {completed} tasks have ended");
        }
        walks += 1;
        if completed == known.len() {
            break;
        }
        assert!(walks < 1000, "they come to an end");
    }
}

/// LO-API-02: a query that cannot be meant is refused, not interpreted.
#[tokio::test]
async fn a_wrong_query_is_refused() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    let cases = [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=many",
        "cursor=",
        "cursor=1",
        "cursor=zz.7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10",
        "cursor=1.not-an-id",
        "state=",
        "state=done",
        "state=queued,done",
        "priority=low",
        "session_id=seven",
        "since_ms=yesterday",
        "until_ms=1.5",
        "colour=red",
    ];
    for query in cases {
        let answer = daemon.get(&format!("/v1/tasks?{query}")).await;
        assert_eq!(answer.status(), 400, "{query}");
        let envelope: Value = answer.json().await.expect("JSON");
        assert_eq!(envelope["code"], "INVALID_PARAMS", "{query}: {envelope}");
        assert!(envelope["message"].as_str().is_some_and(|said| !said.is_empty()), "{envelope}");
    }
}
