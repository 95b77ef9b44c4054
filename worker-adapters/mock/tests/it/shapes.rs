//! Responses beside transcripts of llama.cpp's own server: same statuses, headers and members.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::client::{Response, call, engine, get, parse, post};

macro_rules! transcript {
    ($name:literal) => {
        parse(include_bytes!(concat!("transcripts/", $name, ".txt"))).expect("a response")
    };
}

/// Every member with its type, as paths; of a list only what its first element has.
fn shape(value: &Value) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    walk("", value, &mut paths);
    paths
}

fn walk(path: &str, value: &Value, paths: &mut BTreeSet<String>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    paths.insert(format!("{path}: {kind}"));
    match value {
        Value::Array(items) => items.iter().take(1).for_each(|item| walk(&format!("{path}[]"), item, paths)),
        Value::Object(members) => members.iter().for_each(|(key, item)| walk(&format!("{path}.{key}"), item, paths)),
        _ => {}
    }
}

/// Header names and values, without those that depend on the connection, the length or the process.
fn headers(response: &Response) -> BTreeSet<(String, &str)> {
    let varying = ["connection", "content-length", "process-start-time-unix"];
    let headers = response.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()));
    headers.filter(|(name, _)| !varying.contains(&name.as_str())).collect()
}

fn check_same(ours: &Response, theirs: &Response) {
    assert_eq!(ours.status, theirs.status);
    assert_eq!(headers(ours), headers(theirs));
    assert!(ours.complete, "{}", ours.text());
}

fn check_json(ours: &Response, theirs: &Response) {
    check_same(ours, theirs);
    assert_eq!(shape(&ours.json()), shape(&theirs.json()));
}

/// Streams have as many events, whose shapes are the same one by one.
fn check_events(ours: &Response, theirs: &Response) {
    check_same(ours, theirs);
    let shapes = |response: &Response| response.events().iter().map(shape).collect::<Vec<_>>();
    assert_eq!(shapes(ours), shapes(theirs));
    assert_eq!(ours.text().ends_with("data: [DONE]\n\n"), theirs.text().trim_end().ends_with("[DONE]"));
}

