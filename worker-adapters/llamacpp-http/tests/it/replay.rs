//! A server that answers with recorded bytes, and jobs to send to it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use adapter_api::{Job, StreamState, TokenEvent, TokenStream, WorkerError, next_events};
use http_util::Endpoint;
use llamacpp_http::{LlamaCpp, LlamaCppConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// Response bytes as a real server sent them.
pub(crate) fn transcript(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(format!("{name}.txt"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What is answered to requests for a path; each piece is a write of its own. A path that stands here several times gets
/// one answer after the other, and then the last one again.
pub(crate) type Routes = Vec<(&'static str, Vec<Vec<u8>>)>;

/// A route with one recorded answer.
pub(crate) fn route(path: &'static str, name: &str) -> (&'static str, Vec<Vec<u8>>) {
    (path, vec![transcript(name)])
}

/// A replaying server, alive as long as the test's runtime.
pub(crate) struct Replay {
    pub(crate) endpoint: Endpoint,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Replay {
    pub(crate) async fn start(routes: Routes) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("an endpoint");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, routes) = (Arc::clone(&requests), Arc::new(routes));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("nodelay");
                tokio::spawn(answer(stream, Arc::clone(&routes), Arc::clone(&log)));
            }
        });
        Self { endpoint, requests }
    }

    pub(crate) fn adapter(&self) -> LlamaCpp {
        LlamaCpp::new(&LlamaCppConfig::new(self.endpoint.clone())).expect("an adapter")
    }

    /// Bodies of the requests so far.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        let requests = self.requests.lock().expect("no panic");
        let body = |request: &String| request.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
        requests.iter().map(|request| serde_json::from_str(&body(request)).unwrap_or(Value::Null)).collect()
    }
}

pub(crate) async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    routes: Arc<Routes>,
    log: Arc<Mutex<Vec<String>>>,
) {
    let Some(request) = read_request(&mut stream).await else { return };
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let not_found = vec![transcript("not_found")];
    let earlier = {
        let mut log = log.lock().expect("no panic");
        log.push(request);
        log.iter().filter(|request| request.split(' ').nth(1) == Some(&path)).count() - 1
    };
    let answers: Vec<_> = routes.iter().filter(|(known, _)| *known == path).map(|(_, pieces)| pieces).collect();
    let pieces = answers.get(earlier).or(answers.last()).map_or(&not_found, |pieces| *pieces);
    for piece in pieces {
        if stream.write_all(piece).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or("0");
            if body.len() >= length.parse().ok()? {
                return Some(text);
            }
        }
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
}

/// A job; `members` replace or extend those of a small completion.
pub(crate) fn job(members: Value) -> Job {
    let mut request = json!({
        "task_id": "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10", "session_id": "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b",
        "workload": "completion", "model_ref": "m", "engine": "llamacpp", "ctx": 512, "priority": "interactive",
        "max_tokens": 8, "deadline_ms": 60000,
    });
    let Value::Object(members) = members else { panic!("members are an object") };
    request.as_object_mut().expect("an object").extend(members);
    Job {
        request: Arc::new(serde_json::from_value(request).expect("a task")),
        seed: 7,
        repeatable: false,
        correlation_id: "c".into(),
    }
}

pub(crate) fn prompt() -> Job {
    job(json!({"prompt": "The capital of France is"}))
}

pub(crate) fn chat() -> Job {
    job(json!({"messages": [{"role": "user", "content": "Say hello."}]}))
}

/// The events of a stream in readable form, and how it ended.
pub(crate) type Seen = (Vec<String>, Result<(), WorkerError>);

pub(crate) fn show(event: &TokenEvent<'_>) -> String {
    format!("{event:?}")
}

/// Runs a job to its end.
pub(crate) async fn run(adapter: &dyn adapter_api::WorkerAdapter, job: &Job) -> Seen {
    match adapter.submit(job).await {
        Ok(mut stream) => drain(&mut *stream).await,
        Err(error) => (Vec::new(), Err(error)),
    }
}

pub(crate) async fn drain(stream: &mut dyn TokenStream) -> Seen {
    let mut events = Vec::new();
    loop {
        match next_events(stream, &mut |event| events.push(show(&event))).await {
            Ok(StreamState::Open) => {}
            Ok(StreamState::Ended) => return (events, Ok(())),
            Err(error) => return (events, Err(error)),
        }
    }
}
