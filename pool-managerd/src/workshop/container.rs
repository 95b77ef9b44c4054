//! Engines as containers.
//!
//! A container outlives a daemon that is killed. One that is the same as what would be started is adopted: its model is loaded
//! already. Any other one of the pool is removed before a new one starts.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api_types::{Engine as EngineKind, PoolFault, PoolId};
use async_trait::async_trait;
use config_schema::{ContainerNetwork, ContainerRuntime};
use container_runtime::{
    ContainerError, ContainerHandle, ContainerSpec, GpuAccess, GpuDevice, LogOptions, LogSource, Mount, Network,
    PortMap, Preference, PulledImage, RunError, Runtime, detect,
};
use engine_provisioner::{ImageRef, Listen, PreparedEngine, command_line};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use super::alarm::LostAlarm;
use super::{HostWorkshop, port};
use crate::devices::DeviceMask;
use crate::diagnose::{Facts, Phase, diagnose};
use crate::failure::Failure;
use crate::logs::{EngineLog, Source};
use crate::pool::{Engine, Sign, StagedModel};
use crate::process::{Ended, Exit};

/// Where the folder of saved slots is in the container.
const SLOT_FILES: &str = "/kv";
/// Where the model's folder is in the container.
const MODELS: &str = "/models";
/// Shared memory of engines that run on several GPUs, and of those that pass tensors between processes.
const SHM_BYTES: u64 = 8 << 30;
/// The label under which a container's port is found again.
const PORT: &str = "port";
/// Lines that are read back of a container that was adopted.
const OLD_LINES: u32 = 200;

/// Starts, or adopts, the container of an engine. Where it listens comes with it.
pub(super) async fn start(
    workshop: &HostWorkshop,
    prepared: &PreparedEngine,
    image: &ImageRef,
    model: &StagedModel,
    mask: &DeviceMask,
) -> Result<(Box<dyn Engine>, u16), Failure> {
    let runtime = runtime(workshop.setup.container_runtime).await?;
    let image = present(&runtime, image).await?;
    let plan = Plan { workshop, prepared, image, model, mask };
    if let Some((handle, port)) = adopt(&runtime, &plan).await? {
        workshop.log.note(&format!("adopts the container {}, which an earlier life has started", handle.name()));
        return Ok((Box::new(ContainerEngine::new(workshop, handle, prepared, port, Some(OLD_LINES)).await), port));
    }
    let port = port::choose(&workshop.pool.provisioning.ports)?;
    let spec = plan.spec(port)?;
    workshop.log.begin(&format!("starts the container {} {}", spec.name(), spec.command.join(" ")));
    let handle = runtime.run(&spec).await.map_err(|error| not_started(&error))?;
    Ok((Box::new(ContainerEngine::new(workshop, handle, prepared, port, None).await), port))
}

/// Removes the containers of pools that are not there any more. Without a runtime there are none.
pub(crate) async fn remove_others(preference: ContainerRuntime, instance: &str, pools: &[&str]) {
    let Ok(runtime) = runtime(preference).await else { return };
    let found = runtime.find(instance).await.unwrap_or_default();
    for handle in found.into_iter().filter(|handle| handle.pool().is_none_or(|pool| !pools.contains(&pool))) {
        if let Err(error) = handle.remove().await {
            tracing::warn!(container = handle.name(), %error, "a container of a pool that is gone could not be removed");
        }
    }
}

/// The pools whose containers of an earlier life still run.
pub(crate) async fn running(preference: ContainerRuntime, instance: &str) -> Vec<PoolId> {
    let Ok(runtime) = runtime(preference).await else { return Vec::new() };
    let mut running = Vec::new();
    for handle in runtime.find(instance).await.unwrap_or_default() {
        if handle.inspect().await.is_ok_and(|state| state.running) {
            running.extend(handle.pool().map(PoolId::from));
        }
    }
    running
}

