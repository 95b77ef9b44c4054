//! Start and stop: one current-thread runtime per core around one [`App`].

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use api_types::PoolId;
use auth_min::{Authenticator, check_bind};
use catalog_core::FsEngineCatalog;
use config_schema::{BearerToken, Config, Loaded};
use engine_provisioner::{Host, Setup};
use futures_util::future::join_all;
use pool_managerd::manager::Manager;
use pool_managerd::pool::PoolHandle;
use pool_managerd::process::GuardProgram;
use rustix::process::{Resource, getrlimit, setrlimit};
use state_db::{AcceptedTask, Opened, Retention, StateDb};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::artifacts;
use crate::clock::Clock;
use crate::http::{self, Gate};
use crate::models::{self, Models};
use crate::narrate;
use crate::pools;
use crate::pools::managed::DaemonHost;
use crate::residency;
use crate::unsupported;

/// Gap between two rounds of forgetting finished tasks and expired sessions.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// Open files besides the clients' connections: those to engines, the database, the log.
const FILES_BESIDE_CONNECTIONS: u64 = 256;
/// Time connections have to send what is left after the last task has ended.
const FLUSH: Duration = Duration::from_secs(1);

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// Whatever keeps it from starting: an address that needs a token, a port in use, a file that cannot be written.
pub fn run(loaded: Loaded, port_file: Option<PathBuf>) -> anyhow::Result<()> {
    let origin = loaded.origin.to_string();
    let server = &loaded.config.server;
    check_bind(server.bind, loaded.token.is_some())?;
    let authenticator = Authenticator::new(loaded.token.as_ref(), server.auth_optional, server.trust_proxy_auth);
    for setting in unsupported::ignored(&loaded.config) {
        narrate::ignored(setting);
    }
    if let Some(files) = too_few_open_files(server.max_connections.get()) {
        narrate::few_open_files(files, server.max_connections.get());
    }
    let tls = http::Tls::load(server)?;
    let listener = http::bind(server).with_context(|| cannot_listen(server.bind))?;
    let threads = match server.threads {
        Some(threads) => threads.get(),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let clock = Clock::start();
    let opened = open_state(&loaded.config, &clock)?;
    let models = Models::open(&loaded.config)?;
    let artifacts = artifacts::open(&loaded.config, &clock)?;
    let manager = open_manager(&loaded.config, &models)?;
    let app = App::new(loaded.config, opened.db, models, artifacts, manager, clock)
        .context("cannot read what earlier loads took (server.data_dir)")?;
    let gate = Arc::new(Gate::new(http::router(Arc::clone(&app)), authenticator));
    let server = Arc::new(http::Server::new(gate, &app.config.server, tls));
    let stops = Stops::default();

    let main = runtime()?;
    // Before anybody is served: whoever asks must find every task that was accepted.
    let inside = main.enter();
    recover(&app, opened.pending);
    drop(inside);
    let workers = spawn_workers(threads, &listener, &server, &stops)?;
    let addr = listener.local_addr().context("the listening socket has no address")?;
    let scheme = if server.tls().is_some() { "https" } else { "http" };
    narrate::listening(scheme, addr, app.pools.iter().count(), &origin);
    if let Some(path) = port_file {
        std::fs::write(&path, format!("{addr}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let ended = main.block_on(serve(Arc::clone(&app), &loaded.engine_keys, server, listener, stops));
    app.models.close();
    app.db.close();
    app.artifacts.close();
    ended?;
    for worker in workers {
        if worker.join().is_err() {
            bail!("a runtime thread panicked; its message is in the log");
        }
    }
    Ok(())
}

/// Checks what the configuration names without taking anything into use.
///
/// # Errors
/// A certificate that cannot be used, a reference to a model that is none.
pub fn check(loaded: &Loaded) -> anyhow::Result<()> {
    http::Tls::load(&loaded.config.server)?;
    models::configured(&loaded.config).map(drop)
}

/// Raises the limit on open files as far as we may; what it is then, if that is too little.
fn too_few_open_files(connections: usize) -> Option<u64> {
    let mut limits = getrlimit(Resource::Nofile);
    limits.current = limits.maximum;
    // Where that is not allowed the old limit stays, and is looked at below.
    let _ = setrlimit(Resource::Nofile, limits);
    let files = getrlimit(Resource::Nofile).current?;
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(FILES_BESIDE_CONNECTIONS);
    (files < wanted).then_some(files)
}

/// Opens the journal and the history.
fn open_state(config: &Config, clock: &Clock) -> anyhow::Result<Opened> {
    let retention = Retention {
        max_tasks: config.history.limit().unwrap_or(0),
        max_age_ms: config.history.retain().map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
    };
    let dir = &config.server.data_dir;
    StateDb::open(dir, retention, clock.unix_ms(0)).context("cannot open the journal of tasks (server.data_dir)")
}

/// Opens what pools need whose engines are run here.
fn open_manager(config: &Config, models: &Models) -> anyhow::Result<Manager> {
    let catalog = FsEngineCatalog::open(config.server.data_dir.join("catalog"))
        .context("cannot open the catalog of engines (server.data_dir)")?;
    let setup = Setup::new(config, Arc::clone(models.web()), Arc::new(catalog), Host::of_process());
    Manager::open(config, setup, &GuardProgram::own()).context("cannot open the managed pools")
}

/// Takes up what an earlier life of the daemon has left undone, in the order in which it was accepted.
fn recover(app: &Arc<App>, pending: Vec<AcceptedTask>) {
    for task in pending {
        match serde_json::from_str(&task.entry) {
            Ok(entry) => app.recover(entry, task.admitted_at_ms),
            // It stays where it is, for a version that can read it.
            Err(error) => narrate::not_recovered(task.task_id, &error),
        }
    }
}

/// Keys of external engines by pool.
type EngineKeys = BTreeMap<PoolId, BearerToken>;

/// The stages of stopping.
#[derive(Clone, Default)]
struct Stops {
    /// The open connections of all runtimes.
    connections: TaskTracker,
    /// No new connection; open ones finish their request.
    accepting: CancellationToken,
    /// Everything ends now.
    serving: CancellationToken,
}

fn cannot_listen(addr: SocketAddr) -> String {
    format!(
        "cannot listen on {addr}; stop what uses the port, or choose another with server.bind, ORCHD_ADDR or --bind"
    )
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// The runtimes beside the main one; each accepts on a duplicate of the listening socket.
fn spawn_workers(
    threads: usize,
    listener: &std::net::TcpListener,
    server: &Arc<http::Server>,
    stops: &Stops,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    (1..threads)
        .map(|number| {
            let (listener, server, stops) = (listener.try_clone()?, Arc::clone(server), stops.clone());
            let runtime = runtime()?;
            let body = move || runtime.block_on(accept(listener, server, stops));
            std::thread::Builder::new().name(format!("serve-{number}")).spawn(body)
        })
        .collect::<io::Result<_>>()
        .context("cannot start the runtime threads; lower server.threads")
}

async fn accept(listener: std::net::TcpListener, server: Arc<http::Server>, stops: Stops) {
    match TcpListener::from_std(listener) {
        Ok(listener) => {
            http::run(listener, server, stops.connections, stops.accepting).await;
            // The connections live on this runtime, which goes when this function returns.
            stops.serving.cancelled().await;
        }
        Err(error) => tracing::error!(%error, "a runtime cannot watch the listening socket"),
    }
}

/// What runs on the main runtime: probes, alarms, housekeeping, signals, and its share of the connections.
async fn serve(
    app: Arc<App>,
    keys: &EngineKeys,
    server: Arc<http::Server>,
    listener: std::net::TcpListener,
    stops: Stops,
) -> anyhow::Result<()> {
    start_external(&app, keys, &stops.serving);
    watch_elsewhere(&app, &stops.serving);
    start_managed(&app).await;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    tokio::spawn(accept(listener, Arc::clone(&server), stops.clone()));
    tokio::select! {
        () = alarms(&app) => {}
        () = housekeeping(&app) => {}
        () = models::retirements(&app) => {}
        () = residency::run(&app) => {}
        ended = reloads(&server) => ended?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tokio::select! {
        () = wind_down(&app, &stops) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let cut = app.cut();
    if cut > 0 {
        narrate::cut(cut);
    }
    tokio::select! {
        () = stop_managed(&app) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    app.feed.close();
    // The last frames are in the transcripts; what is left is to send them.
    stops.connections.close();
    let _ = tokio::time::timeout(FLUSH, stops.connections.wait()).await;
    stops.serving.cancel();
    Ok(())
}

/// Has the engines started that are run here.
async fn start_managed(app: &Arc<App>) {
    let host = Arc::new(DaemonHost::new(Arc::clone(app)));
    app.workers.launch(app, &host);
    let host: Arc<dyn pool_managerd::pool::Host> = host;
    let handles = app.manager.launch(&host).await;
    for (id, handle) in &handles {
        let pool = app.pools.scheduled(id);
        pool.managed_by(handle.clone());
        app.engine_changed(pool, &handle.report());
    }
    for id in app.manager.survivors() {
        app.residency.want(&id);
    }
    app.manager.preload(&handles).await;
    // Nobody who is started waits for what it finds out.
    let app = Arc::clone(app);
    tokio::spawn(async move { app.survey_models().await });
}

/// Has the engines ended that are run here.
async fn stop_managed(app: &Arc<App>) {
    let managers = app.pools.iter().filter_map(|pool| pool.manager());
    join_all(managers.map(PoolHandle::shut_down)).await;
    app.manager.ended().await;
    app.parking.close();
}

/// Gives every replica of every external pool its adapter and starts its probe.
fn start_external(app: &Arc<App>, keys: &EngineKeys, stop: &CancellationToken) {
    for pool in app.pools.iter().filter(|pool| !pool.config.is_managed()) {
        match pool.adapters(keys.get(&pool.id)) {
            Ok(adapters) => {
                for (replica, adapter) in pool.replicas().iter().zip(adapters) {
                    app.host.bind(pool.id.clone(), replica.id.clone(), adapter, pool.call_policy());
                    let (pool, replica) = (Arc::clone(pool), Arc::clone(replica));
                    tokio::spawn(pools::watch(Arc::clone(app), pool, replica, stop.clone()));
                }
            }
            Err(reason) => pool.cannot_work(&reason),
        }
    }
}

/// Probes the engines of other hosts as those of external pools: by way of the link that tasks go.
fn watch_elsewhere(app: &Arc<App>, stop: &CancellationToken) {
    for pool in app.pools.iter().filter(|pool| pool.config.worker.is_some()) {
        for replica in pool.replicas() {
            let (pool, replica) = (Arc::clone(pool), Arc::clone(replica));
            tokio::spawn(pools::watch(Arc::clone(app), pool, replica, stop.clone()));
        }
    }
}

async fn alarms(app: &Arc<App>) {
    app.alarms.run(app.clock, |task, alarm| app.alarm(task, alarm)).await;
}

/// Reads the certificate again on every SIGHUP. Without TLS the signal keeps its usual meaning.
async fn reloads(server: &http::Server) -> anyhow::Result<()> {
    let Some(tls) = server.tls() else { return std::future::pending().await };
    let mut hangup = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
    while hangup.recv().await.is_some() {
        narrate::certificate_read(&tls.reload());
    }
    Ok(())
}

async fn housekeeping(app: &App) {
    loop {
        tokio::time::sleep(HOUSEKEEPING).await;
        let now_ms = app.clock.now_ms();
        app.tasks.prune(now_ms, app.config.stream.retain_ms);
        app.sessions().prune(now_ms);
        app.sweep_parked();
    }
}

/// Stops accepting, ends what waits, and gives what runs its grace.
async fn wind_down(app: &Arc<App>, stops: &Stops) {
    app.stop_admitting();
    stops.accepting.cancel();
    let grace = app.config.server.shutdown_grace();
    narrate::stopping(app.tasks.living().len(), app.config.server.shutdown_grace_ms);
    let _ = tokio::time::timeout(grace, app.tasks.all_ended()).await;
}
