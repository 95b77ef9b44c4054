//! The daemon `pool-managerd`: runs the pools that an orchestrator elsewhere gives to this host.
//!
//! It dials and is never dialled, but for its engines: [`link`] registers and sends heartbeats, whose answers say what is to be done;
//! [`relay`] leads the orchestrator, and nobody else, to the engines. In between, the same drivers as in an orchestrator keep the
//! engines up ([`life`]), with a [`host`] that writes on the [`board`] what the heartbeats tell. A host that is cut off goes on as it
//! is. Nothing here decides what runs where.

mod board;
mod host;
mod life;
mod link;
mod models;
mod narrate;
mod relay;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use api_types::{DeviceStatus, WorkerId};
use auth_min::BearerToken;
use config_schema::{Config, Loaded, Worker};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::board::Board;
use self::life::Lives;
use self::link::Link;
use self::relay::Relay;
use crate::devices::discover;

/// Time beyond their own limits that engines are given to be gone.
const LAST_GRACE: Duration = Duration::from_secs(5);

/// What the parts of the daemon share.
struct Shared {
    /// This host's file.
    config: Config,
    /// Its `[worker]`.
    worker: Worker,
    id: WorkerId,
    /// The orchestrator's token.
    token: BearerToken,
    /// Tells this life from others.
    boot_id: String,
    /// What the relay wants.
    secret: BearerToken,
    board: Arc<Board>,
    lives: Lives,
    /// The GPUs as they were at the start, for as long as nobody watches them.
    devices: Vec<DeviceStatus>,
}

/// Looks whether a configuration is one of a worker.
///
/// # Errors
/// What it lacks.
pub fn check(loaded: &Loaded) -> anyhow::Result<(Worker, BearerToken)> {
    let Some(worker) = loaded.config.worker.clone() else {
        bail!(
            "{} has no [worker]; add one with `orchestrator = \"http://HOST:8080\"`, the address of the orchestrator that this host works for",
            loaded.origin
        );
    };
    // Checked with the rest of the file.
    let token = loaded.token.clone().context("set AUTH_TOKEN or AUTH_TOKEN_FILE to the orchestrator's token")?;
    Ok((worker, token))
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// Whatever keeps it from starting: a configuration that is none of a worker, a port in use, a folder that cannot be written.
pub fn run(loaded: Loaded, port_file: Option<PathBuf>) -> anyhow::Result<()> {
    let (worker, token) = check(&loaded)?;
    let listener = TcpListener::bind(worker.bind).with_context(|| {
        format!("cannot listen on {}; stop what uses the port, or choose another with worker.bind", worker.bind)
    })?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr().context("the listening socket has no address")?;
    let data_dir = &loaded.config.server.data_dir;
    std::fs::create_dir_all(data_dir).with_context(|| format!("cannot create {}", data_dir.display()))?;
    let devices = discover(loaded.config.engines.nvml_library.as_deref());
    let devices = devices.map_or_else(|_| Vec::new(), |found| found.statuses(&|_| Vec::new(), &|_| None));
    let shared = Arc::new(Shared {
        id: worker.id(),
        config: loaded.config,
        worker,
        token,
        boot_id: random(),
        secret: BearerToken::parse(&random()).expect("hex digits are a token"),
        board: Arc::default(),
        lives: Lives::default(),
        devices,
    });
    narrate::listening(&shared.id, addr, &loaded.origin.to_string());
    if let Some(path) = port_file {
        std::fs::write(&path, format!("{addr}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(shared, listener, addr.port()))
}

async fn serve(shared: Arc<Shared>, listener: TcpListener, port: u16) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener).context("cannot watch the listening socket")?;
    let link = Link::new(Arc::clone(&shared), port)
        .context("cannot prepare to call the orchestrator (worker.orchestrator)")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let stop = CancellationToken::new();
    let relay = tokio::spawn(Relay::new(Arc::clone(&shared)).run(listener));
    let link = tokio::spawn(link.run(stop.clone()));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let grace = shared.config.server.shutdown_grace();
    narrate::stopping(&shared.id, grace);
    tokio::select! {
        () = shared.lives.wind_down(grace) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // The orchestrator is told before the engines go, so that no task is given to one that ends.
    stop.cancel();
    let _ = tokio::time::timeout(LAST_GRACE, link).await;
    tokio::select! {
        () = shared.lives.end() => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    relay.abort();
    Ok(())
}

/// 128 random bits as text.
fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
