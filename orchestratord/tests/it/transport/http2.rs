use super::{Raw, config_with, resident};
use crate::harness::{Daemon, PATIENCE, eventually_async, id, names, start_engine, stat, task};

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A block of headers: indexed `:method` and `:scheme`, the rest as literals.
fn block(method: u8, path: &str, accept: Option<&str>) -> Vec<u8> {
    let literal = |name: u8, value: &str| {
        let length = u8::try_from(value.len()).expect("short");
        [&[name, length][..], value.as_bytes()].concat()
    };
    let mut block = vec![method, 0x86];
    block.extend(literal(0x04, path));
    block.extend(literal(0x01, "localhost"));
    // `accept` is entry 19 of the static table, beyond the prefix of four bits.
    block.extend(accept.map(|value| [&[0x0f, 19 - 15][..], &literal(0, value)[1..]].concat()).unwrap_or_default());
    block
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(GET, path, None))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

async fn open(daemon: &Daemon) -> Raw {
    let mut connection = Raw::open(daemon.addr()).await;
    connection.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()).await;
    connection
}

/// Kind, stream, payload.
type Frame = (u8, u32, Vec<u8>);

/// The whole frames in these bytes.
fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let Some((payload, next)) = rest.split_at_checked(length) else { break };
        frames.push((head[3], stream, payload.to_vec()));
        bytes = next;
    }
    frames
}

/// CVE-2023-44487: streams that are opened and reset at once, thousands of them, end their own connection and nothing else.
#[tokio::test]
async fn rapid_resets_end_their_connection() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    let before = resident(&daemon);
    let attack = |from: u32| (from..from + 50).flat_map(|n| [get(2 * n + 1, "/v1/tasks"), reset(2 * n + 1)].concat());
    for _ in 0..20 {
        let mut attacker = open(&daemon).await;
        attacker.send(attack(0).collect::<Vec<u8>>()).await;
        let seen = eventually_frames(&mut attacker, |seen| seen.iter().any(|(kind, ..)| *kind == GOAWAY)).await;
        let (.., goaway) = seen.last().expect("just seen");
        assert_eq!(goaway[4..8], ENHANCE_YOUR_CALM.to_be_bytes());
        // Nobody reads what comes after that.
        let flood: Vec<u8> = (1..100).flat_map(|round| attack(50 * round)).collect();
        let _ = tokio::io::AsyncWriteExt::write_all(&mut attacker.0, &flood).await;
        assert_eq!(daemon.get("/healthz").await.status(), 200);
    }
    let grown = resident(&daemon).saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
}

/// SSE-1003.2: tasks that are submitted and reset one at a time cost no more than tasks that are canceled: none is left.
#[tokio::test]
async fn reset_tasks_leave_nothing() {
    let engine = start_engine(&["--token-interval-ms", "5"]);
    let daemon = Daemon::before(&engine, "").await;
    let mut attacker = open(&daemon).await;
    for n in 0..100 {
        let stream = 2 * n + 1;
        let body = task("Reset me.", 1000).to_string();
        let headers = frame(HEADERS, END_HEADERS, stream, &block(POST, "/v1/tasks", Some("text/event-stream")));
        attacker.send([headers, frame(0, END_STREAM, stream, body.as_bytes())].concat()).await;
        let answered = |seen: &[Frame]| seen.iter().any(|frame| (frame.0, frame.1) == (HEADERS, stream));
        eventually_frames(&mut attacker, answered).await;
        attacker.send(reset(stream)).await;
    }
    assert_eq!(names(&daemon.run(&task("Meanwhile.", 2)).await.rest().await).last(), Some(&"end"));
    eventually_async("no task is left", async || {
        let tasks = daemon.list("priority=interactive", 50).await;
        tasks.iter().all(|task| task["state"] == "canceled" || task["state"] == "completed").then_some(())
    })
    .await;
    daemon.no_leases().await;
    eventually_async("the engine is idle", async || (stat(&engine, "running").await == 0).then_some(())).await;
}

/// CVE-2024-27316: a block of headers without an end ends its connection.
#[tokio::test]
async fn a_flood_of_continuations_is_cut() {
    let daemon = Daemon::start(&config_with("http://127.0.0.1:9", "")).await;
    let mut attacker = open(&daemon).await;
    attacker.send(frame(HEADERS, END_STREAM, 1, &block(GET, "/healthz", None))).await;
    let flood = async {
        // A literal that is never indexed, over and over.
        let more = frame(CONTINUATION, 0, 1, &[0x10, 1, b'x', 1, b'y'].repeat(1000));
        let written = async { while tokio::io::AsyncWriteExt::write_all(&mut attacker.0, &more).await.is_ok() {} };
        tokio::time::timeout(PATIENCE, written).await.expect("the flood is cut");
    };
    flood.await;
    assert_eq!(daemon.get("/healthz").await.status(), 200);
    assert!(resident(&daemon) < 64 * 1024);
}

