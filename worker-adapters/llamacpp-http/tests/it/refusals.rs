//! Answers with an error status.

use adapter_api::{WorkerAdapter, WorkerError};
use api_types::ErrorKind;
use llamacpp_http::{LlamaCpp, LlamaCppConfig};
use serde_json::json;
use tokio::net::TcpListener;

use crate::replay::{Replay, chat, job, prompt, run, transcript};

/// ADAPT-3002, ORCH-3275: before the first event, the engine's reason in words that hold nothing of the request.
#[tokio::test]
async fn recorded_refusals() {
    use WorkerError::{Adapter, PoolUnavailable, Rejected};
    let too_long = |tokens: u32| {
        Rejected(format!(
            "the prompt has {tokens} tokens and a slot's context holds 1024; shorten the prompt or give the engine more"
        ))
    };
    let bad = |text: &str| Rejected(format!("status 400, invalid_request_error: {text}"));
    let embedding = || job(json!({"workload": "embedding", "inputs": ["a"]}));
    let rerank = || job(json!({"workload": "rerank", "inputs": ["a", "b"]}));
    for (path, job, name, error) in [
        ("/completion", prompt(), "completion_err_ctx_overflow_stream", too_long(3002)),
        ("/completion", prompt(), "completion_err_ctx_overflow", too_long(3002)),
        ("/v1/chat/completions", chat(), "v1_chat_err_ctx_overflow", too_long(3024)),
        (
            "/completion",
            prompt(),
            "completion_err_bad_grammar",
            bad("Failed to initialize samplers: failed to parse grammar"),
        ),
        (
            "/completion",
            prompt(),
            "completion_err_wrong_type",
            bad("Field 'n_predict': [json.exception.type_error.302] type must be number, but is string"),
        ),
        (
            "/completion",
            prompt(),
            "completion_err_no_prompt",
            bad("[json.exception.out_of_range.403] key 'prompt' not found"),
        ),
        (
            "/completion",
            prompt(),
            "health_loading",
            PoolUnavailable("status 503, unavailable_error: Loading model".into()),
        ),
        ("/completion", prompt(), "not_found", Adapter("status 404, not_found_error: File Not Found".into())),
        (
            "/v1/embeddings",
            embedding(),
            "embeddings_not_enabled",
            Rejected(
                "status 501, not_supported_error: This server does not support embeddings. Start it with `--embeddings`"
                    .into(),
            ),
        ),
        (
            "/v1/rerank",
            rerank(),
            "rerank_not_enabled",
            Rejected(
                "status 501, not_supported_error: This server does not support reranking. Start it with `--reranking`"
                    .into(),
            ),
        ),
    ] {
        let replay = Replay::start(vec![(path, vec![transcript(name)])]).await;
        assert_eq!(run(&replay.adapter(), &job).await, (Vec::new(), Err(error)), "{name}");
    }
    let replay = Replay::start(vec![("/completion", vec![transcript("completion_err_invalid_json")])]).await;
    let (_, outcome) = run(&replay.adapter(), &prompt()).await;
    assert_eq!(outcome.expect_err("a refusal").kind(), ErrorKind::InvalidParams);
}

/// LO-WAD-02, ORCH-3278: an engine that quotes the prompt or the key does not get them into our messages.
#[tokio::test]
async fn nothing_of_the_request_is_repeated() {
    let body = r#"{"error":{"code":400,"type":"invalid_request_error","message":"cannot continue The capital of France is with sk-0123456789abcdef"}}"#;
    let answer = format!("HTTP/1.1 400 Bad Request\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let replay = Replay::start(vec![("/completion", vec![answer.into_bytes()])]).await;
    let (_, outcome) = run(&replay.adapter(), &prompt()).await;
    assert_eq!(outcome, Err(WorkerError::Rejected("status 400, invalid_request_error".into())));
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("an endpoint");
    drop(listener);
    let adapter = LlamaCpp::new(&LlamaCppConfig::new(endpoint)).expect("an adapter");
    let outcome = adapter.submit(&prompt()).await.map(|_| ());
    assert!(matches!(outcome, Err(WorkerError::PoolUnavailable(_))), "{outcome:?}");
}
