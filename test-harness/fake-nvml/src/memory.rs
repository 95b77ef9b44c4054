//! How much of a device is free.

use crate::claims::Held;
use crate::{Gpu, Process, State};

/// Memory of a GPU or MIG instance, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    pub(crate) free: u64,
}

impl Memory {
    /// That of the device with this id; `None` when it is not there or does not answer.
    pub(crate) fn of(state: &State, uuid: &str, held: &[Held]) -> Option<Self> {
        let answering = || state.devices.iter().filter(|gpu| !gpu.failed);
        if let Some(gpu) = answering().find(|gpu| gpu.uuid == uuid) {
            return Some(Self::of_gpu(gpu, held));
        }
        let mig = answering().flat_map(|gpu| gpu.mig.iter().flatten()).find(|mig| mig.uuid == uuid)?;
        Some(Self::new(mig.total_bytes, mig.used_bytes + claimed(held, uuid)))
    }

    fn of_gpu(gpu: &Gpu, held: &[Held]) -> Self {
        let foreign: u64 = gpu.processes.iter().filter_map(|process| process.bytes).sum();
        let parts = gpu.mig.iter().flatten().map(|mig| mig.used_bytes + claimed(held, &mig.uuid)).sum::<u64>();
        Self::new(gpu.total_bytes, gpu.used_bytes + foreign + claimed(held, &gpu.uuid) + parts)
    }

    const fn new(total: u64, used: u64) -> Self {
        Self { total, free: total.saturating_sub(used) }
    }
}

fn claimed(held: &[Held], uuid: &str) -> u64 {
    held.iter().filter_map(|claim| claim.bytes.get(uuid)).sum()
}

/// The processes that compute on a device or its instances, each once.
pub(crate) fn processes(gpu: &Gpu, uuid: &str, held: &[Held]) -> Vec<Process> {
    let mut processes = if gpu.uuid == uuid { gpu.processes.clone() } else { Vec::new() };
    let part = |id: &str| gpu.uuid == uuid && gpu.mig.iter().flatten().any(|mig| mig.uuid == id);
    // The list is that of living processes, also while the memory of dead ones is still coming back.
    for claim in held.iter().filter(|claim| claim.lives()) {
        let of_device = claim.bytes.iter().filter(|(id, _)| id.as_str() == uuid || part(id));
        let Some(bytes) = of_device.map(|(_, bytes)| *bytes).reduce(|a, b| a + b) else { continue };
        match processes.iter_mut().find(|process| process.pid == claim.pid) {
            Some(known) => known.bytes = Some(known.bytes.unwrap_or(0) + bytes),
            None => processes.push(Process { pid: claim.pid, bytes: Some(bytes) }),
        }
    }
    processes
}
