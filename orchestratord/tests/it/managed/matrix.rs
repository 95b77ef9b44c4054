//! The kill matrix: whatever happens to an engine, its pool says what it was and what to do, comes back when it can, and leaves
//! nothing behind.

mod host;
mod rows;
mod table;

use std::net::{Ipv4Addr, TcpListener};

use fake_nvml::claims::Claim;
use futures_util::future::join_all;
use serde_json::{Value, json};

use self::rows::{Blow, Cure, Row, SERVING, STARTING};
use self::table::Line;
use super::bench::{Bench, ManagedPool, ask, health, signal, until_ready, until_state};
use super::history::{History, Mark};
use super::model;
use crate::harness::{Daemon, eventually_async};

/// LO-POOL-02, ORCH-3038.2, ORCH-3039, OC-POOL-3010, OC-POOL-3011: engines that serve are killed, hang, and fail in every other
/// way.
#[tokio::test]
async fn engines_that_serve() {
    run(SERVING).await;
}

/// LO-POOL-02, ORCH-3504, ORCH-3049, ORCH-3039, OC-POOL-3002, OC-POOL-3003, OC-POOL-3011: engines that cannot start, or start slowly.
#[tokio::test]
async fn engines_that_start() {
    run(STARTING).await;
}

async fn run(rows: &[Row]) {
    let ports = Ports::take(rows);
    let bench = Bench::new(rows.iter().map(|row| pool(row, &ports)).collect());
    let mut daemon = bench.start().await;
    let history = History::open(&daemon).await;
    let scene = Scene { bench: &bench, daemon: &daemon, history: &history, ports: &ports };
    let lines = join_all(rows.iter().map(|row| scene.play(row))).await;
    table::print(&lines);
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await.code(), Some(0));
    bench.nothing_left().await;
}

/// Ports that are in use until a row lets go of its own.
struct Ports(Vec<(&'static str, u16, std::sync::Mutex<Option<TcpListener>>)>);

impl Ports {
    fn take(rows: &[Row]) -> Self {
        let taken = rows.iter().filter(|row| row.cure == Cure::FreePort).map(|row| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
            let port = listener.local_addr().expect("it is bound").port();
            (row.id, port, std::sync::Mutex::new(Some(listener)))
        });
        Self(taken.collect())
    }

    fn of(&self, id: &str) -> Option<u16> {
        self.0.iter().find(|(of, ..)| *of == id).map(|(_, port, _)| *port)
    }

    fn free(&self, id: &str) {
        for (of, _, listener) in &self.0 {
            if *of == id {
                listener.lock().expect("nobody panics with it").take();
            }
        }
    }
}

fn pool(row: &Row, ports: &Ports) -> ManagedPool {
    let mut pool = ManagedPool::new(row.id);
    pool.devices = format!("[{}]", row.gpu);
    pool.model = row.model;
    pool.faults = rows::parse(row.faults);
    pool.ports = ports.of(row.id).into_iter().collect();
    if !row.supervision.is_empty() {
        pool.supervision = row.supervision.to_owned();
    }
    for (name, value) in row.env {
        pool.env.push(((*name).to_owned(), (*value).to_owned()));
    }
    if !row.takes_memory() {
        pool = pool.env("MOCK_ENGINE_VRAM_MB", 0);
    }
    pool
}

/// Where rows are played, all at the same time, each on a pool of its own.
struct Scene<'a> {
    bench: &'a Bench,
    daemon: &'a Daemon,
    history: &'a History,
    ports: &'a Ports,
}