/// LO-WAD-10, ORCH-3058: what adapters are tested against looks like what they will meet.
#[tokio::test]
async fn streams_look_like_llama_servers() {
    let engine = engine(&["--prefill-batch", "6"]);
    let url = engine.url();
    let ours = post(url, "/completion", r#"{"prompt":"The capital","n_predict":8,"seed":1,"stream":true}"#).await;
    check_events(&ours, &transcript!("completion_stream"));
    let body = r#"{"prompt":"Once upon a time there was a small dragon who","n_predict":3,"stream":true,
        "return_progress":true,"cache_prompt":false}"#;
    check_events(&post(url, "/completion", body).await, &transcript!("completion_stream_return_progress"));
    let chat = r#"{"messages":[{"role":"user","content":"Say hello."}],"max_tokens":8,"seed":1,"stream":true"#;
    let ours = post(url, "/v1/chat/completions", &format!("{chat}}}")).await;
    check_events(&ours, &transcript!("v1_chat_completions_stream"));
    let ours =
        post(url, "/v1/chat/completions", &format!(r#"{chat},"stream_options":{{"include_usage":true}}}}"#)).await;
    check_events(&ours, &transcript!("v1_chat_completions_stream_usage"));
}

#[tokio::test]
async fn answers_look_like_llama_servers() {
    let engine = engine(&["--slots", "2", "--embedding-width", "4", "--ctx", "1024"]);
    let url = engine.url();
    for (path, theirs) in [
        ("/health", transcript!("health")),
        ("/v1/health", transcript!("health")),
        ("/props", transcript!("props")),
        ("/v1/models", transcript!("models")),
        ("/slots", transcript!("slots_idle")),
        ("/no/such/thing", transcript!("not_found")),
    ] {
        check_json(&get(url, path).await, &theirs);
    }
    let long = format!(r#"{{"prompt":"{}","stream":true}}"#, "word ".repeat(3000));
    for (path, body, theirs) in [
        ("/completion", r#"{"prompt":"The capital","n_predict":8}"#, transcript!("completion_nonstream")),
        ("/completion", long.as_str(), transcript!("completion_err_ctx_overflow")),
        (
            "/v1/chat/completions",
            r#"{"messages":[{"role":"user","content":"Say hello."}],"max_tokens":8}"#,
            transcript!("v1_chat_completions_nonstream"),
        ),
        ("/v1/embeddings", r#"{"input":"hello"}"#, transcript!("v1_embeddings")),
        ("/tokenize", r#"{"content":"Hello, world!","add_special":true}"#, transcript!("tokenize")),
        ("/tokenize", r#"{"content":"Hello, world!","with_pieces":true}"#, transcript!("tokenize_pieces")),
    ] {
        check_json(&post(url, path, body).await, &theirs);
    }
    for body in ["{\"prompt\":", "{}", r#"{"prompt":"hi","n_predict":"many"}"#] {
        let refused = post(url, "/completion", body).await;
        assert_eq!((refused.status, &refused.json()["error"]["type"]), (400, &"invalid_request_error".into()));
    }
}

#[tokio::test]
async fn metrics_have_llama_servers_names() {
    let engine = engine(&[]);
    let (ours, theirs) = (get(engine.url(), "/metrics").await, transcript!("metrics"));
    check_same(&ours, &theirs);
    let theirs = theirs.text();
    let ours = ours.text();
    let (ours, theirs): (BTreeSet<&str>, BTreeSet<&str>) = (names(&ours), names(&theirs));
    assert!(ours.is_subset(&theirs), "{ours:?}");
}

fn names(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect()
}

#[tokio::test]
async fn refusals_look_like_llama_servers() {
    let plain = engine(&[]);
    let ours = post(plain.url(), "/v1/embeddings", r#"{"input":"hello"}"#).await;
    check_json(&ours, &transcript!("embeddings_not_enabled"));
    let loading = engine(&["--load-ms", "3600000"]);
    for (method, path) in [("GET", "/health"), ("GET", "/props"), ("POST", "/completion")] {
        check_json(&call(loading.url(), method, path, "").await, &transcript!("health_loading"));
    }
}

/// A stop text is counted and not sent, and the events up to it hold back what might have been its beginning.
#[tokio::test]
async fn stop_texts_end_the_stream() {
    let engine = engine(&[]);
    let whole = post(engine.url(), "/completion", r#"{"prompt":"x","n_predict":20,"seed":3,"stream":true}"#).await;
    let words: Vec<String> = whole.content().split(' ').map(str::to_owned).collect();
    let stop = format!(" {}", words[9]);
    let body = format!(r#"{{"prompt":"x","n_predict":20,"seed":3,"stream":true,"stop":["{stop}"]}}"#);
    let stopped = post(engine.url(), "/completion", &body).await;
    let last = stopped.events().pop().expect("a last event");
    assert_eq!((&last["stop_type"], &last["stopping_word"]), (&"word".into(), &stop.as_str().into()));
    let theirs = transcript!("completion_stream_stop_word").events().pop().expect("a last event");
    assert_eq!(shape(&last), shape(&theirs));
    assert_eq!(stopped.content(), whole.content().split(&stop).next().expect("text before the stop"));
}

/// LO-SWP-07: slots that are saved and restored, one that cannot be, and an engine that was not started for it.
#[tokio::test]
async fn slot_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8");
    let (without, with) = (engine(&["--slots", "2"]), engine(&["--slots", "2", "--slot-save-path", path]));
    let body = r#"{"filename":"5f3a.kv"}"#;
    for (url, path, body, theirs) in [
        (with.url(), "/slots/1?action=save", body, transcript!("slot_save")),
        (with.url(), "/slots/1?action=restore", body, transcript!("slot_restore")),
        (with.url(), "/slots/1?action=restore", r#"{"filename":"none.kv"}"#, transcript!("slot_restore_refused")),
        (without.url(), "/slots/1?action=save", body, transcript!("slot_save_not_enabled")),
    ] {
        check_json(&post(url, path, body).await, &theirs);
    }
}