/// One connection has as many streams as the configuration says, and they do not keep one another waiting.
#[tokio::test]
async fn streams_of_a_connection_are_limited() {
    let engine = start_engine(&["--token-interval-ms", "20", "--slots", "4"]);
    let settings = config_with(engine.url(), "max_streams_per_connection = 3");
    let daemon = Daemon::start(&settings).await;
    daemon.ready().await;
    let busy = task("Go on.", 2000);
    let _running = daemon.occupy(&busy).await;
    let path = format!("/v1/tasks/{}/stream", id(&busy));
    let mut greedy = open(&daemon).await;
    for n in 0..4 {
        greedy.send(get(2 * n + 1, &path)).await;
    }
    let seen = eventually_frames(&mut greedy, |seen| seen.iter().any(|(kind, ..)| *kind == RST_STREAM)).await;
    let refused = seen.iter().find(|(kind, ..)| *kind == RST_STREAM).expect("one was refused");
    assert_eq!((refused.1, &refused.2[..]), (7, &REFUSED_STREAM.to_be_bytes()[..]));
    greedy.send(reset(1)).await;
    greedy.send(get(9, "/healthz")).await;
    eventually_frames(&mut greedy, |seen| seen.iter().any(|(kind, stream, _)| (*kind, *stream) == (HEADERS, 9))).await;
}

/// Reads until the frames are as wanted.
async fn eventually_frames(connection: &mut Raw, wanted: impl Fn(&[Frame]) -> bool) -> Vec<Frame> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let seen = frames(&bytes);
        if wanted(&seen) {
            return seen;
        }
        let read = tokio::io::AsyncReadExt::read(&mut connection.0, &mut piece);
        let length = tokio::time::timeout(PATIENCE, read).await.expect("in time").expect("open");
        assert!(length > 0, "closed after {seen:?}");
        bytes.extend_from_slice(&piece[..length]);
    }
}

/// SSE-1003.2: a client that answers no ping is gone, and its waiting task with it.
#[tokio::test]
async fn a_client_that_answers_no_ping_is_gone() {
    let engine = start_engine(&["--token-interval-ms", "20"]);
    let daemon = Daemon::start(&config_with(engine.url(), "peer_timeout_ms = 2000")).await;
    daemon.ready().await;
    let busy = task("Go on.", 3000);
    let running = daemon.occupy(&busy).await;
    let waiting = task("Wait.", 3);
    let mut vanished = open(&daemon).await;
    let headers = frame(HEADERS, END_HEADERS, 1, &block(POST, "/v1/tasks", Some("text/event-stream")));
    let body = frame(0, END_STREAM, 1, waiting.to_string().as_bytes());
    vanished.send([headers, body].concat()).await;
    daemon.until(&waiting, "queued").await;
    daemon.until(&waiting, "canceled").await;
    assert_eq!(daemon.look(&busy).await["state"], "streaming", "only the waiting one");
    drop(running);
}

/// A reader that takes nothing of its stream does not delay the others of its connection, as far as its client lets us go on.
#[tokio::test]
async fn a_stalled_stream_delays_no_other() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .http2_initial_stream_window_size(8 * 1024)
        .build()
        .expect("built");
    let run = async |task| {
        let request = client.post(daemon.url("/v1/tasks")).header("accept", "text/event-stream").json(&task);
        request.send().await.expect("an answer")
    };
    let long = task("Never read.", 2000);
    let stalled = run(long.clone()).await;
    daemon.until(&long, "completed").await;
    for _ in 0..3 {
        let answer = tokio::time::timeout(PATIENCE, run(task("Read.", 5)).await.text()).await.expect("in time");
        assert!(answer.expect("text").contains("event: end\n"));
    }
    let rest = stalled.text().await.expect("the whole stream, once it is read");
    assert!(rest.ends_with("\n\n") && rest.contains("event: end\n"));
}

/// A connection that asks nothing for long enough is closed in good order.
#[tokio::test]
async fn an_idle_connection_is_closed() {
    let daemon = Daemon::start(&config_with("http://127.0.0.1:9", "head_timeout_ms = 300")).await;
    for asks in [false, true] {
        let mut idle = open(&daemon).await;
        if asks {
            idle.send(get(1, "/healthz")).await;
        }
        let seen = eventually_frames(&mut idle, |seen| seen.iter().any(|(kind, ..)| *kind == GOAWAY)).await;
        let (.., goaway) = seen.iter().find(|(kind, ..)| *kind == GOAWAY).expect("just seen");
        assert_eq!(goaway[4..8], [0; 4], "no error, asked: {asks}");
    }
}