impl Scene<'_> {
    async fn play(&self, row: &Row) -> Line {
        let mut holds = None;
        // It was started with the daemon, before anybody watched.
        ask(self.daemon, row.id, "stop", json!({"deadline_ms": 0})).await;
        until_state(self.daemon, row.id, "stopped").await;
        let before = self.counts(row).await;
        if row.blow.needs_engine() {
            ask(self.daemon, row.id, "start", json!({})).await;
            until_ready(self.daemon, row.id).await;
            self.serves(row).await;
        }
        let begun = self.history.now();
        self.strike(row, &mut holds).await;
        let seen = self.history.until_state(begun, row.id, row.state, row.fault).await;
        let error = self.judge(row, &seen);
        let returns = self.cure(row, begun, holds).await;
        // What it comes back from is what struck it, and nothing that followed from that.
        for health in self.history.since(begun, row.id) {
            let fault = health["fault"].as_str().unwrap_or(row.fault);
            assert_eq!(fault, row.fault, "{}: {health:#}", row.what);
        }
        self.starts_are_bounded(row, begun, before).await;
        let left = self.end(row).await;
        Line {
            provoked: row.what,
            state: row.state.to_owned(),
            fault: row.fault.to_owned(),
            error,
            returns: returns.to_owned(),
            left,
        }
    }

    async fn strike(&self, row: &Row, holds: &mut Option<Claim>) {
        match row.blow {
            Blow::Signal(name) => {
                let pid = health(self.daemon, row.id).await["pid"].as_i64().expect("its engine runs");
                if row.takes_memory() {
                    self.memory_is_seen(row, pid).await;
                }
                signal(pid, name);
            }
            Blow::Faults(faults) => self.bench.set_faults(row.id, &rows::parse(faults)),
            Blow::EatMemory => {
                let gpu = &self.bench.gpus.state().expect("the state").devices[row.gpu];
                let all = [(gpu.uuid.clone(), gpu.total_bytes - gpu.used_bytes - (1 << 30))];
                *holds = Some(self.bench.gpus.claim(&all).expect("there is memory to eat"));
                ask(self.daemon, row.id, "start", json!({})).await;
            }
            Blow::Start => ask(self.daemon, row.id, "start", json!({})).await,
            Blow::Stop => ask(self.daemon, row.id, "stop", json!({"deadline_ms": 0})).await,
        }
    }

    /// Once an engine's memory has been seen, its restart must not take that for a stranger's.
    async fn memory_is_seen(&self, row: &Row, pid: i64) {
        eventually_async("the engine's memory is seen", async || {
            let devices = self.daemon.json("/v1/devices").await;
            let processes = devices["devices"][row.gpu]["processes"].as_array().expect("a list");
            let is_it = |process: &Value| process["pid"] == pid && process["pool_id"] == row.id;
            processes.iter().any(is_it).then_some(())
        })
        .await;
    }

    /// Whether what was told is what the row wants; the error in words.
    fn judge(&self, row: &Row, seen: &Value) -> String {
        let what = row.what;
        let error = seen["last_error"].as_str().unwrap_or_default();
        let fix = seen["fix"].as_str().unwrap_or_default();
        for part in row.says {
            assert!(error.contains(part), "{what}: no `{part}` in `{error}`");
        }
        for part in row.fix {
            assert!(fix.contains(part), "{what}: no `{part}` in the fix `{fix}`");
        }
        if let Some(port) = self.ports.of(row.id) {
            assert!(error.contains(&port.to_string()) && fix.contains(&port.to_string()), "{what}: {error}");
        }
        assert_eq!(seen["ready"] == true, row.state == "ready", "{what}: {seen:#}");
        assert!(seen["live"] == false || row.state == "ready", "{what}: {seen:#}");
        assert_eq!(seen["next_attempt_ms"].is_i64(), row.retries(), "{what}: {seen:#}");
        error.strip_suffix(fix).map_or(error, |error| error.trim_end_matches("; ")).to_owned()
    }

    /// Takes the cause away and sees whether that is enough.
    async fn cure(&self, row: &Row, begun: Mark, holds: Option<Claim>) -> &'static str {
        match row.cure {
            Cure::Stays => return "as it should be",
            Cure::Never => {
                // Nothing was started, and nothing will be as long as it is as it is.
                let (starts, _) = self.counts(row).await;
                assert_eq!(starts, 0, "{}: an engine was started", row.what);
                return "not as it is";
            }
            Cure::Rests => return "after the rest",
            Cure::Itself | Cure::ByHand => {}
            Cure::ClearFaults => self.bench.set_faults(row.id, &json!([])),
            Cure::FreeMemory => drop(holds),
            Cure::FreePort => self.ports.free(row.id),
            Cure::WriteModel => model::write(&self.bench.model_path(row.id), model::Model::Tiny),
        }
        if row.cure == Cure::ByHand {
            // An attempt would fail in the same way: none is made until somebody asks for it.
            let told = self.history.since(begun, row.id);
            let last = told.last().expect("its failure was told");
            assert_eq!(last["state"], "failed", "{}", row.what);
            model::write(&self.bench.model_path(row.id), model::Model::Tiny);
            ask(self.daemon, row.id, "start", json!({})).await;
        }
        let ready = until_ready(self.daemon, row.id).await;
        assert_eq!(ready["state"], "ready", "{}", row.what);
        assert!(ready["last_error"].is_null() && ready["fault"].is_null(), "{}: {ready:#}", row.what);
        self.serves(row).await;
        match row.cure {
            Cure::ByHand => "when started by hand",
            Cure::Itself => "yes",
            _ => "yes, when cured",
        }
    }

    async fn serves(&self, row: &Row) {
        let mut stream = self.daemon.run(&self.bench.task(row.id, 3)).await;
        let end = stream.until("end").await;
        assert_eq!(end.data["tokens_out"], 3, "{}", row.what);
    }

    /// How often a process was started for the pool, as its log says, and how often it was started again.
    async fn counts(&self, row: &Row) -> (usize, usize) {
        let log = self.daemon.get(&format!("/v1/pools/{}/logs?lines=100000", row.id)).await;
        let log = log.text().await.expect("text");
        let starts = log.lines().filter(|line| line.contains(" starts /")).count();
        let restarts = health(self.daemon, row.id).await["restarts"].as_u64().expect("a number");
        (starts, usize::try_from(restarts).expect("a few"))
    }

    /// A storm would start more often than it counts, or wait no longer from one time to the next.
    async fn starts_are_bounded(&self, row: &Row, begun: Mark, before: (usize, usize)) {
        let by_hand = 1 + usize::from(row.cure == Cure::ByHand);
        let (starts, restarts) = self.counts(row).await;
        let (starts, restarts) = (starts - before.0, restarts - before.1);
        assert!(starts <= restarts + by_hand, "{}: {starts} starts", row.what);
        if row.cure != Cure::Rests {
            return;
        }
        assert_eq!(starts, 4, "{}: the first, and three restarts", row.what);
        let told = self.history.since(begun, row.id);
        let mut waits: Vec<i64> = Vec::new();
        for (before, health) in told.iter().zip(&told[1..]) {
            if health["state"] == "backing_off" && before["state"] != "backing_off" {
                waits.push(health["next_attempt_ms"].as_i64().expect("it is tried again"));
            }
        }
        assert_eq!(waits.len(), 3, "{}: {waits:?}", row.what);
        assert!(waits.is_sorted() && waits[2] > waits[0], "{}: each wait is longer: {waits:?}", row.what);
        assert!(waits[2] <= 1600, "{}: {waits:?}", row.what);
        let failed = health(self.daemon, row.id).await;
        assert!(failed["next_attempt_ms"].as_i64().is_some_and(|rest| rest > waits[2]), "{failed:#}");
    }

    /// Stops the pool; how many processes that has left.
    async fn end(&self, row: &Row) -> usize {
        ask(self.daemon, row.id, "stop", json!({"deadline_ms": 0})).await;
        until_state(self.daemon, row.id, "stopped").await;
        self.bench.nothing_left_of(row.id).await;
        let run_file = self.daemon.data_dir().join("run").join(format!("{}.json", row.id));
        assert!(!run_file.exists(), "{}", row.what);
        self.bench.left_of(row.id).len()
    }
}
