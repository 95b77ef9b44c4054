//! The processes under measurement: simulated engines, and the orchestrator in front of them.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use openapi_client::{Client, ClientConfig, ServerError};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::exit::Exit;
use crate::failure::Failure;

const START_LIMIT: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(5);
const IDLE_POLL: Duration = Duration::from_millis(100);
/// The kernel tells processor time to user space in hundredths of a second (USER_HZ, `man 5 proc_pid_stat`).
const TICK: Duration = Duration::from_millis(10);
/// Context of every slot and every task, in tokens.
pub(super) const CTX: i32 = 8192;

/// A simulated engine and its pool.
#[derive(Debug)]
pub(super) struct EngineSpec {
    /// Name of the pool and of its model.
    pub(super) name: &'static str,
    /// Tasks it runs at the same time.
    pub(super) slots: u32,
    /// Time from one token to the next, in milliseconds; 0 is as fast as it can.
    pub(super) interval_ms: u32,
    /// Further options of mock-engine.
    pub(super) options: Vec<String>,
    /// Whether it listens on a Unix socket.
    pub(super) unix: bool,
    /// Tasks that may wait for it.
    pub(super) queue: u32,
}

impl EngineSpec {
    /// An engine behind a port, with a short queue.
    pub(super) const fn new(name: &'static str, slots: u32, interval_ms: u32) -> Self {
        Self { name, slots, interval_ms, options: Vec::new(), unix: false, queue: 64 }
    }
}

/// What runs. Everything is stopped and removed when it is dropped.
pub(super) struct Rig {
    /// The orchestrator's address.
    pub(super) url: String,
    /// A client of it.
    pub(super) client: Client,
    orchestrator: Process,
    engines: Vec<Engine>,
    _folder: TempDir,
}

impl Rig {
    /// Starts everything and waits until all pools are ready. `settings` are further lines of the orchestrator's
    /// configuration.
    pub(super) async fn start(specs: &[EngineSpec], settings: &str) -> Result<Self, Failure> {
        let folder = TempDir::new().map_err(|error| Failure::local(format!("cannot make a folder: {error}")))?;
        let mut engines = Vec::new();
        for spec in specs {
            engines.push(Engine::start(folder.path(), spec).await?);
        }
        let config = config(folder.path(), specs, &engines, settings);
        let (orchestrator, url) = orchestrator(folder.path(), &config).await?;
        let server = url.parse().map_err(|error: ServerError| Failure::local(error.to_string()))?;
        let client = Client::new(ClientConfig::new(server))?;
        let rig = Self { url, client, orchestrator, engines, _folder: folder };
        rig.ready().await?;
        Ok(rig)
    }

    async fn ready(&self) -> Result<(), Failure> {
        let limit = Instant::now() + START_LIMIT;
        loop {
            let readiness = self.client.get_readyz().await?;
            if readiness.pools_total == readiness.pools_ready {
                return Ok(());
            }
            if Instant::now() > limit {
                return Err(self.orchestrator.failed("did not make its pools ready"));
            }
            tokio::time::sleep(START_POLL).await;
        }
    }

    /// The address of the engine with this name.
    pub(super) fn engine_url(&self, name: &str) -> &str {
        let engine = self.engines.iter().find(|engine| engine.process.name == name);
        &engine.expect("only engines that were started are asked for").url
    }

    /// Waits until no task waits or runs.
    pub(super) async fn idle(&self) -> Result<(), Failure> {
        loop {
            let list = self.client.list_pools().await?;
            if list.pools.iter().all(|pool| pool.queue_depth == 0 && pool.slots_free == pool.slots_total) {
                return Ok(());
            }
            tokio::time::sleep(IDLE_POLL).await;
        }
    }

    /// Processor time that the orchestrator has used, user and system together.
    pub(super) fn cpu_time(&self) -> Result<Duration, Failure> {
        let stat = self.orchestrator.proc_file("stat")?;
        // The second field, the program's name, may hold anything but ends with the last parenthesis.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u32>().ok());
        // Fields 14 and 15 of the file, counted from the third here.
        match (ticks(11), ticks(12)) {
            (Some(user), Some(system)) => Ok(TICK * (user + system)),
            _ => Err(Failure::local("this system does not tell a process's processor time")),
        }
    }

