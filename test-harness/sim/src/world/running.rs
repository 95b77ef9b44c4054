//! Tasks that run: from their start to whatever ends them.

use orchestrator_core::scheduler::{Canceled, Dispatch, Requeued};
use orchestrator_core::task::End;

use super::{Event, Fate, NUDGED_PROBE_MS, REFUSED_MS, STOP_MS, Start, World};
use crate::check::{Broken, replica_of};
use crate::engine::Milestone;
use crate::load::{id_of, number_of};

impl World {
    pub(super) fn start_what_can(&mut self) -> Result<(), Broken> {
        while let Some(dispatch) = self.scheduler.next_dispatch(self.now_ms) {
            self.said(&dispatch);
            self.checker.dispatched(&dispatch, self.now_ms)?;
            self.start(&dispatch)?;
        }
        self.checker.nothing_starts(self.now_ms)
    }

    fn start(&mut self, dispatch: &Dispatch) -> Result<(), Broken> {
        let task = number_of(dispatch.task_id);
        let pool = self.pool(&dispatch.pool_id);
        let replica = replica_of(dispatch).expect("the checker has looked at it");
        let outlook = self.scheduler.outlook(dispatch.task_id, self.now_ms);
        self.lives[task].starts(
            Start { pool, replica, since_ms: self.now_ms, first_token_ms: None },
            dispatch.moved_from.is_some(),
            outlook.map(|outlook| outlook.on_time_probability),
        );
        let attempt = self.lives[task].starts;
        let on = &mut self.pools[pool].replicas[replica];
        if on.condition.is_live() {
            on.engine.start(task, self.lives[task].work(&self.scenario.pools[pool]), self.now_ms);
            self.watch(pool, replica);
        } else {
            self.agenda.add(self.now_ms + REFUSED_MS, Event::Lost(task, attempt));
        }
        self.checker.waited(pool, task, self.lives[task].wait_ms().unwrap_or(0))
    }

    /// Looks out for what happens next on an engine.
    fn watch(&mut self, pool: usize, replica: usize) {
        let engine = &self.pools[pool].replicas[replica].engine;
        if let Some(at_ms) = engine.next_ms() {
            self.agenda.add(at_ms, Event::Engine { pool, replica, generation: engine.generation });
        }
    }

    pub(super) fn engine(&mut self, pool: usize, replica: usize, generation: u64) -> Result<bool, Broken> {
        let engine = &mut self.pools[pool].replicas[replica].engine;
        if engine.generation != generation {
            return Ok(false);
        }
        for milestone in engine.advance(self.now_ms) {
            match milestone {
                Milestone::FirstToken(task) => {
                    self.lives[task].first_token(self.now_ms);
                    self.scheduler.first_token(id_of(task));
                }
                Milestone::Done(task, tokens) => {
                    let end = self.lives[task].ending.unwrap_or(End::Completed);
                    self.finish(task, end, Some(tokens))?;
                }
            }
        }
        self.watch(pool, replica);
        Ok(true)
    }

    /// A task's time is over, by its client or its deadline.
    pub(super) fn cut(&mut self, task: usize, end: End) -> Result<bool, Broken> {
        let life = &mut self.lives[task];
        if life.fate.is_some() || life.ending.is_some() {
            return Ok(false);
        }
        if life.running.is_some() && end == End::Expired {
            // The daemon's runner watches the deadline and tells the scheduler when the engine has let go.
            life.ending = Some(end);
            self.agenda.add(self.now_ms + STOP_MS, Event::Stopped(task));
            return Ok(true);
        }
        let canceled = self.scheduler.cancel(id_of(task), self.now_ms);
        self.said(&canceled);
        self.checker.canceled(task, canceled)?;
        match canceled {
            Canceled::Queued => self.ended(task, Fate::Ended(end)),
            Canceled::Running => {
                self.lives[task].ending = Some(end);
                self.agenda.add(self.now_ms + STOP_MS, Event::Stopped(task));
            }
            Canceled::Unknown => return Err(Broken::Story { task }),
        }
        Ok(true)
    }

    /// An engine has let go of a task that was to stop.
    pub(super) fn stopped(&mut self, task: usize) -> Result<bool, Broken> {
        let (Some(running), Some(end)) = (self.lives[task].running, self.lives[task].ending) else {
            return Ok(false);
        };
        let tokens = self.take_off(task, running);
        self.finish(task, end, tokens)?;
        Ok(true)
    }

    /// Takes a task off its engine and says how many tokens it has.
    fn take_off(&mut self, task: usize, running: Start) -> Option<u32> {
        let engine = &mut self.pools[running.pool].replicas[running.replica].engine;
        let tokens = engine.stop(task, self.now_ms)?;
        self.watch(running.pool, running.replica);
        Some(tokens)
    }

    fn finish(&mut self, task: usize, end: End, tokens_out: Option<u32>) -> Result<(), Broken> {
        let outcome = self.lives[task].outcome(end, tokens_out, self.now_ms);
        let said = self.scheduler.finish(id_of(task), outcome, self.now_ms);
        self.checker.finished(task, said)?;
        self.lives[task].tokens_out = outcome.tokens_out.unwrap_or(0);
        self.vacate(task);
        self.ended(task, Fate::Ended(end));
        Ok(())
    }

    /// A task's worker was lost: what the daemon does is told by how far the task was.
    pub(super) fn lost(&mut self, task: usize, attempt: u32) -> Result<bool, Broken> {
        let life = &self.lives[task];
        let Some(running) = life.running.filter(|_| life.starts == attempt) else {
            return Ok(false);
        };
        let tokens = self.take_off(task, running);
        self.agenda.add(self.now_ms + NUDGED_PROBE_MS, Event::Nudged(running.pool, running.replica));
        let life = &self.lives[task];
        if life.ending == Some(End::Expired) || running.first_token_ms.is_some() {
            let end = life.ending.unwrap_or(End::Failed);
            self.finish(task, end, tokens)?;
            return Ok(true);
        }
        let requeued = self.scheduler.requeue(id_of(task), self.now_ms);
        self.said(&requeued);
        self.checker.requeued(task, &requeued)?;
        self.vacate(task);
        match requeued {
            Requeued::Again { pool_id, .. } => {
                let elsewhere = self.pool(&pool_id) != running.pool;
                self.lives[task].waits_again(elsewhere);
            }
            Requeued::GivenUp => self.ended(task, Fate::LostTwice),
            Requeued::Canceled => self.ended(task, Fate::Ended(End::Canceled)),
            Requeued::Unknown => return Err(Broken::Story { task }),
        }
        Ok(true)
    }

    /// Books what a task's slot has cost.
    fn vacate(&mut self, task: usize) {
        if let Some(running) = self.lives[task].running.take() {
            self.pools[running.pool].leased_ms += self.now_ms - running.since_ms;
        }
    }
}
