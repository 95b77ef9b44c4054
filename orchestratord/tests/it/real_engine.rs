//! The same daemon in front of a real llama.cpp server with a real model, when `cargo xtask test` has brought one up. The
//! engine has one slot, so these tests take turns (`.config/nextest.toml`).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Daemon, Event, config, eventually_async, id, names, task, text, with};

/// Rounds of the tests that cancel; `REAL_ENGINE_ROUNDS` asks for more.
const ROUNDS: usize = 20;

/// The engine's URL. Without one the test is skipped, aloud; with `REQUIRE_REAL_LLAMA=1` that is a failure.
fn engine() -> Option<String> {
    let url = std::env::var("LLAMA_ORCH_REAL_ENGINE").ok();
    if url.is_none() {
        assert!(std::env::var("REQUIRE_REAL_LLAMA").as_deref() != Ok("1"), "REQUIRE_REAL_LLAMA=1 and no real engine");
        eprintln!("skipped: no real engine; `cargo xtask test` brings one up");
    }
    url
}

async fn daemon(engine: &str) -> Daemon {
    let daemon = Daemon::start(&config(engine, "")).await;
    daemon.ready().await;
    daemon
}

fn request(prompt: &str, max_tokens: u32, seed: u32) -> Value {
    let request = with(with(task(prompt, max_tokens), "ctx", json!(1024)), "seed", json!(seed));
    with(request, "sampling", json!({"temperature": 0.8}))
}

async fn tokens(daemon: &Daemon, request: &Value) -> Vec<Value> {
    let events = daemon.run(request).await.rest().await;
    assert_eq!(events.last().expect("frames").name, "end", "{events:?}");
    events.into_iter().filter(|event| event.name == "token").map(|event| event.data).collect()
}

async fn slot_is_idle(engine: &str) -> bool {
    let slots: Value = reqwest::get(format!("{engine}/slots")).await.expect("an answer").json().await.expect("JSON");
    slots.as_array().expect("slots").iter().all(|slot| slot["is_processing"] == false)
}

/// ORCH-3051.2, LO-TST-04: a real model's text, fresh each time, counted by the engine.
#[tokio::test]
async fn a_real_model_answers() {
    let Some(engine) = engine() else { return };
    let daemon = daemon(&engine).await;
    let fresh = format!("The number {} is", std::process::id());
    let events = daemon.run(&request(&fresh, 16, 1)).await.rest().await;
    let names = names(&events);
    assert_eq!((names[0], names[names.len() - 1]), ("started", "end"));
    assert!(!text(&events).trim().is_empty());
    let end = &events[events.len() - 1].data;
    assert!((1..=16).contains(&end["tokens_out"].as_u64().expect("counted")), "{end}");
    assert!(end["tokens_in"].as_u64() > Some(3), "{end}");
}

/// ORCH-3045, OC-TEST-7003, OC-CLI-2006: 64 seeds, each run twice with another prompt in between that fills the engine's
/// cache, give the same `token` data byte for byte; and seeds matter.
#[tokio::test]
async fn the_same_seed_gives_the_same_bytes() {
    let Some(engine) = engine() else { return };
    let daemon = daemon(&engine).await;
    let seeds: Vec<u32> = (0..64).map(|number| number * 7919 + 1).collect();
    let prompt = "Once upon a time there was a small dragon who";
    let mut outputs = Vec::new();
    for &seed in &seeds {
        let first = tokens(&daemon, &request(prompt, 8, seed)).await;
        tokens(&daemon, &request("Once upon a time there was a large queue that", 2, seed)).await;
        assert_eq!(first, tokens(&daemon, &request(prompt, 8, seed)).await, "seed {seed}");
        outputs.push(first);
    }
    outputs.dedup();
    assert!(outputs.len() > 8, "a sampler that heeds its seed gives different texts");
}

