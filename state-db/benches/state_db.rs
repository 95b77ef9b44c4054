//! What a confirmed write costs, alone and in company, and what readers pay for a long history.
//!
//! Figures depend on the disk: `TMPDIR` chooses it.

use std::time::{Duration, Instant};

use api_types::{Engine, Priority, SessionId, TaskId, TaskState, TaskSummary, Workload};
use divan::{Bencher, black_box};
use state_db::{AcceptedTask, EndedTask, Opened, Receipt, Retention, StateDb, TaskQuery};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::MissedTickBehavior;

/// Bytes of a journal entry: a prompt of about 500 tokens.
const ENTRY_LEN: usize = 2_000;
/// Tasks in the history that is read.
const HISTORY: i64 = 100_000;
/// How long the paced run takes, at one task per millisecond.
const PACED_TASKS: usize = 10_000;

fn main() {
    divan::main();
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn open() -> (TempDir, StateDb) {
    let dir = tempfile::tempdir().expect("a directory");
    let Opened { db, .. } = StateDb::open(dir.path(), Retention::default(), 0).expect("it opens");
    (dir, db)
}

fn accepted(task_id: TaskId) -> AcceptedTask {
    AcceptedTask { task_id, admitted_at_ms: 0, entry: "x".repeat(ENTRY_LEN) }
}

fn ended(task_id: TaskId, number: i64) -> EndedTask {
    let summary = TaskSummary {
        task_id,
        correlation_id: "5f0c6a1e-1b7b-4a55-8a55-5a0f2f3d9c11".to_owned(),
        session_id: SessionId::random(),
        state: if number % 100 == 0 { TaskState::Failed } else { TaskState::Completed },
        workload: Workload::Completion,
        model_ref: "hf:example/model/model.gguf".to_owned(),
        engine: Engine::Llamacpp,
        engine_version: Some("b1".to_owned()),
        priority: if number % 2 == 0 { Priority::Batch } else { Priority::Interactive },
        seed: number,
        deadline_ms: 60_000,
        max_tokens: 256,
        input_tokens: None,
        pool_id: Some(format!("gpu{}", number % 2)),
        replica_id: Some("0".to_owned()),
        queue_position: None,
        predicted_start_ms: 0,
        on_time_probability: Some(0.9),
        admitted_at_ms: number,
        dispatched_at_ms: Some(number),
        ended_at_ms: Some(number + 10),
        queue_time_ms: Some(0),
        first_token_ms: Some(5),
        decode_time_ms: Some(5),
        tokens_in: Some(500),
        tokens_out: Some(256),
        placement: None,
        moves: Vec::new(),
        attempts: 1,
        recovered: false,
        error: None,
    };
    EndedTask { summary, record: "x".repeat(500) }
}

async fn all_confirmed(receipts: Vec<Receipt>) {
    for receipt in receipts {
        receipt.await.expect("it is written");
    }
}

/// So many accepted at once, and all of them confirmed.
#[divan::bench(args = [1, 32, 1000], sample_count = 200, sample_size = 1)]
fn accept(bencher: Bencher<'_, '_>, concurrent: usize) {
    let (_dir, db) = open();
    let runtime = runtime();
    bencher
        .counter(concurrent)
        .with_inputs(|| (0..concurrent).map(|_| accepted(TaskId::random())).collect::<Vec<_>>())
        .bench_local_values(|tasks| {
            runtime.block_on(all_confirmed(tasks.into_iter().map(|task| db.accept(task)).collect()));
        });
}

/// So many ended at once, none of them in the journal.
#[divan::bench(args = [1, 32, 1000], sample_count = 200, sample_size = 1)]
fn finish(bencher: Bencher<'_, '_>, concurrent: usize) {
    let (_dir, db) = open();
    let runtime = runtime();
    bencher
        .counter(concurrent)
        .with_inputs(|| (0..concurrent).map(|_| ended(TaskId::random(), 0)).collect::<Vec<_>>())
        .bench_local_values(|tasks| {
            let receipts = tasks.into_iter().map(|task| db.finish(task)).collect();
            runtime.block_on(all_confirmed(receipts));
        });
}

/// 1,000 tasks a second, each accepted and, 100 ms later, ended. Prints how long the accepts waited.
#[divan::bench(sample_count = 1, sample_size = 1)]
fn paced_1000_per_second(bencher: Bencher<'_, '_>) {
    let (_dir, db) = open();
    let mut waits = Vec::new();
    bencher.bench_local(|| waits = runtime().block_on(paced(&db)));
    waits.sort_unstable();
    let at = |permille: usize| waits[(waits.len() - 1) * permille / 1000];
    eprintln!("accept at 1,000/s: p50 {:?}, p99 {:?}, p99.9 {:?}, max {:?}", at(500), at(990), at(999), at(1000));
}

async fn paced(db: &StateDb) -> Vec<Duration> {
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut accepts = Vec::with_capacity(PACED_TASKS);
    let ids: Vec<TaskId> = (0..PACED_TASKS).map(|_| TaskId::random()).collect();
    for (number, id) in ids.iter().enumerate() {
        ticks.tick().await;
        let (asked, receipt) = (Instant::now(), db.accept(accepted(*id)));
        accepts.push(tokio::spawn(async move {
            receipt.await.expect("it is written");
            asked.elapsed()
        }));
        if let Some(earlier) = number.checked_sub(100) {
            db.finish(ended(ids[earlier], 0));
        }
    }
    let mut waits = Vec::with_capacity(PACED_TASKS);
    for accept in accepts {
        waits.push(accept.await.expect("it does not panic"));
    }
    waits
}

fn long_history() -> (TempDir, StateDb) {
    let (dir, db) = open();
    runtime().block_on(async {
        let mut receipt = None;
        for number in 0..HISTORY {
            receipt = Some(db.finish(ended(TaskId::random(), number)));
        }
        receipt.expect("there is one").await.expect("it is written");
    });
    (dir, db)
}

fn queries() -> [(&'static str, TaskQuery); 5] {
    let page = TaskQuery { limit: 100, ..TaskQuery::default() };
    [
        ("newest", page.clone()),
        ("failed ones", TaskQuery { states: vec![TaskState::Failed], ..page.clone() }),
        ("of one session", TaskQuery { session_id: Some(SessionId::random()), ..page.clone() }),
        ("of a pool that has none", TaskQuery { pool_id: Some("gpu9".to_owned()), ..page.clone() }),
        ("from the middle", TaskQuery { before: Some((HISTORY / 2, TaskId::random())), ..page }),
    ]
}

/// A page of 100 from the long history.
#[divan::bench(sample_count = 1, sample_size = 1)]
fn page_of_100_from_a_long_history() {
    let (dir, db) = long_history();
    let runtime = runtime();
    for (name, query) in queries() {
        let mut times = Vec::new();
        for _ in 0..20 {
            let asked = Instant::now();
            black_box(runtime.block_on(db.tasks(query.clone()))).expect("it is read");
            times.push(asked.elapsed());
        }
        times.sort_unstable();
        eprintln!("page, {name}: {:?} (first or worst {:?})", times[10], times[19]);
    }
    drop(db);
    let asked = Instant::now();
    let size = std::fs::metadata(dir.path().join("state.db")).expect("it is there").len();
    let opened = StateDb::open(dir.path(), Retention::default(), 0).expect("it opens");
    eprintln!("open with {HISTORY} ended tasks ({} MiB): {:?}", size >> 20, asked.elapsed());
    drop(opened);
}
