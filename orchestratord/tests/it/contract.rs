use std::collections::BTreeSet;

use api_types::openapi::operations;
use orchestratord::http::ROUTES;
use orchestratord::metrics::NAMES;
use serde_json::{Value, json};

use crate::harness::{Daemon, eventually, start_engine, task};

/// FR-CT-001, OC-CTRL-2062: every documented route is served, and nothing that is not documented.
#[test]
fn the_routes_are_those_of_the_contract() {
    let documented: BTreeSet<(String, String)> = operations()
        .into_iter()
        .map(|operation| (operation.path.to_owned(), operation.method.to_string().to_ascii_uppercase()))
        .collect();
    let served: BTreeSet<(String, String)> = ROUTES
        .iter()
        .flat_map(|(path, methods)| methods.split(", ").map(|method| ((*path).to_owned(), method.to_owned())))
        .collect();
    assert_eq!(served, documented);
}

/// OC-CTRL-2052: the correlation id is echoed, or minted, on every answer.
#[tokio::test]
async fn every_answer_has_a_correlation_id() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    for path in ["/metrics", "/healthz", "/v1/tasks", "/v1/tasks/bad", "/nowhere"] {
        let echoed = daemon.http().get(daemon.url(path)).header("x-correlation-id", "mine-42").send().await;
        assert_eq!(echoed.expect("an answer").headers()["x-correlation-id"], "mine-42");
        let minted = daemon.get(path).await.headers()["x-correlation-id"].to_str().expect("text").to_owned();
        assert_eq!(uuid::Uuid::parse_str(&minted).expect("a UUID").get_version_num(), 4);
    }
    let task = task("Correlate.", 2);
    let submit = daemon.http().post(daemon.url("/v1/tasks")).header("x-correlation-id", "mine-43").json(&task);
    assert_eq!(submit.send().await.expect("an answer").headers()["x-correlation-id"], "mine-43");
    let cancel = format!("/v1/tasks/{}/cancel", task["task_id"].as_str().expect("text"));
    let canceled = daemon.post(&cancel, &json!({})).await;
    assert_eq!(canceled.status(), 204);
    assert!(canceled.headers().contains_key("x-correlation-id"), "also on 204");
    eventually("the log tells of it (ORCH-3300)", || {
        daemon.log().lines().any(|line| line.contains("mine-43") && line.contains("\"human\"")).then_some(())
    })
    .await;
}

/// OC-METRICS-7101, ORCH-3028, LO-MET-10, LO-MET-13, LO-MET-17: a live scrape has the names, and the numbers are the tasks'.
#[tokio::test]
async fn the_metrics_count_what_ran() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    for tokens in [3, 4] {
        daemon.run(&task("Count me.", tokens)).await.rest().await;
    }
    daemon.post("/v1/tasks", &task("Refuse me.", 0)).await;
    daemon.no_leases().await;
    let answer = daemon.get("/metrics").await;
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4");
    let text = answer.text().await.expect("text");
    let known: BTreeSet<&str> = NAMES.iter().copied().collect();
    let seen: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split(['{', ' ']).next().expect("a name"))
        .map(|name| ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name))
        .collect();
    assert!(seen.is_subset(&known), "undocumented: {:?}", seen.difference(&known));
    let value = |start: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(start));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    assert_eq!(value("tasks_enqueued_total{"), 2.0);
    assert_eq!(value("tasks_started_total{"), 2.0);
    assert_eq!(value("tokens_out_total{"), 7.0);
    assert_eq!(value("tasks_rejected_total{engine=\"llamacpp\",reason=\"INVALID_PARAMS\"}"), 1.0);
    assert_eq!(value("latency_first_token_ms_count{"), 2.0);
    assert_eq!(value("pool_ready{"), 1.0);
    assert_eq!(value("active_leases{"), 0.0);
}

/// ORCH-3093, ORCH-3096, LO-API-21, HME-012: limits and slots are what the engine tells.
#[tokio::test]
async fn capabilities_come_from_the_engine() {
    let engine = start_engine(&["--ctx", "2048", "--slots", "3"]);
    let daemon =
        Daemon::before(&engine, "slots = 8\ndeterminism = \"best_effort\"\nsampler_profile_version = \"v1\"").await;
    let capabilities = daemon.json("/v1/capabilities").await;
    assert_eq!(capabilities["api_version"], "1.0.0");
    let entry = &capabilities["engines"][0];
    assert_eq!((&entry["pool_id"], &entry["engine"]), (&json!("gpu0"), &json!("llamacpp")));
    assert_eq!((&entry["ctx_max"], &entry["concurrency"], &entry["ready"]), (&json!(2048), &json!(3), &json!(true)));
    assert_eq!(entry["sampler_profile_version"], "v1");
    assert!(!entry["engine_version"].as_str().expect("text").is_empty());
    let pool = &daemon.json("/v1/pools").await["pools"][0];
    assert_eq!((&pool["compute"], &pool["slots_total"]), (&json!("unverified"), &json!(3)));
    assert!(pool.get("vram_total_bytes").is_none(), "nothing that was not measured");
}

/// FR-CT-001: the daemon serves its own contract.
#[tokio::test]
async fn the_contract_is_served() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    let document: Value = daemon.json("/v1/openapi.json").await;
    assert_eq!(document["info"]["version"], "1.0.0");
    assert!(document["paths"]["/v1/tasks"]["post"].is_object());
}

/// ORCH-3027, ORCH-3300, OC-CTRL-2050.2, LO-OBS-01, LO-ERR-01: the log tells a task's story in JSON lines that its correlation
/// id ties together, with the fields of the contract, and without its prompt or output.
#[tokio::test]
async fn the_log_tells_the_story_of_a_task() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    let secret = "the prompt nobody may log";
    let submit = daemon.http().post(daemon.url("/v1/tasks")).header("accept", "text/event-stream");
    let answer = submit.header("x-correlation-id", "story-1").json(&task(secret, 3)).send().await.expect("an answer");
    let stream = answer.text().await.expect("text");
    let lines = eventually("the story is complete", || {
        let log = daemon.log();
        let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.iter().any(|line| line["action"] == "stream_end").then_some(lines)
    })
    .await;
    let line = |action: &str| {
        let found = lines.iter().find(|line| line["action"] == action && line["correlation_id"] == "story-1");
        found.unwrap_or_else(|| panic!("no line for {action}"))
    };
    let expected: [(&str, &[&str]); 4] = [
        ("admit", &["job_id", "session_id", "engine", "pool_id", "queue_position", "predicted_start_ms", "identity"]),
        ("place", &["decision_reason", "candidates_considered", "filters_applied", "tie_breakers_applied", "pinned"]),
        ("stream_start", &["job_id", "pool_id", "replica_id", "queue_time_ms"]),
        ("stream_end", &["engine_version", "tokens_in", "tokens_out", "decode_time_ms", "queue_time_ms", "model_id"]),
    ];
    for (action, fields) in expected {
        let line = line(action);
        assert!(line["human"].as_str().is_some_and(|sentence| !sentence.is_empty()), "{line}");
        for field in fields {
            assert!(!line[*field].is_null(), "{action} tells {field}: {line}");
        }
    }
    assert_eq!(line("admit")["identity"], "localhost");
    let first_word = stream.split("{\"t\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    let log = daemon.log();
    assert!(!log.contains(secret) && (first_word.trim().len() < 4 || !log.contains(first_word)));
}
