//! A host for managed pools: GPUs that are simulated, models, and `mock-engine` as the program that is provisioned.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fake_nvml::{FakeNvml, State};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::history::LONG;
use super::model::{self, Model};
use crate::harness::{Daemon, task, with};

/// A pool to be configured.
#[derive(Clone, Debug)]
pub(super) struct ManagedPool {
    pub(super) id: String,
    pub(super) devices: String,
    pub(super) slots: u32,
    /// Further lines of `[[pools]]`.
    pub(super) settings: String,
    /// Lines of `[pools.supervision]`.
    pub(super) supervision: String,
    /// Environment of its engine.
    pub(super) env: Vec<(String, String)>,
    pub(super) ports: Vec<u16>,
    /// What tasks call its model, where that is not its file.
    pub(super) called: Option<String>,
    /// What is fetched for it, where that is not the file in its folder.
    pub(super) fetches: Option<String>,
    pub(super) model: Model,
    /// The engine's faults from the start, as in its faults file.
    pub(super) faults: Value,
}

impl ManagedPool {
    /// A pool on the first GPU whose engine is started again soon after a failure, as often as it takes.
    pub(super) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            devices: "[0]".to_owned(),
            slots: 1,
            settings: String::new(),
            supervision: "restart_backoff_ms = 100\nrestart_backoff_max_ms = 1000\ncircuit_restarts = 1000\n\
                          stop_grace_ms = 5000\n"
                .to_owned(),
            env: Vec::new(),
            ports: Vec::new(),
            called: None,
            fetches: None,
            model: Model::Tiny,
            faults: json!([]),
        }
    }

    /// Also: this in its engine's environment.
    pub(super) fn env(mut self, name: &str, value: u64) -> Self {
        self.env.push((name.to_owned(), value.to_string()));
        self
    }
}

/// The host.
pub(super) struct Bench {
    dir: TempDir,
    pub(super) gpus: FakeNvml,
    pools: Vec<ManagedPool>,
    /// Further sections of the configuration.
    pub(super) more: String,
}

impl Bench {
    /// The reference box with these pools.
    pub(super) fn new(pools: Vec<ManagedPool>) -> Self {
        Self::with_gpus(&State::reference_box(), pools)
    }

    pub(super) fn with_gpus(gpus: &State, pools: Vec<ManagedPool>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let gpus = FakeNvml::with(dir.path(), gpus).expect("fake GPUs");
        let bench = Self { dir, gpus, pools, more: String::new() };
        for pool in &bench.pools {
            std::fs::create_dir(bench.folder(&pool.id)).expect("a folder");
            bench.set_faults(&pool.id, &pool.faults);
            model::write(&bench.model_path(&pool.id), pool.model);
        }
        bench
    }

    /// What belongs to a pool and to no other; its path is on every command line of its engine.
    pub(super) fn folder(&self, pool: &str) -> PathBuf {
        self.dir.path().join(format!("pool-{pool}"))
    }

    pub(super) fn model_path(&self, pool: &str) -> PathBuf {
        self.folder(pool).join("model.gguf")
    }

    pub(super) fn model_ref(&self, pool: &str) -> String {
        format!("file:{}", self.model_path(pool).display())
    }

    /// Another model in the pool's folder; its reference.
    pub(super) fn other_model(&self, pool: &str, name: &str, model: Model) -> String {
        let path = self.folder(pool).join(name);
        model::write(&path, model);
        format!("file:{}", path.display())
    }

    /// Gives the pool's engine these faults, at once when it runs.
    pub(super) fn set_faults(&self, pool: &str, faults: &Value) {
        let path = self.folder(pool).join("faults.json");
        let new = path.with_extension("new");
        std::fs::write(&new, json!({"faults": faults}).to_string()).expect("the faults are written");
        std::fs::rename(new, path).expect("the faults take their place");
    }

    /// A daemon on this host.
    pub(super) async fn start(&self) -> Daemon {
        let environment = self.gpus.env().map(|(name, value)| (name, value.into_string().expect("UTF-8")));
        self.start_with(&environment.each_ref().map(|(name, value)| (*name, &**value))).await
    }

    /// A daemon that knows its GPUs by other means.
    pub(super) async fn start_with(&self, environment: &[(&str, &str)]) -> Daemon {
        let daemon = Daemon::start_with(&self.config(), environment).await;
        // It answers a moment before it manages.
        for pool in &self.pools {
            until(&daemon, &pool.id, "managed", |health| health["state"].is_string()).await;
        }
        daemon
    }

    pub(super) fn config(&self) -> String {
        format!("[server]\nbind = \"127.0.0.1:0\"\ndata_dir = \"data\"\n{}{}{}", self.host(), self.pools(), self.more)
    }

