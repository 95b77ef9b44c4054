//! Slots, seeds, counts.

use std::collections::BTreeSet;

use mock::process::MockEngineProcess;
use mock::server::{Listener, serve};
use mock::{Config, Simulation};
use serde_json::Value;

use crate::client::{counts, engine, get, post, send};

fn body(seed: u32, tokens: u32) -> String {
    format!(
        r#"{{"prompt":"one two three four","n_predict":{tokens},"seed":{seed},"stream":true,"cache_prompt":false}}"#
    )
}

/// Equal seeds give equal bytes, in another process too; the last event's times are the only difference.
#[tokio::test]
async fn a_seed_gives_one_text() {
    let (first, second) = (engine(&["--slots", "2"]), engine(&["--threads", "2"]));
    let text = async |url: &str, seed: u32| post(url, "/completion", &body(seed, 300)).await.content();
    let once = text(first.url(), 7).await;
    assert_eq!(once, text(first.url(), 7).await);
    assert_eq!(once, text(second.url(), 7).await);
    assert_ne!(once, text(first.url(), 8).await);
    assert!(!once.is_ascii());
    let careless = engine(&["--ignore-seed"]);
    assert_ne!(text(careless.url(), 7).await, text(careless.url(), 7).await);
}

/// The knob that imitates llama.cpp's own weakness.
#[tokio::test]
async fn a_warm_cache_can_change_the_text() {
    let warm = r#"{"prompt":"one two three four","n_predict":30,"seed":7,"stream":true}"#;
    for (args, differs) in [(&["--cache-sensitive"][..], true), (&[][..], false)] {
        let engine = engine(args);
        let cold = post(engine.url(), "/completion", &body(7, 30)).await;
        let warm = post(engine.url(), "/completion", warm).await;
        assert_eq!(cold.content() != warm.content(), differs);
        assert_eq!(warm.events().pop().expect("a last event")["timings"]["cache_n"], 4);
        let again = post(engine.url(), "/completion", &body(7, 30)).await;
        assert_eq!(cold.content(), again.content());
    }
}

#[tokio::test]
async fn counts_are_the_engines_own() {
    let engine = engine(&["--split-characters"]);
    let answer = post(engine.url(), "/completion", &body(7, 300)).await;
    let events = answer.events();
    let last = events.last().expect("a last event");
    assert_eq!((&last["tokens_predicted"], &last["tokens_evaluated"]), (&300.into(), &5.into()));
    assert!(events.len() < 301, "some events stand for several tokens");
    assert_eq!(counts(engine.url(), "completed=1").await["tokens_written"], 300);
}

#[tokio::test]
async fn the_model_or_the_context_may_end_first() {
    let engine = engine(&["--eos-after", "5..5", "--ctx", "8"]);
    let last = |answer: crate::client::Response| answer.events().pop().expect("a last event");
    let by_model = last(post(engine.url(), "/completion", r#"{"prompt":"x","n_predict":100,"stream":true}"#).await);
    assert_eq!((&by_model["stop_type"], &by_model["tokens_predicted"]), (&"eos".into(), &5.into()));
    let by_ctx = last(post(engine.url(), "/completion", r#"{"prompt":"x","ignore_eos":true,"stream":true}"#).await);
    assert_eq!((&by_ctx["stop_type"], &by_ctx["truncated"]), (&"limit".into(), &true.into()));
    assert_eq!(by_ctx["tokens_predicted"], 6);
}

/// ORCH-3058: lengths differ from request to request, below what was asked for, and equal requests have equal lengths.
#[tokio::test]
async fn outputs_are_a_share_of_what_was_asked_for() {
    let engine = engine(&["--eos-percent", "25..75"]);
    let mut lengths = Vec::new();
    for seed in (0..20).chain(0..20) {
        let last = post(engine.url(), "/completion", &body(seed, 80)).await.events().pop().expect("a last event");
        assert_eq!(last["stop_type"], "eos");
        lengths.push(last["tokens_predicted"].as_u64().expect("a count"));
    }
    assert!(lengths.iter().all(|length| (20..=60).contains(length)), "{lengths:?}");
    assert!(BTreeSet::from_iter(&lengths).len() > 5, "{lengths:?}");
    assert_eq!(lengths[..20], lengths[20..]);
}

/// Requests beyond the slots wait inside the engine, which shows what it runs.
#[tokio::test]
async fn more_requests_than_slots_wait() {
    let engine = engine(&["--slots", "2", "--token-interval-ms", "3600000"]);
    let mut running = Vec::new();
    for _ in 0..2 {
        let mut stream = send(engine.url(), "POST", "/completion", &body(1, 9)).await;
        stream.events(1).await;
        running.push(stream);
    }
    let _third = send(engine.url(), "POST", "/completion", &body(1, 9)).await;
    counts(engine.url(), "running=2&deferred=1").await;
    let slots = get(engine.url(), "/slots").await.json();
    let busy = |slot: &Value| slot["is_processing"] == true && slot["next_token"][0]["n_decoded"] == 1;
    assert!(slots.as_array().expect("a list").iter().all(busy), "{slots}");
    assert_eq!(get(engine.url(), "/slots?fail_on_no_slot=1").await.status, 503);
    drop(running.pop());
    counts(engine.url(), "running=2&deferred=0&cancelled=1").await;
}

#[tokio::test]
async fn a_prompt_goes_to_the_slot_that_knows_it() {
    let engine = engine(&["--slots", "3"]);
    let slot_of = async |prompt: &str| {
        let body = format!(r#"{{"prompt":"{prompt}","n_predict":1,"stream":true}}"#);
        post(engine.url(), "/completion", &body).await.events().pop().expect("a last event")["id_slot"].clone()
    };
    let mut slots = Vec::new();
    for prompt in ["a b c", "d e f", "g h i"] {
        slots.push(slot_of(prompt).await.as_u64());
    }
    assert_eq!(slots.iter().collect::<BTreeSet<_>>().len(), 3, "{slots:?}");
    assert_eq!(slot_of("d e f g").await.as_u64(), slots[1]);
}

#[tokio::test]
async fn listens_on_a_unix_socket_and_writes_its_port() {
    let folder = std::env::temp_dir().join(format!("mock-engine-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let socket = folder.join("engine.sock");
    let unix = engine(&["--unix", socket.to_str().expect("a UTF-8 path")]);
    assert_eq!(unix.url(), format!("unix:{}", socket.display()));
    tokio::net::UnixStream::connect(&socket).await.expect("the engine accepts");
    let file = folder.join("port");
    let tcp = engine(&["--port-file", file.to_str().expect("a UTF-8 path")]);
    let port = std::fs::read_to_string(&file).expect("the port file");
    assert_eq!(tcp.url(), format!("http://127.0.0.1:{port}"));
    std::fs::remove_dir_all(&folder).expect("the folder goes");
}

/// The two ways in which other crates' tests start the engine.
#[tokio::test]
async fn tests_elsewhere_can_start_it() {
    let process = MockEngineProcess::start(["--model", "elsewhere"]).expect("it starts");
    assert_eq!(get(process.url(), "/props").await.json()["model_alias"], "elsewhere");
    let (listener, address) = Listener::loopback().await.expect("a port");
    let sim = Simulation::new(Config::default());
    let server = tokio::spawn(serve(listener, sim.clone()));
    post(&format!("http://{address}"), "/completion", &body(1, 3)).await;
    assert_eq!(sim.stats().tokens_written, 3);
    server.abort();
}
