//! Token streams: what comes out of recorded ones, however they are cut.

use std::task::Poll;

use adapter_api::{TokenEvent, WorkerAdapter, WorkerError};
use api_types::ErrorKind;
use http_util::stream::{ChunkedDecoder, EventDecoder, EventFeed};
use llamacpp_http::{ChatDecoder, CompletionDecoder, LlamaCpp, LlamaCppConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::replay::{Replay, Seen, chat, drain, job, prompt, run, show, transcript};

const COMPLETION: &str = "/completion";
const CHAT: &str = "/v1/chat/completions";

/// Every recorded stream that ends as meant: its text, why it ended, tokens in, tokens from the cache, tokens out.
const STREAMS: [(&str, &str, &str, &str, [u32; 3]); 12] = [
    (COMPLETION, "completion_stream", " the capital of the country of France.", "Length", [6, 0, 8]),
    (COMPLETION, "completion_stream_stop_word", " 6, 7, 8,", "Stop", [15, 0, 11]),
    (COMPLETION, "completion_stream_return_progress", " lived in a", "Length", [11, 0, 3]),
    (COMPLETION, "completion_stream_return_tokens", " the capital of the country of", "Length", [6, 1, 6]),
    (COMPLETION, "completion_stream_probs", " the capital of", "Length", [6, 1, 3]),
    (COMPLETION, "completion_stream_timings", " the capital of", "Length", [6, 1, 3]),
    (
        COMPLETION,
        "completion_stream_emoji",
        " 1. Good morning, my friend. 2. Good morning, my friend. 3. Good morning,",
        "Length",
        [11, 1, 24],
    ),
    (
        COMPLETION,
        "completion_stream_emoji_grammar",
        "🐶🐱🐱🐶🐱🐱🐶🐱🐱🐶🐱🐱🐱🐶🐱🐱🐶🐱🐱🐶🐱🐱🐶🐱",
        "Length",
        [5, 1, 24],
    ),
    (COMPLETION, "completion_stream_utf8_split", "𒈐𒈐", "Length", [2, 1, 10]),
    (
        COMPLETION,
        "completion_ctx_filled_during_generation",
        "word word word word word word word",
        "Length",
        [1017, 1, 7],
    ),
    (CHAT, "v1_chat_completions_stream", "Say hello.<|im_end|>", "Length", [0, 1, 0]),
    (CHAT, "v1_chat_completions_stream_usage", "Say hello.<|im_end|>", "Length", [26, 21, 8]),
];

fn job_for(path: &str) -> adapter_api::Job {
    if path == CHAT { chat() } else { prompt() }
}

/// Plays pieces of a response to the adapter over a socket.
async fn over_a_socket(path: &'static str, pieces: Vec<Vec<u8>>) -> Seen {
    all_over_a_socket(path, vec![pieces]).await.remove(0)
}

/// Plays several responses, each in pieces, to one adapter.
async fn all_over_a_socket(path: &'static str, responses: Vec<Vec<Vec<u8>>>) -> Vec<Seen> {
    let count = responses.len();
    let replay = Replay::start(responses.into_iter().map(|pieces| (path, pieces)).collect()).await;
    let (adapter, job) = (replay.adapter(), job_for(path));
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push(run(&adapter, &job).await);
    }
    seen
}

/// Plays pieces of a response to the decoders behind the adapter, without a connection.
fn directly(path: &str, pieces: [&[u8]; 2]) -> Seen {
    match path {
        CHAT => feed(EventFeed::new(ChatDecoder::default()), pieces),
        _ => feed(EventFeed::new(CompletionDecoder::default()), pieces),
    }
}

fn feed<D: EventDecoder>(mut feed: EventFeed<D>, pieces: [&[u8]; 2]) -> Seen {
    let mut events = vec![show(&TokenEvent::Started)];
    let mut chunks = ChunkedDecoder::default();
    for mut rest in pieces {
        while !rest.is_empty() && !chunks.is_done() {
            let step = chunks.step(rest).expect("a chunked body");
            let fed = feed.take(step.payload, &mut |event| events.push(show(&event)));
            if let Err(error) = fed {
                return (events, Err(error));
            }
            rest = step.rest;
        }
    }
    let end = feed.finish().map(|finish| events.push(show(&TokenEvent::End(finish))));
    (events, end.ok_or_else(|| WorkerError::WorkerReset("cut".into())))
}

