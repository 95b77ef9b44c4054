//! All managed pools of this host: opened together, driven together, ended together.

mod news;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api_types::{EnginePlan, PoolId};
use config_schema::{Activation, Config, Pool, ProvisioningMode};
use engine_provisioner::Setup;
use narration_core::{Actor, Narration, narrate};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::Level;

use crate::devices::{DeviceMask, Monitor, NoDevices, Reading, discover};
use crate::failure::Failure;
use crate::logs::{EngineLog, OpenLogError};
use crate::orphans;
use crate::pool::{Driver, Host, PoolHandle, PoolSetup};
use crate::process::GuardProgram;
use crate::registry::Registry;
use crate::workshop::{HostWorkshop, Tools, container, plan};

/// Gap between two looks at the GPUs.
const LOOK: Duration = Duration::from_secs(1);
/// Time that engines of an earlier life have to end.
const ORPHANS_GRACE: Duration = Duration::from_secs(5);
/// News of devices that may wait for a pool.
const NEWS: usize = 16;

/// The managed pools of a host.
pub struct Manager {
    pools: HashMap<PoolId, Managed>,
    registry: Registry,
    setup: Setup,
    library: Option<PathBuf>,
    run_dir: PathBuf,
    instance: String,
    /// There is one where there is a pool that needs it.
    monitor: Option<Monitor>,
    drivers: Mutex<JoinSet<()>>,
    /// Pools whose engine of an earlier life still runs, and may be taken over.
    survivors: Mutex<HashSet<PoolId>>,
    /// Tells the drivers of the devices, as long as there are any.
    news: Mutex<JoinSet<()>>,
}

/// One of them.
struct Managed {
    config: Pool,
    log: EngineLog,
    workshop: Arc<HostWorkshop>,
}

/// The memory of a pool's devices together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What nobody uses, in bytes.
    pub free_bytes: u64,
    /// The least compute capability among the devices, such as `8.6`.
    pub compute_capability: String,
}

