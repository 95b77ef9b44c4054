//! What the adapter asks the engine.

use adapter_api::{Job, WorkerAdapter, WorkerError};
use llamacpp_http::{LlamaCpp, LlamaCppConfig};
use serde_json::{Value, json};

use crate::replay::{Replay, chat, job, prompt, route, run};

async fn replay() -> Replay {
    let routes = vec![
        route("/completion", "completion_stream"),
        route("/v1/chat/completions", "v1_chat_completions_stream_usage"),
    ];
    Replay::start(routes).await
}

/// The body that is sent for a job.
async fn sent(job: &Job) -> Value {
    let replay = replay().await;
    run(&replay.adapter(), job).await.1.expect("a good end");
    replay.bodies().remove(0)
}

/// ORCH-3054: everything that decides about the output is on the wire, and nothing else.
#[tokio::test]
async fn bodies() {
    let plain = json!({
        "prompt": "The capital of France is", "n_predict": 8, "stream": true, "seed": 7, "cache_prompt": true,
        "return_progress": true,
    });
    assert_eq!(sent(&prompt()).await, plain);

    let sampling = json!({
        "temperature": 0.5, "top_p": 0.9, "top_k": 4, "min_p": 0.1, "repeat_penalty": 1.5, "presence_penalty": 0.25,
        "frequency_penalty": 0.75, "stop": ["\n"],
    });
    let body = sent(&job(json!({"prompt": "p", "sampling": sampling}))).await;
    for (name, value) in sampling.as_object().expect("an object") {
        assert_eq!(&body[name], value, "{name}");
    }

    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let body = sent(&job(json!({
        "messages": [{"role": "user", "content": "hi", "name": "me"}], "tools": tools, "tool_choice": "required",
        "response_format": {"type": "json_object"}, "sampling": {"temperature": 0.5},
    })))
    .await;
    let expected = json!({
        "messages": [{"role": "user", "content": "hi", "name": "me"}], "tools": tools, "tool_choice": "required",
        "response_format": {"type": "json_object"}, "temperature": 0.5, "max_tokens": 8, "stream": true, "seed": 7,
        "stream_options": {"include_usage": true}, "cache_prompt": true, "return_progress": true,
    });
    assert_eq!(body, expected);
}

/// OC-ADAPT-5010: a repeatable or cold job leaves the prompt cache alone, in both forms.
#[tokio::test]
async fn the_prompt_cache() {
    for base in [prompt(), chat()] {
        let cold = json!({"kv_hint": "cold", "prompt": "p"});
        for (job, cached) in [
            (base.clone(), true),
            (Job { repeatable: true, ..base.clone() }, false),
            (job(cold), false),
            (job(json!({"kv_hint": "reuse", "prompt": "p"})), true),
        ] {
            assert_eq!(sent(&job).await["cache_prompt"], cached);
        }
    }
}

/// OpenAI's output constraints in the words of `/completion`.
#[tokio::test]
async fn response_formats() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    for (format, expected) in [
        (json!({"type": "text"}), None),
        (json!({"type": "json_object"}), Some(json!({}))),
        (json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}), Some(schema.clone())),
    ] {
        let body = sent(&job(json!({"prompt": "p", "response_format": format}))).await;
        assert_eq!(body.get("json_schema"), expected.as_ref());
    }
    let replay = replay().await;
    for format in [json!({"type": "xml"}), json!({}), json!({"type": "json_schema"})] {
        let (_, outcome) = run(&replay.adapter(), &job(json!({"prompt": "p", "response_format": format}))).await;
        assert!(matches!(outcome, Err(WorkerError::Rejected(_))));
    }
    let no_fit = job(json!({"workload": "embedding", "prompt": "p"}));
    assert!(matches!(run(&replay.adapter(), &no_fit).await.1, Err(WorkerError::Rejected(_))));
}

/// OC-ADAPT-OAI-6020: the key is in the header and nowhere a person could read it.
#[tokio::test]
async fn the_key() {
    let config =
        LlamaCppConfig { api_key: Some("sk-very-secret-key".into()), ..LlamaCppConfig::new(replay().await.endpoint) };
    let adapter = LlamaCpp::new(&config).expect("an adapter");
    adapter.submit(&prompt()).await.expect("a stream");
    for text in [format!("{config:?}"), format!("{adapter:?}")] {
        assert!(!text.contains("very-secret"), "{text}");
    }
}
