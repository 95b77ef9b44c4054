//! The adapter against a running llama.cpp server that generates: `LLAMA_ORCH_REAL_ENGINE=http://127.0.0.1:8080`. Without it these
//! tests say that they were skipped, or fail when `REQUIRE_REAL_LLAMA=1`.

use std::time::{Duration, Instant};

use adapter_api::{TokenEvent, WorkerAdapter, WorkerError, WorkerHealth, next_events};
use llamacpp_http::{LlamaCpp, LlamaCppConfig};
use serde_json::json;

use crate::replay::{chat, job, prompt, run};

fn engine() -> Option<LlamaCpp> {
    let Ok(url) = std::env::var("LLAMA_ORCH_REAL_ENGINE") else {
        let required = std::env::var("REQUIRE_REAL_LLAMA").is_ok_and(|value| value == "1");
        assert!(!required, "REQUIRE_REAL_LLAMA=1 needs LLAMA_ORCH_REAL_ENGINE");
        eprintln!("skipped: LLAMA_ORCH_REAL_ENGINE is not set");
        return None;
    };
    let config = LlamaCppConfig::new(url.parse().expect("an endpoint"));
    Some(LlamaCpp::new(&config).expect("an adapter"))
}

/// Usage as a job's last event tells it: tokens in, tokens out.
async fn usage(engine: &LlamaCpp, job: &adapter_api::Job) -> (Option<u32>, Option<u32>) {
    let mut stream = engine.submit(job).await.expect("a stream");
    let mut usage = None;
    let mut sink = |event: TokenEvent<'_>| {
        if let TokenEvent::End(finish) = event {
            usage = Some((finish.usage.tokens_in, finish.usage.tokens_out));
        }
    };
    while next_events(&mut *stream, &mut sink).await.expect("events") == adapter_api::StreamState::Open {}
    usage.expect("an end")
}

/// ADAPT-3000, OC-ADAPT-5001, OC-ADAPT-5011: every call of the trait; token counts agree with what the engine used.
#[tokio::test]
async fn every_call() {
    let Some(engine) = engine() else { return };
    assert_eq!(engine.health().await, Ok(WorkerHealth { live: true, ready: true }));
    let props = engine.props().await.expect("properties");
    assert!(props.slots_total > Some(0) && props.ctx_max > Some(0) && props.model.is_some(), "{props:?}");
    eprintln!("{props:?} {:?}", engine.engine_version().await);
    for job in [prompt(), chat()] {
        let counted = engine.count_tokens(&job).await.expect("a count");
        let (tokens_in, tokens_out) = usage(&engine, &job).await;
        assert_eq!((counted, tokens_out.is_some_and(|out| out <= 8)), (tokens_in, true));
    }
    let embedding = job(json!({"workload": "embedding", "inputs": ["a"]}));
    let outcome = run(&engine, &embedding).await.1;
    if !props.workloads.contains(&api_types::Workload::Embedding) {
        assert!(matches!(outcome, Err(WorkerError::Rejected(_))), "{outcome:?}");
    }
    let too_long = job(json!({"prompt": "word ".repeat(100_000)}));
    let outcome = run(&engine, &too_long).await.1;
    assert!(matches!(&outcome, Err(WorkerError::Rejected(text)) if text.contains("context holds")), "{outcome:?}");
    let object = job(json!({"prompt": "JSON:", "response_format": {"type": "json_object"}}));
    let events = run(&engine, &object).await.0;
    assert!(events.iter().any(|event| event.contains("text: \"{")), "{events:?}");
}

/// Equal repeatable jobs give equal events, the engine's timings aside.
#[tokio::test]
async fn repeatable_jobs_repeat() {
    let Some(engine) = engine() else { return };
    let mut job = job(json!({"prompt": "Once upon a time", "max_tokens": 24, "sampling": {"temperature": 0.8}}));
    job.repeatable = true;
    let mut runs = Vec::new();
    for _ in 0..2 {
        let (events, outcome) = run(&engine, &job).await;
        outcome.expect("a good end");
        runs.push(events.into_iter().filter(|event| event.starts_with("Token")).collect::<Vec<_>>());
    }
    assert_eq!(runs[0], runs[1]);
}

/// ADAPT-3101: dropping a stream while it generates frees its slot long before the task would have ended.
#[tokio::test]
async fn dropping_a_stream_frees_its_slot() {
    let Some(engine) = engine() else { return };
    let total = engine.props().await.expect("properties").slots_total;
    let long = job(json!({"prompt": "Count: 1, 2, 3,", "max_tokens": 400, "sampling": {"temperature": 0.0}}));
    let mut stream = engine.submit(&long).await.expect("a stream");
    let mut tokens = 0;
    while tokens < 5 {
        let mut sink = |event: TokenEvent<'_>| tokens += i32::from(matches!(event, TokenEvent::Token { .. }));
        next_events(&mut *stream, &mut sink).await.expect("events");
    }
    let dropped = Instant::now();
    drop(stream);
    let freed = async {
        while engine.props().await.expect("properties").slots_free != total {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), freed).await.expect("a free slot");
    eprintln!("slot free {:?} after the drop", dropped.elapsed());
}

/// A real engine of our own with two slots, which ends with this.
struct RealLife(std::process::Child);

impl Drop for RealLife {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed then.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Starts the engine that is installed, with a folder for saved slots, and waits until its model is loaded.
async fn begin(python: &std::ffi::OsStr, folder: &std::path::Path) -> (LlamaCpp, RealLife) {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../xtask/engines/serve_llamacpp.py");
    let model = std::env::var_os("LLAMA_ORCH_REAL_ENGINE_MODEL").expect("an engine has a model");
    let url_file = folder.join("url");
    // That of the life before.
    let _absent = std::fs::remove_file(&url_file);
    let mut command = std::process::Command::new(python);
    command.arg(script).arg("--model-file").arg(model).arg("--url-file").arg(&url_file);
    command.args(["--parallel", "2", "--ctx", "4096", "--slot-save-path"]).arg(folder);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut life = RealLife(command.spawn().expect("it starts"));
    let url = loop {
        if let Ok(url) = std::fs::read_to_string(&url_file) {
            break url;
        }
        assert_eq!(life.0.try_wait().expect("it is ours"), None, "it has ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let engine = LlamaCpp::new(&LlamaCppConfig::new(url.parse().expect("an endpoint"))).expect("an adapter");
    while engine.health().await != Ok(WorkerHealth { live: true, ready: true }) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (engine, life)
}

/// LO-SWP-07, LO-TST-04: a real engine's slots, saved by one process and restored by the next, spare it the prompts.
#[tokio::test]
async fn a_conversation_outlives_a_real_engine() {
    let Some(python) = std::env::var_os("LLAMA_ORCH_REAL_ENGINE_PYTHON") else {
        let required = std::env::var("REQUIRE_REAL_LLAMA").is_ok_and(|value| value == "1");
        assert!(!required, "REQUIRE_REAL_LLAMA=1 needs LLAMA_ORCH_REAL_ENGINE_PYTHON");
        eprintln!("skipped: LLAMA_ORCH_REAL_ENGINE_PYTHON is not set");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    crate::slots::a_conversation_outlives_its_engine(async || begin(&python, folder.path()).await).await;
}
