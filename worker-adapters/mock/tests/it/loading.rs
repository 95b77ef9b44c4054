//! `mock-engine` before it is ready.

use std::time::Duration;

use serde_json::json;

use crate::client::{get, post, send};
use crate::program::{Engine, ended, said};

const NO_ENV: [(&str, &str); 0] = [];
const REQUEST: &str = r#"{"prompt":"x","n_predict":1,"stream":true}"#;

fn in_load(percent: u8, end: &str) -> String {
    let fault = format!(r#"{{"at_percent":{percent},"stderr":"it was so","end":{end}}}"#);
    format!(r#"{{"faults":[{{"fault":{{"in_load":{fault}}}}}]}}"#)
}

/// ORCH-3058: a start that fails halfway, each in its own way.
#[test]
fn a_start_may_fail() {
    for (end, code, line) in [(r#"{"exit":3}"#, Some(3), "it was so\n"), (r#""bad_alloc""#, None, "'std::bad_alloc'")] {
        let output = ended(&["--faults", &in_load(50, end)], &NO_ENV);
        assert_eq!(output.status.code(), code);
        assert!(said(&output).starts_with("it was so\n") && said(&output).contains(line), "{}", said(&output));
    }
}

/// A start that goes no further says that it is loading, says so of what is sent too early, and goes on when it is let.
#[tokio::test]
async fn a_start_may_get_stuck() {
    let mut engine = Engine::start(&["--faults", &in_load(50, r#""hang""#)], &NO_ENV);
    engine.until_said("it was so\n");
    for _ in 0..2 {
        assert_eq!(get(&engine.url, "/health").await.status, 503);
        assert_eq!(post(&engine.url, "/completion", REQUEST).await.status, 503);
    }
    assert_eq!(engine.until_said("before ready\n"), "mock-engine: request before ready\n");
    assert_eq!(post(&engine.url, "/mock/faults", r#"{"faults":[]}"#).await.status, 200);
    while get(&engine.url, "/health").await.status != 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(post(&engine.url, "/completion", REQUEST).await.status, 200);
    post(&engine.url, "/mock/faults", r#"{"faults":[{"fault":{"in_life":{"end":{"exit":1}}}}]}"#).await;
    let (_, rest) = engine.ended();
    assert_eq!(rest, "mock-engine: request before ready\n", "what comes later is not too early");
}

/// A probe that is answered as a seed draws it: right, refused, or never; and never right before it is time, unless it may lie.
#[tokio::test]
async fn health_may_be_flaky() {
    let ready = Engine::start(&[], &NO_ENV);
    set_flaky(&ready, false).await;
    let mut seen = Vec::new();
    while ![Some(200), Some(503), None].iter().all(|kind| seen.contains(kind)) {
        seen.push(probe(&ready).await);
    }
    let stuck = Engine::start(&["--load-ms", "3600000"], &NO_ENV);
    set_flaky(&stuck, false).await;
    let mut seen = Vec::new();
    while seen.len() < 20 || !seen.contains(&None) {
        seen.push(probe(&stuck).await);
    }
    assert!(!seen.contains(&Some(200)), "{seen:?}");
    set_flaky(&stuck, true).await;
    while probe(&stuck).await != Some(200) {}
    assert_eq!(post(&stuck.url, "/completion", REQUEST).await.status, 503);
}

async fn set_flaky(engine: &Engine, early: bool) {
    let faults = json!({"faults": [{"fault": {"flaky": {"seed": 11, "early": early}}, "on": "health"}]});
    assert_eq!(post(&engine.url, "/mock/faults", &faults.to_string()).await.status, 200);
}

/// The status, unless there is no answer in the time that a probe has.
async fn probe(engine: &Engine) -> Option<u16> {
    let answer = send(&engine.url, "GET", "/health", "").await.response();
    let answer = tokio::time::timeout(Duration::from_millis(50), answer).await;
    answer.ok().flatten().map(|answer| answer.status)
}
