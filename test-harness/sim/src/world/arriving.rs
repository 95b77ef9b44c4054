//! Tasks that come: what clients submit, and what is foreseen of it then.

use super::{Event, Fate, Life, Window, World};
use crate::check::Broken;
use crate::engine::Engine;
use crate::load::{Turn, number_of};

impl World {
    pub(super) fn turn(&mut self, turn: Turn) -> Result<bool, Broken> {
        if self.lives.len() == self.tasks {
            return Ok(false);
        }
        if let Some(next) = self.load.next(turn) {
            self.agenda.add(next.at_ms, Event::Turn(next));
        }
        let traits = self.load.task(turn);
        self.lives.push(Life::new(traits, (turn.source, turn.client)));
        self.open += 1;
        if self.lives.len() == self.tasks {
            let leased_ms = self.pools.iter().zip(self.leased_now()).map(|(pool, now)| pool.leased_ms + now).collect();
            self.window = Window { ms: self.now_ms, leased_ms };
        }
        self.submit(self.lives.len() - 1)?;
        Ok(true)
    }

    /// What the running leases have cost so far, by pool.
    fn leased_now(&self) -> Vec<u64> {
        let mut leased = vec![0; self.pools.len()];
        for life in &self.lives {
            if let Some(running) = life.running {
                leased[running.pool] += self.now_ms - running.since_ms;
            }
        }
        leased
    }

    pub(super) fn submit(&mut self, task: usize) -> Result<(), Broken> {
        let traits = self.lives[task].traits;
        let new = traits.new_task(task);
        let admission = self.scheduler.admit(new.clone(), self.now_ms);
        self.said(&admission);
        match admission {
            Ok(admission) => {
                self.checker.admitted(traits.source.placement, &new, (&admission).into())?;
                if let Some(evicted) = admission.evicted {
                    self.ended(number_of(evicted), Fate::Evicted);
                }
                let pool = self.pool(&admission.pool_id);
                let (remainder_ms, foreseen_ms) = (self.remainder_ms(pool), self.foresee_ms(pool, task));
                let load_ms = self.load_wait_ms(pool);
                self.lives[task].admitted(&admission, (remainder_ms, foreseen_ms, load_ms), self.now_ms);
                self.agenda.add(self.now_ms + traits.deadline_ms, Event::Deadline(task));
                if let Some(after_ms) = traits.cancel_after_ms {
                    self.agenda.add(self.now_ms + after_ms, Event::Cancel(task));
                }
            }
            Err(rejection) => match self.lives[task].refused(&rejection.refusal) {
                Some(wait_ms) => self.agenda.add(self.now_ms + wait_ms, Event::Retry(task)),
                None => self.ended(task, Fate::GaveUp),
            },
        }
        Ok(())
    }

    /// What is really left of the running task of a pool that ends first.
    fn remainder_ms(&self, pool: usize) -> Option<u64> {
        self.pools[pool].replicas.iter().filter_map(|replica| replica.engine.remainder_ms(self.now_ms)).min()
    }

    /// What is told of when a pool's model is loaded.
    fn load_wait_ms(&self, pool: usize) -> Option<u64> {
        let cold = self.scheduler.pool(&self.pools[pool].id)?.snapshot.cold?;
        Some(cold.wait_ms(self.now_ms))
    }

    /// When a waiting task would start, by an informed forecast.
    fn foresee_ms(&mut self, pool: usize, task: usize) -> u64 {
        let engines: Vec<&Engine> = self.pools[pool].replicas.iter().map(|replica| &replica.engine).collect();
        let ahead = self.checker.ahead_of(task);
        self.foresight.start_ms(&self.scenario.pools[pool], &engines, &self.lives, &ahead, self.now_ms)
    }
}
