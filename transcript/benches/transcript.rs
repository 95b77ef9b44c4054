//! What a token costs between the engine's decoder and the socket: encode, append, read.

use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use api_types::sse::{Channel, EndFrame, EventName};
use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher};
use transcript::{Reader, Transcript};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const TOKENS: usize = 1000;

fn main() {
    divan::main();
}

fn empty() -> Transcript {
    Transcript::new(usize::MAX, 0)
}

fn drain(reader: &mut Reader) {
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(bytes)) = reader.poll_read(&mut cx) {
        black_box(bytes).expect("it keeps up");
    }
}

/// Appending 1,000 tokens that nobody reads meanwhile.
#[divan::bench]
fn append(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(TOKENS)).with_inputs(empty).bench_refs(|transcript| {
        for _ in 0..TOKENS {
            transcript.write().token(black_box(" token"), Channel::Content);
        }
    });
}

/// Appending 1,000 tokens, each read by its readers before the next one comes: the paced case.
#[divan::bench(args = [1, 4])]
fn append_and_read(bencher: Bencher<'_, '_>, readers: usize) {
    bencher
        .counter(ItemsCount::new(TOKENS))
        .with_inputs(|| {
            let transcript = Arc::new(empty());
            let readers: Vec<_> = (0..readers).map(|_| transcript.reader(None).expect("all is kept")).collect();
            (transcript, readers)
        })
        .bench_refs(|(transcript, readers)| {
            for _ in 0..TOKENS {
                transcript.write().token(black_box(" token"), Channel::Content);
                readers.iter_mut().for_each(drain);
            }
        });
}

/// Reading a finished stream of 1,000 tokens from the start.
#[divan::bench]
fn replay(bencher: Bencher<'_, '_>) {
    let transcript = Arc::new(empty());
    for _ in 0..TOKENS {
        transcript.write().token(" token", Channel::Content);
    }
    transcript.write().seal(None, EventName::End, &EndFrame::default());
    bencher.counter(ItemsCount::new(TOKENS)).bench(|| drain(&mut transcript.reader(None).expect("all is kept")));
}
