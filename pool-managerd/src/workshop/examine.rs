//! What would keep an engine from starting, found out without starting anything: for whoever asks before a start.

use api_types::{DoctorCheck, PoolId};
use config_schema::Pool;
use engine_provisioner::Setup;

use super::{gpus, mib, port, provider, resolve};
use crate::devices::{DeviceMask, MaskedDevice, Reading};
use crate::doctor::{failed, passed};

/// Whether the pool's engine runs just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It runs: what it holds, such as its port, is its own.
    Up,
    /// It does not.
    Down,
}

/// Everything that would keep the engine of a managed pool from starting, in the order in which a start would meet it.
pub(crate) async fn examine(pool: &Pool, setup: &Setup, reading: &Reading, presence: Presence) -> Vec<DoctorCheck> {
    let id: Option<&PoolId> = Some(&pool.id);
    let resolved = resolve(pool, reading);
    let mut checks = vec![match &resolved {
        Ok(mask) => passed("devices", id, described(mask)),
        Err(failure) => failed("devices", id, failure),
    }];
    let gpus = resolved.ok().and_then(|mask| gpus(&mask, reading).ok());
    match provider(pool, setup, reading) {
        Ok(provider) => checks.extend(provider.preflight(gpus.as_ref()).await),
        Err(failure) => checks.push(failed("engine", id, &failure)),
    }
    if presence == Presence::Down
        && let Err(failure) = port::choose(&pool.provisioning.ports)
    {
        checks.push(failed("port", id, &failure));
    }
    checks
}

fn described(mask: &DeviceMask) -> String {
    let one =
        |device: &MaskedDevice| format!("GPU {} {}, {} free", device.index, device.name, mib(device.vram_free_bytes));
    mask.devices().iter().map(one).collect::<Vec<_>>().join("; ")
}
