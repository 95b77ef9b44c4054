//! The workshop of this host: NVIDIA's devices, engines that `engine-provisioner` prepares, processes and containers.

mod alarm;
pub(crate) mod container;
mod examine;
mod fit;
mod native;
mod port;

use std::ffi::OsString;
use std::fs::{DirBuilder, Permissions};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use api_types::{DeterminismLevel, EnginePlan, PoolFault, PoolId};
use async_trait::async_trait;
use config_schema::{EngineUrl, Pool};
use container_runtime::Mount;
use engine_provisioner::{
    Distro, EngineArtifact, EngineError, EngineProgress, EngineProvisioner, Gpu, Gpus, Launch, Listen, PreparedEngine,
    Setup, StepKind, Tool, command_line, provider_for, serves_sockets,
};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::devices::{DeviceMask, Devices, MaskError, NoDevices, Reading};
use crate::failure::Failure;
use crate::logs::EngineLog;
use crate::pool::{Activity, EngineIdentity, StagedModel, Started, Workshop};
use crate::process::GuardProgram;
pub(crate) use examine::{Presence, examine};
pub(crate) use fit::lacking;
use fit::mib;
pub use fit::need_of;

/// Longest path of a Unix socket. Source: unix(7), `sun_path`.
const SOCKET_PATH_MAX: usize = 107;
/// Names the state of simulated GPUs, for engines that are simulated too.
const SIMULATION: &str = "FAKE_NVML";

/// What a pool's engine is made of, on this host.
pub struct HostWorkshop {
    pool: Pool,
    setup: Setup,
    devices: watch::Receiver<Reading>,
    guard: GuardProgram,
    run_dir: PathBuf,
    instance: String,
    parks_kv: bool,
    log: EngineLog,
    /// What the last look at the devices found, and the engine that was prepared for them.
    mask: Mutex<Option<DeviceMask>>,
    prepared: Mutex<Option<PreparedEngine>>,
}

/// What a [`HostWorkshop`] works with, beside its pool.
#[derive(Clone)]
pub struct Tools {
    /// Prepares engines.
    pub setup: Setup,
    /// What is known of the GPUs.
    pub devices: watch::Receiver<Reading>,
    /// Guards processes.
    pub guard: GuardProgram,
    /// Where run files go.
    pub run_dir: PathBuf,
    /// Under which containers of this data directory are found again.
    pub instance: String,
    /// Whether engines that are unloaded put away what they hold of sessions.
    pub parks_kv: bool,
}

impl HostWorkshop {
    /// The workshop of a pool, whose engine's output goes to `log`.
    #[must_use]
    pub fn new(pool: Pool, tools: Tools, log: EngineLog) -> Self {
        let Tools { setup, devices, guard, run_dir, instance, parks_kv } = tools;
        let parks_kv = parks_kv && pool.parks_kv();
        let (mask, prepared) = (Mutex::default(), Mutex::default());
        Self { pool, setup, devices, guard, run_dir, instance, parks_kv, log, mask, prepared }
    }

    /// The devices that the pool was last found to have.
    #[must_use]
    pub fn mask(&self) -> Option<DeviceMask> {
        self.mask.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The engine that was prepared last.
    #[must_use]
    pub fn prepared(&self) -> Option<PreparedEngine> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn provider(&self) -> Result<Box<dyn EngineProvisioner>, Failure> {
        provider(&self.pool, &self.setup, &self.devices.borrow().clone())
    }

    fn resolve(&self) -> Result<DeviceMask, Failure> {
        resolve(&self.pool, &self.devices.borrow().clone())
    }

    fn gpus(&self, mask: &DeviceMask) -> Result<Gpus, Failure> {
        gpus(mask, &self.devices.borrow().clone())
    }

    fn simulation_mounts(&self) -> Option<Vec<Mount>> {
        simulation_mounts(&self.pool, &self.devices.borrow().clone())
    }

    /// A Unix socket where the engine can and no port is asked for: it costs less, and no other user can reach it. Else a port.
    fn place_to_listen(&self, prepared: &PreparedEngine) -> Result<Listen, Failure> {
        let ports = &self.pool.provisioning.ports;
        let socket = std::path::absolute(self.run_dir.join(format!("{}.sock", self.pool.id))).ok();
        let socket = socket.filter(|path| ports.is_empty() && path.as_os_str().len() <= SOCKET_PATH_MAX);
        match socket.filter(|_| serves_sockets(prepared)) {
            Some(path) => {
                // What an earlier engine has left there would keep this one from listening.
                let _absent = std::fs::remove_file(&path);
                Ok(Listen::Socket(path))
            }
            None => Ok(Listen::Tcp((Ipv4Addr::LOCALHOST, port::choose(ports)?).into())),
        }
    }

    /// The folder of the engine's saved slots. Without one that can be used the engine starts all the same.
    fn slot_files(&self) -> Option<PathBuf> {
        let folder = kv_folder(&self.run_dir, &self.pool.id);
        let made = self.parks_kv.then(|| {
            let folder = std::path::absolute(folder)?;
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            std::fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
            Ok::<_, std::io::Error>(folder)
        })?;
        made.inspect_err(|error| self.log.note(&format!("sessions cannot be kept while it is unloaded: {error}"))).ok()
    }

    /// `slot_files` is the folder of its saved slots, as the engine sees it.
    fn launch(
        &self,
        model: &StagedModel,
        mask: &DeviceMask,
        listen: Listen,
        served_from: String,
        slot_files: Option<String>,
    ) -> Launch {
        Launch {
            model: served_from,
            served_name: model.reference.clone(),
            listen,
            grpc_port: None,
            metrics_port: None,
            ctx: self.pool.ctx,
            slots: self.pool.slots,
            gpus: NonZeroUsize::new(mask.devices().len()).unwrap_or(NonZeroUsize::MIN),
            tensor_split: self.pool.tensor_split.clone(),
            strict: self.pool.determinism() == DeterminismLevel::Strict,
            slot_files,
        }
    }
}

#[async_trait]
impl Workshop for HostWorkshop {
    async fn check_devices(&self) -> Result<(), Failure> {
        let mask = self.resolve()?;
        *self.mask.lock().unwrap_or_else(PoisonError::into_inner) = Some(mask);
        Ok(())
    }

