//! One round, as the daemon makes it: the plan, and what comes of it.

use orchestrator_core::policy::ColdStart;
use orchestrator_core::residency::{Plan, Stage, Step};

use super::residency::Residency;
use super::{Event, World};
use crate::check::Broken;

/// Longest time between two rounds, in milliseconds.
const ROUND_MS: u64 = 500;
/// Shortest time between two rounds, in milliseconds.
const GAP_MS: u64 = 10;
/// Time until a pool's model and program are present, in milliseconds.
const PREPARE_MS: u64 = 50;
/// A prediction that moves by less, in percent, is not told anew.
const STEADY_PERCENT: u64 = 5;

impl World {
    /// Something has happened that may change the plan.
    pub(super) fn nudge(&mut self) {
        let now_ms = self.now_ms;
        let Some(residency) = &mut self.residency else { return };
        let soon_ms = now_ms.max(residency.last_round_ms + GAP_MS);
        if residency.next_round_ms > soon_ms || residency.next_round_ms <= residency.last_round_ms {
            residency.next_round_ms = soon_ms;
            self.agenda.add(soon_ms, Event::Round);
        }
    }

    pub(super) fn resident(&mut self) -> &mut Residency {
        self.residency.as_mut().expect("such events are only of scenarios whose models are swapped")
    }

    /// Makes a plan and carries it out. Whether that has changed anything.
    pub(super) fn round(&mut self) -> Result<bool, Broken> {
        let now_ms = self.now_ms;
        let residency = self.residency.as_mut().expect("rounds are only of scenarios whose models are swapped");
        if residency.next_round_ms != now_ms {
            return Ok(false);
        }
        residency.last_round_ms = now_ms;
        residency.next_round_ms = now_ms + ROUND_MS;
        self.agenda.add(now_ms + ROUND_MS, Event::Round);
        residency.read_devices();
        residency.learn();
        let plan = residency.plan(&self.scheduler, &self.pools, now_ms);
        let mut changed = self.tell_cold(&plan)?;
        for step in &plan.steps {
            changed |= self.step(&plan, step)?;
        }
        let residency = self.resident();
        residency.is_busy = residency.moves();
        Ok(changed)
    }

    fn step(&mut self, plan: &Plan, step: &Step) -> Result<bool, Broken> {
        let now_ms = self.now_ms;
        match step {
            Step::Begin(index) => {
                let resident = &mut self.resident().residents[*index];
                resident.stage = Stage::Preparing;
                let event = Event::Prepared(*index, resident.generation);
                self.agenda.add(now_ms + PREPARE_MS, event);
            }
            Step::Grant(index) => self.load(*index),
            Step::Short(..) => self.resident().counts.shortages += 1,
            Step::Fence { tenant, for_tenant } => {
                self.close(plan, *tenant)?;
                let residency = self.resident();
                residency.residents[*for_tenant].is_next = true;
                residency.residents[*tenant].fenced = true;
                residency.counts.fences += 1;
            }
            Step::Unfence(index) => {
                let residency = self.resident();
                residency.residents[*index].fenced = false;
                residency.counts.unfences += 1;
                self.set_cold(*index, None)?;
            }
            Step::Evict { tenant, for_tenant } => {
                let residency = self.resident();
                residency.counts.evictions += 1;
                residency.residents[*for_tenant].is_next = true;
                self.close(plan, *tenant)?;
                self.unload(*tenant)?;
            }
            Step::Unload(index) | Step::Abort(index) => {
                self.resident().counts.aborts += 1;
                self.close(plan, *index)?;
                self.unload(*index)?;
            }
        }
        Ok(true)
    }

    /// From here on it starts no task.
    fn close(&mut self, plan: &Plan, index: usize) -> Result<(), Broken> {
        let now_ms = self.now_ms;
        let cold = self.resident().residents[index].cold_start(plan.ready_in_ms[index], now_ms);
        self.set_cold(index, Some(cold))
    }

    pub(super) fn set_cold(&mut self, pool: usize, cold: Option<ColdStart>) -> Result<(), Broken> {
        let actions = self.scheduler.set_cold(&self.pools[pool].id, cold, self.now_ms);
        self.checker.cold(pool, cold.is_some());
        self.carry_out(&actions)
    }

    /// Tells placement when pools that are not loaded would be. Whether there was any news.
    fn tell_cold(&mut self, plan: &Plan) -> Result<bool, Broken> {
        let now_ms = self.now_ms;
        let mut told = false;
        for index in 0..self.pools.len() {
            let resident = &self.resident().residents[index];
            if matches!(resident.stage, Stage::Serving { .. }) && !resident.fenced {
                continue;
            }
            let new = plan.ready_in_ms[index].map(|ready_ms| resident.cold_start(Some(ready_ms), now_ms));
            let before = self.scheduler.pool(&self.pools[index].id).and_then(|view| view.snapshot.cold);
            let is_news = match (before, new) {
                (Some(before), Some(new)) => {
                    let (was_ms, is_ms) = (before.wait_ms(now_ms), new.wait_ms(now_ms));
                    was_ms.abs_diff(is_ms).saturating_mul(100) > is_ms.saturating_mul(STEADY_PERCENT)
                        || before.measured != new.measured
                }
                (before, new) => before != new,
            };
            if is_news {
                told = true;
                self.set_cold(index, new)?;
            }
        }
        Ok(told)
    }
}
