//! The price of one log line to the thread that says it, with allocations counted.

use divan::{AllocProfiler, Bencher, black_box};
use narration_core::{Actor, Limits, LineLayer, Narration, Sink, narrate, redact};
use tracing::Level;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt;

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// Runs `say` under a JSON log that is written to nowhere.
fn logged(bencher: Bencher<'_, '_>, say: impl Fn() + Sync) {
    let (sink, _writer) = Sink::start(Box::new(std::io::sink()), Limits::default()).expect("a thread");
    let _guard = tracing::subscriber::set_default(Registry::default().with(LineLayer::json(sink)));
    bencher.bench_local(say);
}

/// The line an admitted task gets.
fn admit() {
    let (task, session, pool) =
        ("7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10", "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b", "gpu0");
    narrate(
        Level::INFO,
        &Narration {
            correlation_id: Some(&"0f0e0d0c-0b0a-4908-8706-050403020100"),
            task_id: Some(&task),
            session_id: Some(&session),
            pool_id: Some(&pool),
            replica_id: Some(&"r0"),
            identity: Some(&"localhost"),
            engine: Some("llamacpp"),
            engine_version: Some("b6891"),
            queue_position: Some(3),
            predicted_start_ms: Some(1800),
            ..Narration::new(
                Actor::Orchestratord,
                "admit",
                format_args!("queues a task on {pool}, {} ahead, start in about {} ms", black_box(3), black_box(1800)),
            )
        },
    );
}

#[divan::bench(sample_size = 500)]
fn narrated_with_ten_fields(bencher: Bencher<'_, '_>) {
    logged(bencher, admit);
}

#[divan::bench(sample_size = 500)]
fn narrated_in_a_span(bencher: Bencher<'_, '_>) {
    let (sink, _writer) = Sink::start(Box::new(std::io::sink()), Limits::default()).expect("a thread");
    let _guard = tracing::subscriber::set_default(Registry::default().with(LineLayer::json(sink)));
    let _span = tracing::info_span!("task", task_id = "7f9c24e5", model_id = "m").entered();
    bencher.bench_local(admit);
}

#[divan::bench(sample_size = 500)]
fn plain_event(bencher: Bencher<'_, '_>) {
    logged(bencher, || tracing::info!(pool_id = "gpu0", queue_depth = black_box(3), "task rejected"));
}

#[divan::bench(sample_size = 500)]
fn redact_a_clean_sentence() {
    black_box(redact(black_box(
        "queues a task on gpu0, 3 ahead, start in about 1800 ms: see http://127.0.0.1:8080/ui",
    )));
}
