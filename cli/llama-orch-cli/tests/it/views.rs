//! The views: tables for people, the server's own JSON for scripts.

use serde_json::{Value, json};

use crate::command::{capabilities, cli};
use crate::server::{Reply, TestServer};

const TASK: &str = "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10";
const SESSION: &str = "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b";

fn task(state: &str) -> Value {
    json!({"task_id": TASK, "correlation_id": "c-1", "session_id": SESSION, "state": state, "workload": "completion",
        "model_ref": "tiny", "engine": "mock", "priority": "batch", "seed": 42, "pool_id": "gpu0", "queue_position": 3,
        "deadline_ms": 60_000, "max_tokens": 128, "attempts": 0, "predicted_start_ms": 1800,
        "admitted_at_ms": 1_760_000_000_000_i64, "placement": {
            "selected_pool_id": "gpu0", "candidates_considered": 2, "filters_applied": ["engine"],
            "tie_breakers_applied": ["least-loaded"], "pinned": false, "fallback_used": false}})
}

fn pools() -> Value {
    let health = |ready: bool, error: Option<&str>| {
        let mut health = json!({"live": true, "ready": ready, "draining": false, "metrics": {}});
        if let Some(error) = error {
            health["last_error"] = error.into();
        }
        health
    };
    let pool = |id: &str, health: Value| {
        json!({"id": id, "engine": "mock", "model": "tiny", "ctx": 300, "provisioning": "external", "compute": "unverified",
            "slots_total": 2, "slots_free": 1, "queue_depth": 3, "queue_capacity": 64, "vram_total_bytes": 25_757_220_864_i64,
            "vram_free_bytes": 1_073_741_824, "health": health})
    };
    json!({"pools": [pool("gpu0", health(true, None)), pool("gpu1", health(false, Some("the engine does not answer; start it")))]})
}

async fn server() -> TestServer {
    TestServer::start(|request| match request.route().as_str() {
        "GET /v1/tasks?limit=20" => Reply::json(200, json!({"tasks": [task("queued"), task("completed")]})),
        "GET /v1/tasks?state=queued%2Cdispatched%2Cstreaming" => Reply::json(200, json!({"tasks": [task("queued")]})),
        "GET /v1/tasks/7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10" => Reply::json(200, task("queued")),
        "GET /v1/pools" => Reply::json(200, pools()),
        "GET /v1/capabilities" => Reply::json(200, capabilities()),
        "GET /readyz" => Reply::json(200, json!({"ready": true, "pools_ready": 1, "pools_total": 2})),
        "GET /v1/sessions/2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b" => Reply::json(
            200,
            json!({"ttl_ms_remaining": 540_000, "turns": 3, "kv_bytes": 0, "kv_warmth": true, "tokens_budget_remaining": 90, "cost_budget_remaining": 0.25}),
        ),
        _ => Reply::json(204, ""),
    })
    .await
}

/// LO-CLI-01, LO-CLI-06: what a person asks for most, in words that are there.
#[tokio::test]
async fn people_get_tables() {
    let server = server().await;
    for (arguments, parts) in [
        (&["tasks"][..], &["TASK ", TASK, "queued", "completed", "1.8 s"][..]),
        (
            &["task", TASK],
            &["correlation id:  c-1", "gpu0 of 2 pools", "filters: engine", "ties broken by: least-loaded"],
        ),
        (&["pools"], &["1/2", "3/64", "1.0 GiB/24.0 GiB", "gpu1: the engine does not answer; start it"]),
        (&["capabilities"], &["API 1.0.0", "300", "299", "completion"]),
        (&["status"], &["is ready: 1 of 2 pools", "gpu1", "queued"]),
        (&["session", SESSION], &["expires in:", "9 min 0 s", "warm", "tokens left:", "90", "cost left:", "0.25"]),
    ] {
        let ended = cli(&server.url, arguments).await;
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{arguments:?}");
        for part in parts {
            assert!(ended.out.contains(part), "{arguments:?}: {part}\n{}", ended.out);
        }
    }
    assert!(!cli(&server.url, &["status"]).await.out.contains("completed"), "what ended is not in the way");
}

/// --json is the server's answer.
#[tokio::test]
async fn scripts_get_json() {
    let server = server().await;
    for (arguments, expected) in [
        (&["--json", "pools"][..], pools()),
        (&["capabilities", "--json"], capabilities()),
        (&["task", TASK, "--json"], task("queued")),
    ] {
        let ended = cli(&server.url, arguments).await;
        assert_eq!(serde_json::from_str::<Value>(&ended.out).expect("JSON"), expected);
    }
    let status: Value = serde_json::from_str(&cli(&server.url, &["status", "--json"]).await.out).expect("JSON");
    assert_eq!(status["tasks"].as_array().map(Vec::len), Some(1));
}

/// Commands without an answer say nothing when all is well.
#[tokio::test]
async fn no_news_is_good_news() {
    let server = server().await;
    for (arguments, route) in [
        (&["cancel", TASK][..], format!("POST /v1/tasks/{TASK}/cancel")),
        (&["session", SESSION, "--end"], format!("DELETE /v1/sessions/{SESSION}")),
    ] {
        let ended = cli(&server.url, arguments).await;
        assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, "", ""));
        assert_eq!(server.routes().last(), Some(&route));
    }
}

/// What needs no server: the version, with the interface's, and completions.
#[tokio::test]
async fn some_things_need_no_server() {
    let version = cli("", &["--version"]).await.out;
    assert_eq!(version, format!("llama-orch {} (API {})\n", env!("CARGO_PKG_VERSION"), api_types::API_VERSION));
    assert!(cli("", &["completions", "bash"]).await.out.contains("complete -F _llama__orch"));
}
