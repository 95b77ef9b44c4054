//! Clients of every kind, from the patient one to the one that sends nonsense.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api_types::sse::TokenFrame;
use api_types::{Priority, TaskState};
use bytes::Bytes;
use http_util::sse::{SseDecoder, SseError, SseEvent};
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use openapi_client::{Client, ClientError};
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::super::http::{Connect, Connection, HttpError, Version, next};
use super::super::task::{Rng, Task, task_id};
use super::ledger::{Ledger, Wrong};
use super::{FLAT_OUT, PACED};

/// How long after its deadline a task may take to have ended in the eyes of its client.
const LATENESS: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// What a slow reader's kernel keeps for it, in bytes, and how long it takes over each piece.
const SLOW_BUFFER: u32 = 4096;
const SLOW_PAUSE: Duration = Duration::from_millis(15);
const SLOW_TOKENS: u16 = 2000;

/// Who is visited, and where it is written down.
pub(super) struct Host {
    pub(super) address: SocketAddr,
    pub(super) client: Client,
    pub(super) ledger: Arc<Ledger>,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Behaviour {
    /// Reads its stream to the end.
    Follow,
    /// Reads it so slowly that the server must wait.
    ReadSlowly,
    /// Reads it twice at the same time.
    ReadTwice,
    /// Goes away in the middle.
    Drop,
    /// Goes away in the middle and comes back for the rest.
    Resume,
    /// Cancels in the middle and reads on.
    Cancel,
    /// Submits and does not look.
    Forget,
    /// Sends what must be refused.
    Nonsense,
}

impl Behaviour {
    /// All of them, with how often each occurs in 100.
    const SHARES: [(Self, u32); 8] = [
        (Self::Follow, 40),
        (Self::ReadSlowly, 3),
        (Self::ReadTwice, 7),
        (Self::Drop, 10),
        (Self::Resume, 10),
        (Self::Cancel, 10),
        (Self::Forget, 10),
        (Self::Nonsense, 10),
    ];
}

/// One visit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit {
    behaviour: Behaviour,
    task: Task,
    model: &'static str,
    version: Version,
    /// Tokens after which something happens.
    turn: u32,
    /// Time until a client that went away comes back.
    away: Duration,
    /// Which nonsense.
    nonsense: usize,
}

/// Draws a visit.
pub(super) fn draw(rng: &mut Rng) -> Visit {
    let behaviour =
        Behaviour::SHARES.choose_weighted(rng, |(_, share)| *share).map_or(Behaviour::Follow, |(it, _)| *it);
    let slow = behaviour == Behaviour::ReadSlowly;
    let batch = behaviour == Behaviour::Forget || rng.random_ratio(1, 4);
    let hurried = rng.random_ratio(1, 20);
    Visit {
        behaviour,
        task: Task {
            at: Duration::ZERO,
            id: task_id(rng),
            priority: if batch { Priority::Batch } else { Priority::Interactive },
            prompt_tokens: rng.random_range(2..200),
            max_tokens: if slow { SLOW_TOKENS } else { rng.random_range(1..64) },
            deadline: if hurried { Duration::from_millis(50) } else { Duration::from_secs(60) },
        },
        model: if slow || rng.random_ratio(1, 3) { FLAT_OUT } else { PACED },
        version: if rng.random_ratio(1, 3) { Version::Http2 } else { Version::Http1 },
        turn: rng.random_range(0..16),
        away: Duration::from_millis(rng.random_range(0..1500)),
        nonsense: rng.random_range(0..NONSENSE.len()),
    }
}

impl Visit {
    /// Pays the visit, and sees to it that what came of it is known.
    pub(super) async fn pay(self, host: Arc<Host>) {
        host.ledger.note(|counts| *counts.visits.entry(self.behaviour).or_default() += 1);
        let told = match self.behaviour {
            Behaviour::Nonsense => return self.talk_nonsense(&host).await,
            Behaviour::Forget => self.submit(&host).await,
            _ => self.stream(&host).await,
        };
        match told {
            Ok(Some(told)) => self.find_end(&host, told).await,
            // Refused.
            Ok(None) => {}
            Err(error) => host.ledger.wrong(Wrong::BrokeOff, || format!("{:?}: {error}", self.behaviour)),
        }
    }

