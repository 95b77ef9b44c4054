//! The log from end to end: events in, lines out.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tracing::{Level, error, info, info_span, warn};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt;

use crate::layer::{LineLayer, Style};
use crate::{Actor, Limits, Narration, Sink, capture, narrate};

/// An output in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("UTF-8")
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the log says about what happens in `run`.
fn logged(style: Style, run: impl FnOnce()) -> String {
    let memory = Memory::default();
    let (sink, writer) = Sink::start(Box::new(memory.clone()), Limits::default()).expect("a thread");
    tracing::subscriber::with_default(Registry::default().with(LineLayer::new(style, sink.clone())), run);
    sink.close();
    writer.join().expect("the writer ends");
    memory.text()
}

fn lines(run: impl FnOnce()) -> Vec<Value> {
    logged(Style::Json, run).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// A line without its time stamp, which is checked on the way.
fn without_time(mut line: Value) -> Value {
    let stamp = line.as_object_mut().and_then(|fields| fields.remove("ts")).expect("a time stamp");
    assert_eq!(stamp.as_str().map(str::len), Some("2026-01-31T23:59:59.999Z".len()));
    line
}

/// ORCH-3300, ORCH-3301, ORCH-3304, LO-OBS-02, HME-030: one flat JSON object with sentence, taxonomy and typed fields.
#[test]
fn a_narrated_event_is_one_flat_json_line() {
    let found = lines(|| {
        let (pool, task) = ("gpu0", 7);
        narrate(
            Level::INFO,
            &Narration {
                target: Some(&"queue"),
                task_id: Some(&task),
                pool_id: Some(&pool),
                queue_position: Some(3),
                kv_warmth: Some(false),
                engine: Some("llamacpp"),
                ..Narration::new(Actor::Orchestratord, "admit", format_args!("queues task {task} on {pool}"))
            },
        );
    });
    let expected = json!({
        "level": "INFO", "human": "queues task 7 on gpu0", "actor": "orchestratord", "action": "admit", "target": "queue",
        "task_id": "7", "pool_id": "gpu0", "engine": "llamacpp", "queue_position": 3, "kv_warmth": false
    });
    assert_eq!(found.into_iter().map(without_time).collect::<Vec<_>>(), [expected]);
}

/// Ordinary events share the output; fields of spans are merged, inner and later values win, and no key comes twice.
#[test]
fn spans_are_merged_and_keys_are_unique() {
    let text = logged(Style::Json, || {
        let outer = info_span!("outer", correlation_id = "c", pool_id = "outer", late = tracing::field::Empty);
        let _outer = outer.enter();
        let _inner = info_span!("inner", pool_id = "inner", task_id = 1).entered();
        outer.record("late", 5);
        info!(task_id = 2, level = "own", "says something");
    });
    assert_eq!(text.matches("\"task_id\"").count(), 1, "{text}");
    assert_eq!(text.matches("\"pool_id\"").count(), 1, "{text}");
    let line = without_time(serde_json::from_str(&text).expect(&text));
    let expected = json!({
        "level": "INFO", "module": "narration_core::tests", "message": "says something", "task_id": 2, "_level": "own",
        "pool_id": "inner", "correlation_id": "c", "late": 5
    });
    assert_eq!(line, expected);
}

/// ORCH-3302, ORCH-3037.4, AUTH-1008: secrets are masked in sentences, in values, in spans and by name; identities stay.
#[test]
fn secrets_do_not_reach_the_log() {
    let text = logged(Style::Json, || {
        let _span = info_span!("call", header = "Bearer hunter2-in-span", api_key = "hunter2-by-name").entered();
        info!(identity = "token:ba7816", url = "https://h/?token=hunter2", "uses sk-hunter2hunter2");
        let error = io::Error::other("password=hunter2");
        warn!(error = &error as &dyn std::error::Error, "fails");
    });
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains("\"identity\":\"token:ba7816\""), "{text}");
}