fn head_length(response: &[u8]) -> usize {
    response.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4
}

/// Where the last event ends: behind its blank line.
fn end_of_last_event(response: &[u8]) -> usize {
    response.windows(4).rposition(|bytes| bytes == b"}\n\n\r" || bytes == b"]\n\n\r").expect("an event") + 3
}

/// ADAPT-3001, ORCH-3274, OC-ADAPT-5001: text, order, finish and the engine's own counts.
#[tokio::test]
async fn recorded_streams() {
    for (path, name, text, reason, counts) in STREAMS {
        let (events, outcome) = over_a_socket(path, vec![transcript(name)]).await;
        outcome.expect(name);
        assert_eq!(events[0], "Started", "{name}");
        let (last, others) = events.split_last().expect("events");
        assert!(last.starts_with("End(") && !others.iter().any(|event| event.starts_with("End(")), "{name}");
        assert!(last.contains(&format!("reason: {reason},")), "{name}: {last}");
        let [tokens_in, cached, tokens_out] = counts;
        let (tokens_in, tokens_out) = (told(tokens_in), told(tokens_out));
        let usage = format!(
            "tokens_in: {tokens_in:?}, tokens_cached: Some({cached}), tokens_out: {tokens_out:?}, prefill_ms: Some("
        );
        assert!(last.contains(&usage), "{name}: {last}");
        assert_eq!(text_of(others), text, "{name}");
    }
}

/// 0 stands for a count that the engine did not send.
fn told(count: u32) -> Option<u32> {
    Some(count).filter(|count| *count > 0)
}

/// The text of all tokens, out of their readable form.
fn text_of(events: &[String]) -> String {
    let texts = events.iter().filter_map(|event| event.strip_prefix("Token { text: ")?.rsplit_once(", channel: "));
    texts.map(|(text, _)| serde_json::from_str::<String>(text).expect("a plain text")).collect()
}

/// Progress events are metrics; the token id 0 in them is none. Held-back text counts, but is not sent.
#[tokio::test]
async fn progress_and_held_back_text() {
    let whole = vec![transcript("completion_stream_return_progress")];
    let (events, _) = over_a_socket(COMPLETION, whole).await;
    let expected = [
        "Started",
        "Metrics(Progress { prefill: Some(0.0), tokens_out: None })",
        "Metrics(Progress { prefill: Some(0.6363636363636364), tokens_out: None })",
        "Metrics(Progress { prefill: Some(1.0), tokens_out: None })",
        "Token { text: \" lived\", channel: Content }",
        "Metrics(Progress { prefill: None, tokens_out: Some(1) })",
    ];
    assert_eq!(events[..6], expected);
    let (events, _) = over_a_socket(COMPLETION, vec![transcript("completion_stream_stop_word")]).await;
    assert_eq!(
        events[1..3],
        ["Metrics(Progress { prefill: None, tokens_out: Some(1) })", "Token { text: \" 6\", channel: Content }"]
    );
}

/// LO-WAD-10, ADAPT-3101: wherever a response is cut into two reads, the events are the same.
#[tokio::test]
async fn any_cut_into_two_reads_gives_the_same_events() {
    for (path, name, ..) in STREAMS {
        let response = transcript(name);
        let whole = over_a_socket(path, vec![response.clone()]).await;
        let body = &response[head_length(&response)..];
        for at in 0..=body.len() {
            let (first, second) = body.split_at(at);
            assert_eq!(directly(path, [first, second]), whole, "{name} at byte {at} of the body");
        }
        let cuts: Vec<usize> = (1..response.len()).step_by(31).collect();
        let halves = |at: &usize| vec![response[..*at].to_vec(), response[*at..].to_vec()];
        for (at, seen) in cuts.iter().zip(all_over_a_socket(path, cuts.iter().map(halves).collect()).await) {
            assert_eq!(seen, whole, "{name} at byte {at}, over a socket");
        }
    }
}

