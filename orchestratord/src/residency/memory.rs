//! From what was read of devices to the ledger, and from models to what they need of each device.

use std::collections::HashMap;
use std::sync::Arc;

use api_types::PoolState;
use config_schema::Pool as PoolConfig;
use orchestrator_core::residency::Part;
use pool_managerd::devices::{DeviceMask, Devices, Reading};

use super::learned::{Learned, Load, Loads};
use super::state::State;
use crate::app::App;
use crate::pools::Pool;
use crate::workers::ReadDevices;

/// What tenants hold, by device.
type HeldBy = HashMap<String, Vec<(usize, u64)>>;

/// The devices of the host that runs a pool.
pub(super) enum Seen {
    Here(Reading),
    Elsewhere(Arc<ReadDevices>),
}

impl Seen {
    /// As they were seen last; `None` while a host is not heard from.
    pub(super) fn of(app: &App, pool: &Pool) -> Option<Self> {
        match &pool.config.worker {
            None => Some(Self::Here(app.manager.readings().borrow().clone())),
            Some(_) => app.workers.devices_of(&pool.id).map(Self::Elsewhere),
        }
    }

    /// Those that a pool is to use, among all of them; `None` where they are not there.
    pub(super) fn masked(&self, config: &PoolConfig) -> Option<(&Devices, DeviceMask)> {
        let found = match self {
            Self::Here(reading) => reading.as_ref().as_ref().ok()?,
            Self::Elsewhere(read) => &read.devices,
        };
        Some((found, DeviceMask::resolve(&config.devices, found).ok()?))
    }
}

/// What is allowed for a model of which nothing is known but its size, in percent.
const UNKNOWN_PERCENT: u64 = 120;
/// What is allowed on top of what an earlier load was measured to take, in bytes: readings are of one moment.
const MEASURED_MARGIN: u64 = 16 << 20;

impl State {
    /// Takes in the last readings.
    pub(super) fn read_devices(&mut self, app: &App) {
        let reading = app.manager.readings().borrow().clone();
        match reading.as_ref() {
            Ok(found) if self.is_news(None, found) => {
                let held = self.held(found);
                self.read_host(app, None, found, held);
            }
            Ok(_) => {}
            Err(_) => self.lose_host(app, None),
        }
        for (worker, read) in app.workers.devices() {
            match read {
                Some(read) if self.is_news(Some(worker.as_str()), &read.devices) => {
                    let held = self.held_elsewhere(&read);
                    self.read_host(app, Some(worker.as_str()), &read.devices, held);
                }
                Some(_) => {}
                None => self.lose_host(app, Some(worker.as_str())),
            }
        }
    }

    /// Whether a host's devices were looked at since they were taken in last: finding out whose processes they are has its price.
    fn is_news(&mut self, host: Option<&str>, found: &Devices) -> bool {
        let taken = found.taken.0;
        self.taken.insert(host.map(ToOwned::to_owned), taken) != Some(taken)
    }

    /// Nothing can be read of the devices of a host.
    fn lose_host(&mut self, app: &App, host: Option<&str>) {
        self.taken.remove(&host.map(ToOwned::to_owned));
        for (_, device) in self.devices.iter().filter(|((of, _), _)| of.as_deref() == host) {
            self.ledger.read(*device, None, &[], app.clock.now_ms());
        }
    }

    /// The devices of one host, and what tenants hold of them.
    fn read_host(&mut self, app: &App, host: Option<&str>, found: &Devices, mut held: HeldBy) {
        let taken_ms = app.clock.ms_of(found.taken.0);
        let reserve = app.config.swap.vram_reserve_bytes();
        for (uuid, total) in found.memories() {
            let key = (host.map(ToOwned::to_owned), uuid.to_owned());
            let ledger = &mut self.ledger;
            let device = *self.devices.entry(key).or_insert_with(|| ledger.add_device(total, reserve));
            let holders = held.remove(uuid).unwrap_or_default();
            self.ledger.read(device, found.free_bytes(uuid), &holders, taken_ms);
        }
        // One that is not there any more has nothing to give.
        for ((of, uuid), device) in &self.devices {
            if of.as_deref() == host && found.free_bytes(uuid).is_none() {
                self.ledger.read(*device, None, &[], taken_ms);
            }
        }
    }

    /// What each tenant's engine holds of each device of this host.
    fn held(&self, found: &Devices) -> HeldBy {
        let pids: Vec<_> = self
            .tenants
            .iter()
            .enumerate()
            .filter(|(_, tenant)| tenant.pool.config.worker.is_none())
            .filter_map(|(index, tenant)| Some((index, tenant.report.as_ref()?.pid?)))
            .collect();
        found.held_by(&pids)
    }

    /// The same of another host, which has found out whose processes they are.
    fn held_elsewhere(&self, read: &ReadDevices) -> HeldBy {
        let mut held = HeldBy::new();
        for (uuid, pool, bytes) in &read.held {
            let Some(tenant) = self.index(pool) else { continue };
            let holders = held.entry(uuid.clone()).or_default();
            match holders.iter_mut().find(|(of, _)| *of == tenant) {
                Some((_, sum)) => *sum += bytes,
                None => holders.push((tenant, *bytes)),
            }
        }
        held
    }

