//! Cost of decoding one token event, from socket bytes to text: whole events as an engine writes them, and the same bytes cut
//! into small reads. Prints figures; asserts nothing.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use http_util::json_text::unescape;
use http_util::sse::{SseDecoder, SseError, SseEvent};
use http_util::stream::ChunkedDecoder;
use serde::Deserialize;
use serde_json::value::RawValue;

const TOKENS: usize = 1000;

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    content: &'a RawValue,
    stop: bool,
}

/// A chunked body in llama.cpp's form: one chunk per event.
fn body() -> Vec<u8> {
    let event = |token: usize| {
        let content = if token.is_multiple_of(16) { "\\n" } else { " capital" };
        format!(
            "data: {{\"index\":0,\"content\":\"{content}\",\"tokens\":[5279],\"stop\":false,\"id_slot\":-1,\
             \"tokens_predicted\":{token},\"tokens_evaluated\":6}}\n\n"
        )
    };
    let chunks = (0..TOKENS).map(event).map(|event| format!("{:x}\r\n{event}\r\n", event.len()));
    chunks.collect::<String>().into_bytes()
}

fn decode(body: &[u8], read: usize, mut on_event: impl FnMut(SseEvent<'_>)) {
    let (mut chunks, mut sse) = (ChunkedDecoder::default(), SseDecoder::default());
    for piece in body.chunks(read) {
        let mut rest = piece;
        while !rest.is_empty() {
            let step = chunks.step(rest).expect("a chunked body");
            let feeding = sse.feed(step.payload, |event| {
                on_event(event);
                Ok::<_, SseError>(())
            });
            feeding.expect("events");
            rest = step.rest;
        }
    }
}

/// Chunks and events only.
#[divan::bench(args = [8192, 150, 16, 1])]
fn framing(bencher: Bencher<'_, '_>, read: usize) {
    let body = body();
    bencher.counter(ItemsCount::new(TOKENS)).bench(|| decode(&body, read, |event| _ = black_box(event)));
}

/// The whole way to the token's text.
#[divan::bench(args = [8192, 150, 16, 1])]
fn text(bencher: Bencher<'_, '_>, read: usize) {
    let body = body();
    let mut scratch = String::new();
    bencher.counter(ItemsCount::new(TOKENS)).bench_local(|| {
        decode(&body, read, |event| {
            let event: Event<'_> = serde_json::from_str(event.data).expect("an event");
            black_box((event.stop, unescape(event.content.get(), &mut scratch).expect("text")));
        });
    });
}

fn main() {
    divan::main();
}