    /// Submits without a stream. None when it was refused.
    async fn submit(&self, host: &Host) -> Result<Option<Told>, HttpError> {
        match host.client.submit_task(&self.task.request(self.model)).await {
            Ok(_) => {
                host.ledger.note(|counts| counts.accepted += 1);
                Ok(Some(Told::Nothing))
            }
            Err(ClientError::Refused(refusal)) => {
                self.refused(host, refusal.status, &refusal.envelope.message);
                Ok(None)
            }
            Err(error) => {
                host.ledger.wrong(Wrong::BadAnswer, || error.to_string());
                Ok(None)
            }
        }
    }

    /// Submits with a stream and treats it in the client's way. None when it was refused.
    async fn stream(&self, host: &Host) -> Result<Option<Told>, HttpError> {
        let slow = self.behaviour == Behaviour::ReadSlowly;
        let mut connection = self.connect(host, slow.then_some(SLOW_BUFFER)).await?;
        let body = serde_json::to_vec(&self.task.request(self.model)).expect("a task is plain JSON");
        let response = connection.post("/v1/tasks", Bytes::from(body)).await?;
        if response.status() != StatusCode::OK {
            let status = response.status().as_u16();
            let answer = next(&mut response.into_body()).await?.unwrap_or_default();
            self.refused(host, status, &String::from_utf8_lossy(&answer));
            return Ok(None);
        }
        host.ledger.note(|counts| counts.accepted += 1);
        let mut reading = Reading::new(response);
        match self.behaviour {
            Behaviour::ReadSlowly => {
                while reading.piece().await? {
                    sleep(SLOW_PAUSE).await;
                }
            }
            Behaviour::ReadTwice => {
                let mut other = self.connect(host, None).await?;
                let mut second = Reading::new(other.get(&self.stream_path(), None).await?);
                let (first, of_second) = tokio::join!(reading.read_on(), second.read_on());
                first.and(of_second)?;
                second.check(host);
            }
            Behaviour::Drop | Behaviour::Resume => {
                if reading.until_token(self.turn).await? {
                    drop(connection);
                    let Some(rest) = self.come_back(host, reading).await? else { return Ok(Some(Told::Nothing)) };
                    reading = rest;
                }
            }
            Behaviour::Cancel => {
                if reading.until_token(self.turn).await?
                    && let Err(error) = host.client.cancel_task(self.task.id).await
                {
                    host.ledger.wrong(Wrong::BadAnswer, || format!("cancel: {error}"));
                }
                reading.read_on().await?;
            }
            Behaviour::Follow | Behaviour::Forget | Behaviour::Nonsense => reading.read_on().await?,
        }
        reading.check(host);
        Ok(Some(reading.told))
    }

    /// The rest of a stream, for those who come back for it.
    async fn come_back(&self, host: &Host, left: Reading) -> Result<Option<Reading>, HttpError> {
        let Reading { body, last_id, next_token, .. } = left;
        drop(body);
        if self.behaviour != Behaviour::Resume {
            return Ok(None);
        }
        sleep(self.away).await;
        let mut connection = self.connect(host, None).await?;
        let response = connection.get(&self.stream_path(), last_id).await?;
        if response.status() != StatusCode::OK {
            host.ledger.wrong(Wrong::BadAnswer, || format!("resume: {}", response.status()));
            return Ok(None);
        }
        let mut rest = Reading { last_id, next_token, ..Reading::new(response) };
        rest.read_on().await?;
        Ok(Some(rest))
    }

    async fn connect(&self, host: &Host, receive_buffer: Option<u32>) -> Result<Connection, HttpError> {
        Connect { receive_buffer, ..Connect::to(host.address, self.version) }.open().await
    }

    fn stream_path(&self) -> String {
        format!("/v1/tasks/{}/stream", self.task.id)
    }

    /// A refusal is in order while queues are full, engines are down or deadlines are short.
    fn refused(&self, host: &Host, status: u16, answer: &str) {
        let hurried = status == 400 && self.task.deadline < Duration::from_secs(1);
        if !(hurried || matches!(status, 429 | 503)) {
            host.ledger.wrong(Wrong::BadAnswer, || format!("{status}: {answer}"));
        }
        host.ledger.note(|counts| *counts.refused.entry(status).or_default() += 1);
    }

