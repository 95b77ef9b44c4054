use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Daemon, eventually_async, start_engine, stat, task, with};

/// ORCH-2006, ORCH-3330, LO-API-02, LO-API-20, HME-032: each refusal has its code and says what to do, and stores nothing.
#[tokio::test]
async fn refusals_are_typed_and_store_nothing() {
    let engine = start_engine(&["--ctx", "4096"]);
    let daemon = Daemon::before(&engine, "").await;
    let good = || task("secret prompt", 4);
    let cases = [
        (with(good(), "max_token", json!(4)), 400, "INVALID_PARAMS", "did you mean `max_tokens`?"),
        (with(good(), "ctx", json!("big")), 400, "INVALID_PARAMS", "ctx"),
        (with(good(), "messages", json!([{"role": "user", "content": "x"}])), 400, "INVALID_PARAMS", "prompt"),
        (with(good(), "prompt", Value::Null), 400, "INVALID_PARAMS", "prompt"),
        (with(good(), "engine", json!("llamacppp")), 400, "INVALID_PARAMS", "did you mean `llamacpp`?"),
        (with(good(), "engine", json!("vllm")), 503, "POOL_UNAVAILABLE", "vllm"),
        (with(good(), "model_ref", json!("mock-modle")), 400, "INVALID_PARAMS", "mock-model"),
        (with(good(), "ctx", json!(5000)), 400, "INVALID_PARAMS", "4096"),
        (with(good(), "max_tokens", json!(4097)), 400, "INVALID_PARAMS", "4096"),
        (with(good(), "max_tokens", json!(0)), 400, "INVALID_PARAMS", "max_tokens"),
        (with(good(), "deadline_ms", json!(0)), 400, "DEADLINE_UNMET", "deadline_ms"),
        (with(good(), "deadline_ms", json!(-5)), 400, "DEADLINE_UNMET", "deadline_ms"),
        (with(good(), "task_id", json!("seven")), 400, "INVALID_PARAMS", "task_id"),
        (with(good(), "seed", json!(-1)), 400, "INVALID_PARAMS", "seed"),
        (with(good(), "sampling", json!({"temperature": -1})), 400, "INVALID_PARAMS", "temperature"),
        (with(good(), "placement", json!({"mode": "pin"})), 400, "INVALID_PARAMS", "pin_pool_id"),
    ];
    for (body, status, code, hint) in cases {
        for accept in ["application/json", "text/event-stream"] {
            let request = daemon.http().post(daemon.url("/v1/tasks")).header("accept", accept).json(&body);
            let answer = request.send().await.expect("the daemon answers");
            assert_eq!(answer.status(), status, "{body}");
            let envelope: Value = answer.json().await.expect("JSON");
            assert_eq!(envelope["code"], code, "{envelope}");
            let message = envelope["message"].as_str().expect("a sentence");
            assert!(message.contains(hint), "{message:?} should contain {hint:?}");
            assert!(!message.contains("secret prompt"), "LO-ERR-01: {message}");
        }
    }
    assert_eq!(daemon.json("/v1/tasks").await["tasks"], json!([]));
    assert!(!daemon.log().contains("secret prompt"));
}

/// LO-API-02: bodies that are no JSON, too large, or cut off.
#[tokio::test]
async fn bodies_are_checked() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    let post = async |body: String| {
        let answer = daemon.http().post(daemon.url("/v1/tasks")).body(body).send().await.expect("the daemon answers");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    for body in ["", "{", "[]", "nonsense", "{} {}"] {
        let (status, envelope) = post(body.to_owned()).await;
        assert_eq!((status, &envelope["code"]), (400, &json!("INVALID_PARAMS")), "{body:?}");
    }
    let (status, envelope) = post(with(task("", 4), "prompt", json!("x".repeat(5 << 20))).to_string()).await;
    assert_eq!((status, &envelope["code"]), (400, &json!("INVALID_PARAMS")));
    assert!(envelope["message"].as_str().expect("text").contains("server.max_body_bytes"));
}

