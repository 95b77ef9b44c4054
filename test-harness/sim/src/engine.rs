//! Engines as they really are: what runs on a replica, and how fast.

use crate::scenario::{Pool, Replica};

/// One task's work on one pool, in milliseconds when it is alone there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Until the first token.
    pub(crate) prefill_ms: f64,
    /// From then to the end.
    pub(crate) decode_ms: f64,
    /// Tokens it generates in all.
    pub(crate) tokens_out: u32,
}

impl Work {
    /// What a task costs on a pool; `luck` is a standard normal number.
    pub(crate) fn new(pool: &Pool, prompt_tokens: u32, tokens_out: u32, luck: f64) -> Self {
        let factor = (pool.noise * luck).exp();
        let further = f64::from(tokens_out.saturating_sub(1));
        Self {
            prefill_ms: (pool.overhead_ms + f64::from(prompt_tokens) * 1_000.0 / pool.prefill_tokens_per_s) * factor,
            decode_ms: further * 1_000.0 / pool.decode_tokens_per_s * factor,
            tokens_out,
        }
    }

    pub(crate) fn whole_ms(&self) -> f64 {
        self.prefill_ms + self.decode_ms
    }
}

/// Something that happened on an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Milestone {
    /// The first token of a task.
    FirstToken(usize),
    /// A task's end, with its tokens.
    Done(usize, u32),
}

/// A replica's engine. Tasks that run together share it: each advances at the same reduced pace.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    crowding: f64,
    speed: f64,
    running: Vec<Running>,
    /// Up to when the tasks' progress is booked.
    at_ms: u64,
    /// Changes with every start and end: what was foreseen before is void.
    pub(crate) generation: u64,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    task: usize,
    work: Work,
    /// Work done, in milliseconds.
    done_ms: f64,
    streams: bool,
}

impl Running {
    /// Work until its next milestone.
    fn left_ms(&self) -> f64 {
        let until = if self.streams { self.work.whole_ms() } else { self.work.prefill_ms };
        (until - self.done_ms).max(0.0)
    }

    fn tokens_out(&self) -> u32 {
        let decoded = (self.done_ms - self.work.prefill_ms) / self.work.decode_ms.max(1.0);
        if self.streams { 1 + (decoded.clamp(0.0, 1.0) * f64::from(self.work.tokens_out - 1)) as u32 } else { 0 }
    }
}

/// Work smaller than this is done: time has whole milliseconds, and sums of parts are not exact.
const DONE_MS: f64 = 1e-6;

impl Engine {
    pub(crate) const fn new(pool: &Pool, replica: &Replica) -> Self {
        Self { crowding: pool.crowding, speed: replica.speed, running: Vec::new(), at_ms: 0, generation: 0 }
    }

    /// Work done per millisecond for each of so many tasks.
    fn pace(&self, tasks: usize) -> f64 {
        self.speed / (1.0 + self.crowding * tasks.saturating_sub(1) as f64)
    }

    pub(crate) fn start(&mut self, task: usize, work: Work, now_ms: u64) {
        self.book(now_ms);
        self.running.push(Running { task, work, done_ms: 0.0, streams: false });
        self.generation += 1;
    }

    /// Takes a task off the engine and says how many tokens it has; `None` when it does not run here.
    pub(crate) fn stop(&mut self, task: usize, now_ms: u64) -> Option<u32> {
        self.book(now_ms);
        let index = self.running.iter().position(|running| running.task == task)?;
        self.generation += 1;
        Some(self.running.remove(index).tokens_out())
    }