    /// Waits for the task's record to tell its end, and holds it against what the stream told.
    async fn find_end(&self, host: &Host, told: Told) {
        let until = Instant::now() + self.task.deadline + LATENESS;
        loop {
            let state = match host.client.get_task(self.task.id).await {
                Ok(record) => record.state,
                Err(error) => return host.ledger.wrong(Wrong::BadAnswer, || format!("record: {error}")),
            };
            match state {
                TaskState::Queued | TaskState::Dispatched | TaskState::Streaming if Instant::now() > until => {
                    return host.ledger.wrong(Wrong::NeverEnded, || format!("{} is {state}", self.task.id));
                }
                TaskState::Queued | TaskState::Dispatched | TaskState::Streaming => sleep(LOOK_AGAIN).await,
                ended => {
                    host.ledger.ended(ended);
                    if !told.agrees(ended) {
                        host.ledger.wrong(Wrong::Contradicted, || format!("{told:?}, but {ended}: {}", self.task.id));
                    }
                    return;
                }
            }
        }
    }

    /// Sends what must be refused.
    async fn talk_nonsense(&self, host: &Host) {
        let answered = match NONSENSE[self.nonsense] {
            Nonsense::Bytes(bytes) => return shout(host.address, bytes).await,
            Nonsense::Body(spoil) => self.post_spoilt(host, spoil).await,
        };
        match answered {
            Ok(status @ 400..=499) => host.ledger.note(|counts| *counts.refused.entry(status).or_default() += 1),
            Ok(status) => {
                host.ledger.wrong(Wrong::BadRequestTaken, || format!("nonsense {} got {status}", self.nonsense));
            }
            Err(error) => host.ledger.wrong(Wrong::BrokeOff, || format!("nonsense {}: {error}", self.nonsense)),
        }
    }

    async fn post_spoilt(&self, host: &Host, spoil: fn(&mut Value) -> Option<&'static str>) -> Result<u16, HttpError> {
        let mut task = serde_json::to_value(self.task.request(self.model)).expect("a task is plain JSON");
        let instead = spoil(&mut task);
        let body = instead.map_or_else(|| task.to_string(), str::to_owned);
        let response = self.connect(host, None).await?.post("/v1/tasks", body.into()).await?;
        Ok(response.status().as_u16())
    }
}

/// What must be refused.
#[derive(Clone, Copy)]
enum Nonsense {
    /// No HTTP, or half of it.
    Bytes(&'static [u8]),
    /// A task with something wrong, or another text instead of it.
    Body(fn(&mut Value) -> Option<&'static str>),
}

const NONSENSE: [Nonsense; 8] = [
    Nonsense::Bytes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    Nonsense::Bytes(b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{\"task_id\""),
    Nonsense::Body(|_| Some("{\"task_id\":")),
    Nonsense::Body(|_| Some("[]")),
    Nonsense::Body(|task| set(task, "max_token", json!(5))),
    Nonsense::Body(|task| set(task, "model_ref", json!("no-such-model"))),
    Nonsense::Body(|task| set(task, "max_tokens", json!(-1))),
    Nonsense::Body(|task| set(task, "ctx", json!(1_000_000))),
];

fn set(task: &mut Value, name: &str, value: Value) -> Option<&'static str> {
    task[name] = value;
    None
}

/// Sends bytes and goes away; whatever the server does with them, it must not keep anything.
async fn shout(to: SocketAddr, bytes: &[u8]) {
    if let Ok(mut stream) = TcpStream::connect(to).await {
        let _ = stream.write_all(bytes).await;
        sleep(LOOK_AGAIN).await;
    }
}

/// What a stream said about the task's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Nothing, or it was not read so far.
    Nothing,
    /// `end`.
    End,
    /// `error`.
    Error,
}

impl Told {
    const fn agrees(self, state: TaskState) -> bool {
        match self {
            Self::Nothing => true,
            Self::End => matches!(state, TaskState::Completed | TaskState::Canceled),
            Self::Error => matches!(state, TaskState::Failed | TaskState::Expired),
        }
    }
}

/// A stream that is being read.
struct Reading {
    body: Incoming,
    decoder: SseDecoder,
    last_id: Option<u64>,
    next_token: i32,
    told: Told,
    /// What was not as it must be.
    wrong: Option<Wrong>,
}

impl Reading {
    fn new(response: Response<Incoming>) -> Self {
        Self {
            body: response.into_body(),
            decoder: SseDecoder::default(),
            last_id: None,
            next_token: 0,
            told: Told::Nothing,
            wrong: None,
        }
    }

