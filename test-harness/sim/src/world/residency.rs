//! Who is in memory, as the daemon knows it: the ledger, what was read of devices, and how far each pool's engine is.

use orchestrator_core::Scheduler;
use orchestrator_core::policy::ColdStart;
use orchestrator_core::residency::{Ledger, Limits, Part, Plan, Stage, Tenant, plan};

use crate::memory::Memory;
use crate::scenario::{Scenario, Swap};

use super::Pool;

/// Loads that count for what the next one is predicted to take.
const KEPT: usize = 5;
/// What is allowed on top of what an earlier load was measured to take, in bytes.
const MEASURED_MARGIN: u64 = 16 << 20;
/// A load before it was measured: this, and the time that reading the model takes at so many bytes per millisecond.
const LOAD_MS: u64 = 3_000;
const LOAD_BYTES_PER_MS: u64 = 500_000;
/// An unload before it was measured, in milliseconds.
const UNLOAD_MS: u64 = 1_000;

/// Everything about the memory of devices.
#[derive(Debug)]
pub(crate) struct Residency {
    pub(super) swap: &'static Swap,
    pub(super) ledger: Ledger,
    pub(super) memory: Memory,
    /// One per pool.
    pub(super) residents: Vec<Resident>,
    /// The last reading of each device.
    pub(super) readings: Vec<Option<Reading>>,
    /// Whether pools that are asked for often are kept in a pause between two tasks.
    lingers: bool,
    /// When the last round was, and when the next one is.
    pub(super) last_round_ms: u64,
    pub(super) next_round_ms: u64,
    /// Whether memory is on the move, so that devices are looked at often.
    pub(super) is_busy: bool,
    pub(crate) counts: Counts,
}

/// How often what was done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) loads: usize,
    pub(crate) aborts: usize,
    pub(crate) evictions: usize,
    pub(crate) fences: usize,
    pub(crate) unfences: usize,
    pub(crate) shortages: usize,
    /// Time of all loads, on each of their devices, in milliseconds.
    pub(crate) loading_ms: u64,
}

/// A pool's engine.
#[derive(Debug)]
pub(super) struct Resident {
    pub(super) stage: Stage,
    pub(super) fenced: bool,
    /// Others were fenced or evicted for it, and it was not loaded since.
    pub(super) is_next: bool,
    /// Changes when it is told to end, and when it has: what was foreseen before is void.
    pub(super) generation: u32,
    /// Which of its engines is up, as readings tell them apart.
    pub(super) engine: u32,
    pub(super) need: Vec<Part>,
    load_guess_ms: u64,
    /// Times of loads and memory that they took, the newest last.
    loads: Vec<(u64, Option<Vec<Part>>)>,
    /// The time of the last load until the memory that it took was read, too.
    pub(super) unlearned_ms: Option<u64>,
    pub(super) unload_since_ms: Option<u64>,
    unload_ms: u64,
    pub(super) serving_since_ms: u64,
    /// When its engine is to have stopped, and when its memory is to have come back.
    pub(super) stop_ms: u64,
    pub(super) back_ms: Vec<u64>,
}

/// What was read of a device.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) free: u64,
    /// Pools and which of their engines, with what each holds; none where the driver does not tell.
    pub(super) held: Vec<(usize, u32, u64)>,
    pub(super) taken_ms: u64,
}

impl Residency {
    pub(super) fn new(scenario: &'static Scenario, seed: u64, lingers: bool) -> Option<Self> {
        let swap = scenario.swap.as_ref()?;
        let mut ledger = Ledger::default();
        for device in swap.devices {
            let (total, reserve) = device.sizes();
            ledger.add_device(total, reserve);
        }
        let resident = |pool: &crate::scenario::Pool| {
            let need: Vec<Part> = pool.on_demand.map_or_else(Vec::new, |how| parts(how.need()));
            let bytes: u64 = need.iter().map(|part| part.bytes).sum();
            Resident {
                stage: Stage::Out,
                fenced: false,
                is_next: false,
                generation: 0,
                engine: 0,
                need,
                load_guess_ms: LOAD_MS + bytes / LOAD_BYTES_PER_MS,
                loads: Vec::new(),
                unlearned_ms: None,
                unload_since_ms: None,
                unload_ms: UNLOAD_MS,
                serving_since_ms: 0,
                stop_ms: 0,
                back_ms: Vec::new(),
            }
        };
        Some(Self {
            swap,
            ledger,
            memory: Memory::new(scenario, seed),
            residents: scenario.pools.iter().map(resident).collect(),
            readings: vec![None; swap.devices.len()],
            lingers,
            last_round_ms: 0,
            next_round_ms: 0,
            is_busy: false,
            counts: Counts::default(),
        })
    }

