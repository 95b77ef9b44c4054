//! What probes, mishaps and the operator do to pools.

use orchestrator_core::scheduler::Action;

use super::{Event, Fate, World, tell};
use crate::check::Broken;
use crate::load::number_of;
use crate::scenario::FaultKind;

impl World {
    pub(super) fn probe(&mut self, pool: usize, replica: usize) -> Result<(), Broken> {
        let known = &self.pools[pool];
        let condition = known.replicas[replica].condition;
        if !condition.answers() {
            return Ok(());
        }
        let running = known.replicas[replica].engine.tasks().len();
        let facts = tell::facts(&self.scenario.pools[pool], replica, condition, running);
        let actions = self.scheduler.update_replica(&known.id, &known.replicas[replica].id, &facts, self.now_ms);
        self.checker.told(pool, replica, condition.is_ready(), self.now_ms);
        self.carry_out(&actions)
    }

    pub(super) fn carry_out(&mut self, actions: &[Action]) -> Result<(), Broken> {
        for action in actions {
            self.said(action);
            self.checker.acted(action)?;
            match action {
                Action::Moved { task, .. } => self.lives[number_of(*task)].moves.closed += 1,
                Action::Rejected { task, .. } => self.ended(number_of(*task), Fate::TurnedOut),
            }
        }
        Ok(())
    }

    pub(super) fn fault(&mut self, index: usize, begins: bool) -> Result<(), Broken> {
        let fault = &self.scenario.faults[index];
        let wait_ms = if begins { self.faults.length_ms(index) } else { self.faults.pause_ms(index) };
        let next = if begins { Event::FaultEnds(index) } else { Event::FaultBegins(index) };
        self.agenda.add(self.now_ms + wait_ms, next);
        let pool = self.pools.iter().position(|pool| pool.id.as_str() == fault.pool);
        let pool = pool.expect("scenarios name pools that they have");
        let replica = &mut self.pools[pool].replicas[fault.replica];
        replica.condition.note(fault.kind, begins);
        let running = replica.engine.tasks();
        match fault.kind {
            FaultKind::Crash if begins => self.lose(&running),
            FaultKind::Reset if begins && !running.is_empty() => {
                let victim = self.faults.victim(index, running.len());
                self.lose(&running[victim..=victim])
            }
            FaultKind::Drain => self.drain(pool, begins),
            FaultKind::Crash | FaultKind::Reset | FaultKind::Unready | FaultKind::Silent => Ok(()),
        }
    }

    fn lose(&mut self, tasks: &[usize]) -> Result<(), Broken> {
        for task in tasks {
            let attempt = self.lives[*task].starts;
            self.lost(*task, attempt)?;
        }
        Ok(())
    }

    fn drain(&mut self, pool: usize, begins: bool) -> Result<(), Broken> {
        let known = &mut self.pools[pool];
        known.draining = if begins { known.draining + 1 } else { known.draining - 1 };
        let draining = known.draining > 0;
        let actions = if draining {
            self.scheduler.drain(&known.id, self.now_ms)
        } else {
            self.scheduler.undrain(&known.id, self.now_ms)
        };
        self.checker.drained(pool, draining);
        self.carry_out(&actions)
    }
}
