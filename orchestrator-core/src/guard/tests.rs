//! Requests as JSON, and what is said about them.

use api_types::{ErrorKind, TaskRequest};
use serde_json::{Value, json};

use super::{ModelLimits, TokenCount, check_limits, check_request};

/// A good completion with some members replaced; `null` takes one out.
fn request(changes: &Value) -> TaskRequest {
    let mut body = json!({
        "task_id": "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10",
        "session_id": "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b",
        "workload": "completion",
        "model_ref": "hf:org/repo/file.gguf",
        "engine": "llamacpp",
        "ctx": 4096,
        "priority": "interactive",
        "max_tokens": 128,
        "deadline_ms": 60000,
        "prompt": "SECRET words",
    });
    for (name, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            body.as_object_mut().expect("an object").remove(name);
        } else {
            body[name] = value.clone();
        }
    }
    serde_json::from_value(body).expect("it fits the type")
}

#[track_caller]
fn check_refused(changes: &Value, kind: ErrorKind, hint: &str) {
    let refusal = check_request(&request(changes)).expect_err(&changes.to_string());
    assert_eq!(refusal.kind, kind, "{refusal}");
    assert!(refusal.message.contains(hint), "{refusal}, for {changes}");
    assert!(!refusal.message.contains("SECRET"), "{refusal}");
}

#[test]
fn good_requests_pass() {
    let cases = [
        json!({}),
        json!({"ctx": 128, "max_tokens": 128, "deadline_ms": 1, "seed": 0, "expected_tokens": 0}),
        json!({"seed": 4_294_967_294_i64}),
        json!({"prompt": null, "messages": [{"role": "user", "content": "hi"}], "tools": [{}], "tool_choice": "auto"}),
        json!({"prompt": null, "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "tool_calls": []},
            {"role": "tool", "content": "42", "tool_call_id": "1"},
        ]}),
        json!({"workload": "embedding", "prompt": null, "inputs": ["a"], "max_tokens": 0}),
        json!({"workload": "rerank", "prompt": null, "inputs": ["a", "b"], "max_tokens": 0}),
        json!({"sampling": {"temperature": 0.0, "top_p": 1.0, "min_p": 0.0, "top_k": 0, "presence_penalty": -2.0}}),
        json!({"placement": {"mode": "pin", "pin_pool_id": "a"}}),
        json!({"placement": {"mode": "prefer", "prefer_pools": ["a"], "avoid_pools": ["b"]}}),
        json!({"placement": {"avoid_pools": ["b"], "require_device_mask": "GPU0"}}),
    ];
    for changes in cases {
        assert_eq!(check_request(&request(&changes)), Ok(()), "{changes}");
    }
}