/// The id under which the containers of a data directory are found again.
pub(crate) fn instance_of(data_dir: &Path) -> String {
    let path = std::fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

async fn runtime(preference: ContainerRuntime) -> Result<Runtime, Failure> {
    let preference = match preference {
        ContainerRuntime::Auto => Preference::Auto,
        ContainerRuntime::Podman => Preference::Only(container_runtime::Backend::Podman),
        ContainerRuntime::Docker => Preference::Only(container_runtime::Backend::Docker),
    };
    detect(preference).await.map_err(|error| Failure::of_error(PoolFault::MissingTool, &error))
}

async fn present(runtime: &Runtime, image: &ImageRef) -> Result<PulledImage, Failure> {
    let unusable = |error: &dyn std::error::Error| Failure::of_error(PoolFault::ContainerFailed, error);
    let digest = image.digest.to_string().parse().map_err(|error| unusable(&error))?;
    let wanted =
        container_runtime::ImageRef { image: image.image.clone(), tag: image.tag.clone(), digest: Some(digest) };
    let found = runtime.present(&wanted).await.map_err(|error| unusable(&error))?;
    found.ok_or_else(|| {
        Failure::new(PoolFault::ContainerFailed, format!("the image {} was removed since it was prepared", image.image))
            .with_fix("start the pool again, which pulls it")
    })
}

/// What a container is started from.
struct Plan<'a> {
    workshop: &'a HostWorkshop,
    prepared: &'a PreparedEngine,
    image: PulledImage,
    model: &'a StagedModel,
    mask: &'a DeviceMask,
}

impl Plan<'_> {
    fn spec(&self, port: u16) -> Result<ContainerSpec, Failure> {
        let (workshop, pool) = (self.workshop, &self.workshop.pool);
        let container = pool.provisioning.container.as_ref();
        let network = container.map(|container| container.network).unwrap_or_default();
        let (network, listens) = match network {
            // In a network of its own it must listen on all of its addresses to be reached from outside at all.
            ContainerNetwork::Loopback => {
                (Network::Loopback(vec![PortMap { host: port, container: port }]), Ipv4Addr::UNSPECIFIED)
            }
            ContainerNetwork::Host => (Network::Host, Ipv4Addr::LOCALHOST),
        };
        let (mount, inside) = mounted(&self.model.path)?;
        let slot_files = workshop.slot_files();
        let slot_files_inside = slot_files.as_ref().map(|_| SLOT_FILES.to_owned());
        let listens = Listen::Tcp((listens, port).into());
        let launch = workshop.launch(self.model, self.mask, listens, inside, slot_files_inside);
        let command = command_line(self.prepared, &launch)
            .map_err(|error| Failure::new(PoolFault::Unsupported, error.to_string()))?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let generation = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let mut spec = ContainerSpec::new(
            pool.id.as_str(),
            generation,
            &workshop.instance,
            self.image.clone(),
            self.gpus()?,
            network,
        );
        spec.command = command;
        let passed = super::passed_on(pool).map(|(name, value)| (name.clone(), value.into()));
        let own = self.prepared.env.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
        spec.env = passed.chain(own).collect();
        spec.mounts = vec![mount];
        spec.mounts.extend(slot_files.map(|folder| Mount::read_write(folder, SLOT_FILES)));
        spec.shm_bytes = (pool.engine != EngineKind::Llamacpp).then_some(SHM_BYTES);
        spec.stop_grace = pool.supervision.stop_grace();
        spec.labels = BTreeMap::from([(PORT.to_owned(), port.to_string())]);
        Ok(spec)
    }

    fn gpus(&self) -> Result<GpuAccess, Failure> {
        if let Some(mounts) = self.workshop.simulation_mounts() {
            return Ok(GpuAccess::simulated_devices(mounts));
        }
        let devices = self.mask.devices().iter().map(|device| GpuDevice {
            uuid: device.uuid.clone(),
            index: (device.uuid == device.gpu_uuid).then_some(device.index),
        });
        GpuAccess::devices(devices).ok_or_else(|| Failure::new(PoolFault::NoDevice, "the pool has no GPU"))
    }
}

/// The container of the pool that is what would be started, and its port. Others of the pool are removed.
async fn adopt(runtime: &Runtime, plan: &Plan<'_>) -> Result<Option<(ContainerHandle, u16)>, Failure> {
    let pool = plan.workshop.pool.id.as_str();
    let found = runtime.find(&plan.workshop.instance).await.map_err(|error| unwell(&error))?;
    let mut adopted = None;
    for handle in found.into_iter().filter(|handle| handle.pool() == Some(pool)) {
        let port = handle.label(PORT).and_then(|port| port.parse::<u16>().ok());
        let is_same = match port {
            Some(port) => Some(plan.spec(port)?.digest()).as_deref() == handle.spec_digest(),
            None => false,
        };
        let runs = handle.inspect().await.is_ok_and(|state| state.running);
        match port.filter(|_| is_same && runs && adopted.is_none()) {
            Some(port) => {
                let values = plan.prepared.env.values().cloned();
                adopted = Some((handle.masking(values), port));
            }
            None => handle.remove().await.map_err(|error| unwell(&error))?,
        }
    }
    Ok(adopted)
}

