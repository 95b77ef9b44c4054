//! Engines as processes of this host.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use api_types::PoolFault;
use async_trait::async_trait;
use engine_provisioner::{Listen, PreparedEngine};
use tokio::sync::watch;

use super::HostWorkshop;
use super::alarm::LostAlarm;
use crate::devices::Reading;
use crate::diagnose::{Facts, Phase, diagnose};
use crate::failure::Failure;
use crate::logs::EngineLog;
use crate::pool::{Engine, Sign};
use crate::process::{EngineProcess, OomCounters, ProcessSpec, spawn};

/// Starts an engine's program.
pub(super) async fn start(
    workshop: &HostWorkshop,
    program: &Path,
    arguments: Vec<String>,
    environment: Vec<(OsString, OsString)>,
    prepared: &PreparedEngine,
    listen: Listen,
) -> Result<Box<dyn Engine>, Failure> {
    let log = workshop.log.clone();
    let (port, socket) = match listen {
        Listen::Tcp(address) => (Some(address.port()), None),
        Listen::Socket(path) => (None, Some(SocketFile(path))),
    };
    log.note(&format!("starts {} {}", program.display(), arguments.join(" ")));
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let spec = ProcessSpec {
        pool_id: workshop.pool.id.to_string(),
        program: program.to_owned(),
        arguments: arguments.into_iter().map(OsString::from).collect(),
        environment,
        work_dir: Some(prepared.workdir.clone()),
        port,
        log: log.clone(),
        run_dir: workshop.run_dir.clone(),
        grace: workshop.pool.supervision.stop_grace(),
        oom: OomCounters::default(),
    };
    let process =
        spawn(&workshop.guard, spec).await.map_err(|error| Failure::of_error(PoolFault::SpawnFailed, &error))?;
    let facts = Facts { engine: name, port };
    let alarm = LostAlarm::new(&log);
    Ok(Box::new(NativeEngine { process, log, facts, alarm, devices: workshop.devices.clone(), _socket: socket }))
}

/// A running process.
struct NativeEngine {
    process: EngineProcess,
    log: EngineLog,
    facts: Facts,
    alarm: LostAlarm,
    devices: watch::Receiver<Reading>,
    _socket: Option<SocketFile>,
}

/// The socket of an engine, which does not remove it itself. It goes when this is dropped.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _absent = std::fs::remove_file(&self.0);
    }
}

#[async_trait]
impl Engine for NativeEngine {
    fn pid(&self) -> Option<u32> {
        u32::try_from(self.process.pid()).ok()
    }

    fn terminate(&mut self) {
        self.process.terminate();
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn progress(&self) -> u64 {
        let pid = self.pid();
        let reading = self.devices.borrow().clone();
        let held = reading.as_ref().as_ref().map_or(0, |found| {
            let processes = found.devices.iter().flat_map(|device| &device.processes);
            processes.filter(|process| Some(process.pid) == pid).filter_map(|process| process.vram_bytes).sum()
        });
        self.log.activity().lines.wrapping_add(held)
    }

    async fn sign(&mut self, loading: bool) -> Sign {
        let phase = if loading { Phase::Loading } else { Phase::Serving };
        tokio::select! {
            biased;
            ended = self.process.exited() => {
                Sign::Ended(diagnose(phase, &ended, &self.log.tail(), &self.facts))
            }
            diagnosis = self.alarm.lost() => Sign::Lost(diagnosis),
        }
    }
}
