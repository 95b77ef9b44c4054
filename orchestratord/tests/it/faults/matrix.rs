//! Every fault of an engine, before the first token and in the stream, as clients of both protocols see it; and afterwards nothing
//! is left of it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use mock::process::MockEngineProcess;
use reqwest::Version;
use serde_json::{Value, json};

use crate::harness::{
    Daemon, Event, config, config_of, eventually_async, id, pool, set_faults, start_engine, task, with,
};

/// Silence after which an engine is given up, in milliseconds.
const IDLE_MS: u64 = 250;
/// Longest a task may take to its end, whatever its engine does: all retries, and a machine that is busy with other tests.
const LONGEST: Duration = Duration::from_secs(10);
/// Tokens that a fault in the stream waits for, and that a task asks for.
const SEEN: u32 = 3;
const ASKED: u32 = 30;

/// The end of a task whose engine fails it: the public code, and whether trying again may help.
type Failure = (&'static str, bool);

const INTERNAL: Failure = ("INTERNAL", false);
const REFUSED: Failure = ("INVALID_PARAMS", false);
const UNAVAILABLE: Failure = ("POOL_UNAVAILABLE", false);
const EXHAUSTED: Failure = ("REPLICA_EXHAUSTED", true);
const TIMEOUT: Failure = ("DECODE_TIMEOUT", true);
const RESET: Failure = ("WORKER_RESET", false);

/// What becomes of a task.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Nothing: its answer is whole.
    Whole,
    /// It fails after so many tokens.
    Fails(u32, Failure),
    /// It fails after some tokens.
    FailsAfterSome(Failure),
}

/// One fault, and what becomes of a task that it hits.
#[derive(Debug, Clone)]
struct Cell {
    fault: Value,
    end: End,
}

/// Faults that come before the answer, or in its head.
fn before_the_stream() -> Vec<Cell> {
    let refuse = |status: u16, failure| {
        [json!({"status": status}), json!({"status": status, "body": ""})]
            .map(|refusal| (json!({"refuse": refusal}), failure))
    };
    let mut cells = vec![
        (json!({"refuse": {"status": 502, "body": "x".repeat(1_000_000)}}), INTERNAL),
        (json!("hang"), TIMEOUT),
        (json!("no_read"), TIMEOUT),
        (json!({"slow_headers": {"ms": 60_000}}), TIMEOUT),
        (json!({"trickle_head": {"ms": 20}}), TIMEOUT),
        (json!("half_head"), RESET),
        (json!("wrong_content_type"), INTERNAL),
        (json!({"wrong_length": {"bytes": 20}}), RESET),
    ];
    cells.extend(refuse(400, REFUSED));
    cells.extend(refuse(401, INTERNAL));
    cells.extend(refuse(404, INTERNAL));
    cells.extend(refuse(429, EXHAUSTED));
    cells.extend(refuse(500, INTERNAL));
    cells.extend(refuse(501, REFUSED));
    cells.extend(refuse(503, UNAVAILABLE));
    cells.extend(refuse(504, TIMEOUT));
    let mut cells: Vec<_> =
        cells.into_iter().map(|(fault, failure)| Cell { fault, end: End::Fails(0, failure) }).collect();
    for late in [json!({"slow_headers": {"ms": 20}}), json!({"trickle_head": {"ms": 0}})] {
        cells.push(Cell { fault: late, end: End::Whole });
    }
    cells
}

/// Faults in the stream: each before the first token and after some.
fn in_the_stream() -> Vec<Cell> {
    let faults = [
        ("reset", json!({}), RESET),
        ("half_event", json!({}), RESET),
        ("stall", json!({}), TIMEOUT),
        ("trickle", json!({"ms": 20}), TIMEOUT),
        ("half_character", json!({}), RESET),
        ("malformed_event", json!({}), INTERNAL),
        ("oversized_line", json!({"bytes": 100_000_000}), INTERNAL),
        ("clean_end", json!({}), RESET),
        ("error_event", json!({}), INTERNAL),
    ];
    let at = |after: u32| {
        let cell = move |(name, setting, failure): &(&str, Value, Failure)| {
            let fault = json!({*name: with(setting.clone(), "after_tokens", json!(after))});
            Cell { fault, end: End::Fails(after, *failure) }
        };
        faults.iter().map(cell)
    };
    at(0).chain(at(SEEN)).collect()
}

