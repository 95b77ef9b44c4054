//! Health, properties, version, token counts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapter_api::{WorkerAdapter, WorkerError, WorkerHealth};
use api_types::{Engine, Workload};
use llamacpp_http::{LlamaCpp, LlamaCppConfig, Timeouts};
use serde_json::json;
use tokio::net::{TcpListener, UnixListener};

use crate::replay::{Replay, answer, chat, job, prompt, route, run, transcript};

const DOWN: WorkerHealth = WorkerHealth { live: false, ready: false };

/// ADAPT-3000: live and ready.
#[tokio::test]
async fn health() {
    for (name, live, ready) in [("health", true, true), ("health_loading", true, false)] {
        let replay = Replay::start(vec![route("/health", name)]).await;
        assert_eq!(replay.adapter().health().await, Ok(WorkerHealth { live, ready }), "{name}");
    }
    // Something else listens there.
    let stranger = Replay::start(vec![]).await;
    assert!(matches!(stranger.adapter().health().await, Err(WorkerError::Adapter(_))));
    // It dies while it answers.
    let dying = Replay::start(vec![("/health", vec![transcript("health")[..40].to_vec()])]).await;
    assert_eq!(dying.adapter().health().await, Ok(DOWN));

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint: http_util::Endpoint =
        format!("http://{}", listener.local_addr().expect("an address")).parse().expect("an endpoint");
    let timeouts = Timeouts { health: Duration::from_millis(50), ..Timeouts::default() };
    let silent = LlamaCppConfig { timeouts, ..LlamaCppConfig::new(endpoint) };
    let adapter = LlamaCpp::new(&silent).expect("an adapter");
    assert_eq!(adapter.health().await, Ok(DOWN), "accepts and says nothing");
    drop(listener);
    assert_eq!(adapter.health().await, Ok(DOWN), "refuses");
    let nowhere = LlamaCppConfig::new("unix:/nowhere/engine.sock".parse().expect("an endpoint"));
    assert_eq!(LlamaCpp::new(&nowhere).expect("an adapter").health().await, Ok(DOWN), "no such socket");
}

/// ADAPT-3000, OC-ADAPT-5011: what the engine tells about itself, and no more than that.
#[tokio::test]
async fn props_and_version() {
    let replay = Replay::start(vec![
        route("/props", "props"),
        route("/slots", "slots_idle"),
        route("/v1/embeddings", "embeddings_not_enabled"),
        route("/v1/rerank", "completion_err_no_prompt"),
    ])
    .await;
    let adapter = replay.adapter();
    assert_eq!(adapter.engine(), Engine::Llamacpp);
    let props = adapter.props().await.expect("properties");
    assert_eq!((props.slots_total, props.slots_free, props.ctx_max), (Some(2), Some(2), Some(1024)));
    assert_eq!(adapter.busy_slots().await, Ok(Some(0)));
    assert_eq!(props.model.as_deref(), Some("gemma-3-270m"));
    assert_eq!((props.model_digest, props.tokenizer), (None, None));
    assert_eq!(props.workloads, [Workload::Completion, Workload::Rerank]);
    assert_eq!(props.features, ["chat"]);
    assert_eq!(adapter.engine_version().await.as_deref(), Ok("llama.cpp b0-unknown (unknown build)"));

    // Without its optional calls.
    let replay = Replay::start(vec![route("/props", "props"), route("/v1/rerank", "health_loading")]).await;
    let props = replay.adapter().props().await.expect("properties");
    assert_eq!((props.slots_free, props.workloads), (None, vec![]));
    assert_eq!(replay.adapter().busy_slots().await, Ok(None));
}

/// ADAPT-3005: a call that changes nothing is tried again; on an engine that is loading this does not last for ever.
#[tokio::test]
async fn control_calls_are_retried() {
    let replay = Replay::start(vec![("/props", vec![Vec::new()])]).await;
    let error = replay.adapter().engine_version().await.expect_err("no answer");
    assert!(matches!(error, WorkerError::WorkerReset(_)), "{error}");
    assert_eq!(replay.bodies().len(), 4);
}

#[tokio::test]
async fn token_counts() {
    let template = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 15\r\n\r\n{\"prompt\":\"hi\"}";
    let replay =
        Replay::start(vec![route("/tokenize", "tokenize"), ("/apply-template", vec![template.as_bytes().to_vec()])])
            .await;
    let adapter = replay.adapter();
    assert_eq!(adapter.count_tokens(&prompt()).await, Ok(Some(12)));
    assert_eq!(adapter.count_tokens(&chat()).await, Ok(Some(12)));
    let embedding = job(json!({"workload": "embedding", "inputs": ["a", "b"]}));
    assert_eq!(adapter.count_tokens(&embedding).await, Ok(Some(24)));
    let rerank = job(json!({"workload": "rerank", "inputs": ["a", "b"]}));
    assert_eq!(adapter.count_tokens(&rerank).await, Ok(None));
    let expected = [
        json!({"content": "The capital of France is", "add_special": true, "parse_special": true}),
        json!({"messages": [{"role": "user", "content": "Say hello."}]}),
        json!({"content": "hi", "add_special": true, "parse_special": true}),
    ];
    assert_eq!(replay.bodies()[..3], expected);

    let older = Replay::start(vec![route("/tokenize", "tokenize")]).await;
    assert_eq!(older.adapter().count_tokens(&chat()).await, Ok(None));
}

/// Everything also works over a Unix socket.
#[tokio::test]
async fn over_a_unix_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("engine.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let routes = Arc::new(vec![route("/health", "health"), route("/completion", "completion_stream")]);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&routes), Arc::new(Mutex::default())));
        }
    });
    let endpoint = format!("unix:{}", path.display()).parse().expect("an endpoint");
    let adapter = LlamaCpp::new(&LlamaCppConfig::new(endpoint)).expect("an adapter");
    assert_eq!(adapter.health().await, Ok(WorkerHealth { live: true, ready: true }));
    assert_eq!(run(&adapter, &prompt()).await.1, Ok(()));
}