    /// When the next milestone is due.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        let pace = self.pace(self.running.len());
        let left = self.running.iter().map(Running::left_ms).min_by(f64::total_cmp)?;
        Some(self.at_ms + ((left - DONE_MS).max(0.0) / pace).ceil() as u64)
    }

    /// The milestones that are due, in the order in which the tasks started.
    pub(crate) fn advance(&mut self, now_ms: u64) -> Vec<Milestone> {
        self.book(now_ms);
        let mut due = Vec::new();
        for running in &mut self.running {
            if !running.streams && running.left_ms() <= DONE_MS && running.work.tokens_out > 0 {
                running.streams = true;
                due.push(Milestone::FirstToken(running.task));
            }
        }
        self.running.retain(|running| {
            let done = running.work.whole_ms() - running.done_ms <= DONE_MS;
            if done {
                due.push(Milestone::Done(running.task, running.work.tokens_out));
            }
            !done
        });
        self.generation += 1;
        due
    }

    /// The tasks that run here, in the order in which they started.
    pub(crate) fn tasks(&self) -> Vec<usize> {
        self.running.iter().map(|running| running.task).collect()
    }

    /// The tasks that run here, each with its tokens so far and the work until its first token.
    pub(crate) fn progress(&self, now_ms: u64) -> Vec<(usize, u32, f64)> {
        let mut engine = self.clone();
        engine.book(now_ms);
        let of = |running: &Running| {
            let prefill_ms = if running.streams { 0.0 } else { running.left_ms() };
            (running.task, running.tokens_out(), prefill_ms)
        };
        engine.running.iter().map(of).collect()
    }

    /// The pace of a task while all slots are busy.
    pub(crate) fn full_pace(&self, slots: u32) -> f64 {
        self.pace(slots as usize)
    }

    /// Time until the first of the running tasks ends if nothing changes, in milliseconds.
    pub(crate) fn remainder_ms(&self, now_ms: u64) -> Option<u64> {
        let pace = self.pace(self.running.len());
        let since = now_ms.saturating_sub(self.at_ms) as f64 * pace;
        let left = self.running.iter().map(|running| running.work.whole_ms() - running.done_ms - since);
        left.min_by(f64::total_cmp).map(|left| (left.max(0.0) / pace).ceil() as u64)
    }

    fn book(&mut self, now_ms: u64) {
        let done = now_ms.saturating_sub(self.at_ms) as f64 * self.pace(self.running.len());
        for running in &mut self.running {
            running.done_ms += done;
        }
        self.at_ms = now_ms;
    }
}

/// Tasks of this kind that a pool completes per millisecond when none of its slots is ever idle.
pub(crate) fn tasks_per_ms(pool: &Pool, work: Work) -> f64 {
    let of_replica = |replica: &Replica| {
        let slots = f64::from(replica.slots);
        slots * replica.speed / (work.whole_ms() * (1.0 + pool.crowding * (slots - 1.0)))
    };
    pool.replicas.iter().map(of_replica).sum()
}

#[cfg(test)]
mod tests {
    use super::{Engine, Milestone, Work};
    use crate::scenario::{Pool, Replica, SCENARIOS};

    const REPLICA: Replica = Replica { slots: 2, speed: 1.0, vram_gib: 24 };

    fn pool(crowding: f64) -> Pool {
        Pool {
            crowding,
            prefill_tokens_per_s: 1_000.0,
            decode_tokens_per_s: 100.0,
            overhead_ms: 0.0,
            ..SCENARIOS[0].pools[0]
        }
    }

    /// Alone a task takes its own time; together each is slowed, and the one left is alone again.
    #[test]
    fn tasks_that_run_together_slow_each_other() {
        let pool = pool(0.5);
        let work = Work::new(&pool, 100, 11, 0.0);
        let mut engine = Engine::new(&pool, &REPLICA);
        engine.start(0, work, 0);
        assert_eq!((engine.next_ms(), engine.remainder_ms(50)), (Some(100), Some(150)));
        assert_eq!(engine.advance(100), [Milestone::FirstToken(0)]);
        // 50 of its 100 ms are left when the other one comes, and then take 75.
        engine.start(1, work, 150);
        assert_eq!(engine.next_ms(), Some(225));
        assert_eq!(engine.advance(225), [Milestone::Done(0, 11)]);
        // The other has done 50 of its 200 ms.
        assert_eq!(engine.next_ms(), Some(275));
        assert_eq!(engine.advance(275), [Milestone::FirstToken(1)]);
        assert_eq!(engine.stop(1, 325), Some(6));
        assert_eq!((engine.stop(1, 325), engine.next_ms()), (None, None));
    }
}