    fn check_fit(&self, model: &StagedModel, when_empty: bool) -> Result<(), Failure> {
        let Some(mask) = self.mask() else { return Ok(()) };
        let reading = self.devices.borrow().clone();
        let Ok(found) = reading.as_ref() else { return Ok(()) };
        found.check_fit(&mask, &self.pool, model, when_empty)
    }

    async fn prepare(&self, activity: &Activity, cancel: &CancellationToken) -> Result<EngineIdentity, Failure> {
        let mask = match self.mask() {
            Some(mask) => mask,
            None => self.resolve()?,
        };
        let gpus = self.gpus(&mask)?;
        let progress: Arc<dyn EngineProgress> =
            Arc::new(Told { activity: activity.clone(), log: self.log.clone(), step: Mutex::default() });
        let prepared = self.provider()?.ensure(&gpus, &progress, cancel).await.map_err(|error| unprepared(&error))?;
        let identity = EngineIdentity {
            version: prepared.engine_version.clone(),
            digest: prepared.engine_digest.as_ref().map(ToString::to_string),
            catalog_id: prepared.engine_catalog_id.clone(),
        };
        *self.prepared.lock().unwrap_or_else(PoisonError::into_inner) = Some(prepared);
        Ok(identity)
    }

    async fn start(&self, model: &StagedModel) -> Result<Started, Failure> {
        let not_ready = |what: &str| Failure::new(PoolFault::SpawnFailed, format!("the {what} is not prepared"));
        let mask = self.mask().ok_or_else(|| not_ready("set of devices"))?;
        let prepared = self.prepared().ok_or_else(|| not_ready("engine"))?;
        let (engine, endpoint) = match &prepared.artifact {
            EngineArtifact::Program(program) => {
                let listen = self.place_to_listen(&prepared)?;
                let endpoint = match &listen {
                    Listen::Tcp(address) => format!("http://{address}"),
                    Listen::Socket(path) => format!("unix:{}", path.display()),
                };
                let environment = environment(&self.pool, &prepared);
                let slot_files = self.slot_files().map(|folder| folder.display().to_string());
                let served_from = model.path.display().to_string();
                let launch = self.launch(model, &mask, listen.clone(), served_from, slot_files);
                let arguments = command_line(&prepared, &launch)
                    .map_err(|error| Failure::new(PoolFault::Unsupported, error.to_string()))?;
                (native::start(self, program, arguments, environment, &prepared, listen).await?, endpoint)
            }
            EngineArtifact::Image(image) => {
                let (engine, port) = container::start(self, &prepared, image, model, &mask).await?;
                (engine, format!("http://127.0.0.1:{port}"))
            }
        };
        let endpoint: EngineUrl = endpoint
            .parse()
            .map_err(|error| Failure::new(PoolFault::SpawnFailed, format!("the engine's address is none: {error}")))?;
        Ok(Started { engine, endpoint })
    }
}

/// The folder in `run_dir` of a pool's saved slots.
#[must_use]
pub fn kv_folder(run_dir: &Path, pool: &PoolId) -> PathBuf {
    run_dir.join("kv").join(pool.as_str())
}

pub(crate) fn resolve(pool: &Pool, reading: &Reading) -> Result<DeviceMask, Failure> {
    let found = reading.as_ref().as_ref().map_err(no_devices)?;
    DeviceMask::resolve(&pool.devices, found).map_err(|error| bad_mask(&error))
}

fn gpus(mask: &DeviceMask, reading: &Reading) -> Result<Gpus, Failure> {
    let number = |part: i32| u32::try_from(part).unwrap_or(0);
    let gpus = mask.devices().iter().map(|device| Gpu {
        index: device.index,
        uuid: device.uuid.clone(),
        compute_capability: (number(device.compute_capability.0), number(device.compute_capability.1)),
    });
    let driver_cuda = reading.as_ref().as_ref().ok().and_then(|found| found.cuda);
    let driver_cuda = driver_cuda.map(|(major, minor)| (number(major), number(minor)));
    Gpus::new(gpus.collect(), driver_cuda).map_err(|error| Failure::new(PoolFault::NoDevice, error.to_string()))
}

/// What a container must see of GPUs that are simulated; `None` where they are real.
fn simulation_mounts(pool: &Pool, reading: &Reading) -> Option<Vec<Mount>> {
    let is_simulated = reading.as_ref().as_ref().is_ok_and(Devices::is_simulated);
    let state = pool.provisioning.env.get(SIMULATION).map(PathBuf::from);
    is_simulated.then(|| {
        let folder = state.and_then(|file| Some(file.parent()?.to_owned()));
        folder.into_iter().map(|folder| Mount::read_write(folder.clone(), folder)).collect()
    })
}

/// What preparing the pool's engine takes. Nothing is looked at for it.
pub(crate) fn plan(pool: &Pool, setup: &Setup) -> Result<EnginePlan, Failure> {
    provider_for(pool, setup).map(|provider| provider.plan()).map_err(|error| unprepared(&error))
}

/// How the pool's engine is prepared.
fn provider(pool: &Pool, setup: &Setup, reading: &Reading) -> Result<Box<dyn EngineProvisioner>, Failure> {
    let setup = Setup { simulated_gpus: simulation_mounts(pool, reading), ..setup.clone() };
    provider_for(pool, &setup).map_err(|error| unprepared(&error))
}

/// What an engine's process gets beside what it inherits; which devices it sees is among it.
fn environment(pool: &Pool, prepared: &PreparedEngine) -> Vec<(OsString, OsString)> {
    let own = prepared.env.iter().map(|(name, value)| (name.into(), value.into()));
    passed_on(pool).map(|(name, value)| (name.into(), value.into())).chain(own).collect()
}

/// Variables of our own environment that the pool's engine is to have.
fn passed_on(pool: &Pool) -> impl Iterator<Item = (&String, String)> {
    pool.provisioning.env_from.iter().filter_map(|name| Some((name, std::env::var(name).ok()?)))
}

/// There are no GPUs.
#[must_use]
pub fn no_devices(error: &NoDevices) -> Failure {
    let fault = match error {
        NoDevices::None => PoolFault::NoDevice,
        _ => PoolFault::NoDriver,
    };
    // The message says what happened before the semicolon and what to do after it.
    let text = error.to_string();
    match text.split_once("; ") {
        Some((what, _)) if matches!(error, NoDevices::NoLibrary { .. }) => {
            let install = Tool::Driver.fix(&Distro::of_host());
            Failure::new(fault, format!("no NVIDIA GPU can be used: {what}"))
                .with_fix(format!("{install}; in a container, give it the driver's library"))
        }
        Some((what, fix)) => Failure::new(fault, format!("no NVIDIA GPU can be used: {what}")).with_fix(fix),
        None => Failure::new(fault, text),
    }
}

fn bad_mask(error: &MaskError) -> Failure {
    let fault = match error {
        MaskError::Failed { .. } => PoolFault::DeviceError,
        _ => PoolFault::NoDevice,
    };
    Failure::new(fault, error.to_string())
        .with_fix("correct the pool's `devices`; `llama-orch devices` lists what is there")
}

fn unprepared(error: &EngineError) -> Failure {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = error.to_string();
        // An error that stands for its cause has said it already.
        if !message.contains(&text) {
            message.push_str(&format!(": {text}"));
        }
        cause = error.source();
    }
    match error.fix() {
        Some(fix) => {
            let what = message.strip_suffix(&fix).map_or(&*message, |what| what.trim_end_matches([':', ';', ' ']));
            Failure::new(error.fault(), what).with_fix(fix)
        }
        None => Failure::new(error.fault(), message),
    }
}

/// Tells the pool what is being prepared, and its log what is said meanwhile.
struct Told {
    activity: Activity,
    log: EngineLog,
    step: Mutex<String>,
}

impl EngineProgress for Told {
    fn step(&self, kind: StepKind, detail: &str) {
        let step = format!("{kind} {detail}");
        self.log.note(&step);
        self.activity.set(step.clone(), None);
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    fn share(&self, share: f64) {
        let step = self.step.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.activity.set(step, Some(share));
    }

    fn output(&self, line: &str) {
        self.log.note(line);
    }

    fn waiting(&self) {
        self.activity.set("waiting for another process that prepares the same engine", None);
    }
}
