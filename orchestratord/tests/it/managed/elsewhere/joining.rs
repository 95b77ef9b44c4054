//! Who may register, and as what.

use serde_json::{Value, json};

use super::house::{Host, House, TOKEN, pool_on, registration};
use crate::harness::{Daemon, config, config_of, eventually_async, pool, start_engine, task};

async fn post(daemon: &Daemon, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
    let mut request = daemon.http().post(daemon.url(path)).json(body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

async fn register(daemon: &Daemon, token: Option<&str>, body: &Value) -> (u16, Value) {
    post(daemon, "/v1/workers/register", token, body).await
}

/// AUTH-1003, LO-API-13: without the token, with another one, or where there is none, nobody registers or sends heartbeats, also from
/// loopback and with `auth_optional`.
#[tokio::test]
async fn a_token_is_always_wanted() {
    let house = House::without_workers(vec![Host::new("box2", vec![pool_on("box2", "far")])], "").await;
    let engine = json!({"pool_id": "far", "replica_id": "r0", "engine": "llamacpp", "endpoint": "http://127.0.0.1:1"});
    for path in ["/v1/workers/register", "/v1/workers/box2/heartbeat"] {
        for body in [&registration("box2"), &engine] {
            for (token, code) in [(None, 40101), (Some("wrong"), 40102)] {
                let (status, envelope) = post(&house.daemon, path, token, body).await;
                assert_eq!((status, &envelope["code"]), (401, &json!(code)), "{path}: {envelope}");
            }
        }
    }
    assert_eq!(house.worker("box2").await["state"], "unknown");
    let health = house.daemon.json("/v1/pools/far/health").await;
    assert_eq!((&health["state"], &health["fault"]), (&json!("away"), &json!("worker_away")), "{health:#}");
    let error = health["last_error"].as_str().expect("an error");
    assert!(error.contains("worker box2 has not registered") && error.contains("pool-managerd"), "{error}");

    let engine = start_engine(&[]);
    let without = Daemon::start(&config(engine.url(), "")).await;
    for token in [None, Some(TOKEN)] {
        let (status, envelope) = register(&without, token, &registration("box2")).await;
        assert_eq!((status, &envelope["code"]), (401, &json!(40103)), "{envelope}");
        assert!(envelope["hint"].as_str().is_some_and(|hint| hint.contains("AUTH_TOKEN")), "{envelope}");
    }
}

/// LO-HST-03: versions are compared; a worker that nobody knows and a second one of the same name are told what to do.
#[tokio::test]
async fn who_does_not_fit_is_told_why() {
    let house = House::without_workers(vec![Host::new("box2", vec![pool_on("box2", "far")])], "").await;
    let with = |key: &str, value: Value| {
        let mut body = registration("box2");
        body[key] = value;
        body
    };
    for (body, status, code, says) in [
        (with("protocol", json!(2)), 409, "CONFLICT", "upgrade the orchestrator"),
        (with("protocol", json!(0)), 409, "CONFLICT", "upgrade pool-managerd"),
        (with("worker_id", json!("box3")), 404, "NOT_FOUND", "worker = \"box3\""),
        (with("relay_secret", json!("")), 400, "INVALID_PARAMS", "relay_secret"),
        (with("relay_port", json!("x")), 400, "INVALID_PARAMS", "relay_port"),
    ] {
        let (got, envelope) = register(&house.daemon, Some(TOKEN), &body).await;
        assert_eq!((got, &envelope["code"]), (status, &json!(code)), "{envelope}");
        assert!(envelope["message"].as_str().is_some_and(|message| message.contains(says)), "{envelope}");
    }
    let (status, taken) = register(&house.daemon, Some(TOKEN), &registration("box2")).await;
    assert_eq!((status, &taken["status"]), (200, &json!("ok")), "{taken}");
    let terms = &taken["terms"];
    assert_eq!((&terms["pools"][0]["id"], &terms["pools"][0]["worker"]), (&json!("far"), &json!("box2")), "{terms}");
    // Another software alone is a warning.
    let worker = house.worker("box2").await;
    assert!(worker["complaint"].as_str().is_some_and(|complaint| complaint.contains("0.0.1")), "{worker:#}");
    let mut other = with("boot_id", json!("b2"));
    other["relay_port"] = json!(2);
    let (status, envelope) = register(&house.daemon, Some(TOKEN), &other).await;
    assert_eq!(status, 409, "{envelope}");
    assert!(envelope["message"].as_str().is_some_and(|message| message.contains("another worker.id")), "{envelope}");
    // Its successor at the same place is taken, and its own session is over.
    let (status, _) = register(&house.daemon, Some(TOKEN), &with("boot_id", json!("b3"))).await;
    assert_eq!(status, 200);
    let beat = json!({"session": terms["session"], "seq": 1, "taken_through": 0});
    let (status, envelope) = post(&house.daemon, "/v1/workers/box2/heartbeat", Some(TOKEN), &beat).await;
    assert_eq!((status, &envelope["code"]), (404, &json!("NOT_FOUND")), "{envelope}");
}

/// LO-POOL-04, AUTH-1003: a worker with the wrong token gets nowhere, and its log says what to do; no token is in any log.
#[tokio::test]
async fn a_worker_with_the_wrong_token_gets_nowhere() {
    let mut house = House::without_workers(vec![Host::new("box2", vec![pool_on("box2", "far")])], "").await;
    let url = house.daemon.url("");
    house.hosts[0].start_with(&url, Some("not-the-orchestrators-token")).await;
    let host = &house.hosts[0];
    eventually_async("the log says so", async || host.log().contains("AUTH_TOKEN_FILE here").then_some(())).await;
    assert_eq!(house.worker("box2").await["state"], "unknown");
    assert!(!host.log().contains("not-the-orchestrators-token") && !host.log().contains("is starting"));
    let relay = reqwest::Client::builder().no_proxy().build().expect("a client");
    for token in ["not-the-orchestrators-token", TOKEN] {
        let url = format!("http://{}/engines/far/health", host.relay());
        let answer = relay.get(url).bearer_auth(token).send().await.expect("an answer");
        assert_eq!(answer.status(), 401);
    }
}

/// LO-API-13: a plain engine announces where it listens, and serves the external pool from then on.
#[tokio::test]
async fn an_engine_announces_itself() {
    let engine = start_engine(&[]);
    let pools = [pool("gpu0", &["http://127.0.0.1:1"], ""), pool("other", &["http://127.0.0.1:2"], "")];
    let daemon = Daemon::start_with(&config_of(&pools), &[("AUTH_TOKEN", TOKEN), ("AUTH_OPTIONAL", "true")]).await;
    let body = json!({"pool_id": "gpu0", "replica_id": "r0", "engine": "llamacpp", "endpoint": engine.url(), "slots_total": 1});
    let with = |key: &str, value: &str| {
        let mut body = body.clone();
        body[key] = json!(value);
        body
    };
    for (body, status, code) in [
        (with("pool_id", "nobody"), 404, "NOT_FOUND"),
        (with("replica_id", "r7"), 404, "NOT_FOUND"),
        (with("engine", "vllm"), 400, "INVALID_PARAMS"),
        (with("endpoint", "ftp://x"), 400, "INVALID_PARAMS"),
        (with("sampling", "x"), 400, "INVALID_PARAMS"),
    ] {
        let (got, envelope) = register(&daemon, Some(TOKEN), &body).await;
        assert_eq!((got, &envelope["code"]), (status, &json!(code)), "{envelope}");
    }
    let (status, answer) = register(&daemon, Some(TOKEN), &body).await;
    assert_eq!((status, answer), (200, json!({"status": "ok"})));
    daemon.ready().await;
    let task = task("Say something.", 3);
    daemon.run(&task).await.until("end").await;
    assert_eq!(daemon.until(&task, "completed").await["pool_id"], "gpu0");
}
