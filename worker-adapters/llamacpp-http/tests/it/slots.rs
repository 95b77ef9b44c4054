//! Slots in files: what the engine says of them, and a conversation that outlives its engine.

use adapter_api::{Job, SlotFile, SlotView, TokenEvent, Usage, WorkerAdapter, WorkerError, next_events};
use llamacpp_http::{LlamaCpp, LlamaCppConfig};
use mock::server::{Listener, serve};
use mock::{Config, Fault, FaultKind, Faults, Route, Simulation};
use serde_json::json;

use crate::replay::{Replay, job, route};

/// LO-SWP-07: what a slot holds, and what was written and read, by the engine's own count; a build that cannot do it says so, and a
/// refusal is an error.
#[tokio::test]
async fn answers_are_the_engines() {
    let replay = Replay::start(vec![
        route("/slots", "slots_used"),
        route("/slots/1?action=save", "slot_save"),
        route("/slots/1?action=restore", "slot_restore"),
        route("/slots/2?action=save", "slot_save_not_enabled"),
        route("/slots/2?action=restore", "slot_restore_refused"),
        route("/slots/3?action=save", "slot_restore"),
    ])
    .await;
    let adapter = replay.adapter();
    let slots = adapter.slots().await.expect("an answer").expect("it tells");
    let view = |slot, tokens| SlotView { slot, busy: false, tokens };
    assert_eq!(slots, [view(0, None), view(1, Some(13))]);
    let moved = Ok(Some(SlotFile { tokens: 13, bytes: 271_688 }));
    assert_eq!(adapter.save_slot(1, "5f3a.kv").await, moved);
    assert_eq!(adapter.restore_slot(1, "5f3a.kv").await, moved);
    assert_eq!(replay.bodies()[1..], [json!({"filename": "5f3a.kv"}), json!({"filename": "5f3a.kv"})]);
    assert_eq!(adapter.save_slot(2, "a").await, Ok(None));
    let refused = adapter.restore_slot(2, "a").await.expect_err("it cannot");
    assert!(matches!(&refused, WorkerError::Rejected(text) if text.contains("Unable to restore")), "{refused:?}");
    let other = adapter.save_slot(3, "a").await.expect_err("that is no answer to it");
    assert!(matches!(other, WorkerError::Adapter(_)), "{other:?}");
    // Neither does an engine have it that does not know the path.
    assert_eq!(adapter.save_slot(4, "a").await, Ok(None));
}

/// Runs a job to its end: its text, and what the engine counted.
async fn say(engine: &LlamaCpp, job: &Job) -> (String, Usage) {
    let mut stream = engine.submit(job).await.expect("a stream");
    let (mut said, mut usage) = (String::new(), None);
    let mut sink = |event: TokenEvent<'_>| match event {
        TokenEvent::Token { text, .. } => said.push_str(text),
        TokenEvent::End(finish) => usage = Some(finish.usage),
        _ => {}
    };
    while next_events(&mut *stream, &mut sink).await.expect("events") == adapter_api::StreamState::Open {}
    (said, usage.expect("an end"))
}

