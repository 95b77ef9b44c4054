//! Other hosts that run pools for this daemon: what they are told, what they tell, and what becomes of their pools when they are
//! not heard from.
//!
//! A worker dials. It registers, and from then on sends heartbeats that say how its pools stand; each is answered with what is to be
//! done. A pool of another host has the same [`PoolHandle`] as one of this host, and what its heartbeats say goes through the same
//! [`DaemonHost`], so that nobody else needs to know where an engine runs. No clock of another host is ever looked at.

mod beat;
mod leash;
mod register;
mod relay;
mod remote;
mod status;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api_types::{DeviceStatus, ErrorEnvelope, ErrorKind, PoolId, WorkerId};
use config_schema::Config;
use pool_managerd::devices::Devices;
use pool_managerd::machine::Conflict;
use pool_managerd::manager::Memory;
use pool_managerd::pool::{PoolHandle, RemoteEnd};
use pool_managerd::protocol::Outbox;
use pool_managerd::registry::STALE_AFTER;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

pub use self::relay::Relay;
use self::remote::RemotePool;
use crate::app::App;
use crate::narrate;
use crate::pools::managed::DaemonHost;

/// Gap between two looks at who has not been heard from.
const LOOK: Duration = Duration::from_millis(250);

/// Every worker that the configuration names.
pub struct Workers {
    by_id: BTreeMap<WorkerId, Worker>,
    /// What is to be driven once there is a runtime.
    ends: Mutex<Vec<(WorkerId, PoolHandle, RemoteEnd)>>,
}

/// One of them.
pub struct Worker {
    id: WorkerId,
    pools: BTreeMap<PoolId, RemotePool>,
    link: Mutex<Link>,
    /// Held while a heartbeat is taken in or the worker is given up: one after the other.
    taking: Mutex<()>,
    /// There is something to tell it.
    news: Notify,
}

/// What is known of it.
#[derive(Default)]
struct Link {
    session: Option<Session>,
    /// The last session's, for people.
    last: Option<Known>,
}

/// From a registration until the next one, or until it has not been heard from.
struct Session {
    id: String,
    /// The newest heartbeat that was taken in.
    seq: u64,
    heard: Instant,
    orders: Outbox<Option<Waiter>>,
}

/// Who waits for a command to be done.
type Waiter = oneshot::Sender<Result<(), Conflict>>;

/// What a worker has said of itself.
#[derive(Clone)]
struct Known {
    boot_id: String,
    version: String,
    relay: Relay,
    heard: Instant,
    devices: Vec<DeviceStatus>,
    /// The same for whoever plans their memory, with who holds it; `None` when they cannot be read.
    read: Option<Arc<ReadDevices>>,
}

/// The devices of a worker.
pub struct ReadDevices {
    /// As they were when it looked.
    pub devices: Devices,
    /// Bytes that the engines of pools hold, by device.
    pub held: Vec<(String, PoolId, u64)>,
}

impl ReadDevices {
    fn new(told: &[DeviceStatus], taken: std::time::Instant) -> Self {
        let held = told.iter().flat_map(|device| {
            device.processes.iter().filter_map(|process| {
                let bytes = u64::try_from(process.vram_bytes?).ok()?;
                Some((device.uuid.clone(), PoolId::from(process.pool_id.as_deref()?), bytes))
            })
        });
        Self { devices: Devices::told(told, taken), held: held.collect() }
    }
}

impl Workers {
    /// The workers of a configuration, none of which has been heard from.
    pub fn new(config: &Config) -> Self {
        let mut by_id: BTreeMap<WorkerId, Worker> = BTreeMap::new();
        let mut ends = Vec::new();
        for pool in &config.pools {
            let Some(id) = &pool.worker else { continue };
            let (handle, end, remote) = RemotePool::new(id, pool);
            by_id.entry(id.clone()).or_insert_with(|| Worker::new(id)).pools.insert(pool.id.clone(), remote);
            ends.push((id.clone(), handle, end));
        }
        Self { by_id, ends: Mutex::new(ends) }
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.by_id.values()
    }

    /// One worker.
    ///
    /// # Errors
    /// `NOT_FOUND`: no pool names it.
    pub fn get(&self, id: &WorkerId) -> Result<&Worker, ErrorEnvelope> {
        self.by_id.get(id).ok_or_else(|| {
            let message = format!(
                "no pool of this orchestrator is run by a worker `{id}`; add `worker = \"{id}\"` to a pool of its \
                 configuration and start it again, or correct worker.id on that host"
            );
            ErrorEnvelope::new(ErrorKind::NotFound, message)
        })
    }