    /// The orchestrator's resident memory.
    pub(super) fn resident_kib(&self) -> Result<u64, Failure> {
        let status = self.orchestrator.proc_file("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.ok_or_else(|| Failure::local("this system does not tell a process's memory"))
    }
}

/// A simulated engine.
struct Engine {
    process: Process,
    url: String,
}

impl Engine {
    async fn start(folder: &Path, spec: &EngineSpec) -> Result<Self, Failure> {
        let name = spec.name;
        let port_file = folder.join(format!("{name}.port"));
        let socket = folder.join(format!("{name}.sock"));
        let mut command = program("mock-engine", folder)?;
        command.args(["--model", name, "--slots", &spec.slots.to_string(), "--ctx", &CTX.to_string()]);
        command.args(["--token-interval-ms", &spec.interval_ms.to_string()]).args(&spec.options);
        if spec.unix {
            command.arg("--unix").arg(&socket);
        } else {
            command.arg("--port-file").arg(&port_file);
        }
        let mut process = Process::spawn(command, &folder.join(format!("{name}.log")), name)?;
        if spec.unix {
            process.until(|| socket.exists().then_some(())).await?;
            let url = format!("unix:{}", socket.display());
            return Ok(Self { process, url });
        }
        let port = process.until(|| whole_line(&port_file)).await?;
        let url = format!("http://127.0.0.1:{port}");
        Ok(Self { process, url })
    }
}

async fn orchestrator(folder: &Path, config: &str) -> Result<(Process, String), Failure> {
    let config_file = folder.join("llama-orch.toml");
    let port_file = folder.join("orchestratord.port");
    std::fs::write(&config_file, config).map_err(|error| Failure::local(format!("cannot write a file: {error}")))?;
    let mut command = program("orchestratord", folder)?;
    command.arg("--config").arg(&config_file).arg("--port-file").arg(&port_file);
    let mut process = Process::spawn(command, &folder.join("orchestratord.log"), "orchestratord")?;
    let address = process.until(|| whole_line(&port_file)).await?;
    Ok((process, format!("http://{address}")))
}

fn config(folder: &Path, specs: &[EngineSpec], engines: &[Engine], settings: &str) -> String {
    let data_dir = folder.join("data");
    let mut text = format!("[server]\nbind = \"127.0.0.1:0\"\ndata_dir = '{}'\n{settings}", data_dir.display());
    for (EngineSpec { name, slots, queue, .. }, Engine { url, .. }) in specs.iter().zip(engines) {
        let _ = write!(
            text,
            "[[pools]]\nid = \"{name}\"\nengine = \"llamacpp\"\nmodel = \"{name}\"\nctx = {CTX}\nslots = {slots}\n\
             determinism = \"best_effort\"\n[pools.queue]\ncapacity = {queue}\n\
             [pools.provisioning]\nmode = \"external\"\n[pools.provisioning.external]\nurl = '{url}'\n",
        );
    }
    text
}

/// A file's only line, once it ends with its line feed or holds all there is.
fn whole_line(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    (!text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// A program that lies beside this one, else the one that PATH names, with an environment and a home
/// that hold nothing of the caller's.
fn program(name: &str, home: &Path) -> Result<Command, Failure> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        beside.into_iter().chain(std::env::split_paths(&path).map(|folder| folder.join(name))).find(|it| it.is_file());
    let program: PathBuf = found.ok_or_else(|| {
        let next = format!("put {name} beside llama-orch or into PATH");
        Failure::no_pool(Exit::Usage, format!("{name} is not to be found"), next)
    })?;
    let mut command = Command::new(program);
    command.env_clear().env("PATH", path).env("HOME", home).stdin(Stdio::null());
    Ok(command)
}

/// A process that ends with its owner.
struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    fn spawn(mut command: Command, log: &Path, name: &str) -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| Failure::local(format!("cannot start {name}: {error}"));
        let file = File::create(log).map_err(cannot)?;
        command.stdout(file.try_clone().map_err(cannot)?).stderr(file);
        Ok(Self { child: command.spawn().map_err(cannot)?, name: name.to_owned(), log: log.to_owned() })
    }

    /// Waits until something about the process is there.
    async fn until<T>(&mut self, mut look: impl FnMut() -> Option<T>) -> Result<T, Failure> {
        let limit = Instant::now() + START_LIMIT;
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if !matches!(self.child.try_wait(), Ok(None)) {
                return Err(self.failed("ended at once"));
            }
            if Instant::now() > limit {
                return Err(self.failed("did not start in time"));
            }
            tokio::time::sleep(START_POLL).await;
        }
    }

    fn failed(&self, how: &str) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        Failure::local(format!("{} {how}; it said: {}", self.name, log.lines().last().unwrap_or("nothing")))
    }

    fn proc_file(&self, name: &str) -> Result<String, Failure> {
        let path = format!("/proc/{}/{name}", self.child.id());
        std::fs::read_to_string(&path).map_err(|error| Failure::local(format!("cannot read {path}: {error}")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to lose in it either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
