//! What the core costs: queue operations among a million waiting entries, and a decision among many pools.

use api_types::{Engine, PlacementOverrides, Priority, TaskId};
use divan::{Bencher, black_box};
use orchestrator_core::policy::{JobSpec, Load, PlacementInput, PoolSnapshot, decide};
use orchestrator_core::queue::{BoundedQueue, FullPolicy, QueueLimits};

const WAITING: u64 = 1_000_000;
/// Operations measured together: one alone is shorter than the clock can tell.
const BATCH: u64 = 1_000;

fn main() {
    divan::main();
}

/// Ids that look like the random ones of real clients.
fn id(number: u64) -> TaskId {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let text = format!("{:08x}-0000-4000-8000-{:012x}", spread >> 32, number);
    text.parse().expect("it is a UUID")
}

fn ids(range: std::ops::Range<u64>) -> Vec<TaskId> {
    range.map(id).collect()
}

const fn class(number: usize) -> Priority {
    if number.is_multiple_of(2) { Priority::Interactive } else { Priority::Batch }
}

fn full_queue() -> BoundedQueue<TaskId> {
    let mut queue = BoundedQueue::new(QueueLimits::new(usize::MAX, FullPolicy::Reject));
    for (number, id) in ids(0..WAITING).into_iter().enumerate() {
        queue.enqueue(id, class(number)).expect("there is room");
    }
    queue
}

/// Every id of the queue that is `WAITING / BATCH` away from the one before: spread over the whole queue.
fn spread_ids() -> Vec<TaskId> {
    (0..BATCH).map(|number| id(number * (WAITING / BATCH))).collect()
}

#[divan::bench(sample_count = 50)]
fn enqueue_and_pop_1000_among_a_million(bencher: Bencher<'_, '_>) {
    let mut queue = full_queue();
    let mut next = WAITING;
    bencher
        .counter(BATCH)
        .with_inputs(|| {
            next += BATCH;
            ids(next - BATCH..next)
        })
        .bench_local_values(|ids| {
            for (number, id) in ids.into_iter().enumerate() {
                black_box(queue.enqueue(id, class(number))).expect("there is room");
                black_box(queue.pop()).expect("there are a million");
            }
        });
}

#[divan::bench(sample_count = 50)]
fn position_1000_among_a_million(bencher: Bencher<'_, '_>) {
    let mut queue = full_queue();
    // With holes everywhere, so that there is something to count.
    for number in (0..WAITING).step_by(7) {
        queue.cancel(&id(number + 3));
    }
    let ids = spread_ids();
    bencher.counter(BATCH).bench_local(|| ids.iter().filter_map(|id| queue.position(black_box(id))).sum::<usize>());
}

#[divan::bench(sample_count = 50)]
fn cancel_and_enqueue_1000_among_a_million(bencher: Bencher<'_, '_>) {
    let mut queue = full_queue();
    let ids = spread_ids();
    bencher.counter(BATCH).bench_local(|| {
        for (number, id) in ids.iter().enumerate() {
            black_box(queue.cancel(id));
            black_box(queue.enqueue(*id, class(number))).expect("there is room");
        }
    });
}

#[divan::bench(args = [10, 100, 1_000])]
fn decide_among(bencher: Bencher<'_, '_>, count: usize) {
    // Equal names share one text, as in the scheduler.
    let models = pool(0).models;
    let named = |number| PoolSnapshot { models: models.iter().cloned().collect(), ..pool(number) };
    let pools: Vec<PoolSnapshot> = (0..count).map(named).collect();
    let job = job();
    bencher.bench(|| decide(&PlacementInput { pools: black_box(&pools), job: black_box(&job), now_ms: 1 }));
}

/// The same with a predicted end for each pool.
#[divan::bench(args = [1_000])]
fn decide_by_predicted_end_among(bencher: Bencher<'_, '_>, count: usize) {
    let models = pool(0).models;
    let known = |number| PoolSnapshot {
        models: models.iter().cloned().collect(),
        perf_tokens_per_s: Some(50.0),
        first_token_ms: Some(100.0),
        load: Some(Load { slot_free_at_ms: number as u64, ..Load::default() }),
        ..pool(number)
    };
    let pools: Vec<PoolSnapshot> = (0..count).map(known).collect();
    let job = job();
    bencher.bench(|| decide(&PlacementInput { pools: black_box(&pools), job: black_box(&job), now_ms: 1 }));
}

/// Nothing is excluded, and every tie-breaker has to be asked.
fn pool(number: usize) -> PoolSnapshot {
    PoolSnapshot {
        slots_total: 4,
        slots_free: 2,
        queue_capacity: 64,
        ready: true,
        heartbeat_ms: Some(0),
        ctx_max_supported: Some(8_192),
        vram_total_bytes: 24 << 30,
        vram_free_bytes: 10 << 30,
        ..PoolSnapshot::new(format!("pool-{number:04}").into(), Engine::Llamacpp, &["hf:org/repo/file.gguf"])
    }
}

fn job() -> JobSpec {
    JobSpec {
        priority: Priority::Interactive,
        expected_tokens: None,
        max_tokens: Some(256),
        engine: Engine::Llamacpp,
        model_ref: "hf:org/repo/file.gguf".to_owned(),
        required_ctx: 4_096,
        est_kv_bytes: None,
        placement: PlacementOverrides::default(),
        requirements: None,
        session_affinity_pool: None,
        session_affinity_replica: None,
        determinism: None,
        sampler_profile_version: None,
    }
}