    fn of_pool(&self, pool: &PoolId) -> Option<(&Worker, &RemotePool)> {
        self.iter().find_map(|worker| Some((worker, worker.pools.get(pool)?)))
    }

    /// Memory of the devices of a pool of another host, as it told last; `None` while it is not heard from.
    pub fn memory_of(&self, pool: &PoolId) -> Option<Memory> {
        self.of_pool(pool)?.1.memory()
    }

    /// Every worker, and its devices as it told them last; `None` while it is not heard from, or cannot read them.
    pub fn devices(&self) -> impl Iterator<Item = (&WorkerId, Option<Arc<ReadDevices>>)> {
        self.iter().map(|worker| {
            let link = worker.link();
            let read = link.session.as_ref().and_then(|_| link.last.as_ref()?.read.clone());
            (&worker.id, read)
        })
    }

    /// The devices of the host of a pool that another host runs.
    pub fn devices_of(&self, pool: &PoolId) -> Option<Arc<ReadDevices>> {
        let (worker, _) = self.of_pool(pool)?;
        let link = worker.link();
        link.session.as_ref()?;
        link.last.as_ref()?.read.clone()
    }

    /// Where the engine of a pool is reached that another host runs.
    pub fn relay_of(&self, pool: &PoolId) -> Option<Relay> {
        self.of_pool(pool)?.0.relay()
    }

    /// Why a pool of another host does not take tasks, where that is the host.
    pub fn complaint(&self, pool: &PoolId) -> Option<String> {
        self.of_pool(pool)?.0.complaint()
    }

    /// Begins to pass on what is wanted of the pools, on the present runtime.
    pub fn launch(&self, app: &Arc<App>, host: &Arc<DaemonHost>) {
        let ends = std::mem::take(&mut *self.ends.lock().unwrap_or_else(PoisonError::into_inner));
        for (worker, handle, end) in ends {
            let pool = handle.id().clone();
            app.pools.scheduled(&pool).managed_by(handle);
            tokio::spawn(remote::drive(Arc::clone(app), worker, pool, end));
        }
        if !self.by_id.is_empty() {
            tokio::spawn(watch(Arc::clone(app), Arc::clone(host)));
        }
    }
}

/// Gives up workers that are not heard from.
async fn watch(app: Arc<App>, host: Arc<DaemonHost>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if app.is_stopping() {
            // No heartbeat is taken any more, and running tasks have their grace.
            return;
        }
        for worker in app.workers.iter() {
            worker.give_up_if_silent(&app, &host);
        }
    }
}

impl Worker {
    fn new(id: &WorkerId) -> Self {
        Self {
            id: id.clone(),
            pools: BTreeMap::new(),
            link: Mutex::default(),
            taking: Mutex::default(),
            news: Notify::new(),
        }
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taking(&self) -> MutexGuard<'_, ()> {
        self.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was heard from a moment ago.
    fn is_up(&self) -> bool {
        self.link().session.is_some()
    }

    fn relay(&self) -> Option<Relay> {
        let link = self.link();
        link.session.as_ref()?;
        Some(link.last.as_ref()?.relay.clone())
    }

    fn give_up_if_silent(&self, app: &Arc<App>, host: &DaemonHost) {
        let _taking = self.taking();
        let is_silent = |session: &Session| session.heard.elapsed() > STALE_AFTER;
        if self.link().session.as_ref().is_some_and(is_silent) {
            narrate::worker_away(&self.id, STALE_AFTER);
            self.give_up(app, host);
        }
    }

    /// Nothing is known of its pools any more: their streams are over, and what was to be done is not.
    fn give_up(&self, app: &Arc<App>, host: &DaemonHost) {
        let Some(mut session) = self.link().session.take() else { return };
        for waiter in session.orders.give_up() {
            answer(waiter, Err(Conflict::Away));
        }
        for (id, pool) in &self.pools {
            pool.give_up(app, host, id, &self.id);
        }
        // A heartbeat that waits for news finds that its session is over.
        self.news.notify_waiters();
    }
}

fn answer(waiter: Option<Waiter>, answer: Result<(), Conflict>) {
    if let Some(waiter) = waiter {
        // Who asked may have gone.
        let _ = waiter.send(answer);
    }
}
