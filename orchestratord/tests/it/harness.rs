//! Starting daemons and engines, submitting tasks, reading streams.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use mock::process::MockEngineProcess;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

/// Longest a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Starts the simulated engine with these flags.
pub(crate) fn start_engine(flags: &[&str]) -> MockEngineProcess {
    MockEngineProcess::start(flags).expect("mock-engine starts")
}

/// A process that does not outlive its test, however that ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running daemon; killed when dropped.
pub(crate) struct Daemon {
    child: Killed,
    addr: SocketAddr,
    dir: TempDir,
    http: reqwest::Client,
}

impl Daemon {
    /// Starts a daemon with this configuration and waits until it listens.
    pub(crate) async fn start(config: &str) -> Self {
        Self::start_with(config, &[]).await
    }

    /// [`Daemon::start`] with environment variables.
    pub(crate) async fn start_with(config: &str, environment: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut child = Killed(command(&dir, config, environment).spawn().expect("orchestratord starts"));
        let port_file = dir.path().join("port");
        let addr = eventually("the daemon listens", || {
            if let Some(status) = child.0.try_wait().expect("the child can be waited for") {
                panic!("orchestratord ended with {status}:\n{}", log(&dir));
            }
            let text = std::fs::read_to_string(&port_file).ok()?;
            text.ends_with('\n').then(|| text.trim().parse().expect("an address"))
        })
        .await;
        // A second call finds it installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { child, addr, dir, http }
    }

    /// A daemon with one pool `gpu0` in front of `engine`, ready.
    pub(crate) async fn before(engine: &MockEngineProcess, settings: &str) -> Self {
        let daemon = Self::start(&config(engine.url(), settings)).await;
        daemon.ready().await;
        daemon
    }

    /// Waits until `/readyz` says yes.
    pub(crate) async fn ready(&self) {
        eventually_async("a pool is ready", async || self.get("/readyz").await.status().is_success().then_some(()))
            .await;
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    pub(crate) fn log(&self) -> String {
        log(&self.dir)
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(self.url(path)).send().await.expect("the daemon answers")
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        self.get(path).await.json().await.expect("JSON")
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        self.http.post(self.url(path)).json(body).send().await.expect("the daemon answers")
    }

    /// Submits and follows in one round trip.
    pub(crate) async fn run(&self, body: &Value) -> Stream {
        let request = self.http.post(self.url("/v1/tasks")).header("accept", "text/event-stream").json(body);
        Stream::new(request.send().await.expect("the daemon answers"))
    }

    /// Follows a task.
    pub(crate) async fn follow(&self, id: &str, after: Option<u32>) -> Stream {
        let mut request = self.http.get(self.url(&format!("/v1/tasks/{id}/stream")));
        if let Some(after) = after {
            request = request.header("last-event-id", after.to_string());
        }
        Stream::new(request.send().await.expect("the daemon answers"))
    }

    pub(crate) async fn cancel(&self, id: &str) -> u16 {
        self.post(&format!("/v1/tasks/{id}/cancel"), &json!({})).await.status().as_u16()
    }

    /// Waits until the pool runs none of our tasks.
    pub(crate) async fn no_leases(&self) {
        eventually_async("every slot is free", async || {
            let health = self.json("/v1/pools/gpu0/health").await;
            (health["metrics"]["active_leases"] == 0).then_some(())
        })
        .await;
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.pid().to_string()]).status().expect("kill runs");
        assert!(status.success());
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child.0;
        eventually("the daemon ends", || child.try_wait().expect("the child can be waited for")).await
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of orchestratord ---\n{}", self.log());
        }
    }
}

/// Runs a daemon that is expected to give up at once; its exit code and what it said.
pub(crate) async fn refused(config: &str, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let spawned = command(&dir, config, environment).stderr(Stdio::piped()).spawn();
    let mut child = Killed(spawned.expect("orchestratord starts"));
    let status = eventually("the daemon gives up", || child.0.try_wait().expect("the child can be waited for")).await;
    let mut said = String::new();
    child.0.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    (status.code(), said)
}