    /// What a file says of this host's engines and models.
    pub(super) fn host(&self) -> String {
        format!(
            "[engines]\ncache_dir = {:?}\n[catalog]\nmodels_dir = {:?}\n[policy.outbound]\nallow_binary_downloads = true\n",
            self.dir.path().join("engines"),
            self.dir.path(),
        )
    }

    /// The pools of this host.
    pub(super) fn pools(&self) -> String {
        let program = mock::process::binary().expect("mock-engine is built");
        let bytes = std::fs::read(&program).expect("mock-engine can be read");
        let checksum = Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a text takes more");
            text
        });
        self.pools.iter().map(|pool| self.pool(pool, &program, &checksum)).collect()
    }

    fn pool(&self, pool: &ManagedPool, program: &Path, checksum: &str) -> String {
        let faults = self.folder(&pool.id).join("faults.json").display().to_string();
        let own = [("MOCK_ENGINE_FAULTS_FILE".to_owned(), faults)];
        let env: Vec<_> = own.iter().chain(&pool.env).map(|(name, value)| format!("{name} = {value:?}")).collect();
        format!(
            "[[pools]]\nid = {:?}\nengine = \"llamacpp\"\nmodel = {:?}\nctx = 1024\nslots = {}\ndevices = {}\n\
             {}\n[pools.supervision]\n{}\n[pools.provisioning]\nmode = \"binary\"\nmodel.ref = {:?}\nports = {:?}\n\
             env = {{ {} }}\n[pools.provisioning.binary]\nurl = \"file://{}\"\nchecksum = \"sha256:{checksum}\"\n",
            pool.id,
            pool.called.clone().unwrap_or_else(|| self.model_ref(&pool.id)),
            pool.slots,
            pool.devices,
            pool.settings,
            pool.supervision,
            pool.fetches.clone().unwrap_or_else(|| self.model_ref(&pool.id)),
            pool.ports,
            env.join(", "),
            program.display(),
        )
    }

    /// A task for the model that a pool is configured with.
    pub(super) fn task(&self, pool: &str, max_tokens: u32) -> Value {
        let task = with(task("Say something.", max_tokens), "model_ref", json!(self.model_ref(pool)));
        with(task, "ctx", json!(512))
    }

    /// Processes of this host that have to do with a pool's engine.
    pub(super) fn left_of(&self, pool: &str) -> Vec<String> {
        processes_about(&self.folder(pool))
    }

    /// Waits until no process of a pool's engine is left.
    pub(super) async fn nothing_left_of(&self, pool: &str) {
        none_about(&self.folder(pool)).await;
    }

    /// Waits until no engine of this host is left.
    pub(super) async fn nothing_left(&self) {
        none_about(self.dir.path()).await;
    }
}

async fn none_about(path: &Path) {
    let start = Instant::now();
    loop {
        let left = processes_about(path);
        if left.is_empty() {
            return;
        }
        assert!(start.elapsed() < LONG, "processes are left: {left:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Command lines of the living processes that name this path.
fn processes_about(path: &Path) -> Vec<String> {
    let path = path.to_str().expect("UTF-8");
    let entries = std::fs::read_dir("/proc").expect("there is a /proc");
    let about = |entry: std::io::Result<std::fs::DirEntry>| {
        let command = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        command.contains(path).then_some(command)
    };
    entries.filter_map(about).collect()
}

/// Sends a signal to a process.
pub(super) fn signal(pid: i64, name: &str) {
    let status = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill runs");
    assert!(status.success(), "no process {pid}");
}

/// What the daemon says of a pool.
pub(super) async fn health(daemon: &Daemon, pool: &str) -> Value {
    daemon.json(&format!("/v1/pools/{pool}/health")).await
}

/// Asks something of a pool that must be taken.
pub(super) async fn ask(daemon: &Daemon, pool: &str, what: &str, body: Value) {
    let answer = daemon.post(&format!("/v1/pools/{pool}/{what}"), &body).await;
    let status = answer.status();
    assert_eq!(status, 202, "{what} {pool}: {}", answer.text().await.expect("text"));
}

/// Waits until the daemon says this of a pool.
pub(super) async fn until(daemon: &Daemon, pool: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let health = health(daemon, pool).await;
        if wanted(&health) {
            return health;
        }
        assert!(start.elapsed() < LONG, "{pool} is not {what}: {health:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn until_ready(daemon: &Daemon, pool: &str) -> Value {
    until(daemon, pool, "ready", |health| health["ready"] == true).await
}

pub(super) async fn until_state(daemon: &Daemon, pool: &str, state: &str) -> Value {
    until(daemon, pool, state, |health| health["state"] == state).await
}
