//! Readiness is a fact: no engine gets a task before it is ready, however it flickers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bench::{Bench, ManagedPool};
use super::history::LONG;
use crate::harness::Daemon;

/// Runs when nobody says how many; `READINESS_RUNS` does.
const RUNS: u64 = 25;
/// Pause after a refusal.
const GAP: Duration = Duration::from_millis(5);
/// Pools that go through their runs at the same time.
const LANES: u64 = 5;

/// ORCH-3504, ORCH-3002, OC-POOL-3001: engines that load for a while, say now and then that they are ready before they are, answer
/// some probes and not others, and die when they like, never get a task before they are ready; nor does the daemon think they are.
#[tokio::test]
async fn readiness_never_flips_early() {
    let runs = std::env::var("READINESS_RUNS").map_or(RUNS, |runs| runs.parse().expect("a number"));
    let mut draw = Draw(0x5EED);
    let pools = (0..LANES).map(|lane| {
        let pool = ManagedPool::new(&format!("lane{lane}")).env("MOCK_ENGINE_VRAM_MB", 0);
        let pool = pool.env("MOCK_ENGINE_LOAD_MS", 80 + 60 * lane).env("MOCK_ENGINE_TOKEN_INTERVAL_MS", 2);
        let supervision = "restart_backoff_ms = 20\nrestart_backoff_max_ms = 60\ncircuit_restarts = 100000\n\
                           probe_interval_ms = 100\nprobe_timeout_ms = 1000\nprobe_failures = 2\nstop_grace_ms = 2000"
            .to_owned();
        ManagedPool { supervision, faults: faults(&mut draw, true), ..pool }
    });
    let bench = Bench::new(pools.collect());
    let mut daemon = bench.start().await;
    let lanes = (0..LANES).map(|lane| {
        let (bench, daemon, draw) = (&bench, &daemon, Draw(draw.next() ^ lane));
        async move { run(bench, daemon, &format!("lane{lane}"), runs.div_ceil(LANES), draw).await }
    });
    let starts: u64 = futures_util::future::join_all(lanes).await.iter().sum();
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await.code(), Some(0));
    bench.nothing_left().await;
    let mut dispatched = 0;
    for lane in 0..LANES {
        let pool = format!("lane{lane}");
        engine_got_nothing_early(&daemon, &pool);
        dispatched += nothing_was_dispatched_early(&daemon.log(), &pool);
    }
    let done = daemon.log().matches("completed the task").count();
    println!("{starts} lives of engines, {dispatched} tasks given to them, {done} of these done; none of them early");
    assert!(starts >= runs, "{starts} lives, and {runs} were wanted");
    assert!(dispatched > 0, "nothing was tested");
}

/// Small numbers that are the same in every run (`SplitMix64`).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// What a life of an engine is like. One that is held up loads no further until its faults are replaced.
fn faults(draw: &mut Draw, held_up: bool) -> Value {
    let flaky = |seed: u64, early: bool| json!({"flaky": {"seed": seed, "early": early}});
    let mut faults = vec![json!({"fault": flaky(draw.below(1 << 32), true), "times": 12, "on": "health"})];
    if draw.below(2) == 0 {
        faults.push(json!({"fault": flaky(draw.below(1 << 32), false), "times": 2}));
    }
    if held_up {
        faults.push(json!({"fault": {"in_load": {"at_percent": draw.below(100), "end": "hang"}}}));
    } else if draw.below(4) == 0 {
        faults.push(json!({"fault": {"in_load": {"at_percent": draw.below(100), "end": {"exit": 1}}}}));
    }
    let end = if draw.below(2) == 0 { "killed" } else { "cuda_error" };
    faults.push(json!({"fault": {"in_life": {"after_ms": 200 + draw.below(800), "end": end}}}));
    json!(faults)
}

/// Has a pool's engines live and die, with tasks at its door all the time; how many lives there were.
async fn run(bench: &Bench, daemon: &Daemon, pool: &str, runs: u64, mut draw: Draw) -> u64 {
    let begun = Instant::now();
    let (mut lives, mut pid, mut next_is_set) = (0, Value::Null, true);
    let (mut let_go_at, mut held_up, mut served) = (begun, false, false);
    while lives <= runs || !served {
        let health = super::bench::health(daemon, pool).await;
        served |= health["ready"] == true;
        if health["pid"].is_i64() && health["pid"] != pid {
            lives += 1;
            pid = health["pid"].clone();
            (let_go_at, held_up) = (Instant::now() + Duration::from_millis(draw.below(300)), true);
        } else if held_up && Instant::now() >= let_go_at {
            bench.set_faults(pool, &faults(&mut draw, false));
            (held_up, next_is_set) = (false, false);
        } else if !next_is_set && (health["ready"] == true || health["pid"].is_null()) {
            // Nothing of it holds up what has loaded already.
            bench.set_faults(pool, &faults(&mut draw, true));
            next_is_set = true;
        }
        // Queued where it is not refused; what becomes of it is the engine's matter.
        let answer = daemon.post("/v1/tasks", &bench.task(pool, 4)).await;
        if answer.status() != 202 {
            tokio::time::sleep(GAP).await;
        }
        assert!(
            begun.elapsed() < LONG * u32::try_from(5 + runs).expect("few"),
            "{pool} had {lives} lives only: {health:#}"
        );
    }
    lives
}

/// The engine itself says when it was asked before it was ready.
fn engine_got_nothing_early(daemon: &Daemon, pool: &str) {
    let folder = daemon.data_dir().join("logs");
    let mut read = 0;
    for entry in std::fs::read_dir(&folder).expect("the engines' logs") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(pool)) {
            let log = std::fs::read_to_string(&path).expect("the engine's log");
            read += log.lines().count();
            let early: Vec<_> = log.lines().filter(|line| line.contains("request before ready")).collect();
            assert!(early.is_empty(), "{pool}: {early:?}");
        }
    }
    assert!(read > 0, "{pool} has said nothing");
}

/// In the daemon's own words: tasks go to a pool only between its `ready` and whatever ends that. How many did.
fn nothing_was_dispatched_early(log: &str, pool: &str) -> usize {
    // What was decided in the very moment before a pool ceased to be ready may be told after that, for each slot once.
    let (mut ready, mut in_flight, mut dispatched) = (false, 0, 0);
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    for entry in entries.filter(|entry| entry["pool_id"] == pool) {
        match entry["action"].as_str().unwrap_or_default() {
            "ready" => ready = true,
            "unready" => (in_flight, ready) = (usize::from(ready), false),
            "draining" | "stopping" | "backing_off" | "failed" => {
                (in_flight, ready) = (in_flight.max(usize::from(ready)), false);
            }
            "stopped" | "preparing" | "starting" => (in_flight, ready) = (0, false),
            "stream_start" => {
                assert!(ready || in_flight > 0, "a task went to {pool} while it was not ready: {entry}");
                in_flight = if ready { 0 } else { in_flight - 1 };
                dispatched += 1;
            }
            _ => {}
        }
    }
    dispatched
}
