//! The processes under measurement: simulated engines, and what stands in front of them.

mod nginx;
mod process;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use openapi_client::{Client, ClientConfig, ServerError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::time::Instant;

use super::meter::Meter;
use crate::exit::Exit;
use crate::failure::Failure;
pub(super) use nginx::Nginx;
use process::{Process, START_LIMIT, START_POLL, program};

const IDLE_POLL: Duration = Duration::from_millis(100);
/// Context of every slot and every task, in tokens.
pub(super) const CTX: i32 = 8192;

/// A simulated engine and its pool.
#[derive(Clone, Debug)]
pub(super) struct EngineSpec {
    /// Name of the pool and of its model.
    pub(super) name: &'static str,
    /// Tasks it runs at the same time.
    pub(super) slots: u32,
    /// Time from one token to the next, in milliseconds; 0 is as fast as it can.
    pub(super) interval_ms: u32,
    /// Further options of mock-engine.
    pub(super) options: Vec<String>,
    /// Where it listens.
    pub(super) listen: Listen,
    /// Tasks that may wait for it.
    pub(super) queue: u32,
    /// What the orchestrator knows it as.
    pub(super) role: Role,
}

/// What the orchestrator knows an engine as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A pool of its name.
    Pool,
    /// A further replica of the pool before it.
    Replica,
    /// Nothing.
    Unknown,
}

/// Where an engine listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    /// On this port of the loopback interface; 0 takes a free one.
    Port(u16),
    /// On a Unix socket.
    Unix,
}

impl EngineSpec {
    /// An engine behind a port, with a short queue.
    pub(super) const fn new(name: &'static str, slots: u32, interval_ms: u32) -> Self {
        Self { name, slots, interval_ms, options: Vec::new(), listen: Listen::Port(0), queue: 64, role: Role::Pool }
    }
}

/// What runs. Everything is stopped and removed when it is dropped.
pub(super) struct Rig {
    /// The orchestrator.
    pub(super) orchestrator: Orchestrator,
    /// The engines behind it.
    pub(super) engines: Engines,
}

impl Rig {
    /// Starts everything and waits until all pools are ready. `settings` are further lines of the orchestrator's
    /// configuration.
    pub(super) async fn start(specs: &[EngineSpec], settings: &str) -> Result<Self, Failure> {
        let engines = Engines::start(specs).await?;
        let orchestrator = engines.orchestrator(settings).await?;
        orchestrator.ready().await?;
        Ok(Self { orchestrator, engines })
    }
}

/// Simulated engines.
pub(super) struct Engines {
    engines: Vec<Engine>,
    folder: TempDir,
}

impl Engines {
    /// Starts them and waits until they listen.
    pub(super) async fn start(specs: &[EngineSpec]) -> Result<Self, Failure> {
        let folder = TempDir::new().map_err(|error| Failure::local(format!("cannot make a folder: {error}")))?;
        let mut engines = Vec::new();
        for spec in specs {
            engines.push(Engine::start(folder.path(), spec.clone()).await?);
        }
        Ok(Self { engines, folder })
    }

    /// Starts an orchestrator in front of them; its pools need not be ready yet.
    pub(super) async fn orchestrator(&self, settings: &str) -> Result<Orchestrator, Failure> {
        // A journal of its own, each time.
        let data_dir = TempDir::new_in(self.folder.path()).map_err(|error| cannot_write(&error))?;
        let config = config(data_dir.path(), &self.engines, settings);
        Orchestrator::start(self.folder.path(), &config, data_dir).await
    }

    /// Starts nginx in front of them, with as many workers and ready for as many streams.
    pub(super) async fn nginx(&self, workers: usize, streams: u32) -> Result<Nginx, Failure> {
        Nginx::start(self.folder.path(), &self.engines, workers, streams).await
    }

    /// The address of the engine with this name.
    pub(super) fn url(&self, name: &str) -> &str {
        let engine = self.engines.iter().find(|engine| engine.spec.name == name);
        &engine.expect("only engines that were started are asked for").url
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.engines.len()
    }

    /// The address of engine number `index`.
    pub(super) fn url_of(&self, index: usize) -> &str {
        &self.engines[index].url
    }

    /// Kills an engine. Its connections break; until it is started again nobody listens there.
    pub(super) fn kill(&mut self, index: usize) {
        self.engines[index].process.kill();
    }

    /// Starts a killed engine again, where it was.
    pub(super) async fn restart(&mut self, index: usize) -> Result<(), Failure> {
        let Engine { spec, url, .. } = &self.engines[index];
        let listen = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).map_or(Listen::Unix, Listen::Port);
        let spec = EngineSpec { listen, ..spec.clone() };
        self.engines[index] = Engine::start(self.folder.path(), spec).await?;
        Ok(())
    }
}

/// An orchestrator.
pub(super) struct Orchestrator {
    /// Its address.
    pub(super) url: String,
    /// A client of it.
    pub(super) client: Client,
    /// Time from its start to its first answer.
    pub(super) start: Duration,
    process: Process,
    _data_dir: TempDir,
}

