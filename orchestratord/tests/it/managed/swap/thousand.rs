//! Six models, two GPUs, strangers, and memory that comes back when it likes: many swaps, and what they cost.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fake_nvml::State;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{is_whole, nothing_was_refused, on_demand, run};
use crate::harness::{Daemon, with};
use crate::managed::bench::{Bench, ManagedPool, health, until_ready, until_state};

/// Loads without `SWAP_RUNS`; the full count is 1000.
const RUNS: usize = 40;
/// Longest that a task may wait for its start.
const AGE_LIMIT_MS: u64 = 20_000;
/// MiB of each GPU that are left to strangers.
const RESERVE_MB: u64 = 1536;
const MIB: u64 = 1 << 20;

/// Each model: its pool, GiB, devices, further settings.
const MODELS: [(&str, u32, &[usize], &str); 6] = [
    ("large", 14, &[0], ""),
    ("middle", 10, &[0], ""),
    ("small", 7, &[0], ""),
    ("other", 8, &[1], ""),
    ("little", 5, &[1], ""),
    ("both", 12, &[0, 1], "tensor_split = [2.0, 1.0]\n"),
];

fn host() -> Bench {
    let pool = |(id, gib, devices, settings): (&str, u32, &[usize], &str)| {
        let pool = on_demand(id, gib).env("MOCK_ENGINE_LOAD_MS", 120).env("MOCK_ENGINE_TOKEN_INTERVAL_MS", 5);
        let settings = format!("{}{settings}", pool.settings);
        ManagedPool { devices: format!("{devices:?}"), settings, ..pool }
    };
    let gpus = State { release_ms: 50, release_jitter_ms: 150, ..State::reference_box() };
    let mut bench = Bench::with_gpus(&gpus, MODELS.into_iter().map(pool).collect());
    bench.more = format!("[swap]\nage_limit_ms = {AGE_LIMIT_MS}\nvram_reserve_mb = {RESERVE_MB}\n");
    bench
}

/// What became of a task.
struct Ran {
    model: usize,
    admitted_ms: u64,
    waited_ms: u64,
}

/// LO-SWP-02, LO-SWP-03, LO-SWP-04: through many random swaps nothing is over-committed, no running stream is broken, and every task
/// is served within the age limit.
#[tokio::test]
async fn a_thousand_swaps() {
    let runs = std::env::var("SWAP_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    let (bench, over) = (Arc::new(host()), Arc::new(AtomicBool::new(false)));
    let daemon = Arc::new(bench.start().await);
    for (pool, ..) in MODELS {
        until_state(&daemon, pool, "cold").await;
    }
    let strangers = tokio::spawn(strangers(Arc::clone(&bench), Arc::clone(&over)));
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for seed in 0..8 {
        clients.spawn(client(Arc::clone(&bench), Arc::clone(&daemon), Arc::clone(&over), seed));
    }
    let loads = async || daemon.metric("pool_load_ms_count").await as usize;
    while loads().await < runs {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    over.store(true, Ordering::Relaxed);
    let ran: Vec<Ran> = clients.join_all().await.into_iter().flatten().collect();
    strangers.await.expect("no stranger panics");
    let took = begun.elapsed();
    nothing_was_refused(&bench).await;
    let loads = loads().await;
    let waits = ran.iter().map(|task| task.waited_ms).collect();
    println!("{} tasks, {loads} loads in {:.1} s", ran.len(), took.as_secs_f64());
    println!("wait for the start, ms:  {}", distribution(waits));
    println!("swap (make room to serving), ms:  {}", distribution(swaps(&daemon.log())));
    println!("loads under plain FIFO with least recently used eviction: {}", under_fifo(&ran));
    let late: Vec<u64> = ran.iter().map(|task| task.waited_ms).filter(|ms| *ms > AGE_LIMIT_MS).collect();
    assert!(late.is_empty(), "tasks waited longer than {AGE_LIMIT_MS} ms: {late:?}");
}

/// Submits one task after the other, some for the same model again and again.
async fn client(bench: Arc<Bench>, daemon: Arc<Daemon>, over: Arc<AtomicBool>, seed: u64) -> Vec<Ran> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut ran, mut model) = (Vec::new(), 0);
    while !over.load(Ordering::Relaxed) {
        if seed.is_multiple_of(2) || rng.random_bool(0.3) {
            model = rng.random_range(0..MODELS.len());
        }
        let priority = if rng.random_bool(0.5) { "interactive" } else { "batch" };
        let task = bench.task(MODELS[model].0, rng.random_range(2..30));
        let task = with(task, "priority", json!(priority));
        is_whole(&run(&daemon, &task).await);
        let seen = daemon.look(&task).await;
        let number = |key: &str| seen[key].as_u64().unwrap_or_else(|| panic!("no {key} in {seen}"));
        ran.push(Ran { model, admitted_ms: number("admitted_at_ms"), waited_ms: number("queue_time_ms") });
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..150))).await;
    }
    ran
}

/// Takes and returns memory, within what is left to it.
async fn strangers(bench: Arc<Bench>, over: Arc<AtomicBool>) {
    const PID: u32 = 4_000_001;
    let mut rng = SmallRng::seed_from_u64(99);
    let devices = bench.gpus.state().expect("the state").devices;
    while !over.load(Ordering::Relaxed) {
        let gpu = &devices[rng.random_range(0..devices.len())];
        let most = (RESERVE_MB * MIB).saturating_sub(gpu.used_bytes);
        let taken = bench.gpus.foreign(PID, &gpu.uuid, rng.random_range(0..=most)).expect("memory can be taken");
        tokio::time::sleep(Duration::from_millis(rng.random_range(10..400))).await;
        bench.gpus.foreign_returns(PID, &gpu.uuid, taken).expect("memory can be returned");
    }
}

