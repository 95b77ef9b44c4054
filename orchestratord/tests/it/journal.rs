use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::harness::{Daemon, batch, config, eventually, eventually_async, id, refused, start_engine, task, with};
use crate::relay::{Prompts, Relay};

/// A daemon with one pool before the relay, ready.
async fn daemon_before(relay: &Relay, settings: &str) -> Daemon {
    let daemon = Daemon::start(&config(relay.url(), settings)).await;
    daemon.ready().await;
    daemon
}

async fn crash(daemon: &mut Daemon) {
    daemon.kill();
    daemon.start_again().await;
}

/// ORCH-3002-G, DESIGN sections 3 and 8: accepted batch tasks are taken up again after a SIGKILL, in the order of their
/// admission, and complete once; what had ended or was canceled does not run again; interactive tasks are gone. The same
/// request again has the same answer as before, another one under the same id is a conflict.
#[tokio::test]
async fn batch_tasks_survive_a_crash() {
    let engine = start_engine(&["--token-interval-ms", "10"]);
    let relay = Relay::before(&engine).await;
    let mut daemon = daemon_before(&relay, "").await;
    let ended = batch("ended", 2);
    let ended_admission = daemon.accepted(&ended).await;
    let ended_before = daemon.until(&ended, "completed").await;
    let running = batch("b0", 60);
    let mut stream = daemon.occupy(&running).await;
    let canceled = batch("canceled", 1);
    daemon.accepted(&canceled).await;
    assert_eq!(daemon.cancel(id(&canceled)).await, 204);
    let waiting = ["b1", "b2", "b3", "b4"].map(|name| batch(name, 1));
    let mut admissions = Vec::new();
    for task in &waiting {
        admissions.push(daemon.accepted(task).await);
    }
    let interactive = task("i1", 1);
    daemon.accepted(&interactive).await;
    stream.until("token").await;
    crash(&mut daemon).await;
    assert_eq!(daemon.look(&ended).await, ended_before);
    assert_eq!(daemon.accepted(&ended).await, ended_admission, "a safe retry of what has ended");
    for (task, admission) in waiting.iter().zip(&admissions) {
        assert_eq!(daemon.accepted(task).await, *admission, "a safe retry of what is pending");
    }
    for task in [&ended, &waiting[0]] {
        let (status, envelope) = daemon.refusal(&with(task.clone(), "max_tokens", json!(7))).await;
        assert_eq!((status, &envelope["code"]), (409, &json!("CONFLICT")));
    }
    assert_eq!(daemon.get(&format!("/v1/tasks/{}", id(&interactive))).await.status(), 404);
    for task in [&running].into_iter().chain(&waiting) {
        let seen = daemon.until(task, "completed").await;
        assert_eq!((&seen["recovered"], &seen["attempts"]), (&json!(true), &json!(1)), "{seen}");
        let step = &seen["moves"][0];
        assert_eq!((&step["reason"], &step["to"]), (&json!("recovered"), &json!("gpu0")));
    }
    assert_eq!(daemon.look(&canceled).await["state"], "canceled");
    assert_eq!(relay.prompts().all(), ["ended", "b0", "b0", "b1", "b2", "b3", "b4"]);
    let times = async |task| daemon.look(task).await["admitted_at_ms"].as_i64();
    assert!(times(&running).await <= times(&waiting[0]).await && times(&waiting[0]).await <= times(&waiting[3]).await);
    assert_eq!(daemon.json("/v1/tasks").await["tasks"].as_array().map(Vec::len), Some(7));
}