/// ORCH-3303, ORCH-3308: the pretty form has the same sentence, first, and cannot be used to drive a terminal.
#[test]
fn pretty_lines_start_with_the_sentence() {
    let text = logged(Style::Pretty { colour: false }, || {
        narrate(
            Level::WARN,
            &Narration {
                pool_id: Some(&"gpu 0"),
                ..Narration::new(Actor::PoolManager, "restart", format_args!("restarts gpu0\x1b[2J"))
            },
        );
    });
    let sentence = &text["12:34:56.789 ".len()..];
    let expected = "WARN  restarts gpu0\\u{1b}[2J  actor=pool-managerd action=restart pool_id=\"gpu 0\"\n";
    assert_eq!(sentence, expected);
}

/// ORCH-3306: tests can read what was said.
#[test]
fn captured_narration() {
    let capture = capture();
    let _span = info_span!("task", correlation_id = "c").entered();
    narrate(Level::INFO, &Narration::new(Actor::Placement, "place", format_args!("picks gpu0")));
    info!("something else");
    let placed = capture.actions("place");
    assert_eq!(placed.len(), 1);
    assert_eq!((placed[0].human(), placed[0].get("correlation_id")), ("picks gpu0", Some("c")));
    assert_eq!(capture.events().len(), 2);
}

proptest! {
    /// HME-030: whatever the values are, a line is one JSON object that says them.
    #[test]
    fn any_text_gives_one_json_line(text in any::<String>(), number in any::<i64>(), real in any::<f64>()) {
        let found = lines(|| info!(text = text.as_str(), number, real, "says"));
        prop_assert_eq!(found.len(), 1);
        prop_assert_eq!(found[0]["text"].as_str(), Some(&*crate::redact(&text)));
        prop_assert_eq!(found[0]["number"].as_i64(), Some(number));
    }
}

/// An output that says when it is entered and then waits to be let go.
struct Gate {
    entered: Sender<Vec<u8>>,
    go: Receiver<()>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.entered.send(bytes.to_vec()).map_err(io::Error::other)?;
        self.go.recv().map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A caller never waits for the output: what does not fit is dropped, counted, and reported when there is room again.
#[test]
fn a_stuck_output_costs_lines_not_time() {
    let ((entered, batches), (release, go)) = (channel(), channel());
    let limits = Limits { buffer_bytes: 1000, gather: Duration::ZERO };
    let (sink, writer) = Sink::start(Box::new(Gate { entered, go }), limits).expect("a thread");
    let line = [b'x'; 99];
    sink.push(&line, false);
    assert_eq!(batches.recv().expect("the first batch").len(), 99);
    // The output hangs from here on; ten more lines fit, five do not.
    for _ in 0..15 {
        sink.push(&line, false);
    }
    release.send(()).expect("the writer waits");
    let second = batches.recv().expect("the second batch");
    release.send(()).expect("the writer waits");
    sink.close();
    writer.join().expect("the writer ends");
    let text = String::from_utf8(second).expect("UTF-8");
    assert_eq!(text.matches('x').count(), 990);
    let report: Value = serde_json::from_str(text.trim_start_matches('x')).expect("a JSON line");
    assert_eq!((&report["dropped"], &report["level"]), (&json!(5), &json!("WARN")));
}

/// Flushing returns after everything said before was written, however long the log would have gathered; so do errors, alone.
#[test]
fn flush_and_errors_do_not_wait_for_the_gathering() {
    let limits = Limits { gather: Duration::from_secs(3600), ..Limits::default() };
    let memory = Memory::default();
    let (sink, _writer) = Sink::start(Box::new(memory.clone()), limits).expect("a thread");
    let _guard = tracing::subscriber::set_default(Registry::default().with(LineLayer::json(sink.clone())));
    info!("first");
    sink.flush();
    assert!(memory.text().contains("first"));

    let ((entered, batches), (release, go)) = (channel(), channel());
    let (sink, _writer) = Sink::start(Box::new(Gate { entered, go }), limits).expect("a thread");
    let _guard = tracing::subscriber::set_default(Registry::default().with(LineLayer::json(sink)));
    info!("second");
    error!("third");
    let batch = String::from_utf8(batches.recv().expect("a batch")).expect("UTF-8");
    release.send(()).expect("the writer waits");
    assert!(batch.contains("second") && batch.contains("third"), "{batch}");
}