    /// Writes down what engines take that are there although nothing was promised to them: those of another host, which were there
    /// before this daemon was, or while their host was not heard from.
    pub(super) fn adopt(&mut self, index: usize, now_ms: u64) {
        let tenant = &self.tenants[index];
        let is_there = matches!(
            tenant.state(),
            PoolState::Starting | PoolState::Ready | PoolState::Draining | PoolState::Stopping
        );
        if tenant.pool.config.worker.is_none() || !is_there || tenant.need.is_empty() {
            return;
        }
        let serves = matches!(tenant.state(), PoolState::Ready | PoolState::Draining);
        self.ledger.claim(index, &tenant.need);
        if serves {
            self.ledger.loaded(index, now_ms);
        }
    }

    /// Finds out what a tenant needs of its devices, as far as that is known now.
    pub(super) fn find_need(&mut self, index: usize, app: &App, learned: &Learned) {
        let tenant = &mut self.tenants[index];
        let key = tenant.key();
        if tenant.known.as_ref().is_none_or(|(of, _)| *of != key) {
            tenant.known = Some((key.clone(), learned.of(&key)));
        }
        let tenant = &self.tenants[index];
        let known = tenant.known.as_ref().and_then(|(_, loads)| loads.as_ref());
        let took_ms = known.and_then(Loads::took_ms);
        let config = &tenant.pool.config;
        let Some(model) = &tenant.model else { return };
        let Some(seen) = Seen::of(app, &tenant.pool) else { return };
        let Some((found, mask)) = seen.masked(config) else { return };
        let never = found.check_fit(&mask, config, model, true).err();
        let host = config.worker.as_ref().map(ToString::to_string);
        let key_of = |uuid: &str| (host.clone(), uuid.to_owned());
        let devices: Option<Vec<usize>> =
            mask.devices().iter().map(|device| self.devices.get(&key_of(&device.uuid)).copied()).collect();
        let Some(devices) = devices else { return };
        let measured = known.and_then(Loads::held).filter(|held| held.len() == devices.len());
        let is_measured = measured.is_some();
        let bytes: Vec<u64> = match measured {
            Some(held) => held.into_iter().map(|bytes| bytes + MEASURED_MARGIN).collect(),
            None => {
                let whole = model.need_bytes.unwrap_or(model.bytes.saturating_mul(UNKNOWN_PERCENT) / 100);
                self.spread(whole, &mask, &devices, tenant.pool.config.tensor_split.as_deref())
            }
        };
        // Where more than there is was not enough, all that there is is tried.
        let at_least = |(at, device): (usize, &usize)| {
            let floor = tenant.floor.as_ref().filter(|(of, _)| *of == key).and_then(|(_, floor)| floor.get(at));
            floor.copied().unwrap_or(0).min(self.ledger.attainable(*device)).max(bytes.get(at).copied().unwrap_or(0))
        };
        let part = |(at, device): (usize, &usize)| Part { device: *device, bytes: at_least((at, device)) };
        let need = devices.iter().enumerate().map(part).collect();
        let tenant = &mut self.tenants[index];
        (tenant.need, tenant.need_is_measured, tenant.never) = (need, is_measured, never);
        tenant.guess_load(took_ms);
    }

    /// A need over several devices: as the operator says, else as much on each as it has room, as llama.cpp does it.
    fn spread(&self, whole: u64, mask: &DeviceMask, devices: &[usize], split: Option<&[f32]>) -> Vec<u64> {
        let shares: Vec<f64> = match split {
            Some(split) => split.iter().map(|ratio| f64::from(*ratio)).collect(),
            None => {
                let total = |at: usize| mask.devices().get(at).map_or(0, |device| device.vram_total_bytes);
                let room = |(at, device): (usize, &usize)| match self.ledger.available(*device) {
                    Some(free) if free > 0 => free,
                    _ => total(at),
                };
                devices.iter().enumerate().map(|part| room(part) as f64).collect()
            }
        };
        let sum: f64 = shares.iter().sum();
        shares.iter().map(|share| (whole as f64 * share / sum.max(f64::MIN_POSITIVE)).ceil() as u64).collect()
    }

    /// Keeps what was measured of loads that are done.
    pub(super) fn learn(&mut self, learned: &Learned) {
        for index in 0..self.tenants.len() {
            let Some(took_ms) = self.tenants[index].unlearned_ms else { continue };
            if !self.ledger.is_settled(index) {
                continue;
            }
            let held = self.ledger.measured(index).unwrap_or_default();
            let tenant = &mut self.tenants[index];
            (tenant.unlearned_ms, tenant.known) = (None, None);
            if !held.is_empty() {
                tenant.floor = None;
            }
            let load = Load { took_ms, held: held.iter().map(|part| part.bytes).collect() };
            // Streams share this thread.
            drop(tokio::task::spawn_blocking(learned.keep(&tenant.key(), load)));
        }
    }
}
