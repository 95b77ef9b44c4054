//! Engines that load and end, and what is read of devices meanwhile.

use orchestrator_core::residency::Stage;

use super::residency::Reading;
use super::{Event, World};
use crate::check::Broken;
use crate::memory::PARTS;

/// Gaps between two looks at a device, in milliseconds: while memory is on the move, and else.
const HURRIED_MS: u64 = 50;
const LOOK_MS: u64 = 1_000;
/// Time that a look takes at most, in milliseconds: what is free is read first, what is held last.
const LOOK_TAKES_MS: usize = 30;

impl World {
    /// Devices are looked at, others use them, and all that is known is told.
    pub(super) fn begin_memory(&mut self) -> Result<(), Broken> {
        let Some(swap) = self.scenario.swap else { return Ok(()) };
        for device in 0..swap.devices.len() {
            self.agenda.add(0, Event::Others(device));
            self.agenda.add(0, Event::Look(device));
        }
        self.round()?;
        Ok(())
    }

    /// `false` when it concerns nobody any more, or only the readings.
    pub(super) fn memory(&mut self, event: Event) -> Result<bool, Broken> {
        match event {
            Event::Round => return self.round(),
            Event::Look(device) => self.look(device),
            Event::Read { device, free, taken_ms } => self.read(device, free, taken_ms),
            Event::Others(device) => {
                if let Some(after_ms) = self.resident().memory.others_change(device) {
                    self.agenda.add(self.now_ms + after_ms, event);
                }
            }
            Event::Back { device, bytes } => self.resident().memory.back(device, bytes),
            Event::Prepared(pool, generation) if self.lives_on(pool, generation) => {
                self.resident().residents[pool].stage = Stage::Asking;
                self.nudge();
            }
            Event::Part(pool, generation) if self.lives_on(pool, generation) => self.take_part(pool)?,
            Event::Loaded(pool, generation) if self.lives_on(pool, generation) => {
                self.loaded(pool)?;
                return Ok(true);
            }
            Event::EngineEnded(pool, generation) if self.lives_on(pool, generation) => self.engine_ended(pool),
            _ => {}
        }
        Ok(false)
    }

    fn lives_on(&mut self, pool: usize, generation: u32) -> bool {
        self.resident().residents[pool].generation == generation
    }

    fn look(&mut self, device: usize) {
        let residency = self.residency.as_ref().expect("only devices of such scenarios are looked at");
        let free = residency.memory.free(device);
        let gap_ms = if residency.is_busy { HURRIED_MS } else { LOOK_MS };
        let takes_ms = 1 + self.delays.below(LOOK_TAKES_MS) as u64;
        self.agenda.add(self.now_ms + takes_ms, Event::Read { device, free, taken_ms: self.now_ms });
        self.agenda.add(self.now_ms + gap_ms, Event::Look(device));
    }

    fn read(&mut self, device: usize, free: u64, taken_ms: u64) {
        let residency = self.resident();
        let tells = residency.swap.devices[device].tells;
        let held = |(pool, resident): (usize, &super::residency::Resident)| {
            (pool, resident.engine, residency.memory.held(device, pool))
        };
        let held = residency.residents.iter().enumerate().map(held).filter(|(.., bytes)| tells && *bytes > 0).collect();
        residency.readings[device] = Some(Reading { free, held, taken_ms });
        self.nudge();
    }

    /// Memory was promised: the load begins.
    pub(super) fn load(&mut self, pool: usize) {
        let now_ms = self.now_ms;
        let how = self.scenario.pools[pool].on_demand.expect("a pool that asks for memory is loaded on demand");
        let residency = self.resident();
        let times = residency.memory.begin(pool, &how);
        residency.counts.loads += 1;
        let resident = &mut residency.residents[pool];
        resident.stage = Stage::Loading { since_ms: now_ms };
        resident.engine += 1;
        resident.is_next = false;
        (resident.stop_ms, resident.back_ms) = (times.stop_ms, times.back_ms);
        let generation = resident.generation;
        for share in PARTS {
            let at_ms = now_ms + (times.load_ms as f64 * share) as u64;
            self.agenda.add(at_ms, Event::Part(pool, generation));
        }
        self.agenda.add(now_ms + times.load_ms, Event::Loaded(pool, generation));
    }