/// ORCH-3014, ORCH-3330, LO-ERR-01: refused up front, for a reason that says what to change and not what the prompt says.
#[test]
fn bad_requests_are_told_what_to_change() {
    let chat = |messages: Value| json!({"prompt": null, "messages": messages});
    let sampling = |sampling: Value| json!({"sampling": sampling});
    let placement = |placement: Value| json!({"placement": placement});
    let cases = [
        (json!({"model_ref": "  "}), "model_ref"),
        (json!({"ctx": 0}), "ctx is 0"),
        (json!({"max_tokens": 0}), "max_tokens is 0"),
        (json!({"max_tokens": -1, "workload": "embedding", "prompt": null, "inputs": ["SECRET"]}), "max_tokens is -1"),
        (json!({"ctx": 100}), "max_tokens 128 is more than ctx 100"),
        (json!({"seed": -1}), "from 0 to 4294967294"),
        (json!({"seed": 4_294_967_295_i64}), "from 0 to 4294967294"),
        (json!({"expected_tokens": -1}), "expected_tokens"),
        (json!({"prompt": null}), "not 0"),
        (json!({"inputs": ["SECRET"]}), "not 2"),
        (json!({"prompt": null, "inputs": ["SECRET"]}), "prompt or messages"),
        (json!({"workload": "embedding"}), "takes inputs"),
        (json!({"workload": "embedding", "prompt": null, "inputs": []}), "inputs is empty"),
        (json!({"workload": "rerank", "prompt": null, "inputs": ["SECRET"]}), "at least 2"),
        (chat(json!([])), "messages is empty"),
        (chat(json!([{"role": "SECRET", "content": "x"}])), "messages[0].role"),
        (chat(json!([{"role": "user", "content": "x"}, {"role": "user"}])), "messages[1].content is missing"),
        (chat(json!([{"role": "user", "content": {"SECRET": 1}}])), "messages[0].content"),
        (sampling(json!({"temperature": -0.1})), "temperature"),
        (sampling(json!({"top_p": 1.1})), "from 0 to 1"),
        (sampling(json!({"min_p": -0.1})), "from 0 to 1"),
        (sampling(json!({"top_k": -1})), "top_k"),
        (sampling(json!({"repeat_penalty": -1.0})), "repeat_penalty"),
        (sampling(json!({"stop": ["SECRET", ""]})), "stop"),
        (json!({"tools": []}), "tools need messages"),
        (json!({"tool_choice": "auto"}), "tool_choice needs tools"),
        (placement(json!({"mode": "pin"})), "needs pin_pool_id"),
        (placement(json!({"mode": "prefer", "prefer_pools": []})), "needs prefer_pools"),
        (placement(json!({"pin_pool_id": "a"})), "mode `pin`"),
        (placement(json!({"mode": "pin", "pin_pool_id": "a", "prefer_pools": ["b"]})), "mode `prefer`"),
        (placement(json!({"mode": "pin", "pin_pool_id": "a", "avoid_pools": ["a"]})), "avoid_pools"),
        (
            placement(json!({"mode": "prefer", "prefer_pools": ["a"], "avoid_pools": ["a"], "allow_fallback": false})),
            "avoid_pools",
        ),
    ];
    for (changes, hint) in cases {
        check_refused(&changes, ErrorKind::InvalidParams, hint);
    }
    for deadline_ms in [0, -5] {
        check_refused(&json!({"deadline_ms": deadline_ms}), ErrorKind::DeadlineUnmet, "above 0");
    }
}

/// JSON has no way to write these, but the type can hold them.
#[test]
fn numbers_that_are_none_are_refused() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut request = request(&json!({"sampling": {}}));
        request.sampling.as_mut().expect("it is there").frequency_penalty = Some(value);
        assert!(check_request(&request).is_err(), "{value}");
    }
}

/// ORCH-3014, ORCH-3016, C12: real limits, and nothing is shortened.
#[test]
fn limits_are_the_models_own() {
    let task = request(&json!({"ctx": 1000, "max_tokens": 200}));
    let known = |ctx_max, max_tokens_out| ModelLimits { ctx_max: Some(ctx_max), max_tokens_out: Some(max_tokens_out) };
    let cases = [
        (ModelLimits::default(), TokenCount::Unknown, None),
        (known(1000, 200), TokenCount::Exact(800), None),
        (known(999, 200), TokenCount::Exact(1), Some("ctx 1000 is more than the model's 999")),
        (known(1000, 199), TokenCount::Exact(1), Some("at most 199")),
        (known(1000, 200), TokenCount::Exact(801), Some("has 801 tokens")),
        (known(1000, 200), TokenCount::Estimated(1_601), None),
        (known(1000, 200), TokenCount::Estimated(1_602), Some("at least 801 tokens")),
        (known(1000, 200), TokenCount::Exact(u32::MAX), Some("4294967295")),
    ];
    for (limits, prompt, hint) in cases {
        match (check_limits(&task, &limits, prompt), hint) {
            (Ok(()), None) => {}
            (Err(refusal), Some(hint)) => assert!(refusal.message.contains(hint), "{refusal}"),
            (checked, _) => panic!("{limits:?} {prompt:?}: {checked:?}"),
        }
    }
}
