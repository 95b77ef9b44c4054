//! Everything that a daemon has told of its pools, since states that last for a moment are missed by asking.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::harness::Daemon;

/// Longest wait for something that must happen, on a machine that does much else.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// The `pool` events of `/v1/events`, from its opening on.
pub(super) struct History {
    told: Arc<Mutex<Vec<Value>>>,
    reader: JoinHandle<()>,
}

/// A place in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(usize);

impl History {
    pub(super) async fn open(daemon: &Daemon) -> Self {
        let mut response = daemon.get("/v1/events").await;
        // The greeting says that nothing is missed from here on.
        let greeting = response.chunk().await.expect("the feed is open").expect("a greeting");
        let told = Arc::<Mutex<Vec<Value>>>::default();
        let keep = Arc::clone(&told);
        let reader = tokio::spawn(async move {
            let mut buffer = String::from_utf8(greeting.to_vec()).expect("text");
            while let Ok(Some(chunk)) = response.chunk().await {
                buffer.push_str(std::str::from_utf8(&chunk).expect("frames are sent whole"));
                while let Some(end) = buffer.find("\n\n") {
                    let frame: String = buffer.drain(..end + 2).collect();
                    if let Some(data) = frame.strip_prefix("event: pool\ndata: ") {
                        let pool = serde_json::from_str(data.trim_end()).expect("JSON");
                        keep.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
                    }
                }
            }
        });
        Self { told, reader }
    }

    /// Where it stands.
    pub(super) fn now(&self) -> Mark {
        Mark(self.told.lock().unwrap_or_else(PoisonError::into_inner).len())
    }

    /// What was told of a pool since then: its health.
    pub(super) fn since(&self, mark: Mark, pool: &str) -> Vec<Value> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told[mark.0..].iter().filter(|told| told["id"] == pool).map(|told| told["health"].clone()).collect()
    }

    /// Waits until a pool was told to be like this, since then.
    pub(super) async fn until(&self, mark: Mark, pool: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let told = self.since(mark, pool);
            if let Some(found) = told.iter().find(|health| wanted(health)) {
                return found.clone();
            }
            assert!(start.elapsed() < LONG, "{pool} was never {what}: {told:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a pool was in this state with this fault; `""` is none.
    pub(super) async fn until_state(&self, mark: Mark, pool: &str, state: &str, fault: &str) -> Value {
        let wanted = |health: &Value| health["state"] == state && health["fault"].as_str().unwrap_or("") == fault;
        self.until(mark, pool, &format!("{state}, {fault}"), wanted).await
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