/// Faults late in the stream and at its end.
fn at_the_end() -> Vec<Cell> {
    let cell = |fault, end| Cell { fault, end };
    vec![
        cell(json!({"wrong_length": {"bytes": 1500}}), End::FailsAfterSome(RESET)),
        cell(json!({"wrong_length": {"bytes": 1_000_000_000}}), End::Fails(ASKED, RESET)),
        // What the engine had not sent yet is lost with the connection.
        cell(json!("reset_before_end"), End::FailsAfterSome(RESET)),
        cell(json!("duplicate_end"), End::Whole),
        cell(json!({"tokens_after_end": {"tokens": 5}}), End::Whole),
        cell(json!({"clock_jump": {"ms": -86_400_000}}), End::Whole),
        cell(json!({"clock_jump": {"ms": i64::MAX}}), End::Whole),
        cell(json!({"clock_jump": {}}), End::Whole),
    ]
}

/// A pool with an engine of its own, and a client of it.
struct Lane {
    pool: &'static str,
    engine: MockEngineProcess,
    version: Version,
    /// For the engine's own routes.
    http: reqwest::Client,
}

const POOLS: [&str; 6] = ["p0", "p1", "p2", "p3", "p4", "p5"];

/// Half of the lanes for clients of each protocol.
fn lanes() -> [Lane; 6] {
    let mut even = true;
    POOLS.map(|pool| {
        even = !even;
        let version = if even { Version::HTTP_2 } else { Version::HTTP_11 };
        Lane { pool, engine: start_engine(&[]), version, http: client(Version::HTTP_11) }
    })
}

fn client(version: Version) -> reqwest::Client {
    // A second call finds it installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy();
    let builder = if version == Version::HTTP_2 { builder.http2_prior_knowledge() } else { builder };
    builder.build().expect("a client")
}

/// What must be as before when the faults are over.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Held {
    descriptors: usize,
    connections: [u64; 6],
}

impl Held {
    /// What a daemon and its engines hold now.
    async fn now(daemon: &Daemon, lanes: &[Lane; 6]) -> Self {
        let mut connections = [0; 6];
        for (lane, connections) in lanes.iter().zip(&mut connections) {
            *connections = lane.stats().await["connections"].as_u64().expect("a count");
        }
        Self { descriptors: descriptors(daemon), connections }
    }

    fn is_within(&self, earlier: &Self) -> bool {
        self.descriptors <= earlier.descriptors
            && self.connections.iter().zip(earlier.connections).all(|(now, then)| *now <= then)
    }
}

fn descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("the daemon runs").count()
}

