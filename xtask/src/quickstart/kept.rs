//! What `--keep` leaves running, and how it is stopped.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::daemon::{self, Daemon};
use super::folder::all_runs;
use crate::engine::{Lease, MODEL_REF};
use crate::process::Identity;
use crate::{engine, repo};

/// The command that ends it.
pub(super) const STOP: &str = "cargo xtask quickstart --stop";

/// A daemon left running, noted for the command that stops it.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    process: Identity,
    pub(super) url: String,
    /// Whether the engine was started for it and goes with it.
    engine_too: bool,
}

impl Kept {
    /// The one that runs now.
    pub(super) fn running() -> Option<Self> {
        let kept: Self = serde_json::from_str(&std::fs::read_to_string(note()).ok()?).ok()?;
        kept.process.open().map(|_| kept)
    }
}

/// Lets both run on and says how to use them.
pub(super) fn keep(daemon: Daemon, engine: Lease, client: &Path, prompt: &str) -> anyhow::Result<()> {
    let kept = Kept { process: daemon.process.clone(), url: daemon.url.clone(), engine_too: engine.owned() };
    std::fs::write(note(), serde_json::to_string_pretty(&kept)?)?;
    daemon.keep();
    engine.keep();
    print!("{}", directions(&kept.url, client, prompt));
    Ok(())
}

/// Stops what was kept.
pub(super) fn stop() -> anyhow::Result<()> {
    let Some(kept) = Kept::running() else {
        println!("nothing is kept running");
        return Ok(());
    };
    if let Some(live) = kept.process.open() {
        daemon::stop(&live)?;
    }
    if kept.engine_too {
        engine::down()?;
    }
    std::fs::remove_file(note())?;
    println!("stopped orchestratord at {}", kept.url);
    Ok(())
}

fn directions(url: &str, client: &Path, prompt: &str) -> String {
    let task_id = Uuid::new_v4();
    let body = json!({
        "task_id": task_id,
        "session_id": Uuid::new_v4(),
        "workload": "completion",
        "model_ref": MODEL_REF,
        "engine": "llamacpp",
        "ctx": 1024,
        "priority": "interactive",
        "max_tokens": 64,
        "deadline_ms": 60000,
        "prompt": prompt,
    });
    // Within single quotes a shell leaves everything alone but a single quote.
    let body = body.to_string().replace('\'', "'\\''");
    let client = repo::shown(client);
    format!(
        "orchestratord is kept at {url}. Try:
  {client} --server {url} run \"Once upon a time\"
  curl -s {url}/v1/tasks -H 'Content-Type: application/json' -d '{body}'
  curl -sN {url}/v1/tasks/{task_id}/stream
  curl -s -X POST {url}/v1/tasks/{task_id}/cancel
  curl -s {url}/v1/pools
Stop it with `{STOP}`.
"
    )
}

fn note() -> PathBuf {
    all_runs().join("kept.json")
}