/// The case that a prompt cache is known to break: a long prompt at a temperature above 0, cold, after itself, and after a
/// prompt that shares its beginning.
#[tokio::test]
async fn a_long_prompt_is_repeatable_too() {
    let Some(engine) = engine() else { return };
    let daemon = daemon(&engine).await;
    let start = "The caravan crossed the desert by night, and the stars were the only map anyone trusted. ".repeat(8);
    let long = format!("{start}In the morning they");
    let cold = tokens(&daemon, &request(&long, 12, 5)).await;
    let again = tokens(&daemon, &request(&long, 12, 5)).await;
    tokens(&daemon, &request(&format!("{start}Nobody"), 4, 5)).await;
    let after_sibling = tokens(&daemon, &request(&long, 12, 5)).await;
    assert_eq!((&cold, &cold), (&again, &after_sibling));
}

/// ORCH-3026, ADAPT-3101: over and over, a cancel and a lost client free the engine's slot, and nothing follows. Prints how
/// long the engine took.
#[tokio::test]
async fn cancel_and_disconnect_free_the_slot() {
    let Some(engine) = engine() else { return };
    let daemon = daemon(&engine).await;
    let rounds = std::env::var("REAL_ENGINE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let (mut canceled, mut lost) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let task = with(request("Count: 1 2 3", 900, 3), "sampling", json!({"temperature": 0}));
        let mut stream = daemon.run(&task).await;
        for _ in 0..=round % 5 {
            stream.until("token").await;
        }
        if round % 2 == 0 {
            assert_eq!(daemon.cancel(id(&task)).await, 204);
            canceled.push(idle_after(&engine).await);
            let rest: Vec<Event> = stream.rest().await;
            assert_eq!(
                rest.last().map(|event| (event.name.as_str(), &event.data["canceled"])),
                Some(("end", &json!(true)))
            );
        } else {
            drop(stream);
            lost.push(idle_after(&engine).await);
        }
        daemon.no_leases().await;
    }
    report("canceled → slot idle", canceled);
    report("client gone → slot idle", lost);
}

async fn idle_after(engine: &str) -> Duration {
    let start = Instant::now();
    eventually_async("the engine's slot is idle", async || slot_is_idle(engine).await.then_some(())).await;
    start.elapsed()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).copied();
    eprintln!("{what}: n={} p50={:?} p99={:?} max={:?}", times.len(), at(50), at(99), times.last());
}

/// ORCH-3014, ORCH-3016: what does not fit is refused before it is queued, by the engine's own count, never shortened; what
/// just fits is taken, and counted.
#[tokio::test]
async fn a_prompt_that_does_not_fit_is_refused() {
    let Some(engine) = engine() else { return };
    let daemon = daemon(&engine).await;
    let refused = daemon.post("/v1/tasks", &request(&"word ".repeat(6000), 8, 1)).await;
    assert_eq!(refused.status(), 400);
    let body: Value = refused.json().await.expect("JSON");
    assert_eq!(body["code"], "INVALID_PARAMS");
    assert!(body["message"].as_str().is_some_and(|message| message.contains("has 6002 tokens")), "{body}");
    let fits = request(&"word ".repeat(300), 8, 1);
    let events = daemon.run(&fits).await.rest().await;
    assert_eq!((&events[0].data["tokens_in"], events.last().expect("frames").name.as_str()), (&json!(302), "end"));
    let summary = daemon.json(&format!("/v1/tasks/{}", id(&fits))).await;
    assert_eq!(summary["input_tokens"], json!({"tokens": 302, "source": "exact"}));
    assert!(!tokens(&daemon, &request("Still alive:", 2, 1)).await.is_empty());
}

/// ADAPT-3101: a chat is rendered by the model's own template.
#[tokio::test]
async fn a_real_model_chats() {
    let Some(engine) = engine() else { return };
    let daemon = daemon(&engine).await;
    let chat = with(request("", 12, 1), "prompt", Value::Null);
    let events =
        daemon.run(&with(chat, "messages", json!([{"role": "user", "content": "Say hello."}]))).await.rest().await;
    assert_eq!(events.last().expect("frames").name, "end", "{events:?}");
    assert!(!text(&events).is_empty());
}