    fn take_part(&mut self, pool: usize) -> Result<(), Broken> {
        let how = self.scenario.pools[pool].on_demand.expect("it loads");
        for (device, bytes) in how.part() {
            let fits = self.resident().memory.take(pool, device, bytes);
            self.checker.took(pool, device, fits)?;
        }
        Ok(())
    }

    fn loaded(&mut self, pool: usize) -> Result<(), Broken> {
        let now_ms = self.now_ms;
        let residency = self.resident();
        residency.ledger.loaded(pool, now_ms);
        let Stage::Loading { since_ms } = residency.residents[pool].stage else { return Ok(()) };
        residency.booked(pool, since_ms, now_ms);
        let resident = &mut residency.residents[pool];
        resident.stage = Stage::Serving { since_ms: now_ms };
        (resident.unlearned_ms, resident.serving_since_ms) = (Some(now_ms - since_ms), now_ms);
        self.engine_is(pool, true)?;
        self.set_cold(pool, None)
    }

    /// Its engine is there from now on, or is not.
    fn engine_is(&mut self, pool: usize, loaded: bool) -> Result<(), Broken> {
        for replica in 0..self.pools[pool].replicas.len() {
            self.pools[pool].replicas[replica].condition.load(loaded);
            self.probe(pool, replica)?;
        }
        Ok(())
    }

    /// A pool's engine is to end, or is not to come.
    pub(super) fn unload(&mut self, pool: usize) -> Result<(), Broken> {
        let now_ms = self.now_ms;
        self.checker.unloads(pool)?;
        let residency = self.resident();
        let stage = residency.residents[pool].stage;
        if let Stage::Loading { since_ms } = stage {
            residency.booked(pool, since_ms, now_ms);
        }
        let resident = &mut residency.residents[pool];
        (resident.fenced, resident.is_next, resident.unlearned_ms) = (false, false, None);
        match stage {
            Stage::Loading { .. } | Stage::Serving { .. } => {
                resident.stage = Stage::Leaving;
                resident.unload_since_ms = matches!(stage, Stage::Serving { .. }).then_some(now_ms);
                // What it was to do next is void; what it holds, it holds until it has ended.
                resident.generation += 1;
                let ended = Event::EngineEnded(pool, resident.generation);
                let at_ms = now_ms + resident.stop_ms;
                self.agenda.add(at_ms, ended);
                self.engine_is(pool, false)?;
            }
            Stage::Preparing | Stage::Asking => {
                resident.stage = Stage::Out;
                resident.generation += 1;
            }
            Stage::Out | Stage::Leaving | Stage::Barred => {}
        }
        Ok(())
    }

    fn engine_ended(&mut self, pool: usize) {
        let now_ms = self.now_ms;
        let residency = self.resident();
        residency.ledger.released(pool, now_ms);
        let parts = residency.memory.ended(pool);
        let resident = &mut residency.residents[pool];
        resident.gone(now_ms);
        resident.generation += 1;
        let waits = resident.back_ms.clone();
        for ((device, bytes), after_ms) in parts.into_iter().zip(waits.into_iter().cycle()) {
            self.agenda.add(now_ms + after_ms, Event::Back { device, bytes });
        }
        self.nudge();
    }
}

impl super::residency::Residency {
    /// A load was under way from then until now.
    fn booked(&mut self, pool: usize, since_ms: u64, now_ms: u64) {
        let devices = self.residents[pool].need.len() as u64;
        self.counts.loading_ms += (now_ms - since_ms) * devices;
    }
}