/// The folder that the model lies in, and the model as the container sees it.
fn mounted(model: &Path) -> Result<(Mount, String), Failure> {
    let no_folder = || Failure::new(PoolFault::ModelUnavailable, format!("{} lies in no folder", model.display()));
    let whole = std::fs::canonicalize(model).map_err(|error| {
        Failure::new(PoolFault::ModelUnavailable, format!("{} cannot be read: {error}", model.display()))
    })?;
    // A file's neighbours may be its further parts.
    let folder = if whole.is_dir() { whole.clone() } else { whole.parent().ok_or_else(no_folder)?.to_owned() };
    let inside = whole.strip_prefix(&folder).ok().filter(|rest| !rest.as_os_str().is_empty());
    let inside = inside.map_or_else(|| PathBuf::from(MODELS), |rest| Path::new(MODELS).join(rest));
    Ok((Mount::read_only(folder, MODELS), inside.display().to_string()))
}

/// A container that runs, or did.
struct ContainerEngine {
    handle: ContainerHandle,
    grace: Duration,
    log: EngineLog,
    facts: Facts,
    alarm: LostAlarm,
    /// Reads its log, and carries out what it is told; ends with it.
    work: JoinSet<()>,
    /// Its first process by this host's count, where that can be seen.
    pid: Option<u32>,
    over: bool,
}

impl ContainerEngine {
    async fn new(
        workshop: &HostWorkshop,
        handle: ContainerHandle,
        prepared: &PreparedEngine,
        port: u16,
        tail: Option<u32>,
    ) -> Self {
        let log = workshop.log.clone();
        let mut work = JoinSet::new();
        work.spawn(read_log(handle.clone(), log.clone(), tail));
        // One that has ended already says so when it is waited for.
        let pid = handle.inspect().await.ok().and_then(|state| state.pid);
        let name = prepared.engine.to_string();
        let alarm = LostAlarm::new(&log);
        let facts = Facts { engine: format!("the container of {name}"), port: Some(port) };
        let grace = workshop.pool.supervision.stop_grace();
        Self { handle, grace, log, facts, alarm, work, pid, over: false }
    }
}

async fn read_log(handle: ContainerHandle, log: EngineLog, tail: Option<u32>) {
    let options = LogOptions { follow: true, tail, ..LogOptions::default() };
    let Ok(mut lines) = handle.logs(options) else { return };
    while let Some(line) = lines.next().await {
        let source = match line.source {
            LogSource::Stdout => Source::Stdout,
            LogSource::Stderr => Source::Stderr,
        };
        log.line(source, &line.text);
    }
}

impl Drop for ContainerEngine {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        // Where no runtime is left to do it, the container stays, and the next life adopts or removes it.
        let handle = self.handle.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { handle.remove().await });
        }
    }
}

#[async_trait]
impl Engine for ContainerEngine {
    fn pid(&self) -> Option<u32> {
        self.pid
    }

    fn terminate(&mut self) {
        let (handle, grace) = (self.handle.clone(), self.grace);
        // What comes of it shows in the container's end.
        self.work.spawn(async move { drop(handle.stop(grace).await) });
    }

    fn kill(&mut self) {
        let handle = self.handle.clone();
        self.work.spawn(async move { drop(handle.stop(Duration::ZERO).await) });
    }

    fn progress(&self) -> u64 {
        self.log.activity().lines
    }

    async fn sign(&mut self, loading: bool) -> Sign {
        let phase = if loading { Phase::Loading } else { Phase::Serving };
        let state = tokio::select! {
            biased;
            state = self.handle.wait() => state,
            diagnosis = self.alarm.lost() => return Sign::Lost(diagnosis),
        };
        self.over = true;
        let failure = match state {
            Ok(state) => {
                let exit = state.exit_code.map_or(Exit::Lost, Exit::Code);
                let ended = Ended { exit, oom_killed: state.perhaps_out_of_memory(), complete: true };
                diagnose(phase, &ended, &self.log.tail(), &self.facts)
            }
            Err(error) => unwell(&error),
        };
        // Its name and its memory are wanted again.
        if let Err(error) = self.handle.remove().await {
            self.log.note(&format!("the container could not be removed: {error}"));
        }
        Sign::Ended(failure)
    }
}

fn not_started(error: &RunError) -> Failure {
    let fault = match error {
        RunError::PortTaken { .. } => PoolFault::PortTaken,
        RunError::NoSpace { .. } => PoolFault::DiskFull,
        RunError::NoGpuSupport(_) => PoolFault::NoCuda,
        _ => PoolFault::ContainerFailed,
    };
    Failure::of_error(fault, error)
}

fn unwell(error: &ContainerError) -> Failure {
    Failure::of_error(PoolFault::ContainerFailed, error)
}
