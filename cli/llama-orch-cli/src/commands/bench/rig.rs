//! The processes under measurement: two engines, one that keeps a pace and one that does not, and the orchestrator.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use openapi_client::{Client, ClientConfig, ServerError};
use tempfile::TempDir;
use tokio::time::Instant;

use super::Ways;
use super::load::{Dialect, Target};
use crate::args::BenchArgs;
use crate::exit::Exit;
use crate::failure::Failure;

const START_LIMIT: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(5);
const PACED: &str = "bench-paced";
const FLAT_OUT: &str = "bench-flat-out";
/// The kernel tells processor time to user space in hundredths of a second (USER_HZ, `man 5 proc_pid_stat`).
const TICK: Duration = Duration::from_millis(10);

/// What runs, and how to call it. Everything is stopped and removed when it is dropped.
pub(super) struct Rig {
    pub(super) paced: Ways,
    pub(super) flat_out: Ways,
    orchestrator: Process,
    _engines: [Process; 2],
    _folder: TempDir,
}

impl Rig {
    /// Starts everything and waits until both pools are ready.
    pub(super) async fn start(args: &BenchArgs) -> Result<Self, Failure> {
        let folder = TempDir::new().map_err(|error| Failure::local(format!("cannot make a folder: {error}")))?;
        let paced = Engine::start(folder.path(), args, PACED, args.interval_ms).await?;
        let flat_out = Engine::start(folder.path(), args, FLAT_OUT, 0).await?;
        let config = config(args, folder.path(), &[(PACED, &paced), (FLAT_OUT, &flat_out)]);
        let (orchestrator, url) = orchestrator(folder.path(), &config).await?;
        let ways = |engine: &Engine, model| -> Result<Ways, Failure> {
            Ok(Ways {
                direct: Target::new(&engine.url, Dialect::Engine, args.streams)?,
                through: Target::new(&url, Dialect::Orchestrator { model }, args.streams)?,
            })
        };
        Ok(Self {
            paced: ways(&paced, PACED)?,
            flat_out: ways(&flat_out, FLAT_OUT)?,
            orchestrator,
            _engines: [paced.process, flat_out.process],
            _folder: folder,
        })
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
    async fn start(folder: &Path, args: &BenchArgs, name: &str, interval_ms: u32) -> Result<Self, Failure> {
        let port_file = folder.join(format!("{name}.port"));
        let socket = folder.join(format!("{name}.sock"));
        let mut command = program("mock-engine", folder)?;
        command.args(["--model", name, "--slots", &args.streams.to_string()]);
        command.args(["--token-interval-ms", &interval_ms.to_string()]);
        if args.unix {
            command.arg("--unix").arg(&socket);
        } else {
            command.arg("--port-file").arg(&port_file);
        }
        let mut process = Process::spawn(command, &folder.join(format!("{name}.log")), name)?;
        if args.unix {
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
    let url = format!("http://{address}");
    let server = url.parse().map_err(|error: ServerError| Failure::local(error.to_string()))?;
    let client = Client::new(ClientConfig::new(server))?;
    let limit = Instant::now() + START_LIMIT;
    loop {
        let readiness = client.get_readyz().await?;
        if readiness.pools_ready == 2 {
            return Ok((process, url));
        }
        if Instant::now() > limit {
            return Err(process.failed("did not make its pools ready"));
        }
        tokio::time::sleep(START_POLL).await;
    }
}

fn config(args: &BenchArgs, folder: &Path, pools: &[(&str, &Engine)]) -> String {
    let mut text = format!("[server]\nbind = \"127.0.0.1:0\"\ndata_dir = '{}'\n", folder.join("data").display());
    for (model, Engine { url, .. }) in pools {
        text.push_str(&format!(
            "[[pools]]\nid = \"{model}\"\nengine = \"llamacpp\"\nmodel = \"{model}\"\nctx = 8192\nslots = {slots}\n\
             determinism = \"best_effort\"\n[pools.queue]\ncapacity = {capacity}\n\
             [pools.provisioning]\nmode = \"external\"\n[pools.provisioning.external]\nurl = '{url}'\n",
            slots = args.streams,
            capacity = args.streams.max(64),
        ));
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