/// A conversation of two turns, once with a prompt and once with messages, each turn in another life of the engine: the second
/// turn reads little more than what is new. `begin` begins a life, which ends when it is dropped.
pub(crate) async fn a_conversation_outlives_its_engine<Life>(begin: impl AsyncFn() -> (LlamaCpp, Life)) {
    let (first, life) = begin().await;
    let story =
        "The caravan crossed the desert by night, and the stars were the only map that anyone trusted. ".repeat(20);
    let (answer, usage) = say(&first, &job(json!({"prompt": story, "max_tokens": 12}))).await;
    let ask = |messages: serde_json::Value| job(json!({"messages": messages, "max_tokens": 12}));
    let question =
        json!({"role": "user", "content": format!("Tell me more. {}", "Dragons sleep on gold. ".repeat(40))});
    let (reply, chat_usage) = say(&first, &ask(json!([question]))).await;
    // The engine names the slot of a completion; that of a chat is seen by what it holds.
    let left = |usage: Usage| u64::from(usage.tokens_in.expect("counted") + usage.tokens_out.expect("counted"));
    let slots = first.slots().await.expect("an answer").expect("it tells");
    let slot = usage.slot.expect("it is named");
    assert_eq!(slots[slot as usize].tokens, Some(left(usage) - 1), "{slots:?} {usage:?}");
    let chat_slot = slots.iter().find(|view| view.tokens == Some(left(chat_usage) - 1)).expect("one holds it").slot;
    assert_ne!(slot, chat_slot);
    let saved = first.save_slot(slot, "one").await.expect("an answer").expect("it can");
    let chat_saved = first.save_slot(chat_slot, "two").await.expect("an answer").expect("it can");
    assert_eq!((saved.tokens, chat_saved.tokens), (left(usage) - 1, left(chat_usage) - 1));
    assert!(saved.bytes > 0 && chat_saved.bytes > 0);
    drop((first, life));

    let (second, _life) = begin().await;
    assert_eq!(second.restore_slot(slot, "one").await, Ok(Some(saved)));
    assert_eq!(second.restore_slot(chat_slot, "two").await, Ok(Some(chat_saved)));
    let (_, usage) = say(&second, &job(json!({"prompt": format!("{story}{answer} And then"), "max_tokens": 4}))).await;
    let (read, cached) = (usage.tokens_in.expect("counted"), usage.tokens_cached.expect("counted"));
    assert!(cached > 300 && read - cached < 60, "{cached} of {read} tokens were there");
    let messages = json!([question, {"role": "assistant", "content": reply}, {"role": "user", "content": "And then?"}]);
    let (_, usage) = say(&second, &ask(messages)).await;
    let (read, cached) = (usage.tokens_in.expect("counted"), usage.tokens_cached.expect("counted"));
    assert!(cached > 150 && read - cached < 60, "{cached} of {read} tokens were there");

    let refused = second.restore_slot(slot, "none").await.expect_err("there is no such file");
    assert!(matches!(refused, WorkerError::Rejected(_)), "{refused:?}");
}

/// A simulated engine with two slots that listens as long as its task lives.
async fn simulated(folder: &std::path::Path, faults: Faults) -> (LlamaCpp, tokio::task::JoinHandle<()>) {
    let (listener, address) = Listener::loopback().await.expect("a port");
    let slots = std::num::NonZeroU32::new(2).expect("not zero");
    let config = Config { slot_save_path: Some(folder.to_owned()), slots, faults, ..Config::default() };
    let serving = tokio::spawn(async move { serve(listener, Simulation::new(config)).await.expect("it serves") });
    let endpoint = format!("http://{address}").parse().expect("an endpoint");
    (LlamaCpp::new(&LlamaCppConfig::new(endpoint)).expect("an adapter"), serving)
}

/// LO-SWP-07: the simulated engine does as the real one.
#[tokio::test]
async fn with_the_simulated_engine() {
    let folder = tempfile::tempdir().expect("a folder");
    a_conversation_outlives_its_engine(async || simulated(folder.path(), Faults::default()).await).await;
}

/// LO-SWP-07: an engine that fails to write or to read says so, and is asked once.
#[tokio::test]
async fn failures_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let refuse = |on| Fault { fault: FaultKind::Refuse { status: 500, body: None }, times: Some(1), on };
    let faults = Faults { faults: vec![refuse(Route::SaveSlot), refuse(Route::RestoreSlot)] };
    let (engine, serving) = simulated(folder.path(), faults).await;
    engine.save_slot(0, "a").await.expect_err("it fails");
    assert_eq!(engine.save_slot(0, "a").await.map(|saved| saved.map(|file| file.tokens)), Ok(Some(0)));
    engine.restore_slot(0, "a").await.expect_err("it fails");
    engine.restore_slot(0, "a").await.expect("it can");
    engine.save_slot(0, "../a").await.expect_err("a plain name");
    serving.abort();
}