/// ADAPT-3101: wherever a stream is cut off before its last event is complete, it has failed; afterwards it has not.
#[tokio::test]
async fn a_stream_that_is_cut_off_never_ends_well() {
    for (path, name, ..) in STREAMS {
        let response = transcript(name);
        let (head, end) = (head_length(&response), end_of_last_event(&response));
        for at in head..response.len() {
            let (events, outcome) = directly(path, [&response[head..at], &[]]);
            assert_eq!(outcome.is_ok(), at >= end, "{name} at byte {at}");
            assert_eq!(events.iter().any(|event| event.starts_with("End(")), at >= end, "{name} at byte {at}");
        }
        let cuts: Vec<usize> = (0..response.len()).step_by(31).chain([end - 1, end, response.len() - 1]).collect();
        let begun = |at: &usize| vec![response[..*at].to_vec()];
        let outcomes = all_over_a_socket(path, cuts.iter().map(begun).collect()).await;
        for (at, (_, outcome)) in cuts.iter().zip(outcomes) {
            let kind = outcome.map_err(|error| error.kind());
            let expected = if *at >= end { Ok(()) } else { Err(ErrorKind::WorkerReset) };
            assert_eq!(kind, expected, "{name} at byte {at}, over a socket");
        }
    }
}

/// The recording of a client that went away is an incomplete response.
#[tokio::test]
async fn the_recorded_cancel_is_incomplete() {
    let (_, outcome) = over_a_socket(COMPLETION, vec![transcript("completion_cancel")]).await;
    assert!(matches!(outcome, Err(WorkerError::WorkerReset(_))), "{outcome:?}");
}

/// A response made of these events.
fn made_of(events: &[&str]) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = |event: &&str| format!("{:x}\r\ndata: {event}\n\n\r\n", event.len() + 8);
    format!("{head}{}0\r\n\r\n", events.iter().map(chunk).collect::<String>()).into_bytes()
}

