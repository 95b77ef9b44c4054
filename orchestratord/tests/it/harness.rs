//! Starting daemons and engines, submitting tasks, reading streams.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
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
pub(crate) struct Killed(pub(crate) Child);

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
    config: String,
    environment: Vec<(String, String)>,
    /// What it is started by, such as what puts it into a network namespace.
    within: Vec<String>,
    http: reqwest::Client,
}

impl Daemon {
    /// Starts a daemon with this configuration and waits until it listens.
    pub(crate) async fn start(config: &str) -> Self {
        Self::start_with(config, &[]).await
    }

    /// [`Daemon::start`] with environment variables.
    pub(crate) async fn start_with(config: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_within(&[], config, environment).await
    }

    /// [`Daemon::start_with`] by another program that starts it.
    pub(crate) async fn start_within(within: &[String], config: &str, environment: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let program = Path::new(env!("CARGO_BIN_EXE_orchestratord"));
        let (child, addr) = spawn(within, program, &dir, config, environment).await;
        // A second call finds it installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (config, within) = (config.to_owned(), within.to_vec());
        Self { child, addr, dir, config, environment, within, http }
    }

    /// Kills it as a crash would, without a chance to tidy up.
    pub(crate) fn kill(&mut self) {
        self.child.0.kill().expect("the child can be killed");
        self.child.0.wait().expect("the child can be waited for");
    }

    /// Starts it again after its end: the same directory, configuration and environment.
    pub(crate) async fn start_again(&mut self) {
        std::fs::remove_file(self.dir.path().join("port")).expect("its last life wrote it");
        let environment: Vec<_> = self.environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        let program = Path::new(env!("CARGO_BIN_EXE_orchestratord"));
        (self.child, self.addr) = spawn(&self.within, program, &self.dir, &self.config, &environment).await;
    }

    /// [`Daemon::start_again`] at this port, for those who look for it where it was.
    pub(crate) async fn start_again_at(&mut self, port: u16) {
        let bind = format!("bind = \"{}:0\"", self.addr.ip());
        self.config = self.config.replace(&bind, &format!("bind = \"{}:{port}\"", self.addr.ip()));
        self.start_again().await;
    }

