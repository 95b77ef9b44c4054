//! The in-process face, under paused time.

use std::sync::Arc;
use std::time::Duration;

use adapter_api::{Finish, Job, StreamState, TokenEvent, TokenStream, WorkerAdapter, WorkerError, next_events};
use api_types::TaskRequest;
use api_types::sse::FinishReason;
use mock::{Config, FaultKind, Faults, Mock, Simulation};
use serde_json::json;
use tokio::time::Instant;

use crate::client::{engine, post};

fn job(extra: &serde_json::Value, seed: u32) -> Job {
    let mut request = json!({
        "task_id": "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10", "session_id": "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b",
        "workload": "completion", "model_ref": "m", "engine": "mock", "ctx": 64, "priority": "interactive",
        "max_tokens": 40, "deadline_ms": 1000,
    });
    request.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    let request: TaskRequest = serde_json::from_value(request).expect("a task");
    Job { request: Arc::new(request), seed, repeatable: true, correlation_id: "c".into() }
}

fn prompt(text: &str, seed: u32) -> Job {
    job(&json!({"prompt": text}), seed)
}

#[derive(Debug, Default)]
struct Seen {
    started: usize,
    text: String,
    tokens: usize,
    prefill: Vec<f64>,
    finish: Option<Finish>,
}

async fn drain(mut stream: Box<dyn TokenStream>) -> (Seen, Result<(), WorkerError>) {
    let mut seen = Seen::default();
    loop {
        let mut sink = |event: TokenEvent<'_>| match event {
            TokenEvent::Started => seen.started += 1,
            TokenEvent::Token { text, .. } => {
                seen.text.push_str(text);
                seen.tokens += 1;
            }
            TokenEvent::Metrics(progress) => seen.prefill.extend(progress.prefill),
            TokenEvent::End(finish) => seen.finish = Some(finish),
            other => panic!("unexpected {other:?}"),
        };
        match next_events(&mut *stream, &mut sink).await {
            Ok(StreamState::Open) => {}
            Ok(StreamState::Ended) => return (seen, Ok(())),
            Err(error) => return (seen, Err(error)),
        }
    }
}

/// ORCH-3274: started, tokens, end; the engine's own counts; time as configured.
#[tokio::test(start_paused = true)]
async fn events_come_in_order_and_in_time() {
    let config = Config {
        prefill_tokens_per_second: 10.0,
        prefill_batch: 2.try_into().expect("not zero"),
        token_interval: Duration::from_millis(50),
        ..Config::default()
    };
    let mock = Mock::new(Simulation::new(config));
    let begin = Instant::now();
    let (seen, end) = drain(mock.submit(&prompt("one two three", 1)).await.expect("taken")).await;
    assert_eq!(end, Ok(()));
    assert_eq!((seen.started, seen.tokens), (1, 40));
    assert_eq!(seen.prefill, [0.0, 0.5, 1.0]);
    assert_eq!(begin.elapsed(), Duration::from_millis(400 + 39 * 50));
    let finish = seen.finish.expect("an end");
    assert_eq!(finish.reason, FinishReason::Length);
    assert_eq!((finish.usage.tokens_in, finish.usage.tokens_out), (Some(4), Some(40)));
    assert_eq!((finish.usage.prefill_ms, finish.usage.decode_ms), (Some(400.0), Some(1950.0)));
}

/// Both faces of one engine say the same.
#[tokio::test]
async fn both_faces_say_the_same() {
    let mock = Mock::new(Simulation::new(Config::default()));
    let engine = engine(&[]);
    let body = r#"{"prompt":"one two three","n_predict":40,"seed":9,"stream":true}"#;
    let there = post(engine.url(), "/completion", body).await.content();
    let (here, _) = drain(mock.submit(&prompt("one two three", 9)).await.expect("taken")).await;
    assert_eq!(here.text, there);
    let messages = json!([{"role": "user", "content": "Say hello."}]);
    let chat = json!({"messages": messages.clone(), "max_tokens": 40, "seed": 9}).to_string();
    let there = post(engine.url(), "/v1/chat/completions", &chat).await.json();
    let (here, _) = drain(mock.submit(&job(&json!({"messages": messages}), 9)).await.expect("taken")).await;
    assert_eq!(here.text, there["choices"][0]["message"]["content"]);
}

