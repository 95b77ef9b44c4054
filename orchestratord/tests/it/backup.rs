//! Copies of the data directory of a running daemon.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use crate::harness::{Daemon, batch, start_engine, task};

fn backup(daemon: &Daemon, target: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestratord"));
    let config = daemon.data_dir().parent().expect("it lies in the test's folder").join("llama-orch.toml");
    command.args(["backup".as_ref(), target.as_os_str(), "--config".as_ref(), config.as_os_str()]);
    command.arg("--data-dir").arg(daemon.data_dir()).env_clear().env("HOME", "/nonexistent");
    command.output().expect("orchestratord runs")
}

/// ORCH-3002-G, LO-CAT-02: a copy taken under load holds every task that had been accepted, every record and every entry, and a
/// daemon starts on it.
#[tokio::test]
async fn a_copy_of_a_busy_daemon_starts() {
    let engine = start_engine(&["--tokens-per-second", "1000"]);
    let mut daemon = Daemon::before(&engine, "slots = 1\nqueue = { capacity = 1000 }").await;
    let digest = format!("sha256:{}", "0".repeat(64));
    daemon.post("/v1/catalog/models", &json!({"id": "hf:org/repo", "digest": digest})).await;
    let mut tasks = Vec::new();
    for number in 0..120 {
        let task = batch(&format!("prompt {number}"), 20);
        daemon.accepted(&task).await;
        tasks.push(task);
    }
    let target = tempfile::tempdir().expect("a folder");
    let copied = backup(&daemon, target.path());
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    // The engine never finishes another of them before the copy's daemon asks.
    daemon.kill();
    std::fs::remove_dir_all(daemon.data_dir()).expect("the original is lost");
    std::fs::rename(target.path(), daemon.data_dir()).expect("the copy takes its place");
    daemon.start_again().await;
    for task in &tasks {
        daemon.until(task, "completed").await;
    }
    assert_eq!(daemon.json("/v1/catalog/models").await["models"][0]["id"], "hf:org/repo");
    daemon.run(&task("new", 1)).await.until("end").await;
}

/// What cannot be done is said, and nothing is overwritten.
#[tokio::test]
async fn a_copy_goes_to_a_new_place() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    let target = tempfile::tempdir().expect("a folder");
    std::fs::write(target.path().join("precious"), "x").expect("a file");
    for (target, word) in [(target.path(), "not empty"), (&daemon.data_dir().join("copy"), "in the data directory")] {
        let refused = backup(&daemon, target);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(word), "{said}");
    }
}
