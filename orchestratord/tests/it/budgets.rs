use serde_json::{Value, json};

use crate::harness::{Daemon, Stream, id, start_engine, task, with};

/// The engine's answers have 10 tokens, whatever more was asked for.
const SHORT: &[&str] = &["--eos-after", "10..10", "--token-interval-ms", "5"];
const ALL: &str =
    "[sessions]\ntokens_budget = 100\ntime_budget_ms = 60000\ncost_budget = 1.0\ncost_per_1k_tokens = 10.0";
const HEADERS: [&str; 3] = ["x-budget-tokens-remaining", "x-budget-time-remaining-ms", "x-budget-cost-remaining"];
const FIELDS: [&str; 3] = ["tokens_budget_remaining", "time_budget_remaining_ms", "cost_budget_remaining"];

fn in_session(session: &str, tokens: u32) -> Value {
    with(task("Spend.", tokens), "session_id", json!(session))
}

fn new_session() -> String {
    uuid::Uuid::new_v4().to_string()
}

async fn session(daemon: &Daemon, session: &str) -> Value {
    daemon.json(&format!("/v1/sessions/{session}")).await
}

/// The members that tell budgets.
fn budgets(of: &Value) -> [&Value; 3] {
    FIELDS.map(|field| &of[field])
}

fn assert_out_of_budget((status, envelope): &(u16, Value)) {
    assert_eq!(
        (*status, &envelope["code"], &envelope["policy_label"], &envelope["retriable"]),
        (429, &json!("ADMISSION_REJECT"), &json!("session-budget"), &json!(false)),
        "{envelope}"
    );
}

/// OC-CORE-1024, OC-CTRL-2050.1, ORCH-3105, LO-SSE-04, LO-SES-04, ORCH-2004: what is left, the task's own reservation taken off,
/// stands in the headers of the 202 and of the stream, in the body, in `started` and in `metrics` frames; after the end what
/// was really used is charged, and the session tells.
#[tokio::test]
async fn budgets_are_told_everywhere_and_settled() {
    let engine = start_engine(SHORT);
    let daemon = Daemon::before(&engine, &format!("{ALL}\n[stream]\nmetrics_interval_ms = 1")).await;
    let id_of_session = new_session();
    for (turn, expected) in [(0, [json!(70), json!(59_000), json!(0.7)]), (1, [json!(60), Value::Null, json!(0.6)])] {
        let task = in_session(&id_of_session, 30);
        let answer = daemon.post("/v1/tasks", &task).await;
        assert_eq!(answer.status(), 202);
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()?.parse::<f64>().ok());
        let told: Vec<_> = HEADERS.iter().map(|name| header(*name)).collect();
        let admission: Value = answer.json().await.expect("JSON");
        assert_eq!(told, budgets(&admission).map(Value::as_f64));
        for (told, expected) in budgets(&admission).into_iter().zip(&expected) {
            assert!(expected.is_null() || told == expected, "turn {turn}: {admission}");
        }
        let mut stream = daemon.follow(id(&task), None).await;
        assert_eq!(stream.header(HEADERS[0]), Some(expected[0].to_string().as_str()));
        let events = stream.rest().await;
        let started = &events[0].data;
        assert_eq!((&started["tokens_used"], &started["tokens_remaining"]), (&json!(10 * turn), &expected[0]));
        let frame = events.iter().find(|event| event.name == "metrics").expect("a frame");
        assert_eq!(frame.data["tokens_budget_remaining"], expected[0]);
        assert!(budgets(&frame.data).iter().all(|left| left.is_number()), "{}", frame.data);
        let info = session(&daemon, &id_of_session).await;
        assert_eq!(info["tokens_budget_remaining"], json!(90 - 10 * turn));
        assert_eq!(info["cost_budget_remaining"], json!(f64::from(90 - 10 * turn) / 100.0));
        assert!(info["time_budget_remaining_ms"].as_i64() > Some(59_000), "{info}");
    }
}

/// OC-CTRL-2050.1: without budgets nothing is told but nulls in the admission's body.
#[tokio::test]
async fn without_budgets_nothing_is_told() {
    let engine = start_engine(SHORT);
    let daemon = Daemon::before(&engine, "").await;
    let task = task("Spend.", 10);
    let answer = daemon.post("/v1/tasks", &task).await;
    assert!(HEADERS.iter().all(|name| !answer.headers().contains_key(*name)));
    let admission: Value = answer.json().await.expect("JSON");
    assert!(FIELDS.iter().all(|field| admission.get(field) == Some(&Value::Null)), "{admission}");
    let events = daemon.follow(id(&task), None).await.rest().await;
    assert!(events[0].data.get("tokens_used").is_none() && events[0].data.get("tokens_remaining").is_none());
    let info = session(&daemon, task["session_id"].as_str().expect("text")).await;
    assert!(FIELDS.iter().all(|field| info.get(field).is_none()), "{info}");
}

