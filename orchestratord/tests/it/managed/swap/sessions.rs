//! What becomes of sessions when their engine is unloaded and loaded again.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::{is_whole, on_demand, run, takes_mb};
use crate::harness::{Daemon, Event, eventually_async, with};
use crate::managed::bench::{Bench, ManagedPool, until, until_ready, until_state};

/// A pool of two slots that has a prompt cache.
fn cached(id: &str) -> ManagedPool {
    let pool = on_demand(id, 7);
    // Two slots take twice as much.
    let env = [("MOCK_ENGINE_VRAM_MB", takes_mb(2 * 7 * 64)), ("MOCK_ENGINE_TOKEN_INTERVAL_MS", 20)];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_string())).to_vec();
    let settings = format!("{}determinism = \"best_effort\"\n", pool.settings);
    ManagedPool { slots: 2, settings, env, ..pool }
}

/// The host, its daemon, and a session that has had a turn on pool `a`.
struct Talk {
    bench: Bench,
    daemon: Daemon,
    session: String,
    prompt: String,
}

impl Talk {
    async fn begin(faults: Value, more: &str) -> Self {
        let mut bench = Bench::new(vec![ManagedPool { faults, ..cached("a") }, cached("b")]);
        bench.more = format!("[stream]\nmetrics_interval_ms = 1\n{more}");
        let daemon = bench.start().await;
        for pool in ["a", "b"] {
            until_state(&daemon, pool, "cold").await;
        }
        let (session, prompt) = (uuid::Uuid::new_v4().to_string(), "word ".repeat(200));
        let talk = Self { bench, daemon, session, prompt };
        talk.turn("a", "").await;
        assert!(talk.is_warm().await && talk.is_read_anew().await);
        talk
    }

    /// A turn of the session: its whole prompt so far, and something more.
    async fn turn(&self, pool: &str, more: &str) -> Vec<Event> {
        let task = with(self.bench.task(pool, 4), "session_id", json!(self.session));
        let events = run(&self.daemon, &with(task, "prompt", json!(format!("{}{more}", self.prompt)))).await;
        is_whole(&events);
        events
    }

    /// Has another pool's model loaded in place of a pool's.
    async fn swap(&self, from: &str, to: &str) {
        is_whole(&run(&self.daemon, &self.bench.task(to, 2)).await);
        until_ready(&self.daemon, to).await;
        until_state(&self.daemon, from, "cold").await;
    }

    async fn is_warm(&self) -> bool {
        self.daemon.json(&format!("/v1/sessions/{}", self.session)).await["kv_warmth"] == true
    }

    async fn parked(&self, outcome: &str) -> f64 {
        self.daemon.metric(&format!("kv_parked_total{{pool_id=\"a\",outcome=\"{outcome}\"}}")).await
    }

    /// Prompt tokens that the present engine of a pool has found in its cache, and those that it has read, by its own count.
    async fn cached_and_read(&self, pool: &str) -> (u64, u64) {
        let socket = self.daemon.data_dir().join(format!("run/{pool}.sock"));
        let mut engine = UnixStream::connect(socket).await.expect("it listens");
        let request = b"GET /metrics HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n";
        engine.write_all(request).await.expect("it reads");
        let mut answer = String::new();
        engine.read_to_string(&mut answer).await.expect("it answers");
        let count = |name: &str| {
            let line = answer.lines().find_map(|line| line.strip_prefix(&format!("llamacpp:{name} ")));
            line.expect("it counts").parse().expect("a number")
        };
        (count("prompt_tokens_cached_total"), count("prompt_tokens_total"))
    }

    async fn is_read_anew(&self) -> bool {
        let (cached, read) = self.cached_and_read("a").await;
        cached < 100 && read >= 200
    }

    fn folder(&self) -> PathBuf {
        self.daemon.data_dir().join("run/kv/a")
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.folder()).map_or(0, Iterator::count)
    }
}

/// What the `metrics` frames of a running task say of its session.
fn warmth(events: &[Event]) -> bool {
    let frames = events.iter().filter(|event| event.name == "metrics");
    let mut told: Vec<_> = frames.filter_map(|event| event.data["kv_warmth"].as_bool()).collect();
    told.dedup();
    assert_eq!(told.len(), 1, "{events:?}");
    told[0]
}