/// LO-ADM-07, DESIGN section 8: of equal requests at the same time one makes the task and all get its answer; of unequal ones
/// with the same id one is taken. The engine hears of each task once.
#[tokio::test]
async fn simultaneous_requests_make_one_task() {
    let engine = start_engine(&[]);
    let relay = Relay::before(&engine).await;
    let daemon = daemon_before(&relay, "").await;
    for round in 0..20 {
        let task = batch(&format!("round {round}"), 1);
        let bodies: Vec<Value> = (1..=6)
            .map(|number| with(task.clone(), "max_tokens", json!(if round % 2 == 0 { 1 } else { number })))
            .collect();
        let mut posts = JoinSet::new();
        for body in &bodies {
            let request = daemon.http().post(daemon.url("/v1/tasks")).json(body);
            posts.spawn(async move {
                let answer = request.send().await.expect("an answer");
                (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
            });
        }
        let answers = posts.join_all().await;
        let taken: Vec<&Value> = answers.iter().filter(|(status, _)| *status == 202).map(|(_, body)| body).collect();
        let conflicts = answers.iter().filter(|(status, body)| *status == 409 && body["code"] == "CONFLICT").count();
        let expected = if round % 2 == 0 { (6, 0) } else { (1, 5) };
        assert_eq!((taken.len(), conflicts), expected, "{answers:?}");
        assert!(taken.iter().all(|admission| *admission == taken[0]), "{taken:?}");
        daemon.until(&task, "completed").await;
    }
    assert_eq!(relay.prompts().all().len(), 20);
}

/// The stream of a task that was taken up again shares no event id with that of the life before, so that a client that goes on
/// where it was sees all of the new one.
#[tokio::test]
async fn a_reader_goes_on_after_a_crash() {
    let engine = start_engine(&["--token-interval-ms", "10"]);
    let relay = Relay::before(&engine).await;
    let mut daemon = daemon_before(&relay, "").await;
    let task = batch("Tell me a story.", 30);
    let mut stream = daemon.occupy(&task).await;
    let last = stream.until("token").await.id;
    crash(&mut daemon).await;
    let events = daemon.follow(id(&task), Some(last)).await.rest().await;
    let (first, end) = (&events[0], &events[events.len() - 1]);
    assert!(first.name == "started" && first.id > last, "{first:?}");
    assert_eq!((end.name.as_str(), &end.data["tokens_out"]), ("end", &json!(30)));
}

/// SIGTERM keeps batch tasks for the next life, also one whose grace was too short, and says so on their streams; interactive
/// ones end for good.
#[tokio::test]
async fn a_stop_keeps_batch_tasks() {
    let engine = start_engine(&["--token-interval-ms", "10"]);
    let relay = Relay::before(&engine).await;
    let settings = config(relay.url(), "").replace("[server]", "[server]\nshutdown_grace_ms = 50");
    let mut daemon = Daemon::start(&settings).await;
    daemon.ready().await;
    let tasks = [batch("running", 40), batch("waiting", 1), batch("waiting too", 1)];
    let mut streams = Vec::new();
    for task in &tasks {
        streams.push(daemon.run(task).await);
    }
    streams[0].until("token").await;
    let interactive = task("interactive", 1);
    let mut gone = daemon.run(&interactive).await;
    daemon.signal("-TERM");
    for mut stream in streams {
        let error = stream.until("error").await.data;
        assert_eq!((&error["code"], &error["retriable"]), (&json!("POOL_UNREADY"), &json!(true)));
        assert!(
            error["message"].as_str().is_some_and(|said| said.contains("kept and runs when it is back")),
            "{error}"
        );
    }
    let error = gone.until("error").await.data;
    assert!(error["message"].as_str().is_some_and(|said| said.contains("submit the task again")), "{error}");
    assert_eq!(daemon.ended().await.code(), Some(0));
    daemon.start_again().await;
    for task in &tasks {
        daemon.until(task, "completed").await;
    }
    assert_eq!(daemon.look(&interactive).await["state"], "failed");
    assert_eq!(relay.prompts().all(), ["running", "running", "waiting", "waiting too"]);
}

/// A task whose deadline passed while nobody was there ends as expired, without the engine hearing of it.
#[tokio::test]
async fn a_deadline_passes_while_the_daemon_is_down() {
    let engine = start_engine(&["--token-interval-ms", "20"]);
    let relay = Relay::before(&engine).await;
    let mut daemon = daemon_before(&relay, "").await;
    let _running = daemon.occupy(&task("Run.", 500)).await;
    let late = with(batch("late", 1), "deadline_ms", json!(400));
    daemon.accepted(&late).await;
    let due_at = daemon.look(&late).await["admitted_at_ms"].as_u64().expect("a time") + 400;
    daemon.kill();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    eventually("the deadline passes", || (now() > due_at.into()).then_some(())).await;
    daemon.start_again().await;
    let seen = daemon.until(&late, "expired").await;
    assert_eq!((&seen["error"]["code"], &seen["attempts"]), (&json!("DEADLINE_UNMET"), &json!(0)));
    crash(&mut daemon).await;
    assert_eq!(daemon.look(&late).await["state"], "expired", "it is recorded");
    assert_eq!(relay.prompts().count("late"), 0);
}

/// The same configuration with another data directory.
fn with_data_dir(config: &str, dir: &Path) -> String {
    config.replace("data_dir = \"data\"", &format!("data_dir = {:?}", dir.display().to_string()))
}

/// A `state.db` that is damaged, foreign or newer keeps the daemon from starting, with the reason, and stays as it is.
#[tokio::test]
async fn a_file_that_is_not_understood_is_left_alone() {
    let engine = start_engine(&[]);
    let settings = config(engine.url(), "");
    let mut daemon = Daemon::before(&engine, "").await;
    daemon.accepted(&batch("Fill the file.", 1)).await;
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await.code(), Some(0));
    let good = std::fs::read(daemon.data_dir().join("state.db")).expect("it was closed");
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let cases = [
        (Vec::new(), "is damaged"),
        (b"not a database at all".repeat(100), "is not a database"),
        (good[..good.len() / 2].to_vec(), "is damaged"),
        (changed(4096, &[0xff; 4096]), "is damaged"),
        // Application id and schema version stand in SQLite's header.
        (changed(68, b"else"), "another program"),
        (changed(60, &99_u32.to_be_bytes()), "schema version 99"),
    ];
    for (bytes, reason) in cases {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("state.db");
        std::fs::write(&file, &bytes).expect("written");
        let (code, said) = refused(&with_data_dir(&settings, dir.path()), &[]).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("state.db") && said.contains(reason), "{said:?} should contain {reason:?}");
        assert!(std::fs::read(&file).expect("still there") == bytes, "{reason}: the file was changed");
    }
}