/// ADAPT-3002, ORCH-3058: each fault becomes the error that an HTTP adapter makes of it.
#[tokio::test(start_paused = true)]
async fn faults_become_worker_errors() {
    let after_tokens = 3;
    for (fault, kind) in [
        (FaultKind::Refuse { status: 503, body: None }, "PoolUnavailable"),
        (FaultKind::Refuse { status: 429, body: None }, "Busy"),
        (FaultKind::Refuse { status: 400, body: None }, "Rejected"),
        (FaultKind::WrongContentType, "Adapter"),
        (FaultKind::HalfHead, "WorkerReset"),
        (FaultKind::Reset { after_tokens }, "WorkerReset"),
        (FaultKind::HalfEvent { after_tokens }, "WorkerReset"),
        (FaultKind::OversizedLine { after_tokens, bytes: 100_000_000 }, "Adapter"),
        (FaultKind::HalfCharacter { after_tokens }, "WorkerReset"),
        (FaultKind::CleanEnd { after_tokens }, "WorkerReset"),
        (FaultKind::MalformedEvent { after_tokens }, "Adapter"),
        (FaultKind::ErrorEvent { after_tokens }, "Adapter"),
        (FaultKind::Crash { after_tokens, code: 1 }, "WorkerReset"),
        (FaultKind::CudaError { after_tokens }, "WorkerReset"),
    ] {
        let mock = Mock::new(Simulation::new(Config { faults: Faults::next(1, fault.clone()), ..Config::default() }));
        let crashes = matches!(fault, FaultKind::Crash { .. } | FaultKind::CudaError { .. });
        let (tokens, error) = match mock.submit(&prompt("x", 1)).await {
            Err(error) => (0, error),
            Ok(stream) => {
                let (seen, end) = drain(stream).await;
                (seen.tokens, end.expect_err("a fault"))
            }
        };
        assert!(format!("{error:?}").starts_with(kind), "{fault:?} became {error:?}");
        assert_eq!(tokens, if fault_is_early(&fault) { 0 } else { 3 }, "{fault:?}");
        assert_eq!(mock.health().await.expect("an answer").live, !crashes);
        assert_eq!(mock.submit(&prompt("x", 1)).await.is_ok(), !crashes);
    }
}

/// A stall is silence, not an end.
#[tokio::test(start_paused = true)]
async fn a_stall_is_endless() {
    let faults = Faults::always(FaultKind::Stall { after_tokens: 1 });
    let mock = Mock::new(Simulation::new(Config { faults, ..Config::default() }));
    let stream = mock.submit(&prompt("x", 1)).await.expect("taken");
    tokio::time::timeout(Duration::from_secs(86_400), drain(stream)).await.expect_err("nothing more comes");
    mock.simulation().wait_until(|stats| stats.cancelled == 1 && stats.tokens_written == 1).await;
}

fn fault_is_early(fault: &FaultKind) -> bool {
    matches!(fault, FaultKind::Refuse { .. } | FaultKind::WrongContentType | FaultKind::HalfHead)
}

/// ADAPT-3002, ORCH-3058: what is odd about an end after the engine's last event changes nothing but the times it tells.
#[tokio::test(start_paused = true)]
async fn odd_ends_are_ends() {
    for (fault, timed) in [
        (FaultKind::DuplicateEnd, true),
        (FaultKind::TokensAfterEnd { tokens: 5 }, true),
        (FaultKind::ClockJump { ms: Some(-5) }, false),
        (FaultKind::OversizedLine { after_tokens: 3, bytes: 1000 }, true),
    ] {
        let mock = Mock::new(Simulation::new(Config { faults: Faults::next(1, fault.clone()), ..Config::default() }));
        let (seen, end) = drain(mock.submit(&prompt("x", 1)).await.expect("taken")).await;
        assert_eq!((end, seen.tokens), (Ok(()), 40), "{fault:?}");
        assert_eq!(seen.finish.expect("an end").usage.decode_ms.is_some(), timed, "{fault:?}");
    }
    let cut = Faults::always(FaultKind::ResetBeforeEnd);
    let mock = Mock::new(Simulation::new(Config { faults: cut, ..Config::default() }));
    let (seen, end) = drain(mock.submit(&prompt("x", 1)).await.expect("taken")).await;
    assert!(matches!(end, Err(WorkerError::WorkerReset(_))) && seen.tokens == 40 && seen.finish.is_none());
}

