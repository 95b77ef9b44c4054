//! A client that goes away.

use crate::client::{counts, engine, send};

async fn leave(args: &[&str], body: &str, events: usize) -> serde_json::Value {
    let engine = engine(args);
    let mut stream = send(engine.url(), "POST", "/completion", body).await;
    stream.events(events).await;
    counts(engine.url(), "running=1").await;
    drop(stream);
    counts(engine.url(), "running=0&cancelled=1").await
}

/// Closing the connection while tokens come frees the slot, long before the task would have ended.
#[tokio::test]
async fn a_close_while_decoding_frees_the_slot() {
    let slow = &["--token-interval-ms", "3600000"];
    let stats = leave(slow, r#"{"prompt":"x","n_predict":99,"stream":true}"#, 1).await;
    assert_eq!(stats["tokens_written"], 1);
}

/// While the prompt is read the engine looks at the connection between two batches, if it writes progress there.
#[tokio::test]
async fn a_close_while_reading_the_prompt_is_noticed_after_the_batch() {
    let slow = &["--prefill-speed", "100", "--prefill-batch", "1"];
    let prompt = "word ".repeat(2000);
    let body = format!(r#"{{"prompt":"{prompt}","n_predict":9,"stream":true,"return_progress":true}}"#);
    let stats = leave(slow, &body, 1).await;
    assert_eq!(stats["tokens_written"], 0);
}

/// A request that waits for a slot leaves the queue.
#[tokio::test]
async fn a_close_while_waiting_leaves_the_queue() {
    let engine = engine(&["--token-interval-ms", "3600000"]);
    let body = r#"{"prompt":"x","n_predict":9,"stream":true}"#;
    let mut running = send(engine.url(), "POST", "/completion", body).await;
    running.events(1).await;
    let waiting = send(engine.url(), "POST", "/completion", body).await;
    counts(engine.url(), "running=1&deferred=1").await;
    drop(waiting);
    counts(engine.url(), "running=1&deferred=0&cancelled=0").await;
}

/// Flat out there is no pause in which to notice; the next write fails.
#[tokio::test]
async fn a_close_is_noticed_flat_out() {
    leave(&["--ctx", "1000000000"], r#"{"prompt":"x","n_predict":900000000,"stream":true}"#, 100).await;
}
