//! The pools that this host was given, from when it takes them on until it is given others or stops.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use api_types::{
    CommandRefusal, DeviceStatus, PoolFault, PoolId, PoolState, WorkerCommand, WorkerFailure, WorkerMemory,
    WorkerOrder, WorkerPool,
};
use catalog_core::FsEngineCatalog;
use config_schema::{Activation, Config, Pool, ProcessEnvironment};
use engine_provisioner::Setup;
use futures_util::future::join_all;
use serde_json::Value;
use tokio::sync::{Mutex, watch};

use super::Shared;
use super::board::Board;
use super::host::WorkerHost;
use super::models::Models;
use super::narrate;
use crate::failure::Failure;
use crate::manager::Manager;
use crate::pool::{Host, PoolHandle, PoolReport};
use crate::proc::ancestors;
use crate::process::GuardProgram;

/// Beyond its grace, the time a pool has to have stopped.
const SLACK: Duration = Duration::from_secs(2);

/// Pools that are run.
pub(super) struct Life {
    pub(super) config: Config,
    pub(super) manager: Manager,
    handles: HashMap<PoolId, PoolHandle>,
}

/// The present one, and those before it.
#[derive(Default)]
pub(super) struct Lives {
    /// What it was begun with. Held while one takes the other's place.
    given: Mutex<Option<Vec<Value>>>,
    present: watch::Sender<Option<Arc<Life>>>,
    /// Whether the orchestrator was reached a moment ago.
    pub(super) link_is_up: Arc<AtomicBool>,
}

impl Lives {
    /// The pools that are run, once they are.
    pub(super) fn present(&self) -> Option<Arc<Life>> {
        self.present.borrow().clone()
    }

    /// Runs these pools and no others from now on. Those that run already go on.
    pub(super) async fn take_on(&self, shared: &Arc<Shared>, pools: Vec<Value>) {
        let mut given = self.given.lock().await;
        if given.as_ref() == Some(&pools) {
            return;
        }
        if given.take().is_some() {
            narrate::other_pools();
            self.end_present().await;
        }
        match self.begin(shared, &pools).await {
            Ok(life) => {
                let life = Arc::new(life);
                self.present.send_replace(Some(Arc::clone(&life)));
                life.manager.preload(&life.handles).await;
                *given = Some(pools);
            }
            Err(error) => {
                narrate::not_taken_on(&format_args!("{error:#}"));
                let failure = Failure::new(PoolFault::NotAllowed, format!("{error:#}")).with_fix(format!(
                    "correct the configuration of worker {} and start its pool-managerd again",
                    shared.id
                ));
                shared.board.set(told(&pools).map(|(id, model)| (id, PoolReport::failed(&model, failure.clone()))));
            }
        }
    }

    async fn begin(&self, shared: &Arc<Shared>, pools: &[Value]) -> anyhow::Result<Life> {
        let config = shared.config.adopt(pools, &ProcessEnvironment)?;
        let report = |pool: &Pool| {
            let on_call = pool.activation == Activation::OnDemand || !pool.is_kept();
            (pool.id.clone(), PoolReport::stopped(&pool.model, on_call))
        };
        shared.board.set(config.pools.iter().map(report));
        Life::begin(shared, config, &self.link_is_up).await
    }

    /// Lets running tasks come to their end, for so long, and stops the engines.
    pub(super) async fn wind_down(&self, grace: Duration) {
        let Some(life) = self.present() else { return };
        let for_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let stop = |handle: &PoolHandle| {
            let handle = handle.clone();
            async move {
                if handle.stop(for_ms).await.is_err() {
                    // It is being reloaded: nothing is worth waiting for.
                    return;
                }
                let mut report = handle.watch();
                let rests = |report: &PoolReport| matches!(report.state, PoolState::Stopped | PoolState::Failed);
                let _ = report.wait_for(rests).await;
            }
        };
        let stop_grace = life.config.pools.iter().map(|pool| pool.supervision.stop_grace()).max().unwrap_or_default();
        let _ = tokio::time::timeout(grace + stop_grace + SLACK, join_all(life.handles.values().map(stop))).await;
    }

    /// Ends the engines that are left.
    pub(super) async fn end(&self) {
        let _given = self.given.lock().await;
        self.end_present().await;
    }

    async fn end_present(&self) {
        let Some(life) = self.present.send_replace(None) else { return };
        join_all(life.handles.values().map(PoolHandle::shut_down)).await;
        life.manager.ended().await;
    }

