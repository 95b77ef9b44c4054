//! An orchestrator, and workers with GPUs that are simulated.

use std::net::SocketAddr;
use std::path::PathBuf;

use fake_nvml::State;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::bench::{Bench, ManagedPool};
use crate::harness::{Daemon, Killed, eventually_async, log, spawn};

/// The orchestrator's token.
pub(super) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A pool on the first GPU of a worker.
pub(super) fn pool_on(worker: &str, id: &str) -> ManagedPool {
    of_worker(worker, ManagedPool::new(id).env("MOCK_ENGINE_VRAM_MB", 16))
}

/// This pool on a worker.
pub(super) fn of_worker(worker: &str, pool: ManagedPool) -> ManagedPool {
    ManagedPool { settings: format!("worker = {worker:?}\n{}", pool.settings), ..pool }
}

/// A worker's host, whether its daemon runs or not.
pub(super) struct Host {
    pub(super) id: String,
    pub(super) bench: Bench,
    dir: TempDir,
    /// What its daemon is started by.
    pub(super) within: Vec<String>,
    /// Where the relay listens.
    pub(super) bind: String,
    daemon: Option<(Killed, SocketAddr)>,
}

impl Host {
    pub(super) fn new(id: &str, pools: Vec<ManagedPool>) -> Self {
        Self {
            id: id.to_owned(),
            bench: Bench::with_gpus(&State::reference_box(), pools),
            dir: tempfile::tempdir().expect("a temporary directory"),
            within: Vec::new(),
            bind: "127.0.0.1:0".to_owned(),
            daemon: None,
        }
    }

    /// Starts its daemon, with the orchestrator's token.
    pub(super) async fn start(&mut self, orchestrator: &str) {
        self.start_with(orchestrator, Some(TOKEN)).await;
    }

    pub(super) async fn start_with(&mut self, orchestrator: &str, token: Option<&str>) {
        let program = program();
        let _of_the_last_life = std::fs::remove_file(self.dir.path().join("port"));
        let config = format!(
            "[server]\ndata_dir = \"data\"\nshutdown_grace_ms = 2000\n[worker]\nid = {:?}\norchestrator = {orchestrator:?}\nbind = {:?}\n{}",
            self.id,
            self.bind,
            self.bench.host()
        );
        let gpus = self.bench.gpus.env().map(|(name, value)| (name, value.into_string().expect("UTF-8")));
        let mut environment: Vec<_> = gpus.iter().map(|(name, value)| (*name, value.as_str())).collect();
        environment.extend(token.map(|token| ("AUTH_TOKEN", token)));
        self.daemon = Some(spawn(&self.within, &program, &self.dir, &config, &environment).await);
    }

    /// Where its relay listens.
    pub(super) fn relay(&self) -> SocketAddr {
        self.daemon.as_ref().expect("it runs").1
    }

    /// Kills its daemon as a crash would.
    pub(super) fn kill(&mut self) {
        self.daemon = None;
    }

    /// Asks its daemon to stop, and waits until it has.
    pub(super) async fn stop(&mut self) {
        let (mut child, _) = self.daemon.take().expect("it runs");
        super::super::bench::signal(i64::from(child.0.id()), "-TERM");
        eventually_async("the worker stops", async || child.0.try_wait().expect("it can be waited for")).await;
    }

    pub(super) fn log(&self) -> String {
        log(&self.dir)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of pool-managerd of {} ---\n{}", self.id, self.log());
        }
    }
}

/// The program, which another package builds.
pub(super) fn program() -> PathBuf {
    mock::process::program("pool-managerd", "pool-managerd").expect("pool-managerd is built")
}

/// An orchestrator with these workers.
pub(super) struct House {
    pub(super) daemon: Daemon,
    pub(super) hosts: Vec<Host>,
}

impl House {
    /// All of them run, and all pools are ready.
    pub(super) async fn up(hosts: Vec<Host>) -> Self {
        let mut house = Self::without_workers(hosts, "").await;
        for host in &mut house.hosts {
            host.start(&house.daemon.url("")).await;
        }
        house.daemon.all_ready().await;
        house
    }

    /// The orchestrator alone.
    pub(super) async fn without_workers(hosts: Vec<Host>, more: &str) -> Self {
        let config = orchestrator(&hosts, "127.0.0.1:0", more);
        Self { daemon: Daemon::start_with(&config, &[("AUTH_TOKEN", TOKEN)]).await, hosts }
    }

    /// What the orchestrator says of a worker.
    pub(super) async fn worker(&self, id: &str) -> Value {
        let list = self.daemon.json("/v1/workers").await;
        let workers = list["workers"].as_array().expect("a list");
        workers.iter().find(|worker| worker["id"] == id).cloned().unwrap_or_else(|| panic!("no {id} in {list}"))
    }

    pub(super) async fn until_worker(&self, id: &str, state: &str) -> Value {
        let seen = async || Some(self.worker(id).await).filter(|worker| worker["state"] == state);
        eventually_async(&format!("worker {id} is {state}"), seen).await
    }
}

/// The orchestrator's file: callers of its own host need no token.
pub(super) fn orchestrator(hosts: &[Host], bind: &str, more: &str) -> String {
    let pools: String = hosts.iter().map(|host| host.bench.pools()).collect();
    format!("[server]\nbind = {bind:?}\ndata_dir = \"data\"\nauth_optional = true\n{more}\n{pools}")
}

/// A registration of a host, as it must be.
pub(super) fn registration(worker: &str) -> Value {
    json!({
        "worker_id": worker, "protocol": 1, "version": "0.0.1", "boot_id": "b1", "relay_port": 1,
        "relay_secret": "0123456789abcdef", "devices": [],
    })
}