/// Only what the engine calls success is success: well-formed bodies that are none.
#[tokio::test]
async fn well_formed_failures() {
    use ErrorKind::{Internal, InvalidParams, PoolUnavailable, WorkerReset};
    let token = r#"{"content":"a","stop":false,"tokens_predicted":1}"#;
    let delta = r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}"#;
    for (path, events, kind) in [
        (COMPLETION, &[token][..], WorkerReset),
        (COMPLETION, &[token, r#"{"content":"","stop":true,"stop_type":"none"}"#], Internal),
        (COMPLETION, &[token, r#"{"content":"","stop":true}"#], Internal),
        (COMPLETION, &[token, r#"{"error":{"code":500,"message":"oh","type":"server_error"}}"#], Internal),
        (COMPLETION, &[r#"{"error":{"code":503,"message":"Loading model"}}"#], PoolUnavailable),
        (
            COMPLETION,
            &[r#"{"error":{"code":400,"type":"exceed_context_size_error","n_prompt_tokens":9,"n_ctx":8}}"#],
            InvalidParams,
        ),
        (COMPLETION, &[r#"{"content":5,"stop":false}"#], Internal),
        (COMPLETION, &[r#"{"stop":false}"#], Internal),
        (COMPLETION, &["[DONE]"], Internal),
        (COMPLETION, &["{\"content\":\"a"], Internal),
        (CHAT, &[delta], WorkerReset),
        (CHAT, &[delta, "[DONE]"], WorkerReset),
        (CHAT, &[delta, r#"{"choices":[{"delta":{},"finish_reason":"abort"}]}"#, "[DONE]"], Internal),
        (CHAT, &[delta, r#"{"error":{"code":500,"message":"oh"}}"#, "[DONE]"], Internal),
    ] {
        let (_, outcome) = over_a_socket(path, vec![made_of(events)]).await;
        assert_eq!(outcome.expect_err("a failure").kind(), kind, "{events:?}");
    }
    let other = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}".to_vec();
    let (_, outcome) = over_a_socket(COMPLETION, vec![other]).await;
    assert!(matches!(outcome, Err(WorkerError::Adapter(_))));
}

/// ADAPT-3001: timings that make no sense are left out, and change nothing else; a count that makes no sense is no answer.
#[tokio::test]
async fn timings_that_make_no_sense() {
    let last = |timings: &str, tokens: &str| {
        format!(r#"{{"content":"","stop":true,"stop_type":"eos","tokens_predicted":{tokens},"timings":{timings}}}"#)
    };
    for (timings, cached, prefill, decode) in [
        (r#"{"cache_n":3,"prompt_ms":1.5,"predicted_ms":20}"#, "Some(3)", "Some(1.5)", "Some(20.0)"),
        (r#"{"cache_n":-3,"prompt_ms":-1.5,"predicted_ms":9.2e18}"#, "None", "None", "None"),
        (r#"{"cache_n":1e99,"prompt_ms":null,"predicted_ms":1e999}"#, "None", "None", "None"),
        (r#"{"cache_n":"3","prompt_ms":"NaN","predicted_ms":[1]}"#, "None", "None", "None"),
        ("null", "None", "None", "None"),
    ] {
        let (events, outcome) = over_a_socket(COMPLETION, vec![made_of(&[&last(timings, "7")])]).await;
        let usage = format!(
            "Usage {{ tokens_in: None, tokens_cached: {cached}, tokens_out: Some(7), prefill_ms: {prefill}, decode_ms: {decode}, slot: None }}"
        );
        assert!(outcome.is_ok() && events[1].contains(&usage), "{timings}: {outcome:?} {events:?}");
    }
    for tokens in ["-7", "1e99", "4294967296", "\"7\""] {
        let (events, outcome) = over_a_socket(COMPLETION, vec![made_of(&[&last("{}", tokens)])]).await;
        assert_eq!((outcome.map_err(|error| error.kind()), events.len()), (Err(ErrorKind::Internal), 1), "{tokens}");
    }
}

/// ADAPT-3101: what comes after the end is read by nobody: it ends nothing twice and adds no token.
#[tokio::test]
async fn nothing_counts_after_the_end() {
    let token = r#"{"content":"a","stop":false,"tokens_predicted":1}"#;
    let last = r#"{"content":"","stop":true,"stop_type":"eos"}"#;
    for after in [token, last, "not json", r#"{"error":{"code":500,"message":"oh"}}"#] {
        let (events, outcome) = over_a_socket(COMPLETION, vec![made_of(&[token, last, after, after])]).await;
        assert_eq!((outcome, events.len()), (Ok(()), 4), "{after}: {events:?}");
        assert!(events[3].starts_with("End("), "{after}: {events:?}");
    }
}

/// Reasoning and tool calls have channels of their own; escapes are undone; nothing counts after the end.
#[tokio::test]
async fn channels_of_a_chat() {
    let call = r#"{"index":0,"id":"x","type":"function","function":{"name":"f","arguments":"{\"a\":"}}"#;
    let calls = format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{call}]}},"finish_reason":null}}]}}"#);
    let response = made_of(&[
        r#"{"choices":[{"delta":{"role":"assistant","content":null},"finish_reason":null}]}"#,
        r#"{"choices":[{"delta":{"reasoning_content":"hm\n"},"finish_reason":null}]}"#,
        r#"{"choices":[{"delta":{"content":"\"caf\u00e9\" \ud83e\udd99"},"finish_reason":null}]}"#,
        &calls,
        r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#,
        "[DONE]",
        "not read any more",
    ]);
    let (events, outcome) = over_a_socket(CHAT, vec![response]).await;
    outcome.expect("a good end");
    let token = |text: &str, channel: &str| format!("Token {{ text: {text:?}, channel: {channel} }}");
    let expected = [token("hm\n", "Reasoning"), token("\"café\" 🦙", "Content"), token(call, "ToolCall")];
    assert_eq!(events[1..4], expected);
    assert!(events[4].starts_with("End(Finish { reason: ToolCalls, usage: Usage { tokens_in: None,"), "{}", events[4]);
}

/// ADAPT-3101: a dropped stream closes its connection, which is all the cancel that llama.cpp knows.
#[tokio::test]
async fn dropping_a_stream_closes_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("an endpoint");
    let engine = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(&transcript("completion_cancel")).await.expect("a write");
        // Ends only when the client closes: cleanly, or with a reset because it had not read everything.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let adapter = LlamaCpp::new(&LlamaCppConfig::new(endpoint)).expect("an adapter");
    let mut stream = adapter.submit(&prompt()).await.expect("a stream");
    adapter_api::next_events(&mut *stream, &mut |_| ()).await.expect("events");
    drop(stream);
    engine.await.expect("the engine saw the end");
}

/// A kept connection serves the next task; a cut answer's does not.
#[tokio::test]
async fn connections_are_kept_between_tasks() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("an endpoint");
    let text = String::from_utf8(transcript("completion_stream")).expect("text").replace("Connection: close\r\n", "");
    let engine = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        for _ in 0..3 {
            let mut request = vec![0; 4096];
            assert!(stream.read(&mut request).await.expect("a request") > 0);
            stream.write_all(text.as_bytes()).await.expect("a write");
        }
    });
    let adapter = LlamaCpp::new(&LlamaCppConfig::new(endpoint)).expect("an adapter");
    for _ in 0..3 {
        assert_eq!(run(&adapter, &prompt()).await.1, Ok(()));
    }
    engine.await.expect("one connection served all");
}

/// The last event ends a task, also when the engine forgets to end its response.
#[tokio::test]
async fn a_response_that_stays_open_does_not_hold_up_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("an endpoint");
    let engine = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let response = transcript("completion_stream");
        stream.write_all(&response[..end_of_last_event(&response)]).await.expect("a write");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let adapter = LlamaCpp::new(&LlamaCppConfig::new(endpoint)).expect("an adapter");
    assert_eq!(run(&adapter, &prompt()).await.1, Ok(()));
    engine.await.expect("the connection was closed, not kept");
}

/// Embeddings and scores come in the order of the inputs, whatever the engine's.
#[tokio::test]
async fn vectors_and_scores() {
    let embedding = job(json!({"workload": "embedding", "inputs": ["a", "b"]}));
    let rerank = job(json!({"workload": "rerank", "inputs": ["a", "b", "c"]}));
    let end = |tokens: u32| {
        format!(
            "End(Finish {{ reason: Stop, usage: Usage {{ tokens_in: Some({tokens}), tokens_cached: None, \
             tokens_out: None, prefill_ms: None, decode_ms: None, slot: None }} }})"
        )
    };
    let replay = Replay::start(vec![
        ("/v1/embeddings", vec![transcript("v1_embeddings_two")]),
        ("/v1/rerank", vec![transcript("v1_rerank")]),
    ])
    .await;
    let adapter = replay.adapter();

    let (events, outcome) = run(&adapter, &embedding).await;
    assert_eq!((outcome, events.len(), &events[3]), (Ok(()), 4, &end(4)));
    assert!(events[1].starts_with("Embedding { index: 0, vector: [-0.016145017, "), "{}", &events[1][..80]);
    assert!(events[2].starts_with("Embedding { index: 1, vector: ["));

    let (events, outcome) = run(&adapter, &rerank).await;
    let scores = ["Score { index: 0, score: 0.42892787 }", "Score { index: 1, score: 1.4837134 }"];
    assert_eq!((outcome, &events[1..3], &events[3]), (Ok(()), &scores.map(str::to_owned)[..], &end(6)));

    let one_too_many = job(json!({"workload": "embedding", "inputs": ["a", "b", "c"]}));
    assert!(matches!(run(&adapter, &one_too_many).await.1, Err(WorkerError::Adapter(_))));
    let bodies: Vec<Value> = replay.bodies();
    assert_eq!(bodies[0], json!({"input": ["a", "b"], "encoding_format": "float"}));
    assert_eq!(bodies[1], json!({"query": "a", "documents": ["b", "c"]}));
}

/// A stream keeps its place when the future that waits for it is dropped.
#[tokio::test]
async fn waiting_may_be_interrupted() {
    let replay = Replay::start(vec![(COMPLETION, vec![transcript("completion_stream")])]).await;
    let mut stream = replay.adapter().submit(&prompt()).await.expect("a stream");
    let mut events = Vec::new();
    let mut sink = |event: TokenEvent<'_>| events.push(show(&event));
    for _ in 0..3 {
        let mut waiting = std::pin::pin!(adapter_api::next_events(&mut *stream, &mut sink));
        std::future::poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_ready())).await;
    }
    let (rest, outcome) = drain(&mut *stream).await;
    events.extend(rest);
    assert_eq!((outcome, text_of(&events).as_str()), (Ok(()), " the capital of the country of France."));
}
