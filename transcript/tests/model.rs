//! Every interleaving of a producer, a cancel and a reader, on the real source compiled against loom's primitives.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "the crate's own modules, seen from a test")]

#[path = "../src/encode.rs"]
mod encode;
#[path = "../src/kept.rs"]
mod kept;
#[path = "../src/log.rs"]
mod log;
#[path = "../src/reader.rs"]
mod reader;
#[path = "../src/transcript.rs"]
mod transcript;
#[path = "../src/writer.rs"]
mod writer;

mod sync {
    pub(crate) use loom::sync::{Mutex, MutexGuard};
}

use std::sync::Arc;
use std::task::Poll;

use api_types::sse::{Channel, EndFrame, EventName};
use loom::future::block_on;
use loom::thread;
use transcript::Transcript;

/// Explores every interleaving with so many preemptions; almost every race needs two at most.
fn explore(story: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(story);
}

/// What a reader is sent: the names of the events, in order.
async fn follow(transcript: &Arc<Transcript>) -> Vec<String> {
    let mut reader = transcript.reader(None).expect("all is kept");
    let mut seen = Vec::new();
    while let Some(bytes) = reader.read().await {
        seen.extend_from_slice(&bytes.expect("it keeps up"));
    }
    let text = String::from_utf8(seen).expect("frames are text");
    text.lines().filter_map(|line| line.strip_prefix("event: ")).map(str::to_owned).collect()
}

/// Cancels in the daemon's two steps; the number of tokens there were when the first was done.
fn cancel(transcript: &Transcript) -> u32 {
    transcript.write().close();
    let tokens = transcript.write().tokens();
    let end = EndFrame { canceled: Some(true), ..EndFrame::default() };
    assert!(transcript.write().seal(None, EventName::End, &end), "one seal only");
    tokens
}

/// ORCH-3026, SSE-1002: a cancel that comes at any moment is the last thing a reader sees, every token taken before it comes
/// first, and the reader always wakes up to see it.
#[test]
fn a_cancel_has_no_race() {
    explore(|| {
        let transcript = Arc::new(Transcript::new(usize::MAX, 0));
        let producing = Arc::clone(&transcript);
        let producer = thread::spawn(move || (0..2).filter(|_| producing.write().token("x", Channel::Content)).count());
        let canceling = Arc::clone(&transcript);
        let canceler = thread::spawn(move || cancel(&canceling));
        let seen = block_on(follow(&transcript));
        let acknowledged = canceler.join().expect("it cancels");
        let taken = producer.join().expect("it ends");
        assert_eq!((seen.len(), acknowledged as usize), (taken + 1, taken), "{seen:?}");
        assert!(seen[..taken].iter().all(|name| name == "token") && seen[taken] == "end", "{seen:?}");
    });
}

/// A producer that waits for room always gets it, from the reader or from a cancel.
#[test]
fn nobody_waits_for_room_for_ever() {
    explore(|| {
        let transcript = Arc::new(Transcript::new(64, 0));
        let producing = Arc::clone(&transcript);
        let producer = thread::spawn(move || {
            let mut taken = 0;
            for _ in 0..2 {
                block_on(std::future::poll_fn(|cx| producing.poll_room(cx)));
                taken += usize::from(producing.write().token(LONG, Channel::Content));
            }
            taken
        });
        let canceling = Arc::clone(&transcript);
        let canceler = thread::spawn(move || cancel(&canceling));
        producer.join().expect("it ends");
        canceler.join().expect("it cancels");
        assert!(matches!(block_on(std::future::poll_fn(|cx| Poll::Ready(transcript.poll_room(cx)))), Poll::Ready(())));
    });
}

/// The same without a cancel: room comes from the reader alone.
#[test]
fn a_reader_makes_room() {
    explore(|| {
        let transcript = Arc::new(Transcript::new(64, 0));
        let mut reader = transcript.reader(None).expect("all is kept");
        let producing = Arc::clone(&transcript);
        let producer = thread::spawn(move || {
            for _ in 0..2 {
                block_on(std::future::poll_fn(|cx| producing.poll_room(cx)));
                assert!(producing.write().token(LONG, Channel::Content));
            }
            producing.write().seal(None, EventName::End, &EndFrame::default());
        });
        let mut tokens = 0;
        while let Some(bytes) = block_on(reader.read()) {
            let bytes = bytes.expect("the foremost reader keeps up");
            tokens += memchr::memmem::find_iter(&bytes, b"event: token").count();
        }
        producer.join().expect("it ends");
        assert_eq!(tokens, 2);
    });
}

/// More than the whole limit, so that one is enough to fill it, and a segment of its own.
const LONG: &str =
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";