    /// Carries out a command, once there is something to carry it out on.
    pub(super) async fn carry_out(&self, board: &Board, command: &WorkerCommand) -> Result<(), CommandRefusal> {
        let mut present = self.present.subscribe();
        let waited = tokio::time::timeout(super::LAST_GRACE, present.wait_for(Option::is_some)).await;
        let life = waited.ok().and_then(Result::ok).and_then(|life| life.clone());
        let life = life.ok_or(CommandRefusal::NoSuchPool)?;
        let handle = life.handles.get(&command.pool_id).ok_or(CommandRefusal::NoSuchPool)?;
        let done = match command.order.clone() {
            WorkerOrder::Start => handle.start().await,
            WorkerOrder::Drain { for_ms } => handle.drain(for_ms).await,
            WorkerOrder::Stop { for_ms } => handle.stop(for_ms).await,
            WorkerOrder::Reload { model } => handle.reload(model).await,
            WorkerOrder::LookNow => {
                handle.look_now();
                Ok(())
            }
            WorkerOrder::Unload => handle.unload().await,
            WorkerOrder::MemoryGranted { turn } => {
                board.answer_wish(&command.pool_id, turn, Ok(()));
                Ok(())
            }
            WorkerOrder::MemoryRefused { turn, failure } => {
                let WorkerFailure { fault, message, fix } = failure;
                board.answer_wish(&command.pool_id, turn, Err(Failure { fault, message, fix }));
                Ok(())
            }
        };
        done.map_err(Into::into)
    }
}

impl Life {
    async fn begin(shared: &Arc<Shared>, config: Config, link_is_up: &Arc<AtomicBool>) -> anyhow::Result<Self> {
        // Opening looks at files and at the GPUs.
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || open(&opening)).await;
        let (manager, models) = opened.context("opening the pools panicked; the log says where")??;
        let link_is_up = Arc::clone(link_is_up);
        // What is here already is known before anybody asks for it, so that the orchestrator can predict what loading it takes.
        for pool in config.pools.iter().filter(|pool| pool.activation == Activation::OnDemand) {
            if let Some(model) = models.survey(pool).await {
                shared.board.staged(&pool.id, &model);
            }
        }
        let host: Arc<dyn Host> = Arc::new(WorkerHost::new(
            &config.pools,
            models,
            Arc::clone(&shared.board),
            manager.registry().clone(),
            Arc::new(move || link_is_up.load(Ordering::Relaxed)),
        ));
        let handles = manager.launch(&host).await;
        Ok(Self { config, manager, handles })
    }

    /// The GPUs as they were seen last, with who uses them, and how long ago that was.
    pub(super) fn devices(&self) -> (Vec<DeviceStatus>, Option<Duration>) {
        let reading = self.manager.devices();
        let Ok(found) = reading.as_ref() else { return (Vec::new(), None) };
        let pools_of = |uuid: &str| {
            let uses = |id: &&PoolId| self.manager.mask_of(id).is_some_and(|mask| mask.uses_gpu(uuid));
            self.handles.keys().filter(uses).map(ToString::to_string).collect()
        };
        let engines: Vec<_> =
            self.handles.iter().filter_map(|(id, handle)| Some((id, handle.watch().borrow().pid?))).collect();
        let engine_of = |pid: u32| {
            // Engines have children that compute for them.
            let of = |pid| engines.iter().find(|(_, engine)| *engine == pid).map(|(id, _)| id.to_string());
            ancestors(pid).find_map(of)
        };
        (found.statuses(&pools_of, &engine_of), Some(found.taken.0.elapsed()))
    }

    /// The memory of a pool's devices, with what its engine holds of it.
    pub(super) fn memory(&self, pool: &WorkerPool, devices: &[DeviceStatus]) -> Option<WorkerMemory> {
        let memory = self.manager.memory_of(&pool.pool_id)?;
        let its = |device: &DeviceStatus| {
            let of = |process: &&api_types::DeviceProcess| process.pool_id.as_deref() == Some(pool.pool_id.as_str());
            device.processes.iter().filter(of).filter_map(|process| process.vram_bytes).sum::<i64>()
        };
        let held = pool.pid.map(|_| devices.iter().map(its).sum::<i64>());
        Some(WorkerMemory {
            total_bytes: memory.total_bytes,
            free_bytes: memory.free_bytes,
            held_bytes: held.and_then(|bytes| u64::try_from(bytes).ok()),
            compute_capability: memory.compute_capability,
        })
    }
}

fn open(config: &Config) -> anyhow::Result<(Manager, Models)> {
    let (models, web) = Models::open(config)?;
    let catalog = FsEngineCatalog::open(config.server.data_dir.join("catalog"))
        .context("cannot open the catalog of engines (server.data_dir)")?;
    let setup = Setup::new(config, web, Arc::new(catalog), engine_provisioner::Host::of_process());
    let manager = Manager::open(config, setup, &GuardProgram::own()).context("cannot open the pools")?;
    Ok((manager, models))
}

/// Ids and models of pools as they were told, whatever else is wrong with them.
fn told(pools: &[Value]) -> impl Iterator<Item = (PoolId, String)> {
    let text = |pool: &Value, key: &str| pool.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    pools.iter().map(move |pool| (PoolId::from(text(pool, "id")), text(pool, "model")))
}