fn distribution(mut all: Vec<u64>) -> String {
    all.sort_unstable();
    let at = |share: f64| all.get((all.len() as f64 * share) as usize).or(all.last()).copied().unwrap_or(0);
    let count = all.len();
    format!("n {count}, p50 {}, p90 {}, p99 {}, max {}", at(0.5), at(0.9), at(0.99), all.last().copied().unwrap_or(0))
}

/// From the first that makes room for a pool until that serves, of every load that room was made for.
fn swaps(log: &str) -> Vec<u64> {
    let mut since: HashMap<String, i64> = HashMap::new();
    let mut swaps = Vec::new();
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let at = millis(line["ts"].as_str().unwrap_or_default());
        match line["action"].as_str() {
            Some("unload") => {
                if let Some((_, pool)) = line["human"].as_str().and_then(|text| text.split_once("makes room for pool "))
                {
                    since.entry(pool.to_owned()).or_insert(at);
                }
            }
            Some("load") => {
                let begun = line["pool_id"].as_str().and_then(|pool| since.remove(pool));
                swaps.extend(begun.map(|begun| at.abs_diff(begun)));
            }
            _ => {}
        }
    }
    swaps
}

/// Milliseconds of a day, of a time such as `2026-11-27T11:57:06.373Z`.
fn millis(ts: &str) -> i64 {
    let clock = ts.get(11..23).unwrap_or("00:00:00.000");
    let parts: Vec<i64> = clock.split([':', '.']).map(|part| part.parse().unwrap_or(0)).collect();
    ((parts[0] * 60 + parts[1]) * 60 + parts[2]) * 1000 + parts[3]
}

/// Loads that the same tasks take when they run in the order in which they came, and whoever was not used for longest has to go.
fn under_fifo(ran: &[Ran]) -> usize {
    let mut order: Vec<&Ran> = ran.iter().collect();
    order.sort_by_key(|task| task.admitted_ms);
    let needs = |model: usize, device: usize| match MODELS[model] {
        (_, gib, [_, _], _) => u64::from(gib) * 1024 * [2, 1][device] / 3 + 600,
        (_, gib, [own], _) if *own == device => u64::from(gib) * 1024 + 600,
        _ => 0,
    };
    let room = |device: usize| [24 * 1024, 12 * 1024][device] - RESERVE_MB;
    let (mut loaded, mut loads): (Vec<usize>, usize) = (Vec::new(), 0);
    for task in order {
        if let Some(at) = loaded.iter().position(|model| *model == task.model) {
            let model = loaded.remove(at);
            loaded.push(model);
            continue;
        }
        loads += 1;
        for device in [0, 1].into_iter().filter(|device| needs(task.model, *device) > 0) {
            let used = |loaded: &[usize]| loaded.iter().map(|model| needs(*model, device)).sum::<u64>();
            while used(&loaded) + needs(task.model, device) > room(device) {
                let oldest =
                    loaded.iter().position(|model| needs(*model, device) > 0).expect("somebody has the memory");
                loaded.remove(oldest);
            }
        }
        loaded.push(task.model);
    }
    loads
}

/// LO-SWP-04: a swap on one GPU is nothing to the interactive tasks of a model that is loaded on another. The figures are printed.
#[tokio::test]
async fn a_swap_elsewhere_delays_nobody() {
    let bench = Arc::new(host());
    let daemon = Arc::new(bench.start().await);
    until_state(&daemon, "little", "cold").await;
    is_whole(&run(&daemon, &bench.task("little", 2)).await);
    until_ready(&daemon, "little").await;
    let quiet = starts(&bench, &daemon, 60).await;
    let over = Arc::new(AtomicBool::new(false));
    let swapping = {
        let (bench, daemon, over) = (Arc::clone(&bench), Arc::clone(&daemon), Arc::clone(&over));
        tokio::spawn(async move {
            for pool in ["large", "middle"].into_iter().cycle() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                is_whole(&run(&daemon, &bench.task(pool, 2)).await);
            }
        })
    };
    let loads = async || daemon.metric("pool_load_ms_count").await;
    let before = loads().await;
    let swapped = starts(&bench, &daemon, 60).await;
    let during = loads().await - before;
    over.store(true, Ordering::Relaxed);
    swapping.await.expect("it does not panic");
    println!("submit to first token of a loaded model, us, nothing else:  {}", distribution(quiet));
    println!("the same during {during} swaps on the other GPU:  {}", distribution(swapped.clone()));
    assert_eq!(health(&daemon, "little").await["restarts"], 0);
    assert_eq!(daemon.metric("pool_unloads_total{pool_id=\"little\"").await, 0.0, "it stayed where it was");
    // Orders of magnitude below a load, however busy the machine is.
    let worst = swapped.iter().max().copied().unwrap_or(0);
    assert!(during >= 2.0 && worst < 2_000_000, "{worst} us, {during} swaps");
}

/// Microseconds from submit to first token, of interactive tasks one after the other.
async fn starts(bench: &Bench, daemon: &Daemon, count: usize) -> Vec<u64> {
    let mut times = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        let mut stream = daemon.run(&bench.task("little", 2)).await;
        stream.until("token").await;
        times.push(u64::try_from(begun.elapsed().as_micros()).expect("not that long"));
        stream.rest().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    times
}