impl Orchestrator {
    async fn start(folder: &Path, config: &str, data_dir: TempDir) -> Result<Self, Failure> {
        let config_file = folder.join("llama-orch.toml");
        let port_file = folder.join("orchestratord.port");
        std::fs::write(&config_file, config).map_err(|error| cannot_write(&error))?;
        // One that was started before may have left its own.
        let _ = std::fs::remove_file(&port_file);
        let mut command = program("orchestratord", folder)?;
        command.arg("--config").arg(&config_file).arg("--port-file").arg(&port_file);
        let mut process = Process::spawn(command, &folder.join("orchestratord.log"), "orchestratord")?;
        let look = || {
            let address: SocketAddr = whole_line(&port_file)?.parse().ok()?;
            nginx::answers(address, "/healthz").then_some(address)
        };
        let url = format!("http://{}", process.until(look).await?);
        let start = process.age();
        Ok(Self { client: client(&url)?, url, start, process, _data_dir: data_dir })
    }

    /// Waits until all pools are ready.
    pub(super) async fn ready(&self) -> Result<(), Failure> {
        let limit = Instant::now() + START_LIMIT;
        loop {
            let readiness = self.client.get_readyz().await?;
            if readiness.pools_total == readiness.pools_ready {
                return Ok(());
            }
            if Instant::now() > limit {
                return Err(self.process.failed("did not make its pools ready"));
            }
            tokio::time::sleep(START_POLL).await;
        }
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

    /// Another client of it, with connections of its own.
    pub(super) fn another_client(&self) -> Result<Client, Failure> {
        client(&self.url)
    }

    /// Time since its start.
    pub(super) fn age(&self) -> Duration {
        self.process.age()
    }

    /// Its account.
    pub(super) fn meter(&self) -> Meter {
        self.process.meter()
    }
}

fn client(url: &str) -> Result<Client, Failure> {
    let server = url.parse().map_err(|error: ServerError| Failure::local(error.to_string()))?;
    Ok(Client::new(ClientConfig::new(server))?)
}

/// A simulated engine.
struct Engine {
    process: Process,
    url: String,
    spec: EngineSpec,
}

impl Engine {
    async fn start(folder: &Path, spec: EngineSpec) -> Result<Self, Failure> {
        let name = spec.name;
        let port_file = folder.join(format!("{name}.port"));
        let socket = folder.join(format!("{name}.sock"));
        let _ = std::fs::remove_file(&port_file);
        let mut command = program("mock-engine", folder)?;
        command.args(["--model", name, "--slots", &spec.slots.to_string(), "--ctx", &CTX.to_string()]);
        command.args(["--token-interval-ms", &spec.interval_ms.to_string()]).args(&spec.options);
        match spec.listen {
            Listen::Unix => command.arg("--unix").arg(&socket),
            Listen::Port(port) => {
                command.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--port-file").arg(&port_file)
            }
        };
        let mut process = Process::spawn(command, &folder.join(format!("{name}.log")), name)?;
        let url = if spec.listen == Listen::Unix {
            process.until(|| socket.exists().then_some(())).await?;
            format!("unix:{}", socket.display())
        } else {
            format!("http://127.0.0.1:{}", process.until(|| whole_line(&port_file)).await?)
        };
        Ok(Self { process, url, spec })
    }
}

fn config(data_dir: &Path, engines: &[Engine], settings: &str) -> String {
    let mut text = format!("[server]\nbind = \"127.0.0.1:0\"\ndata_dir = '{}'\n{settings}", data_dir.display());
    for (index, Engine { url, spec, .. }) in engines.iter().enumerate() {
        if spec.role != Role::Pool {
            continue;
        }
        let EngineSpec { name, slots, queue, .. } = spec;
        let _ = write!(
            text,
            "[[pools]]\nid = \"{name}\"\nengine = \"llamacpp\"\nmodel = \"{name}\"\nctx = {CTX}\nslots = {slots}\n\
             determinism = \"best_effort\"\n[pools.queue]\ncapacity = {queue}\n\
             [pools.provisioning]\nmode = \"external\"\n[pools.provisioning.external]\nurl = '{url}'\n",
        );
        let further = engines[index + 1..].iter().take_while(|next| next.spec.role == Role::Replica);
        let replicas: Vec<String> = further.map(|next| format!("'{}'", next.url)).collect();
        if !replicas.is_empty() {
            let _ = writeln!(text, "replicas = [{}]", replicas.join(", "));
        }
    }
    text
}

/// A file's only line, once it ends with its line feed or holds all there is.
fn whole_line(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    (!text.trim().is_empty()).then(|| text.trim().to_owned())
}

fn cannot_write(error: &std::io::Error) -> Failure {
    Failure::local(format!("cannot write a file: {error}"))
}

/// Lets this process, and those it starts from now on, have so many files and sockets open.
pub(super) fn allow_open_files(count: u64) -> Result<(), Failure> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= count) {
        return Ok(());
    }
    if maximum.is_some_and(|maximum| maximum < count) {
        let next = format!("raise it to {count} with `ulimit -Hn`, or measure fewer streams");
        let what = format!("{count} open files are needed and {} are allowed", maximum.unwrap_or(0));
        return Err(Failure::new(Exit::Usage, what, next));
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum })
        .map_err(|error| Failure::local(format!("cannot raise the limit on open files: {error}")))
}