/// Byte by byte, events come as slowly as their bytes.
#[tokio::test(start_paused = true)]
async fn a_trickle_is_slow() {
    let faults = Faults::always(FaultKind::Trickle { after_tokens: 1, ms: 1000 });
    let mock = Mock::new(Simulation::new(Config { faults, ..Config::default() }));
    let begin = Instant::now();
    let (seen, end) = drain(mock.submit(&prompt("x", 1)).await.expect("taken")).await;
    assert_eq!((end, seen.tokens), (Ok(()), 40));
    assert!(begin.elapsed() > Duration::from_secs(40 * 60), "{:?}", begin.elapsed());
}

/// ADAPT-3000: `ready` comes with the end of loading, and `props` tells the slots.
#[tokio::test(start_paused = true)]
async fn loading_ends_in_time() {
    let load_time = Duration::from_secs(5);
    let mock = Mock::new(Simulation::new(Config { load_time, ..Config::default() }));
    let health = mock.health().await.expect("an answer");
    assert!(health.live && !health.ready);
    assert!(matches!(mock.submit(&prompt("x", 1)).await.err(), Some(WorkerError::PoolUnavailable(_))));
    tokio::time::advance(load_time).await;
    assert!(mock.health().await.expect("an answer").ready);
    let running = mock.submit(&prompt("x", 1)).await.expect("taken");
    assert_eq!(mock.props().await.expect("an answer").slots_free, Some(0));
    assert_eq!(mock.busy_slots().await, Ok(Some(1)));
    drop(running);
}

/// Dropping a stream before the first token frees the slot at the next batch of the prompt, as llama.cpp does.
#[tokio::test(start_paused = true)]
async fn a_dropped_stream_frees_its_slot() {
    let config = Config {
        prefill_tokens_per_second: 1.0,
        prefill_batch: 2.try_into().expect("not zero"),
        token_interval: Duration::from_secs(1),
        ..Config::default()
    };
    let sim = Simulation::new(config);
    let mock = Mock::new(sim.clone());
    let begin = Instant::now();
    let mut stream = mock.submit(&prompt("one two three four five", 1)).await.expect("taken");
    next_events(&mut *stream, &mut |_| {}).await.expect("events");
    drop(stream);
    assert_eq!(sim.stats().running, 1);
    sim.wait_until(|stats| stats.cancelled == 1 && stats.running == 0).await;
    assert_eq!(begin.elapsed().as_secs(), 2);
}

#[tokio::test]
async fn embeddings_have_the_width_asked_for() {
    let config = Config { embedding_width: Some(8.try_into().expect("not zero")), ..Config::default() };
    let mock = Mock::new(Simulation::new(config));
    let ask = job(&json!({"workload": "embedding", "inputs": ["a", "b", "a"]}), 1);
    let mut stream = mock.submit(&ask).await.expect("taken");
    let mut vectors = Vec::new();
    let mut sink = |event: TokenEvent<'_>| {
        if let TokenEvent::Embedding { vector, .. } = event {
            vectors.push(vector.to_vec());
        }
    };
    assert_eq!(next_events(&mut *stream, &mut sink).await, Ok(StreamState::Ended));
    assert_eq!(vectors.iter().map(Vec::len).collect::<Vec<_>>(), [8, 8, 8]);
    assert!(vectors[0] == vectors[2] && vectors[0] != vectors[1]);
}