fn command(dir: &TempDir, config: &str, environment: &[(&str, &str)]) -> Command {
    let file = dir.path().join("llama-orch.toml");
    std::fs::write(&file, config).expect("the configuration is written");
    let log = std::fs::File::create(dir.path().join("log")).expect("a log file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestratord"));
    command.env_clear().env("HOME", dir.path()).envs(environment.iter().copied()).current_dir(dir.path());
    command.args(["--config".as_ref(), file.as_os_str(), "--port-file".as_ref(), dir.path().join("port").as_os_str()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
}

fn log(dir: &TempDir) -> String {
    std::fs::read_to_string(dir.path().join("log")).unwrap_or_default()
}

/// One external pool `gpu0`; `settings` are further lines of its section or further sections.
pub(crate) fn config(engine_url: &str, settings: &str) -> String {
    format!(
        r#"
        [server]
        bind = "127.0.0.1:0"
        data_dir = "data"
        [[pools]]
        id = "gpu0"
        engine = "llamacpp"
        model = "mock-model"
        provisioning = {{ mode = "external", external = {{ url = "{engine_url}" }} }}
        {settings}
        "#
    )
}

/// A complete request with fresh ids.
pub(crate) fn task(prompt: &str, max_tokens: u32) -> Value {
    json!({
        "task_id": Uuid::new_v4().to_string(),
        "session_id": Uuid::new_v4().to_string(),
        "workload": "completion",
        "model_ref": "mock-model",
        "engine": "llamacpp",
        "ctx": 4096,
        "priority": "interactive",
        "max_tokens": max_tokens,
        "deadline_ms": 60_000,
        "seed": 7,
        "prompt": prompt,
    })
}

/// The same request with one member replaced; `null` removes it.
pub(crate) fn with(mut task: Value, member: &str, value: Value) -> Value {
    let members = task.as_object_mut().expect("an object");
    if value.is_null() {
        members.remove(member);
    } else {
        members.insert(member.to_owned(), value);
    }
    task
}

pub(crate) fn id(task: &Value) -> &str {
    task["task_id"].as_str().expect("a task has an id")
}

/// One event of a stream, with its bytes as they came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) data: Value,
    pub(crate) raw: String,
}

/// A response that is being followed.
pub(crate) struct Stream {
    response: reqwest::Response,
    buffer: String,
}

impl Stream {
    fn new(response: reqwest::Response) -> Self {
        Self { response, buffer: String::new() }
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The next event, `None` at the end of the body.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.buffer.find("\n\n") {
                let raw: String = self.buffer.drain(..end + 2).collect();
                return Some(parse(&raw));
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("the stream goes on");
            match chunk.expect("the body is whole") {
                Some(bytes) => self.buffer.push_str(std::str::from_utf8(&bytes).expect("frames are sent whole")),
                None => {
                    assert_eq!(self.buffer, "", "the body ends between two frames");
                    return None;
                }
            }
        }
    }

    /// Everything until the end.
    pub(crate) async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    /// The next event of this name; others are skipped.
    pub(crate) async fn until(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("the stream ended without `{name}`"));
            if event.name == name {
                return event;
            }
        }
    }
}

fn parse(raw: &str) -> Event {
    let field = |name: &str| raw.lines().find_map(|line| line.strip_prefix(name)).expect("every frame has it");
    Event {
        id: field("id: ").parse().expect("a number"),
        name: field("event: ").to_owned(),
        data: serde_json::from_str(field("data: ")).expect("JSON"),
        raw: raw.to_owned(),
    }
}

/// The text of a stream.
pub(crate) fn text(events: &[Event]) -> String {
    events.iter().filter(|event| event.name == "token").filter_map(|event| event.data["t"].as_str()).collect()
}

/// The names of a stream's events, narration left out.
pub(crate) fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).filter(|name| *name != "narration" && *name != "metrics").collect()
}

/// Waits until `check` gives something.
pub(crate) async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    eventually_async(what, || std::future::ready(check())).await
}

/// [`eventually`] for checks that ask somebody.
pub(crate) async fn eventually_async<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Sets the engine's faults; the daemon's questions at start have been answered by then.
pub(crate) async fn set_faults(engine: &MockEngineProcess, faults: Value) {
    let answer = reqwest::Client::new().post(format!("{}/mock/faults", engine.url())).json(&faults).send().await;
    assert!(answer.expect("the engine answers").status().is_success(), "{faults}");
}

/// The engine's own count of something, from its `/mock/stats`.
pub(crate) async fn stat(engine: &MockEngineProcess, name: &str) -> u64 {
    let stats: Value = reqwest::get(format!("{}/mock/stats", engine.url()))
        .await
        .expect("the engine answers")
        .json()
        .await
        .expect("JSON");
    stats[name].as_u64().unwrap_or_else(|| panic!("no `{name}` in {stats}"))
}