/// LO-ERR-07: unknown things are 404, wrong ids 400, wrong methods 405.
#[tokio::test]
async fn unknown_things_are_named() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    let nobody = Uuid::new_v4();
    let cases = [
        ("GET", format!("/v1/tasks/{nobody}"), 404, "NOT_FOUND"),
        ("GET", format!("/v1/tasks/{nobody}/stream"), 404, "NOT_FOUND"),
        ("POST", format!("/v1/tasks/{nobody}/cancel"), 404, "NOT_FOUND"),
        ("GET", format!("/v1/sessions/{nobody}"), 404, "NOT_FOUND"),
        ("GET", "/v1/pools/none/health".to_owned(), 404, "NOT_FOUND"),
        ("GET", "/v1/tasks/seven".to_owned(), 400, "INVALID_PARAMS"),
        ("DELETE", "/v1/sessions/seven".to_owned(), 400, "INVALID_PARAMS"),
        ("GET", "/v1/tasks?limit=0".to_owned(), 400, "INVALID_PARAMS"),
        ("GET", "/v1/tasks?colour=red".to_owned(), 400, "INVALID_PARAMS"),
        ("GET", "/v1/replicasets".to_owned(), 404, "NOT_FOUND"),
        ("GET", "/v2/anything".to_owned(), 404, "NOT_FOUND"),
        ("DELETE", "/v1/tasks".to_owned(), 405, "INVALID_PARAMS"),
        ("GET", format!("/v1/tasks/{nobody}/cancel"), 405, "INVALID_PARAMS"),
    ];
    for (method, path, status, code) in cases {
        let method = method.parse().expect("a method");
        let answer = daemon.http().request(method, daemon.url(&path)).send().await.expect("the daemon answers");
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.headers().contains_key("allow"), status == 405, "{path}");
        assert!(answer.headers().contains_key("x-correlation-id"), "{path}");
        assert_eq!(answer.json::<Value>().await.expect("JSON")["code"], code, "{path}");
    }
}

/// DESIGN section 8: the same body again is a safe retry, another body under the same id a conflict.
#[tokio::test]
async fn a_repeated_request_is_one_task() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    let task = task("Once only.", 5);
    let before = stat(&engine, "requests").await;
    let first: Value = daemon.post("/v1/tasks", &task).await.json().await.expect("JSON");
    let stream = daemon.run(&task).await.rest().await;
    let again: Value = daemon.post("/v1/tasks", &task).await.json().await.expect("JSON");
    assert_eq!(first, again);
    assert_eq!(daemon.run(&task).await.rest().await, stream);
    let other = daemon.post("/v1/tasks", &with(task.clone(), "max_tokens", json!(6))).await;
    assert_eq!(other.status(), 409);
    assert_eq!(other.json::<Value>().await.expect("JSON")["code"], "CONFLICT");
    assert_eq!(stat(&engine, "requests").await, before + 1, "the engine ran it once");
}

/// LO-ADM-08, ORCH-3504: an engine that is down or still loading means 503 at once, and the daemon is up all the while.
#[tokio::test]
async fn an_unready_pool_refuses_at_once_and_recovers() {
    let engine = start_engine(&["--load-ms", "600"]);
    let daemon = Daemon::start(&crate::harness::config(engine.url(), "")).await;
    let refused = daemon.post("/v1/tasks", &task("Too early.", 1)).await;
    assert_eq!(refused.status(), 503);
    let envelope: Value = refused.json().await.expect("JSON");
    assert_eq!((&envelope["code"], &envelope["retriable"]), (&json!("POOL_UNREADY"), &json!(true)));
    assert_eq!(daemon.get("/healthz").await.status(), 200);
    eventually_async("the pool says that it is loading", async || {
        let health = daemon.json("/v1/pools/gpu0/health").await;
        let loading = health["last_error"].as_str().is_some_and(|error| error.contains("loading"));
        (loading && health["live"] == true && health["ready"] == false).then_some(())
    })
    .await;
    daemon.ready().await;
    assert_eq!(daemon.post("/v1/tasks", &task("Now.", 1)).await.status(), 202);
}