/// Two daemons cannot share a journal; the second one is told who has it.
#[tokio::test]
async fn a_journal_has_one_owner() {
    let engine = start_engine(&[]);
    let mut daemon = Daemon::before(&engine, "").await;
    let second = with_data_dir(&config(engine.url(), ""), &daemon.data_dir());
    let (code, said) = refused(&second, &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("process {}", daemon.pid())) && said.contains("data_dir"), "{said}");
    crash(&mut daemon).await;
}

/// Cycles of the test that kills; `KILL_CYCLES` asks for more.
const CYCLES: u64 = 15;
/// Clients that submit at the same time.
const CLIENTS: u64 = 3;
/// What clients see of one life of the daemon, at most.
const MOST_EVENTS: usize = 60;

/// What the clients of all lives were told.
#[derive(Default)]
struct Told {
    accepted: HashSet<String>,
    /// Tasks that must not run again, because they were seen to end or be canceled, and how often each had run by then.
    over: HashMap<String, usize>,
    /// Tasks whose cancel was asked for, whether or not an answer came.
    canceled: HashSet<String>,
}

impl Told {
    fn pending(&self) -> Vec<String> {
        self.accepted.iter().filter(|task| !self.over.contains_key(*task)).cloned().collect()
    }
}

/// One client of one life.
struct Client {
    http: reqwest::Client,
    url: String,
    rng: StdRng,
    prompts: Prompts,
    told: Arc<Mutex<Told>>,
    events: watch::Sender<usize>,
}

impl Client {
    /// Submits, follows and cancels until the daemon is gone.
    async fn submit(mut self) {
        while self.round().await.is_some() {}
    }

    /// Looks at what has ended until the daemon is gone.
    async fn watch(self) {
        while self.look().await.is_some() {}
    }

    async fn look(&self) -> Option<()> {
        let url = format!("{}?state=completed,canceled&limit=20", self.url);
        let page: Value = self.http.get(url).send().await.ok()?.json().await.ok()?;
        page["tasks"].as_array().expect("tasks").iter().for_each(|task| self.over(id(task)));
        Some(())
    }

    /// `None` once the daemon is gone.
    async fn round(&mut self) -> Option<()> {
        let mut tasks = Vec::new();
        for _ in 0..self.rng.random_range(0..4) {
            let task = self.next_task();
            let answer = self.http.post(&self.url).json(&task).send().await.ok()?;
            let status = answer.status();
            assert_eq!(status, 202, "{:?}", answer.text().await);
            self.note(|told| told.accepted.insert(id(&task).to_owned()));
            tasks.push(task);
        }
        if let Some(task) = tasks.first().filter(|_| self.rng.random_bool(0.2)) {
            self.note(|told| told.canceled.insert(id(task).to_owned()));
            let answer = self.http.post(format!("{}/{}/cancel", self.url, id(task))).send().await.ok()?;
            assert_eq!(answer.status(), 204);
            self.over(id(task));
        }
        let task = self.next_task();
        let followed = self.http.post(&self.url).header("accept", "text/event-stream").json(&task).send().await.ok()?;
        let status = followed.status();
        assert_eq!(status, 200, "{:?}", followed.text().await);
        self.note(|told| told.accepted.insert(id(&task).to_owned()));
        read_to_end(followed).await?;
        self.over(id(&task));
        Some(())
    }

    fn next_task(&mut self) -> Value {
        let task = batch("", self.rng.random_range(1..12));
        let name = json!(id(&task));
        with(task, "prompt", name)
    }

