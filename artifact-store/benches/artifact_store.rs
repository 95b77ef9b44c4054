//! What the record of a task costs: 2 KiB and 9 KiB of it, many at once.
//!
//! Figures depend on the disk: `TMPDIR` chooses it.

use std::collections::BTreeMap;
use std::time::Instant;

use api_types::{Artifact, ArtifactKind, TaskId};
use artifact_store::{ArtifactStore, Limits, canonical_json};
use divan::{Bencher, black_box};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

fn main() {
    divan::main();
}

/// A record with so many token frames in its transcript.
fn record(tokens: usize) -> Artifact {
    let id = TaskId::random();
    let frame = |at: usize| format!("id: {at}\nevent: token\ndata: {{\"t\":\" word\",\"i\":{at}}}\n\n");
    let transcript: String = (0..tokens).map(frame).collect();
    let request = json!({"task_id": id, "session_id": TaskId::random(), "workload": "completion", "model_ref": "mock-model",
        "engine": "llamacpp", "ctx": 4096, "priority": "interactive", "max_tokens": tokens, "deadline_ms": 60000, "seed": 7,
        "prompt": "Write a haiku about queues."});
    let summary = json!({"task_id": id, "correlation_id": id, "session_id": id, "state": "completed",
        "workload": "completion", "model_ref": "mock-model", "engine": "llamacpp", "engine_version": "b1", "priority": "interactive",
        "seed": 7, "pool_id": "gpu0", "replica_id": "r0", "predicted_start_ms": 0, "deadline_ms": 60000, "max_tokens": tokens,
        "on_time_probability": 0.987654321, "attempts": 1, "moves": [], "recovered": false, "admitted_at_ms": 1_760_000_000_000_i64,
        "dispatched_at_ms": 1_760_000_000_000_i64, "ended_at_ms": 1_760_000_000_100_i64, "queue_time_ms": 0, "first_token_ms": 1,
        "decode_time_ms": 100, "tokens_in": 5, "tokens_out": tokens, "placement": {"selected_pool_id": "gpu0",
        "candidates_considered": 1, "filters_applied": [], "tie_breakers_applied": [], "pinned": false, "fallback_used": false,
        "excluded": [], "outranked": [], "predicted_end_ms": 100}});
    let content = json!({"job_id": id, "session_id": id, "request": request, "summary": summary, "model": {"model_ref": "mock-model"},
        "engine": {"engine": "llamacpp", "engine_version": "b1", "provisioning": "external", "compute": "unverified",
        "determinism": "strict", "ctx": 4096}, "transcript": transcript, "truncated": false});
    let Value::Object(content) = content else { unreachable!("it is an object") };
    let tags = ["sse".to_owned(), "stream".to_owned(), format!("task:{id}"), format!("session:{}", TaskId::random())];
    let metadata = ["engine", "engine_version", "pool_id", "replica_id", "state"];
    let metadata = BTreeMap::from(metadata.map(|name| (name.to_owned(), json!("completed"))));
    Artifact { kind: ArtifactKind::Trace, content, tags: tags.into(), parent: None, metadata }
}

fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// Handed over, made, written, entered; the disk is not waited for.
#[divan::bench(args = [2, 100], sample_count = 1, sample_size = 1)]
fn put_later(bencher: Bencher<'_, '_>, tokens: usize) {
    const COUNT: usize = 8_000;
    let dir: TempDir = tempfile::tempdir().expect("a directory");
    let store = ArtifactStore::open(dir.path(), Limits::default(), 0).expect("it opens");
    let records: Vec<_> = (0..COUNT).map(|_| record(tokens)).collect();
    let bytes = canonical_json(&records[0]).expect("JSON").len();
    bencher.bench_local(|| {
        let (begun, before) = (Instant::now(), cpu());
        for record in records.clone() {
            store.put_later(bytes, move || record);
        }
        let handed = begun.elapsed();
        while store.usage().documents < COUNT as u64 {
            store.flush();
        }
        eprintln!(
            "{COUNT} records of {bytes} bytes: handed over in {handed:?}, written in {:?}, {:.1} us of CPU each",
            begun.elapsed(),
            (cpu() - before) / COUNT as f64
        );
    });
}

/// Kept one by one, each on the disk before the next.
#[divan::bench(sample_count = 50, sample_size = 1)]
fn put(bencher: Bencher<'_, '_>) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = ArtifactStore::open(dir.path(), Limits::default(), 0).expect("it opens");
    bencher.with_inputs(|| record(2)).bench_values(|record| store.put(record).expect("it is kept"));
}

/// The canonical form alone.
#[divan::bench(args = [2, 100])]
fn canonical(bencher: Bencher<'_, '_>, tokens: usize) {
    let record = record(tokens);
    bencher.bench(|| canonical_json(black_box(&record)));
}

/// The other implementation of the RFC.
#[divan::bench(args = [2, 100])]
fn canonical_by_serde_json_canonicalizer(bencher: Bencher<'_, '_>, tokens: usize) {
    let record = record(tokens);
    bencher.bench(|| serde_json_canonicalizer::to_vec(black_box(&record)));
}

/// A page of 100 by a tag that all have, and the one with a tag of its own.
#[divan::bench(sample_count = 1, sample_size = 1)]
fn list(bencher: Bencher<'_, '_>) {
    const COUNT: usize = 50_000;
    let store = ArtifactStore::in_memory(Limits::default(), 0).expect("it opens");
    let records: Vec<_> = (0..COUNT).map(|_| record(0)).collect();
    let tags = [records[0].tags[0].clone(), records[COUNT / 2].tags[2].clone()];
    for record in records {
        store.put_later(0, move || record);
    }
    while store.usage().documents < COUNT as u64 {
        store.flush();
    }
    bencher.bench_local(|| {
        for tag in tags.clone() {
            let begun = Instant::now();
            let query =
                artifact_store::Query { tag: Some(tag.clone()), limit: 100, ..artifact_store::Query::default() };
            let page = store.list(&query).expect("it is read");
            eprintln!("{} of {COUNT} by {tag:.8}: {:?}", page.entries.len(), begun.elapsed());
        }
        black_box(Map::<String, Value>::new());
    });
}
