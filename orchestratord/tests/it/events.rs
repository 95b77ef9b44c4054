//! The feed of changes.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{Daemon, PATIENCE, id, start_engine, task};

/// The feed as it is read.
struct Feed {
    response: reqwest::Response,
    buffer: String,
}

impl Feed {
    async fn open(daemon: &Daemon, query: &str) -> Self {
        let response = daemon.get(&format!("/v1/events{query}")).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut feed = Self { response, buffer: String::new() };
        feed.piece().await.expect("a greeting");
        feed
    }

    /// The next event or comment, `None` at the end.
    async fn piece(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.find("\n\n") {
                return Some(self.buffer.drain(..end + 2).collect());
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("the feed goes on");
            self.buffer.push_str(std::str::from_utf8(&chunk.expect("the body is whole")?).expect("text"));
        }
    }

    /// The payload of the next event of this name for which `wanted` holds.
    async fn until(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < PATIENCE, "still waiting for `{name}`");
            let piece = self.piece().await.unwrap_or_else(|| panic!("the feed ended without `{name}`"));
            let Some(data) = piece.strip_prefix(&format!("event: {name}\ndata: ")) else { continue };
            let data: Value = serde_json::from_str(data.trim_end()).expect("JSON");
            if wanted(&data) {
                return data;
            }
        }
    }
}

/// ORCH-3028: watchers see tasks come, start, stream and end, pools come and go, and models change, as it happens.
#[tokio::test]
async fn watchers_see_what_changes() {
    let mut engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    let mut feed = Feed::open(&daemon, "").await;
    let task = task("x", 2);
    daemon.run(&task).await.until("end").await;
    for state in ["queued", "dispatched", "streaming", "completed"] {
        let seen = feed.until("task", |seen| seen["task_id"] == id(&task) && seen["state"] == state).await;
        assert_eq!(seen["pool_id"], "gpu0", "{seen}");
    }
    let digest = format!("sha256:{}", "0".repeat(64));
    daemon.post("/v1/catalog/models", &json!({"id": "hf:org/repo", "digest": digest})).await;
    let change = feed.until("model", |_| true).await;
    assert_eq!((&change["model_id"], &change["model"]["state"]), (&json!("hf:org/repo"), &json!("Active")));
    daemon.http().delete(daemon.url("/v1/catalog/models/hf:org%2Frepo")).send().await.expect("an answer");
    feed.until("model", |change| change["model"].is_null()).await;
    engine.kill().expect("the engine can be killed");
    feed.until("pool", |pool| pool["health"]["ready"] == false).await;
}

/// A watcher names the events it wants; a name that does not exist is refused; the feed ends with the daemon.
#[tokio::test]
async fn a_watcher_chooses_and_is_let_go() {
    let engine = start_engine(&[]);
    let mut daemon = Daemon::before(&engine, "").await;
    let refused = daemon.get("/v1/events?events=task,weather").await;
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.expect("text").contains("model_job"));
    let mut feed = Feed::open(&daemon, "?events=model").await;
    daemon.run(&task("x", 1)).await.until("end").await;
    daemon.signal("-TERM");
    assert_eq!(feed.piece().await, None, "nothing but models, and then the end");
    assert!(daemon.ended().await.success());
}