    /// Takes in what was read last, as every round does.
    pub(super) fn read_devices(&mut self) {
        for (device, reading) in self.readings.iter().enumerate() {
            let Some(Reading { free, held, taken_ms }) = reading else { continue };
            let lives = |(pool, engine, _): &&(usize, u32, u64)| self.residents[*pool].engine == *engine;
            let held: Vec<(usize, u64)> = held.iter().filter(lives).map(|(pool, _, bytes)| (*pool, *bytes)).collect();
            self.ledger.read(device, Some(*free), &held, *taken_ms);
        }
    }

    /// Keeps what was measured of loads that are done.
    pub(super) fn learn(&mut self) {
        for (index, resident) in self.residents.iter_mut().enumerate() {
            if self.ledger.is_settled(index)
                && let Some(took_ms) = resident.unlearned_ms.take()
            {
                resident.loads.push((took_ms, self.ledger.measured(index)));
                let old = resident.loads.len().saturating_sub(KEPT);
                resident.loads.drain(..old);
            }
            if !self.ledger.has_claim(index) {
                resident.predict();
            }
        }
    }

    pub(super) fn plan(&mut self, scheduler: &Scheduler, pools: &[Pool], now_ms: u64) -> Plan {
        let lingers = self.lingers;
        let tenant = |(resident, pool): (&Resident, &Pool)| {
            let demand = scheduler.demand_on(&pool.id, now_ms).expect("the scheduler knows every pool");
            Tenant {
                stage: resident.stage,
                on_demand: true,
                keep: false,
                wanted: false,
                fenced: resident.fenced,
                is_next: resident.is_next,
                need: resident.need.clone(),
                load_ms: resident.load_guess_ms,
                unload_ms: resident.unload_ms,
                idle_unload_ms: None,
                running: demand.running,
                running_ms: demand.running_ms,
                backlog_ms: demand.backlog_ms,
                waiting: demand.waiting,
                last_used_ms: demand.last_used_ms.max(resident.serving_since_ms),
                gap_ms: demand.gap_ms.filter(|_| lingers),
            }
        };
        let tenants: Vec<Tenant> = self.residents.iter().zip(pools).map(tenant).collect();
        let limits = Limits { age_limit_ms: self.swap.age_limit_ms };
        plan(&mut self.ledger, &tenants, limits, now_ms)
    }

    /// Whether anything loads, ends, or waits for memory.
    pub(super) fn moves(&self) -> bool {
        self.residents.iter().any(|resident| {
            matches!(resident.stage, Stage::Asking | Stage::Loading { .. } | Stage::Leaving)
                || resident.unlearned_ms.is_some()
        })
    }
}

impl Resident {
    /// What placement is told: when it would take tasks.
    pub(super) fn cold_start(&self, ready_in_ms: Option<u64>, now_ms: u64) -> ColdStart {
        let ready_at_ms = now_ms.saturating_add(ready_in_ms.unwrap_or(self.load_guess_ms));
        ColdStart { ready_at_ms, measured: !self.loads.is_empty() }
    }

    /// The usual time of earlier loads, and the most memory that one took.
    fn predict(&mut self) {
        let mut took: Vec<u64> = self.loads.iter().map(|(took_ms, _)| *took_ms).collect();
        took.sort_unstable();
        if let Some(took_ms) = took.get(took.len() / 2) {
            self.load_guess_ms = (*took_ms).max(1);
        }
        let told = || self.loads.iter().filter_map(|(_, held)| held.as_ref());
        for (place, part) in self.need.iter_mut().enumerate() {
            if let Some(most) = told().filter_map(|held| held.get(place)).map(|held| held.bytes).max() {
                part.bytes = most + MEASURED_MARGIN;
            }
        }
    }

    /// Its engine is gone, `since` the order to end.
    pub(super) fn gone(&mut self, now_ms: u64) {
        self.stage = Stage::Out;
        self.unlearned_ms = None;
        if let Some(since_ms) = self.unload_since_ms.take() {
            self.unload_ms = now_ms.saturating_sub(since_ms).max(1);
        }
    }
}

fn parts(need: impl Iterator<Item = (usize, u64)>) -> Vec<Part> {
    need.map(|(device, bytes)| Part { device, bytes }).collect()
}
