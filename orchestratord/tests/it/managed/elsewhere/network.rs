//! Three hosts in three network namespaces, and what becomes of their tasks when links are cut and daemons die.

mod wires;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::bench::{ManagedPool, health, until, until_ready};
use super::house::{Host, TOKEN, orchestrator, pool_on};
use crate::harness::{Daemon, PATIENCE, Stream, eventually_async, with};
use wires::Wires;

/// Time for which a link is cut: twice what it takes until a worker counts as away.
const CUT: Duration = Duration::from_secs(10);
/// Limits of the pools: no stream may outlast them.
const WALL: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(15);
const PORT: u16 = 8080;
/// What tasks call the model of the twins.
const TWINS: &str = "twins";

fn workers_pool(worker: &str, id: &str) -> ManagedPool {
    let pool = pool_on(worker, id).env("MOCK_ENGINE_TOKEN_INTERVAL_MS", 20);
    let limits = format!("timeouts.wall_ms = {}\ntimeouts.idle_ms = {}\n", WALL.as_millis(), IDLE.as_millis());
    ManagedPool { settings: format!("{}{limits}", pool.settings), ..pool }
}

/// One of two pools with the same model. They read a prompt for longer than a link is cut.
fn twin_on(worker: &str, id: &str) -> ManagedPool {
    let pool = workers_pool(worker, id).env("MOCK_ENGINE_PREFILL_SPEED", 1);
    let supervision = format!("{}self_test = false\n", pool.supervision);
    ManagedPool { called: Some(TWINS.to_owned()), devices: "[1]".to_owned(), supervision, ..pool }
}

/// An orchestrator and two workers, each a host of its own.
struct Net {
    daemon: Daemon,
    hosts: Vec<Host>,
    http: reqwest::Client,
    wires: Wires,
}

impl Net {
    async fn up(wires: Wires) -> Self {
        let mut hosts: Vec<_> = [("box2", "far", "twin2"), ("box3", "farther", "twin3")]
            .map(|(worker, pool, twin)| Host::new(worker, vec![workers_pool(worker, pool), twin_on(worker, twin)]))
            .into();
        // Only the orchestrator's own host needs no token, and the test is another one.
        let bind = format!("{}:{PORT}", wires.address("orch"));
        let config = orchestrator(&hosts, &bind, "");
        let daemon = Daemon::start_within(&wires.on("orch"), &config, &[("AUTH_TOKEN", TOKEN)]).await;
        for host in &mut hosts {
            host.within = wires.on(&host.id);
            host.bind = format!("{}:8085", wires.address(&host.id));
            host.start(&daemon.url("")).await;
        }
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {TOKEN}").parse().expect("a header"));
        let http = reqwest::Client::builder().no_proxy().default_headers(headers).build().expect("a client");
        let mut net = Self { daemon, hosts, http, wires };
        net.daemon.call_by(&net.http);
        net.all_ready().await;
        net
    }

    async fn all_ready(&self) {
        for pool in ["far", "farther", "twin2", "twin3"] {
            until_ready(&self.daemon, pool).await;
        }
    }

    fn task(&self, host: usize, tokens: u32) -> Value {
        self.hosts[host].bench.task(["far", "farther"][host], tokens)
    }

    /// Accepted batch tasks, for both workers.
    async fn batch(&self, count: usize, tokens: u32) -> Vec<Value> {
        let mut tasks = Vec::new();
        for number in 0..count {
            let task = with(self.task(number % 2, tokens), "priority", json!("batch"));
            let task = with(task, "deadline_ms", json!(600_000));
            self.daemon.accepted(&task).await;
            tasks.push(task);
        }
        tasks
    }