/// Most memory that the daemon has had, in KiB.
fn peak_kib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("the daemon runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

impl Lane {
    async fn stats(&self) -> Value {
        let answer =
            self.http.get(format!("{}/mock/stats", self.engine.url())).send().await.expect("the engine answers");
        answer.json().await.expect("JSON")
    }

    async fn set(&self, faults: Value) {
        let sent = self.http.post(format!("{}/mock/faults", self.engine.url())).json(&faults).send().await;
        assert!(sent.expect("the engine answers").status().is_success(), "{faults}");
    }

    fn task(&self, max_tokens: u32) -> Value {
        with(task("Fail.", max_tokens), "placement", json!({"mode": "pin", "pin_pool_id": self.pool}))
    }

    /// Waits until the pool takes tasks and runs none.
    async fn is_free(&self, daemon: &Daemon, http: &reqwest::Client) {
        let url = daemon.url(&format!("/v1/pools/{}/health", self.pool));
        eventually_async(&format!("{} is free", self.pool), async || {
            let health = http.get(&url).send().await.expect("the daemon answers").json::<Value>().await.expect("JSON");
            (health["ready"] == true && health["metrics"]["active_leases"] == 0).then_some(())
        })
        .await;
    }

    async fn run(&self, daemon: &Daemon, http: &reqwest::Client, max_tokens: u32) -> Vec<Event> {
        let mut stream = daemon.run_with(http, &self.task(max_tokens)).await;
        assert_eq!(stream.version(), self.version);
        stream.rest().await
    }

    /// A task that nothing happens to.
    async fn works(&self, daemon: &Daemon, http: &reqwest::Client, after: &Value) {
        self.is_free(daemon, http).await;
        let events = self.run(daemon, http, SEEN).await;
        assert_eq!(events.last().expect("frames").name, "end", "after {after}: {events:?}");
        self.is_free(daemon, http).await;
    }

    /// Runs the cells of this lane's protocol that nobody else has taken yet.
    async fn work(&self, daemon: &Daemon, cells: &Mutex<Vec<(Version, Cell)>>) {
        let http = client(self.version);
        let take = || {
            let mut cells = cells.lock().expect("no lane panics with it");
            let at = cells.iter().position(|(version, _)| *version == self.version)?;
            Some(cells.remove(at).1)
        };
        while let Some(cell) = take() {
            self.set(json!({"faults": [{"fault": cell.fault}]})).await;
            let begin = Instant::now();
            let events = self.run(daemon, &http, ASKED).await;
            let took = begin.elapsed();
            self.set(json!({"faults": []})).await;
            let what = format!("{} over {:?} in {}", cell.fault, self.version, self.pool);
            cell.check(&events, &what);
            assert!(took < LONGEST, "{what} took {took:?}");
            self.works(daemon, &http, &cell.fault).await;
        }
    }
}

impl Cell {
    fn check(&self, events: &[Event], what: &str) {
        let ends: Vec<_> = events.iter().filter(|event| event.name == "end" || event.name == "error").collect();
        let tokens = events.iter().filter(|event| event.name == "token").count() as u64;
        let last = events.last().unwrap_or_else(|| panic!("{what}: no frames"));
        assert!(ends.len() == 1 && std::ptr::eq(ends[0], last), "{what}: {events:?}");
        let said = &last.data;
        let (code, retriable) = match self.end {
            End::Whole => {
                assert_eq!(
                    (last.name.as_str(), tokens, &said["tokens_out"]),
                    ("end", u64::from(ASKED), &json!(ASKED)),
                    "{what}: {said}"
                );
                let longest_ms = LONGEST.as_millis() as u64;
                let times = ["decode_time_ms", "decode_ms"].map(|name| said[name].as_u64());
                assert!(times.iter().all(|ms| ms.is_some_and(|ms| ms < longest_ms)), "{what}: {said}");
                return;
            }
            End::Fails(after, failure) => {
                assert_eq!(tokens, u64::from(after), "{what}: {events:?}");
                failure
            }
            End::FailsAfterSome(failure) => {
                assert!((1..=u64::from(ASKED)).contains(&tokens), "{what}: {tokens}");
                failure
            }
        };
        assert_eq!(
            (last.name.as_str(), &said["code"], &said["retriable"]),
            ("error", &json!(code), &json!(retriable)),
            "{what}: {said}"
        );
        assert_eq!(said["engine"], "llamacpp", "{what}: {said}");
    }
}

/// A daemon with a pool for each lane.
async fn daemon_before(lanes: &[Lane; 6]) -> Daemon {
    let settings = format!(
        "timeouts = {{ wall_ms = 60000, idle_ms = {IDLE_MS} }}\ncalls = {{ retries = 0, breaker_failures = 9999 }}"
    );
    let pools = lanes.each_ref().map(|lane| pool(lane.pool, &[lane.engine.url()], &settings));
    let daemon = Daemon::start(&config_of(&pools)).await;
    daemon.all_ready().await;
    daemon
}

/// SSE-1002, ORCH-3406, ORCH-3407, LO-ERR-06, ORCH-3255: whatever an engine does and whenever it does it, the stream ends in exactly
/// one frame with the right code within its time limit, and the next task runs. Afterwards no slot, task, connection or file
/// descriptor is left of it, and memory has not grown with what was sent.
#[tokio::test]
async fn every_fault_ends_typed_and_leaves_nothing() {
    let lanes = lanes();
    let daemon = daemon_before(&lanes).await;
    for lane in &lanes {
        lane.works(&daemon, &client(lane.version), &json!("the start")).await;
    }
    // The first look into the history opens its file for good.
    daemon.list("", 100).await;
    let before = settled(&daemon, &lanes).await;
    let peak_before = peak_kib(&daemon);

    let cells = [before_the_stream(), in_the_stream(), at_the_end()].concat();
    let both = |cell: Cell| [(Version::HTTP_11, cell.clone()), (Version::HTTP_2, cell)];
    let cells = Mutex::new(cells.into_iter().flat_map(both).collect());
    let [p0, p1, p2, p3, p4, p5] = lanes.each_ref().map(|lane| lane.work(&daemon, &cells));
    tokio::join!(p0, p1, p2, p3, p4, p5);

    for lane in &lanes {
        eventually_async("the engine is idle", async || {
            let stats = lane.stats().await;
            (stats["running"] == 0 && stats["deferred"] == 0).then_some(())
        })
        .await;
    }
    let unended: Vec<_> = daemon.list("", 100).await.into_iter().filter(|task| !is_over(task)).collect();
    assert_eq!(unended, [] as [Value; 0]);
    let after = settled(&daemon, &lanes).await;
    assert!(after.is_within(&before), "{after:?} are held instead of {before:?}");
    let grown = peak_kib(&daemon).saturating_sub(peak_before);
    assert!(grown < 32 * 1024, "{grown} KiB more than {peak_before} KiB");
}

fn is_over(task: &Value) -> bool {
    ["completed", "failed"].iter().any(|state| task["state"] == *state)
}

/// What is held once connections that are on their way out have gone.
async fn settled(daemon: &Daemon, lanes: &[Lane; 6]) -> Held {
    let (mut held, mut same) = (Held::now(daemon, lanes).await, 0);
    eventually_async("nothing changes any more", async || {
        let now = Held::now(daemon, lanes).await;
        same = if now == held { same + 1 } else { 0 };
        held = now;
        (same == 10).then_some(held)
    })
    .await
}

/// SSE-1002, LO-ERR-06, DESIGN section 8: an engine that dies, of itself or of its GPU. Before the first token its task runs on the
/// next one, in the middle of a stream it fails; the pool comes back with an engine, and nothing of the dead one is left.
#[tokio::test]
async fn a_dying_engine_ends_its_stream() {
    let mut engine = start_engine(&[]);
    let listen = engine.url().trim_start_matches("http://").to_owned();
    let daemon = Daemon::start(&config(engine.url(), "")).await;
    daemon.ready().await;
    let deaths = [json!({"crash": {"after_tokens": 0, "code": 1}}), json!({"cuda_error": {"after_tokens": SEEN}})];
    let mut most = None;
    for (version, fault) in [Version::HTTP_11, Version::HTTP_2]
        .into_iter()
        .flat_map(|version| deaths.iter().map(move |fault| (version, fault)))
    {
        let http = client(version);
        set_faults(&engine, json!({"faults": [{"fault": fault}]})).await;
        let mut stream = daemon.run_with(&http, &task("Die.", ASKED)).await;
        assert!(!engine.wait().expect("it ends").success());
        engine = start_engine(&["--listen", &listen]);
        let end = if fault["crash"].is_null() { End::Fails(SEEN, RESET) } else { End::Whole };
        Cell { fault: fault.clone(), end }.check(&stream.rest().await, &format!("{fault} over {version:?}"));
        daemon.ready().await;
        daemon.no_leases().await;
        let next = daemon.run_with(&http, &task("Work.", SEEN)).await.rest().await;
        assert_eq!(next.last().expect("frames").name, "end", "after {fault}: {next:?}");
        drop(http);
        let most = *most.get_or_insert(descriptors(&daemon));
        eventually_async("no descriptor is left", async || (descriptors(&daemon) <= most).then_some(())).await;
    }
    assert!(daemon.list("", 100).await.iter().all(is_over));
}

/// OC-CORE-1022: an engine that floods its client does not keep the limits from being looked at. The one in the daemon itself always
/// has the next token ready.
#[tokio::test]
async fn limits_hold_in_a_flood() {
    let pool = "[[pools]]\nid = \"gpu0\"\nengine = \"mock\"\nmodel = \"mock-model\"\nctx = 2000000000\n";
    let limits = "timeouts = { wall_ms = 200, idle_ms = 100 }\n";
    let daemon = Daemon::start(&config_of(&[format!("{pool}{limits}")])).await;
    daemon.ready().await;
    let flood = with(task("Never end.", 1_000_000_000), "ctx", json!(2_000_000_000));
    let flood = with(flood, "engine", json!("mock"));
    let begin = Instant::now();
    assert_eq!(daemon.accepted(&flood).await["queue_position"], 0);
    let seen = daemon.until(&flood, "failed").await;
    assert_eq!(seen["error"]["code"], "DECODE_TIMEOUT", "{seen}");
    assert!(begin.elapsed() < LONGEST, "task {} took {:?}", id(&flood), begin.elapsed());
    daemon.no_leases().await;
}
