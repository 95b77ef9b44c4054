use serde_json::json;

use crate::harness::{Daemon, Stream, eventually_async, start_engine, stat, task};

async fn twenty_streams(daemon: &Daemon, tokens: u32) -> Vec<Stream> {
    let mut streams = Vec::new();
    for number in 0..20 {
        let mut stream = daemon.run(&task(&format!("Stream {number}."), tokens)).await;
        stream.until("token").await;
        streams.push(stream);
    }
    streams
}

const TWENTY_SLOTS: &str = "slots = 20\ndeterminism = \"best_effort\"";

/// SIGTERM during 20 running streams: what cannot finish within the grace ends typed, the process ends cleanly, and the
/// engine is left idle.
#[tokio::test]
async fn a_stop_ends_every_stream_typed() {
    let engine = start_engine(&["--token-interval-ms", "20", "--slots", "20"]);
    let mut daemon = Daemon::before(&engine, TWENTY_SLOTS).await;
    let streams = twenty_streams(&daemon, 4000).await;
    let mut waiting = daemon.run(&task("Wait for a slot.", 1)).await;
    waiting.until("started").await;
    daemon.signal("-TERM");
    let error = waiting.until("error").await.data;
    assert_eq!(
        (&error["code"], &error["retriable"]),
        (&json!("POOL_UNREADY"), &json!(true)),
        "a waiting task ends at once"
    );
    daemon.signal("-TERM");
    for mut stream in streams {
        let events = stream.rest().await;
        let last = events.last().expect("a last frame");
        assert_eq!((last.name.as_str(), &last.data["code"]), ("error", &json!("POOL_UNREADY")));
    }
    assert_eq!(daemon.ended().await.code(), Some(0));
    eventually_async("the engine is idle", async || (stat(&engine, "running").await == 0).then_some(())).await;
}

/// Tasks that can finish within the grace do.
#[tokio::test]
async fn a_stop_lets_running_tasks_finish() {
    let engine = start_engine(&["--token-interval-ms", "10", "--slots", "20"]);
    let mut daemon = Daemon::before(&engine, TWENTY_SLOTS).await;
    let streams = twenty_streams(&daemon, 60).await;
    daemon.signal("-TERM");
    for mut stream in streams {
        let events = stream.rest().await;
        let last = events.last().expect("a last frame");
        assert_eq!((last.name.as_str(), &last.data["tokens_out"]), ("end", &json!(60)));
    }
    assert_eq!(daemon.ended().await.code(), Some(0));
}