/// LO-SWP-07, LO-SES-03: a session's prompt is put away when its engine makes room for another, and is there again after the swap
/// back; it is cold in between, and nothing of it is left on the disk after its use.
#[tokio::test]
async fn a_session_outlives_a_swap() {
    let talk = Talk::begin(json!([]), "").await;
    talk.swap("a", "b").await;
    assert!(!talk.is_warm().await, "the engine that held it has ended");
    assert_eq!((talk.parked("saved").await, talk.files()), (1.0, 1));
    let mode = std::fs::metadata(talk.folder()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "nobody else's to read");
    let second = talk.turn("a", "and more").await;
    let (cached, read) = talk.cached_and_read("a").await;
    assert!(cached >= 200 && read < 100, "{cached} were there, {read} were read");
    assert!(warmth(&second));
    assert!(talk.is_warm().await);
    assert_eq!((talk.parked("restored").await, talk.parked("saved").await), (1.0, 1.0));
    eventually_async("its file is deleted", async || (talk.files() == 0).then_some(())).await;
}

/// LO-SWP-07: what cannot be restored, or saved, or is not saved in time, costs a prompt and nothing else.
#[tokio::test]
async fn what_does_not_work_costs_a_prompt() {
    let fault = |on: &str, fault: Value| json!([{"on": on, "fault": fault}]);
    let refuse = json!({"refuse": {"status": 500}});
    for (faults, outcome) in [
        (fault("restore_slot", refuse.clone()), "restore_failed"),
        (fault("save_slot", refuse), "save_failed"),
        (fault("save_slot", json!({"slow_headers": {"ms": 60_000}})), "save_failed"),
    ] {
        let talk = Talk::begin(faults, "").await;
        talk.swap("a", "b").await;
        let second = talk.turn("a", "and more").await;
        assert!(talk.is_read_anew().await, "{outcome}");
        assert!(!warmth(&second), "{outcome}");
        assert_eq!((talk.parked(outcome).await, talk.parked("restored").await), (1.0, 0.0), "{outcome}");
        eventually_async("nothing is left", async || (talk.files() == 0).then_some(())).await;
        assert!(talk.is_warm().await, "it has had another turn");
    }
}

/// LO-SWP-07: what is put away goes with its session, is not given to an engine with another model, and is not kept where
/// `swap.kv_cache_mb` says so.
#[tokio::test]
async fn what_is_of_no_use_is_deleted() {
    let talk = Talk::begin(json!([]), "").await;
    talk.swap("a", "b").await;
    let session = talk.daemon.url(&format!("/v1/sessions/{}", talk.session));
    assert_eq!(talk.daemon.http().delete(session).send().await.expect("an answer").status(), 204);
    eventually_async("it goes with its session", async || (talk.files() == 0).then_some(())).await;
    assert_eq!(talk.parked("dropped").await, 1.0);

    let talk = Talk::begin(json!([]), "").await;
    talk.swap("a", "b").await;
    let model = talk.bench.model_path("a");
    let mut bytes = std::fs::read(&model).expect("the model");
    bytes.push(0);
    std::fs::write(&model, bytes).expect("another model");
    talk.turn("a", "and more").await;
    assert!(talk.is_read_anew().await);
    assert_eq!(talk.parked("dropped").await, 1.0);

    let talk = Talk::begin(json!([]), "[swap]\nkv_cache_mb = 0\n").await;
    talk.swap("a", "b").await;
    assert!(!talk.is_warm().await && !talk.folder().exists());
    talk.turn("a", "and more").await;
    assert!(talk.is_read_anew().await);
}

/// LO-SWP-07: an engine that dies takes its sessions' prompts with it, and so does the daemon's end.
#[tokio::test]
async fn a_death_leaves_nothing_warm() {
    let mut talk = Talk::begin(json!([]), "").await;
    talk.bench.set_faults("a", &json!([{"fault": {"in_life": {"end": "killed"}}}]));
    eventually_async("the session is cold", async || (!talk.is_warm().await).then_some(())).await;
    talk.bench.set_faults("a", &json!([]));
    until(&talk.daemon, "a", "to be loaded", |health| health["state"] == "cold" || health["ready"] == true).await;
    talk.turn("a", "and more").await;
    assert!(talk.is_read_anew().await && talk.is_warm().await);
    talk.swap("a", "b").await;
    assert_eq!(talk.files(), 1);
    talk.daemon.signal("-TERM");
    talk.daemon.ended().await;
    assert_eq!(talk.files(), 0, "a daemon that ends takes them along");
}

/// LO-SWP-07: files that a daemon has left that was killed mean nothing to the next.
#[tokio::test]
async fn a_new_daemon_begins_without_files() {
    let mut talk = Talk::begin(json!([]), "").await;
    talk.swap("a", "b").await;
    talk.daemon.kill();
    assert_eq!(talk.files(), 1);
    talk.daemon.start_again().await;
    assert_eq!(talk.files(), 0);
}