/// ORCH-3099, LO-ERR-08: what a session cannot pay for is refused before it is queued, with the largest task it could, and
/// begins no session; waiting would not help.
#[tokio::test]
async fn an_unaffordable_task_is_refused() {
    let engine = start_engine(&["--token-interval-ms", "10"]);
    let cases = [
        ("tokens_budget = 100", 101, "at most 100 tokens"),
        ("cost_budget = 0.5\ncost_per_1k_tokens = 10.0", 51, "at most 50 tokens"),
        ("time_budget_ms = 2000", 1000, "predicted to decode"),
    ];
    for (settings, tokens, hint) in cases {
        let daemon = Daemon::before(&engine, &format!("[sessions]\n{settings}")).await;
        for tokens in [3, 9] {
            daemon.run(&task("Measure.", tokens)).await.rest().await;
        }
        let id_of_session = new_session();
        let refused = daemon.refusal(&in_session(&id_of_session, tokens)).await;
        assert_out_of_budget(&refused);
        assert!(refused.1["message"].as_str().is_some_and(|said| said.contains(hint)), "{}", refused.1);
        assert_eq!(daemon.get(&format!("/v1/sessions/{id_of_session}")).await.status(), 404);
        daemon.accepted(&in_session(&id_of_session, 10)).await;
    }
}

/// LO-SES-04: a task that is canceled early is charged what the engine had generated, and the rest is there again.
#[tokio::test]
async fn a_canceled_task_gives_back_what_it_did_not_use() {
    let engine = start_engine(&["--token-interval-ms", "10"]);
    let daemon = Daemon::before(&engine, "[sessions]\ntokens_budget = 1000").await;
    let id_of_session = new_session();
    let canceled = in_session(&id_of_session, 900);
    let mut stream = daemon.occupy(&canceled).await;
    assert_out_of_budget(&daemon.refusal(&in_session(&id_of_session, 900)).await);
    assert_eq!(daemon.cancel(id(&canceled)).await, 204);
    let used = stream.until("end").await.data["tokens_out"].as_i64().expect("a number");
    assert!((1..500).contains(&used), "{used}");
    assert_eq!(session(&daemon, &id_of_session).await["tokens_budget_remaining"], json!(1000 - used));
    daemon.accepted(&in_session(&id_of_session, 500)).await;
}

/// ORCH-3099: tasks that come at the same time cannot overspend a budget together.
#[tokio::test]
async fn parallel_tasks_cannot_overspend() {
    let engine = start_engine(&["--slots", "8", "--token-interval-ms", "5"]);
    let settings = "slots = 8\ndeterminism = \"best_effort\"\n[sessions]\ntokens_budget = 100";
    let daemon = Daemon::before(&engine, settings).await;
    let id_of_session = new_session();
    let tasks: Vec<_> = (0..8).map(|_| in_session(&id_of_session, 30)).collect();
    let (client, url) = (daemon.http().clone(), daemon.url("/v1/tasks"));
    let mut posts = tokio::task::JoinSet::new();
    for task in tasks {
        let request = client.post(&url).json(&task);
        posts.spawn(async move { request.send().await.expect("an answer").status().as_u16() });
    }
    let mut statuses = posts.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 202, 202, 429, 429, 429, 429, 429]);
    assert_eq!(session(&daemon, &id_of_session).await["tokens_budget_remaining"], 10);
}

/// ORCH-3099, OC-CORE-1022: a time budget that runs out while a task decodes ends it typed; the session can do nothing more.
#[tokio::test]
async fn a_time_budget_ends_a_running_task() {
    let engine = start_engine(&["--token-interval-ms", "10"]);
    let daemon = Daemon::before(&engine, "[sessions]\ntime_budget_ms = 200").await;
    let id_of_session = new_session();
    let endless = in_session(&id_of_session, 4000);
    let mut stream: Stream = daemon.occupy(&endless).await;
    let error = stream.until("error").await.data;
    assert_eq!(
        (&error["code"], &error["policy_label"], &error["retriable"]),
        (&json!("ADMISSION_REJECT"), &json!("session-budget"), &json!(false))
    );
    assert!(error["message"].as_str().is_some_and(|said| said.contains("sessions.time_budget_ms")), "{error}");
    assert_eq!(session(&daemon, &id_of_session).await["time_budget_remaining_ms"], 0);
    let seen = daemon.look(&endless).await;
    assert!(seen["state"] == "failed" && seen["decode_time_ms"].as_i64() < Some(5000), "{seen}");
    assert_out_of_budget(&daemon.refusal(&in_session(&id_of_session, 1)).await);
    daemon.no_leases().await;
}
