//! Memory of devices as it really is: who holds what, and how models are loaded and unloaded.

use std::collections::BTreeMap;

use crate::draw::Draw;
use crate::scenario::{Device, OnDemand, Scenario};

const MIB: u64 = 1 << 20;
/// Parts in which an engine takes its memory, by how much of the load is over then.
pub(crate) const PARTS: [f64; 4] = [0.05, 0.3, 0.6, 0.9];
/// Parts in which the driver gives it back.
const BACK_PARTS: u64 = 3;

/// All devices.
#[derive(Debug)]
pub(crate) struct Memory {
    devices: Vec<Held>,
    /// How often each pool was loaded.
    loads: Vec<u64>,
    seed: u64,
}

/// What is in use of one device, in bytes.
#[derive(Debug)]
struct Held {
    device: &'static Device,
    /// By pool.
    engines: BTreeMap<usize, u64>,
    /// By engines that have ended.
    ended: u64,
    others: u64,
    draw: Draw,
}

/// What one load of a pool takes: equal for the same load of the same pool, whoever orders it.
#[derive(Debug)]
pub(crate) struct Times {
    pub(crate) load_ms: u64,
    pub(crate) stop_ms: u64,
    /// After its engine has ended, part by part.
    pub(crate) back_ms: Vec<u64>,
}

impl Memory {
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> Self {
        let devices = scenario.swap.map_or(&[][..], |swap| swap.devices);
        let held = |(index, device): (usize, &'static Device)| Held {
            device,
            engines: BTreeMap::new(),
            ended: 0,
            others: 0,
            draw: Draw::new(seed, [4, index as u64, 0]),
        };
        Self { devices: devices.iter().enumerate().map(held).collect(), loads: vec![0; scenario.pools.len()], seed }
    }

    pub(crate) fn free(&self, device: usize) -> u64 {
        let held = &self.devices[device];
        let used = held.engines.values().sum::<u64>() + held.ended + held.others;
        (held.device.total_mib * MIB).saturating_sub(used)
    }

    /// What a pool's engine holds of a device.
    pub(crate) fn held(&self, device: usize, pool: usize) -> u64 {
        self.devices[device].engines.get(&pool).copied().unwrap_or(0)
    }

    /// What other programs may still take of their share of a device.
    pub(crate) fn kept_for_others(&self, device: usize) -> u64 {
        let held = &self.devices[device];
        (held.device.reserve_mib * MIB).saturating_sub(held.others)
    }

    /// The next load of a pool begins.
    pub(crate) fn begin(&mut self, pool: usize, how: &OnDemand) -> Times {
        self.loads[pool] += 1;
        let mut draw = Draw::new(self.seed, [5, pool as u64, self.loads[pool]]);
        let mut around = |median_ms: f64| (median_ms * (draw.normal() * how.load_noise).exp()).round().max(1.0) as u64;
        let (load_ms, stop_ms) = (around(how.load_ms), around(how.stop_ms));
        let back_ms = (0..BACK_PARTS).map(|_| draw.time(how.back_ms)).collect();
        Times { load_ms, stop_ms, back_ms }
    }

    /// An engine takes memory of a device. `false` when there is not as much.
    pub(crate) fn take(&mut self, pool: usize, device: usize, bytes: u64) -> bool {
        let fits = bytes <= self.free(device);
        if fits {
            *self.devices[device].engines.entry(pool).or_default() += bytes;
        }
        fits
    }

    /// A pool's engine has ended. What it held of each device comes back in these parts.
    pub(crate) fn ended(&mut self, pool: usize) -> Vec<(usize, u64)> {
        let mut parts = Vec::new();
        for (device, held) in self.devices.iter_mut().enumerate() {
            let Some(bytes) = held.engines.remove(&pool) else { continue };
            held.ended += bytes;
            let part = bytes / BACK_PARTS;
            parts.extend((1..BACK_PARTS).map(|_| (device, part)));
            parts.push((device, bytes - part * (BACK_PARTS - 1)));
        }
        parts
    }

    /// The driver gives back what an ended engine held.
    pub(crate) fn back(&mut self, device: usize, bytes: u64) {
        self.devices[device].ended -= bytes;
    }

    /// The other program of a device takes or gives back; says when it does so next.
    pub(crate) fn others_change(&mut self, device: usize) -> Option<u64> {
        let free = self.free(device);
        let held = &mut self.devices[device];
        let others = held.device.others?;
        let wanted = (held.draw.factor(0.0, 1.0) * (others.most_mib * MIB) as f64) as u64;
        held.others = wanted.min(held.others + free);
        Some(held.draw.time(others.every_ms))
    }
}

impl OnDemand {
    /// What is thought to be needed, by device, in bytes.
    pub(crate) fn need(&self) -> impl Iterator<Item = (usize, u64)> {
        self.need_mib.iter().map(|(device, mib)| (*device, mib * MIB))
    }

    /// What is really taken in one of [`PARTS`], by device, in bytes.
    pub(crate) fn part(&self) -> impl Iterator<Item = (usize, u64)> {
        let truth = self.truth / PARTS.len() as f64;
        self.need().map(move |(device, bytes)| (device, (bytes as f64 * truth) as u64))
    }
}

impl Device {
    /// In all, and what is left to other programs, in bytes.
    pub(crate) const fn sizes(&self) -> (u64, u64) {
        (self.total_mib * MIB, self.reserve_mib * MIB)
    }
}