    fn over(&self, id: &str) {
        let is_news = !self.told.lock().expect("no holder panics").over.contains_key(id);
        if is_news {
            let runs = self.prompts.count(id);
            self.note(|told| told.over.insert(id.to_owned(), runs));
        }
    }

    fn note<T>(&self, what: impl FnOnce(&mut Told) -> T) {
        what(&mut self.told.lock().expect("no holder panics"));
        self.events.send_modify(|events| *events += 1);
    }
}

/// `None` when the stream broke off.
async fn read_to_end(mut response: reqwest::Response) -> Option<()> {
    let mut text = String::new();
    while let Some(bytes) = response.chunk().await.ok()? {
        text.push_str(std::str::from_utf8(&bytes).expect("frames are sent whole"));
    }
    let last = text.strip_suffix("\n\n")?.rsplit("\n\n").next()?;
    assert!(last.contains("event: end\n"), "{last}");
    Some(())
}

/// ORCH-3002-G, LO-ADM-07: the daemon is killed over and over while clients submit, follow and cancel batch tasks, at moments
/// counted in what they see. `state.db` opens every time; in the end each task whose acceptance had arrived is completed
/// exactly once, or canceled, and none ran again that had been seen to end.
#[tokio::test]
async fn sigkill_cycles() {
    let cycles = std::env::var("KILL_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(CYCLES);
    let engine = start_engine(&["--slots", "2", "--token-interval-ms", "1"]);
    let relay = Relay::before(&engine).await;
    let start = Instant::now();
    let told = Arc::new(Mutex::new(Told::default()));
    let mut daemon = daemon_before(&relay, "slots = 2\ndeterminism = \"best_effort\"").await;
    for cycle in 0..cycles {
        let mut rng = StdRng::seed_from_u64(cycle);
        let (events, mut seen) = watch::channel(0);
        let mut clients = JoinSet::new();
        let moment = rng.random_range(0..MOST_EVENTS);
        if moment > 0 {
            daemon.ready().await;
            for number in 0..=CLIENTS {
                let client = Client {
                    http: daemon.http().clone(),
                    url: daemon.url("/v1/tasks"),
                    rng: StdRng::seed_from_u64(cycle * (CLIENTS + 1) + number),
                    prompts: relay.prompts().clone(),
                    told: Arc::clone(&told),
                    events: events.clone(),
                };
                match number {
                    0 => clients.spawn(client.watch()),
                    _ => clients.spawn(client.submit()),
                };
            }
        }
        seen.wait_for(|events| *events >= moment).await.expect("a sender is here");
        daemon.kill();
        // What had been sent before still arrives and counts.
        while let Some(ended) = clients.join_next().await {
            ended.expect("no client panics");
        }
        daemon.start_again().await;
        let pending = told.lock().expect("no holder panics").pending();
        for task in pending {
            let found = daemon.get(&format!("/v1/tasks/{task}")).await.status();
            assert_eq!(found, 200, "cycle {cycle}: {task} is known from the first request on");
        }
    }
    let idle = async || {
        daemon.json("/v1/tasks?state=queued,dispatched,streaming").await["tasks"].as_array()?.is_empty().then_some(())
    };
    eventually_async("nothing is left to do", idle).await;
    let told = Arc::into_inner(told).expect("no client is left").into_inner().expect("no client panicked");
    let tasks = daemon.list("", 1000).await;
    let states: HashMap<&str, &str> =
        tasks.iter().map(|task| (id(task), task["state"].as_str().expect("text"))).collect();
    assert_eq!(states.len(), tasks.len(), "each is listed once");
    for task in &told.accepted {
        match states.get(task.as_str()) {
            Some(&"completed") => {}
            Some(&"canceled") => assert!(told.canceled.contains(task), "{task} was canceled by nobody"),
            other => panic!("{task} was accepted and is {other:?}"),
        }
    }
    for (task, runs) in &told.over {
        assert_eq!(relay.prompts().count(task), *runs, "{task} was over and ran again");
    }
    let [completed, canceled] =
        ["completed", "canceled"].map(|word| states.values().filter(|state| **state == word).count());
    let runs = relay.prompts().all();
    let again = runs.len() - runs.iter().collect::<HashSet<_>>().len();
    eprintln!(
        "{cycles} cycles in {:?}: {} tasks accepted, {completed} completed, {canceled} canceled, {} seen to be over; {again} runs were \
         broken off and repeated",
        start.elapsed(),
        told.accepted.len(),
        told.over.len(),
    );
}