/// The pools cannot be managed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A log cannot be written.
    #[error("the pool's log cannot be opened")]
    Log(#[from] OpenLogError),
    /// There can be no further thread.
    #[error("the GPUs cannot be watched; raise the limit on processes of this user")]
    Thread(#[source] std::io::Error),
}

impl Manager {
    /// Opens what the managed pools of a configuration need. Nothing is started. Without managed pools this does nothing at all.
    ///
    /// Looks at the GPUs, which may block for a second.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: &Config, setup: Setup, guard: &GuardProgram) -> Result<Self, OpenError> {
        let data_dir = &config.server.data_dir;
        let run_dir = data_dir.join("run");
        let library = config.engines.nvml_library.clone();
        let managed: Vec<_> = config.pools.iter().filter(|pool| pool.is_managed_here()).collect();
        let monitor = match managed.is_empty() {
            true => None,
            false => Some(Monitor::start(library.as_deref(), LOOK).map_err(OpenError::Thread)?),
        };
        let instance = container::instance_of(data_dir);
        let mut pools = HashMap::new();
        for pool in managed {
            let devices = monitor.as_ref().map_or_else(no_reading, Monitor::state);
            let (guard, instance) = (guard.clone(), instance.clone());
            let (setup, run_dir, parks_kv) = (setup.clone(), run_dir.clone(), config.swap.kv_cache_mb > 0);
            let tools = Tools { setup, devices, guard, run_dir, instance, parks_kv };
            let (bytes, files) = (config.engines.log_max_bytes.get(), config.engines.log_files.get());
            let files = usize::try_from(files).unwrap_or(usize::MAX);
            let log = EngineLog::open(&data_dir.join("logs"), pool.id.as_str(), bytes, files)?;
            let workshop = Arc::new(HostWorkshop::new(pool.clone(), tools, log.clone()));
            pools.insert(pool.id.clone(), Managed { config: pool.clone(), log, workshop });
        }
        let registry = Registry::default();
        Ok(Self {
            pools,
            registry,
            setup,
            library,
            run_dir,
            instance,
            monitor,
            drivers: Mutex::default(),
            survivors: Mutex::default(),
            news: Mutex::default(),
        })
    }

    /// Ends what an earlier life has left, begins to drive the pools on the present runtime, and starts those that are to be up.
    /// The ways to them.
    pub async fn launch(&self, host: &Arc<dyn Host>) -> HashMap<PoolId, PoolHandle> {
        let Some(monitor) = &self.monitor else { return HashMap::new() };
        self.reap().await;
        self.remove_containers().await;
        let mut handles = HashMap::new();
        let mut listeners = Vec::new();
        for (id, managed) in &self.pools {
            let (tells, news) = mpsc::channel(NEWS);
            listeners.push(news::Listener { workshop: Arc::clone(&managed.workshop), tells });
            let (driver, handle) = Driver::new(PoolSetup {
                id: id.clone(),
                model: managed.config.model.clone(),
                lazy: managed.config.activation == Activation::OnDemand,
                supervision: managed.config.supervision.clone(),
                workshop: Arc::clone(&managed.workshop) as _,
                host: Arc::clone(host),
                registry: self.registry.clone(),
                news,
            });
            lock(&self.drivers).spawn(driver.run());
            handles.insert(id.clone(), handle);
        }
        lock(&self.news).spawn(news::spread(monitor.events(), listeners));
        handles
    }

    /// Pools whose engine of an earlier life still runs: what it holds is its own.
    #[must_use]
    pub fn survivors(&self) -> HashSet<PoolId> {
        self.survivors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a pool's engine of an earlier life still runs; once, since a start takes it over or ends it.
    #[must_use]
    pub fn takes_over(&self, pool: &PoolId) -> bool {
        self.survivors.lock().unwrap_or_else(PoisonError::into_inner).remove(pool)
    }

    /// Starts the pools that are to be up from the beginning, and those that still are.
    pub async fn preload(&self, handles: &HashMap<PoolId, PoolHandle>) {
        let survivors = self.survivors();
        for (id, handle) in handles {
            if self.pools[id].config.activation == Activation::Preload || survivors.contains(id) {
                // Nothing speaks against the first start but the end of the daemon.
                let _ = handle.start().await;
            }
        }
    }

    /// Removes containers of pools that are not in the configuration any more. A configuration without containers is not worth
    /// asking a runtime for.
    async fn remove_containers(&self) {
        let in_containers = |managed: &&Managed| managed.config.mode() == ProvisioningMode::Container;
        let pools: Vec<_> =
            self.pools.values().filter(in_containers).map(|managed| managed.config.id.as_str()).collect();
        if !pools.is_empty() {
            container::remove_others(self.setup.container_runtime, &self.instance, &pools).await;
            let running = container::running(self.setup.container_runtime, &self.instance).await;
            self.survivors.lock().unwrap_or_else(PoisonError::into_inner).extend(running);
        }
    }

    async fn reap(&self) {
        let run_dir = self.run_dir.clone();
        let reaped = tokio::task::spawn_blocking(move || orphans::reap(&run_dir, ORPHANS_GRACE)).await;
        match reaped {
            Ok(Ok(reaped)) => {
                for orphan in reaped {
                    let human = format_args!(
                        "an engine of an earlier life of pool {} was found: {}",
                        orphan.pool_id, orphan.how
                    );
                    narrate(
                        Level::WARN,
                        &Narration {
                            pool_id: Some(&orphan.pool_id),
                            ..Narration::new(Actor::PoolManager, "reap", human)
                        },
                    );
                }
            }
            Ok(Err(error)) => {
                let human = format_args!("cannot look for engines of an earlier life: {error}");
                narrate(Level::ERROR, &Narration::new(Actor::PoolManager, "reap", human));
            }
            Err(_) => {}
        }
    }

    /// Where leases are counted.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Prepares engines, and removes them.
    #[must_use]
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// What a pool's engine says; `None` for a pool that is not managed.
    #[must_use]
    pub fn log(&self, pool: &PoolId) -> Option<&EngineLog> {
        self.pools.get(pool).map(|managed| &managed.log)
    }

    /// What preparing a pool's engine takes; of a pool that is not managed, that it is attached to.
    ///
    /// # Errors
    /// Why it cannot be prepared at all.
    pub fn plan(&self, pool: &Pool) -> Result<EnginePlan, Failure> {
        plan(pool, &self.setup)
    }

    /// The id in the catalog of the engine that a pool was prepared with last.
    #[must_use]
    pub fn engine_of(&self, pool: &PoolId) -> Option<String> {
        self.pools.get(pool)?.workshop.prepared()?.engine_catalog_id
    }

    /// The devices that a pool was last found to have.
    #[must_use]
    pub fn mask_of(&self, pool: &PoolId) -> Option<DeviceMask> {
        self.pools.get(pool)?.workshop.mask()
    }

    /// The memory of a pool's devices, as it was seen last; `None` where it cannot be read.
    #[must_use]
    pub fn memory_of(&self, pool: &PoolId) -> Option<Memory> {
        let mask = self.mask_of(pool)?;
        let reading = self.monitor.as_ref()?.now();
        let free = mask.free_now(reading.as_ref().as_ref().ok()?)?;
        let (major, minor) = mask.min_compute_capability();
        Some(Memory {
            total_bytes: mask.vram_total_bytes(),
            free_bytes: free.iter().sum(),
            compute_capability: format!("{major}.{minor}"),
        })
    }

    /// What the GPUs are seen to be, now and whenever they are looked at; nobody looks where there is no managed pool.
    #[must_use]
    pub fn readings(&self) -> watch::Receiver<Reading> {
        self.monitor.as_ref().map_or_else(no_reading, Monitor::state)
    }

    /// Whether somebody waits for memory, so that the GPUs are looked at more often.
    pub fn hurry(&self, wanted: bool) {
        if let Some(monitor) = &self.monitor {
            monitor.hurry(wanted);
        }
    }

    /// The GPUs, as they were seen last; where nobody watches them they are looked at now, which may block for a second.
    #[must_use]
    pub fn devices(&self) -> Reading {
        match &self.monitor {
            Some(monitor) => monitor.now(),
            None => Arc::new(discover(self.library.as_deref())),
        }
    }

    /// Waits until no pool is driven any more.
    pub async fn ended(&self) {
        let mut drivers = std::mem::take(&mut *lock(&self.drivers));
        while drivers.join_next().await.is_some() {}
        lock(&self.news).abort_all();
    }
}

fn lock(tasks: &Mutex<JoinSet<()>>) -> MutexGuard<'_, JoinSet<()>> {
    tasks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nobody looks at any GPU.
fn no_reading() -> watch::Receiver<Reading> {
    watch::channel(Arc::new(Err(NoDevices::None))).1
}
