//! Every fault as a client sees it.

use std::io::ErrorKind;

use mock::process::MockEngineProcess;
use serde_json::json;

use crate::client::{Response, counts, engine, get, post, send};

const REQUEST: &str = r#"{"prompt":"x","n_predict":5,"seed":1,"stream":true}"#;

async fn set(engine: &MockEngineProcess, fault: serde_json::Value) {
    let faults = json!({"faults": [fault]}).to_string();
    assert_eq!(post(engine.url(), "/mock/faults", &faults).await.status, 200);
}

/// The answer under a fault for one request; the request after it succeeds.
async fn under(engine: &MockEngineProcess, fault: serde_json::Value) -> Option<Response> {
    set(engine, json!({"fault": fault, "times": 1})).await;
    let response = send(engine.url(), "POST", "/completion", REQUEST).await.response().await;
    let next = post(engine.url(), "/completion", REQUEST).await;
    assert_eq!(next.events().last().expect("events")["stop"], true, "after {fault}");
    response
}

/// Tokens with text in as much of a response as came.
fn tokens(response: &Response) -> usize {
    response.text().lines().filter(|line| line.contains("\"stop\":false") && line.ends_with('}')).count()
}

/// ORCH-3058.
#[tokio::test]
async fn faults_before_the_answer() {
    let engine = engine(&[]);
    let refused = under(&engine, json!({"refuse": {"status": 503}})).await.expect("a response");
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &503.into()));
    let refused = under(&engine, json!({"refuse": {"status": 429, "body": ""}})).await.expect("a response");
    assert_eq!((refused.status, refused.body.len()), (429, 0));
    let page = under(&engine, json!("wrong_content_type")).await.expect("a response");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html")));
    let late = under(&engine, json!({"slow_headers": {"ms": 1}})).await.expect("a response");
    assert_eq!(tokens(&late), 5);
}

/// ORCH-3058.
#[tokio::test]
async fn faults_inside_the_answer() {
    let engine = engine(&[]);
    for after in [0, 3] {
        set(&engine, json!({"fault": {"reset": {"after_tokens": after}}, "times": 1})).await;
        let broken = send(engine.url(), "POST", "/completion", REQUEST).await.ending().await;
        assert_eq!(broken.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
        let clean = under(&engine, json!({"clean_end": {"after_tokens": after}})).await.expect("a response");
        assert_eq!((clean.complete, tokens(&clean)), (true, after));
        let told = under(&engine, json!({"error_event": {"after_tokens": after}})).await.expect("a response");
        assert_eq!((told.complete, tokens(&told)), (true, after));
        assert_eq!(told.events().last().expect("an event")["error"]["code"], 500);
        let half = under(&engine, json!({"half_character": {"after_tokens": after}})).await.expect("a response");
        assert_eq!((half.complete, tokens(&half)), (false, after));
        assert_eq!(std::str::from_utf8(&half.body).expect_err("half a character").error_len(), None);
        let odd = under(&engine, json!({"malformed_event": {"after_tokens": after}})).await.expect("a response");
        assert_eq!((odd.complete, tokens(&odd)), (true, 5));
        assert!(odd.text().contains("data: {\"index\":0,\"content\":\n\n"));
    }
}

/// A request that hangs, or stalls after some tokens, ends when its client goes.
#[tokio::test]
async fn silent_faults_last_until_the_client_goes() {
    let engine = engine(&[]);
    set(&engine, json!({"fault": "hang", "times": 1})).await;
    let hanging = send(engine.url(), "POST", "/completion", REQUEST).await;
    counts(engine.url(), "requests=1&running=0").await;
    drop(hanging);
    set(&engine, json!({"fault": {"stall": {"after_tokens": 2}}, "times": 1})).await;
    let mut stalled = send(engine.url(), "POST", "/completion", REQUEST).await;
    stalled.events(2).await;
    drop(stalled);
    counts(engine.url(), "running=0&cancelled=1").await;
}

#[tokio::test]
async fn a_crash_ends_the_process() {
    let mut engine = engine(&["--faults", r#"{"faults":[{"fault":{"crash":{"after_tokens":2,"code":3}}}]}"#]);
    let cut = send(engine.url(), "POST", "/completion", REQUEST).await.response().await;
    assert!(cut.is_none_or(|cut| !cut.complete && tokens(&cut) <= 2));
    assert_eq!(engine.wait().expect("it ends").code(), Some(3));
}

/// A fault on one route leaves the others alone, and bad faults are refused.
#[tokio::test]
async fn faults_are_set_per_route() {
    let engine = engine(&[]);
    set(&engine, json!({"fault": {"refuse": {"status": 500}}, "on": "health"})).await;
    assert_eq!(get(engine.url(), "/health").await.status, 500);
    assert_eq!(post(engine.url(), "/completion", REQUEST).await.status, 200);
    assert_eq!(get(engine.url(), "/mock/faults").await.json()["faults"][0]["on"], "health");
    assert_eq!(post(engine.url(), "/mock/faults", r#"{"faults":[{"fault":"nap"}]}"#).await.status, 400);
    set(&engine, json!({"fault": {"slow_load": {"ms": 3_600_000}}})).await;
    assert_eq!(post(engine.url(), "/completion", REQUEST).await.status, 503);
}