    /// Its next life has another configuration.
    pub(crate) fn reconfigure(&mut self, change: impl FnOnce(&str) -> String) {
        self.config = change(&self.config);
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

    /// Waits until every pool is ready.
    pub(crate) async fn all_ready(&self) {
        eventually_async("all pools are ready", async || {
            let readiness = self.json("/readyz").await;
            (readiness["pools_ready"] == readiness["pools_total"]).then_some(())
        })
        .await;
    }

    /// Whose requests are the harness's from now on.
    pub(crate) fn call_by(&mut self, http: &reqwest::Client) {
        self.http = http.clone();
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
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

    /// Submits a task that must be taken; its admission.
    pub(crate) async fn accepted(&self, body: &Value) -> Value {
        let answer = self.post("/v1/tasks", body).await;
        let (status, body) = (answer.status(), answer.json().await.expect("JSON"));
        assert_eq!(status, 202, "{body}");
        body
    }

    /// Submits a task that must be refused: the status, and the envelope.
    pub(crate) async fn refusal(&self, body: &Value) -> (u16, Value) {
        let answer = self.post("/v1/tasks", body).await;
        let (status, body) = (answer.status().as_u16(), answer.json().await.expect("JSON"));
        assert!(status >= 400, "{body}");
        (status, body)
    }

    /// What the daemon says of a task.
    pub(crate) async fn look(&self, task: &Value) -> Value {
        self.json(&format!("/v1/tasks/{}", id(task))).await
    }

    /// Waits until a task is in this state; what the daemon says of it then.
    pub(crate) async fn until(&self, task: &Value, state: &str) -> Value {
        let reached = async || Some(self.look(task).await).filter(|seen| seen["state"] == state);
        eventually_async(&format!("task {} is {state}", id(task)), reached).await
    }

    /// Every task that a query lets through, over pages of this size.
    pub(crate) async fn list(&self, query: &str, limit: usize) -> Vec<Value> {
        let (mut tasks, mut cursor) = (Vec::new(), String::new());
        loop {
            let mut page = self.json(&format!("/v1/tasks?{query}&limit={limit}{cursor}")).await;
            let on_page = page["tasks"].as_array_mut().unwrap_or_else(|| panic!("no tasks for {query}"));
            assert!(on_page.len() <= limit, "{query}");
            tasks.append(on_page);
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return tasks,
            }
        }
    }

    /// Runs a task that keeps its slot until it is canceled, and waits until it streams.
    pub(crate) async fn occupy(&self, task: &Value) -> Stream {
        let mut stream = self.run(task).await;
        stream.until("token").await;
        stream
    }

    /// One sample of `/metrics`, or the sum of all that begin like this.
    pub(crate) async fn metric(&self, start: &str) -> f64 {
        let text = self.get("/metrics").await.text().await.expect("text");
        let samples = text.lines().filter(|line| line.starts_with(start));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Submits and follows in one round trip.
    pub(crate) async fn run(&self, body: &Value) -> Stream {
        self.run_with(&self.http, body).await
    }

    /// [`Daemon::run`] by another client.
    pub(crate) async fn run_with(&self, http: &reqwest::Client, body: &Value) -> Stream {
        let request = http.post(self.url("/v1/tasks")).header("accept", "text/event-stream").json(body);
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

/// Starts a daemon that writes its address into a file, and waits until it has.
pub(crate) async fn spawn(
    within: &[String],
    program: &Path,
    dir: &TempDir,
    config: &str,
    environment: &[(&str, &str)],
) -> (Killed, SocketAddr) {
    let mut child = Killed(command(within, program, dir, config, environment).spawn().expect("the daemon starts"));
    let port_file = dir.path().join("port");
    let addr = eventually("the daemon listens", || {
        if let Some(status) = child.0.try_wait().expect("the child can be waited for") {
            panic!("{} ended with {status}:\n{}", program.display(), log(dir));
        }
        let text = std::fs::read_to_string(&port_file).ok()?;
        text.ends_with('\n').then(|| text.trim().parse().expect("an address"))
    })
    .await;
    (child, addr)
}

/// Runs a daemon that is expected to give up at once; its exit code and what it said.
pub(crate) async fn refused(config: &str, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let program = Path::new(env!("CARGO_BIN_EXE_orchestratord"));
    let spawned = command(&[], program, &dir, config, environment).stderr(Stdio::piped()).spawn();
    let mut child = Killed(spawned.expect("orchestratord starts"));
    let status = eventually("the daemon gives up", || child.0.try_wait().expect("the child can be waited for")).await;
    let mut said = String::new();
    child.0.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    (status.code(), said)
}

fn command(within: &[String], program: &Path, dir: &TempDir, config: &str, environment: &[(&str, &str)]) -> Command {
    let file = dir.path().join("llama-orch.toml");
    std::fs::write(&file, config).expect("the configuration is written");
    let log = File::options().create(true).append(true).open(dir.path().join("log")).expect("a log file");
    let mut command = match within.split_first() {
        Some((starter, arguments)) => {
            let mut command = Command::new(starter);
            command.args(arguments).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.env_clear().env("HOME", dir.path()).envs(environment.iter().copied()).current_dir(dir.path());
    command.args(["--config".as_ref(), file.as_os_str(), "--port-file".as_ref(), dir.path().join("port").as_os_str()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
}

pub(crate) fn log(dir: &TempDir) -> String {
    std::fs::read_to_string(dir.path().join("log")).unwrap_or_default()
}

/// One external pool `gpu0`; `settings` are further lines of its section or further sections.
pub(crate) fn config(engine_url: &str, settings: &str) -> String {
    config_of(&[pool("gpu0", &[engine_url], settings)])
}

/// These pools; the last one may bring further sections.
pub(crate) fn config_of(pools: &[String]) -> String {
    format!("[server]\nbind = \"127.0.0.1:0\"\ndata_dir = \"data\"\n{}", pools.concat())
}

/// One external pool with these engines; `settings` are further lines of its section.
pub(crate) fn pool(id: &str, engine_urls: &[&str], settings: &str) -> String {
    let (url, replicas) = engine_urls.split_first().expect("a pool has an engine");
    format!(
        r#"
        [[pools]]
        id = "{id}"
        engine = "llamacpp"
        model = "mock-model"
        provisioning = {{ mode = "external", external = {{ url = "{url}", replicas = {replicas:?} }} }}
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

/// [`task`] of class `batch`.
pub(crate) fn batch(prompt: &str, max_tokens: u32) -> Value {
    with(task(prompt, max_tokens), "priority", json!("batch"))
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
    reads: usize,
}

impl Stream {
    fn new(response: reqwest::Response) -> Self {
        Self { response, buffer: String::new(), reads: 0 }
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(crate) fn version(&self) -> reqwest::Version {
        self.response.version()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// How many pieces it came in so far.
    pub(crate) fn reads(&self) -> usize {
        self.reads
    }

    /// The next event, `None` at the end of the body.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.buffer.find("\n\n") {
                let raw: String = self.buffer.drain(..end + 2).collect();
                return Some(parse(&raw));
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("the stream goes on");
            self.reads += 1;
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