    /// Every one of these tasks is completed, and was once.
    async fn all_completed_once(&self, tasks: &[Value]) {
        let begun = Instant::now();
        for task in tasks {
            loop {
                let seen = self.daemon.look(task).await;
                if seen["state"] == "completed" {
                    break;
                }
                assert!(!matches!(seen["state"].as_str(), Some("failed" | "canceled" | "expired")), "{seen:#}");
                assert!(begun.elapsed() < Duration::from_secs(120), "{seen:#}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let completed = self.daemon.list("state=completed", 100).await;
        for task in tasks {
            let times = completed.iter().filter(|seen| seen["task_id"] == task["task_id"]).count();
            assert_eq!(times, 1, "{task:#}");
        }
    }
}

/// The last frame of a stream, which must come within the pool's limits.
async fn last_of(mut stream: Stream) -> (String, Value) {
    let events = tokio::time::timeout(WALL + PATIENCE, stream.rest()).await.expect("no stream hangs past its limits");
    let last = events.last().expect("a last frame").clone();
    (last.name, last.data)
}

/// LO-HST-10: register, run, a link cut for ten seconds and healed, a worker killed, the orchestrator restarted: pools go and come
/// back, no accepted batch task is lost or completed twice, no stream hangs past its limits, and nobody without the secret gets
/// through to an engine.
#[tokio::test]
async fn three_hosts() {
    let wires = match Wires::new(&["orch", "box2", "box3"]) {
        Ok(wires) => wires,
        Err(why) if std::env::var_os("REQUIRE_REAL_SERVERS").is_none() => {
            eprintln!("skipped: this machine has no network namespaces for a test: {why}");
            return;
        }
        Err(why) => panic!("REQUIRE_REAL_SERVERS is set, and there are no network namespaces: {why}"),
    };
    let mut net = Net::up(wires).await;

    // Both serve, and only through their relays with their secrets.
    for host in 0..2 {
        assert_eq!(last_of(net.daemon.run(&net.task(host, 3)).await).await.0, "end");
    }
    let relay = format!("http://{}:8085/engines/far/health", net.wires.address("box2"));
    for token in [None, Some("wrong"), Some(TOKEN)] {
        let bare = reqwest::Client::builder().no_proxy().build().expect("a client");
        let request = bare.get(&relay);
        let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
        assert_eq!(request.send().await.expect("an answer").status(), 401);
    }

    cut_before_the_first_token(&net).await;
    cut_one_link(&net).await;
    kill_a_worker(&mut net).await;
    restart_the_orchestrator(&mut net).await;
}

/// A task that has no token yet goes on on the other host, and nobody is told but the log.
async fn cut_before_the_first_token(net: &Net) {
    let prompt = "one two three four five six seven eight nine ten";
    let task = with(with(net.task(0, 2), "model_ref", json!(TWINS)), "prompt", json!(prompt));
    let stream = net.daemon.run(&task).await;
    let dispatched = net.daemon.until(&task, "dispatched").await;
    let (host, pool) = match dispatched["pool_id"].as_str() {
        Some("twin2") => ("box2", "twin2"),
        _ => ("box3", "twin3"),
    };
    net.wires.link(host, false);
    let (name, data) = last_of(stream).await;
    assert_eq!(name, "end", "{data}");
    let seen = net.daemon.until(&task, "completed").await;
    assert_ne!(seen["pool_id"], dispatched["pool_id"], "{seen:#}");
    net.wires.link(host, true);
    until_ready(&net.daemon, pool).await;
    net.all_ready().await;
}

async fn cut_one_link(net: &Net) {
    let pid = health(&net.daemon, "far").await["pid"].clone();
    let tasks = net.batch(6, 40).await;
    let running = net.daemon.occupy(&net.task(0, 400)).await;
    net.wires.link("box2", false);
    let begun = Instant::now();
    until(&net.daemon, "far", "away", |health| health["state"] == "away").await;
    let (name, data) = last_of(running).await;
    assert_eq!((name.as_str(), &data["code"]), ("error", &json!("WORKER_RESET")), "{data}");
    // It can only wait; the other host's engine goes on meanwhile.
    assert_eq!(last_of(net.daemon.run(&net.task(1, 3)).await).await.0, "end");
    let away = health(&net.daemon, "far").await;
    let error = away["last_error"].as_str().expect("an error");
    assert!(away["ready"] == false && error.contains("worker box2 has not been heard from"), "{away:#}");
    tokio::time::sleep(CUT.saturating_sub(begun.elapsed())).await;
    net.wires.link("box2", true);
    let back = until_ready(&net.daemon, "far").await;
    assert_eq!(back["pid"], pid, "its engine was up all the time");
    net.all_completed_once(&tasks).await;
}

async fn kill_a_worker(net: &mut Net) {
    let tasks = net.batch(6, 40).await;
    let running = net.daemon.occupy(&net.task(0, 400)).await;
    net.hosts[0].kill();
    let (name, data) = last_of(running).await;
    assert_eq!((name.as_str(), &data["code"]), ("error", &json!("WORKER_RESET")), "{data}");
    until(&net.daemon, "far", "away", |health| health["state"] == "away").await;
    net.hosts[0].bench.nothing_left_of("far").await;
    let url = net.daemon.url("");
    net.hosts[0].start(&url).await;
    net.all_ready().await;
    net.all_completed_once(&tasks).await;
}

async fn restart_the_orchestrator(net: &mut Net) {
    let mut pids = Vec::new();
    for pool in ["far", "farther"] {
        pids.push(health(&net.daemon, pool).await["pid"].clone());
    }
    let tasks = net.batch(8, 40).await;
    net.daemon.until(&tasks[0], "streaming").await;
    net.daemon.kill();
    net.daemon.start_again().await;
    net.all_ready().await;
    for (pool, pid) in ["far", "farther"].iter().zip(pids) {
        assert_eq!(health(&net.daemon, pool).await["pid"], pid, "the engines do not notice");
    }
    net.all_completed_once(&tasks).await;
    let idle = async || {
        let health = health(&net.daemon, "far").await;
        (health["metrics"]["active_leases"] == 0).then_some(())
    };
    eventually_async("every slot is free", idle).await;
}