    /// Reads the next piece; false at the end.
    async fn piece(&mut self) -> Result<bool, HttpError> {
        let Some(piece) = next(&mut self.body).await? else { return Ok(false) };
        let Self { decoder, last_id, next_token, told, wrong, .. } = self;
        let mut state = State { last_id, next_token, told, wrong };
        let fed = decoder.feed(&piece, |event| {
            state.take(event);
            Ok::<(), SseError>(())
        });
        if fed.is_err() {
            self.wrong = Some(Wrong::BrokeOff);
        }
        Ok(true)
    }

    async fn read_on(&mut self) -> Result<(), HttpError> {
        while self.piece().await? {}
        Ok(())
    }

    /// Reads on until so many tokens have come; false when the stream ended before.
    async fn until_token(&mut self, count: u32) -> Result<bool, HttpError> {
        while self.told == Told::Nothing && (i64::from(self.next_token) < i64::from(count) || self.last_id.is_none()) {
            if !self.piece().await? {
                break;
            }
        }
        Ok(self.told == Told::Nothing)
    }

    /// A stream that was read to its end must have told one.
    fn check(&self, host: &Host) {
        let wrong = self.wrong.or((self.told == Told::Nothing).then_some(Wrong::BrokeOff));
        if let Some(wrong) = wrong {
            host.ledger.wrong(wrong, || format!("at event {:?}, token {}", self.last_id, self.next_token));
        }
    }
}

/// The place in a stream.
struct State<'a> {
    last_id: &'a mut Option<u64>,
    next_token: &'a mut i32,
    told: &'a mut Told,
    wrong: &'a mut Option<Wrong>,
}

impl State<'_> {
    fn take(&mut self, event: SseEvent<'_>) {
        let id = event.id.parse().ok();
        if *self.told != Told::Nothing {
            self.wrong.get_or_insert(Wrong::WentOn);
        }
        if id <= *self.last_id {
            self.wrong.get_or_insert(Wrong::TokenLost);
        }
        *self.last_id = id;
        match event.name {
            "token" => {
                let index = serde_json::from_str::<TokenFrame>(event.data).map(|token| token.i);
                if index.ok() != Some(*self.next_token) {
                    self.wrong.get_or_insert(Wrong::TokenLost);
                }
                *self.next_token += 1;
            }
            "end" => *self.told = Told::End,
            "error" => *self.told = Told::Error,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Behaviour, SseEvent, State, TaskState, Told, Wrong};

    fn read(events: &[(&str, &str, &str)]) -> (Told, Option<Wrong>) {
        let (mut last_id, mut next_token, mut told, mut wrong) = (None, 0, Told::Nothing, None);
        for (id, name, data) in events {
            let mut state =
                State { last_id: &mut last_id, next_token: &mut next_token, told: &mut told, wrong: &mut wrong };
            state.take(SseEvent { id, name, data });
        }
        (told, wrong)
    }

    /// No token is lost, doubled or out of order, and nothing follows the end.
    #[test]
    fn a_stream_is_checked_event_by_event() {
        let (started, first, second) =
            (("0", "started", "{}"), ("1", "token", r#"{"t":"a","i":0}"#), ("2", "token", r#"{"t":"b","i":1}"#));
        let end = ("3", "end", "{}");
        assert_eq!(read(&[started, first, second, end]), (Told::End, None));
        assert_eq!(read(&[started, second, end]).1, Some(Wrong::TokenLost));
        assert_eq!(read(&[started, first, first]).1, Some(Wrong::TokenLost));
        assert_eq!(read(&[started, end, end]).1, Some(Wrong::WentOn));
        assert_eq!(read(&[started, ("1", "error", "{}")]), (Told::Error, None));
        assert!(Told::Error.agrees(TaskState::Expired) && !Told::End.agrees(TaskState::Failed));
        assert_eq!(Behaviour::SHARES.iter().map(|(_, share)| share).sum::<u32>(), 100);
    }
}
