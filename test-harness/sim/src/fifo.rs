//! The plain way, for comparison: tasks run strictly in the order in which they came, as simple routers of models do it. A task
//! whose model is not loaded has the models evicted that were not used for longest, waits for the load, and holds up whoever
//! comes behind it on the same devices. It knows how much memory is really free, so that nothing but its order is to blame.

use std::collections::VecDeque;

use crate::engine::{Engine, Milestone};
use crate::load::{Load, Traits};
use crate::memory::Memory;
use crate::scenario::{OnDemand, Scenario};
use crate::world::events::{Agenda, Event};

/// Where a pool's model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Out,
    Loading,
    Serving,
    Leaving,
}

struct Pool {
    engine: Engine,
    stage: Stage,
    last_used_ms: u64,
    stop_ms: u64,
    back_ms: Vec<u64>,
}

/// One task.
pub(crate) struct Past {
    pub(crate) traits: Traits,
    pub(crate) came_ms: u64,
    pub(crate) started_ms: Option<u64>,
    pub(crate) ended_ms: Option<u64>,
}

/// Everything in order of arrival.
pub(crate) struct Fifo {
    scenario: &'static Scenario,
    agenda: Agenda,
    now_ms: u64,
    load: Load,
    memory: Memory,
    pools: Vec<Pool>,
    waiting: VecDeque<usize>,
    pub(crate) tasks: Vec<Past>,
    /// Tasks that have not ended; a refused one has.
    open: usize,
    pub(crate) loads: usize,
    pub(crate) evictions: usize,
    /// Time of all loads, on each of their devices, in milliseconds.
    pub(crate) loading_ms: u64,
}

impl Fifo {
    /// Plays a scenario to the end of its last task. There is nothing when its models are not swapped.
    pub(crate) fn played(scenario: &'static Scenario, seed: u64, tasks: usize) -> Option<Self> {
        let swap = scenario.swap?;
        let pool = |pool: &crate::scenario::Pool| Pool {
            engine: Engine::new(pool, &pool.replicas[0]),
            stage: Stage::Out,
            last_used_ms: 0,
            stop_ms: 0,
            back_ms: Vec::new(),
        };
        let mut fifo = Self {
            scenario,
            agenda: Agenda::default(),
            now_ms: 0,
            load: Load::new(scenario.sources, seed),
            memory: Memory::new(scenario, seed),
            pools: scenario.pools.iter().map(pool).collect(),
            waiting: VecDeque::new(),
            tasks: Vec::with_capacity(tasks),
            open: 0,
            loads: 0,
            evictions: 0,
            loading_ms: 0,
        };
        for device in 0..swap.devices.len() {
            fifo.agenda.add(0, Event::Others(device));
        }
        for source in 0..scenario.sources.len() {
            for turn in fifo.load.first(source) {
                fifo.agenda.add(turn.at_ms, Event::Turn(turn));
            }
        }
        while fifo.tasks.len() < tasks || fifo.open > 0 {
            let Some((at_ms, event)) = fifo.agenda.next() else { break };
            fifo.now_ms = at_ms;
            fifo.happens(event, tasks);
            fifo.go_on();
        }
        Some(fifo)
    }

    fn happens(&mut self, event: Event, tasks: usize) {
        match event {
            Event::Turn(turn) if self.tasks.len() < tasks => {
                if let Some(next) = self.load.next(turn) {
                    self.agenda.add(next.at_ms, Event::Turn(next));
                }
                let traits = self.load.task(turn);
                self.tasks.push(Past { traits, came_ms: self.now_ms, started_ms: None, ended_ms: None });
                // Its one queue takes as many as all queues of pools together.
                let capacity: usize = self.scenario.pools.iter().map(|pool| pool.capacity).sum();
                if self.waiting.len() < capacity {
                    self.open += 1;
                    self.waiting.push_back(self.tasks.len() - 1);
                }
            }
            Event::Engine { pool, generation, .. } if self.pools[pool].engine.generation == generation => {
                for milestone in self.pools[pool].engine.advance(self.now_ms) {
                    if let Milestone::Done(task, _) = milestone {
                        self.tasks[task].ended_ms = Some(self.now_ms);
                        self.open -= 1;
                    }
                }
                self.pools[pool].last_used_ms = self.now_ms;
                self.watch(pool);
            }
            Event::Loaded(pool, _) => {
                (self.pools[pool].stage, self.pools[pool].last_used_ms) = (Stage::Serving, self.now_ms);
            }
            Event::EngineEnded(pool, _) => {
                self.pools[pool].stage = Stage::Out;
                let waits = self.pools[pool].back_ms.clone();
                for ((device, bytes), after_ms) in self.memory.ended(pool).into_iter().zip(waits.into_iter().cycle()) {
                    self.agenda.add(self.now_ms + after_ms, Event::Back { device, bytes });
                }
            }
            Event::Back { device, bytes } => self.memory.back(device, bytes),
            Event::Others(device) => {
                if let Some(after_ms) = self.memory.others_change(device) {
                    self.agenda.add(self.now_ms + after_ms, event);
                }
            }
            _ => {}
        }
    }

    /// Starts what can, in order: nobody passes one ahead of it that waits for the same device.
    fn go_on(&mut self) {
        let mut held_up = vec![false; self.scenario.swap.map_or(0, |swap| swap.devices.len())];
        let mut left = VecDeque::with_capacity(self.waiting.len());
        while let Some(task) = self.waiting.pop_front() {
            if held_up.iter().all(|held_up| *held_up) {
                left.push_back(task);
                continue;
            }
            let pool = self.pool_of(task);
            let how = self.how(pool);
            let is_held_up = how.need_mib.iter().any(|(device, _)| held_up[*device]);
            if is_held_up || !self.starts(task, pool, &how) {
                how.need_mib.iter().for_each(|(device, _)| held_up[*device] = true);
                left.push_back(task);
            }
        }
        self.waiting = left;
    }

    /// Starts a task, or does what has to be done for it.
    fn starts(&mut self, task: usize, pool: usize, how: &OnDemand) -> bool {
        match self.pools[pool].stage {
            Stage::Serving => {
                let slots = self.scenario.pools[pool].replicas[0].slots as usize;
                if self.pools[pool].engine.tasks().len() >= slots {
                    return false;
                }
                let traits = self.tasks[task].traits;
                self.tasks[task].started_ms = Some(self.now_ms);
                let work = traits.work(&self.scenario.pools[pool]);
                self.pools[pool].engine.start(task, work, self.now_ms);
                self.pools[pool].last_used_ms = self.now_ms;
                self.watch(pool);
                true
            }
            Stage::Out => {
                self.make_room(pool, how);
                false
            }
            Stage::Loading | Stage::Leaving => false,
        }
    }

    /// Begins a load if there is room, else evicts the one that was not used for longest.
    fn make_room(&mut self, pool: usize, how: &OnDemand) {
        let lacks = |(device, bytes): (usize, u64)| {
            let there = self.memory.free(device).saturating_sub(self.memory.kept_for_others(device));
            (there < bytes).then_some(device)
        };
        let lacking: Vec<usize> = how.need().filter_map(lacks).collect();
        if lacking.is_empty() {
            return self.begin(pool, how);
        }
        let helps = |other: &usize| lacking.iter().any(|device| self.memory.held(*device, *other) > 0);
        let all: Vec<usize> = (0..self.pools.len()).filter(helps).collect();
        if all.iter().any(|other| self.pools[*other].stage == Stage::Leaving) {
            return;
        }
        let idle = |other: &&usize| {
            let other = &self.pools[**other];
            other.stage == Stage::Serving && other.engine.tasks().is_empty()
        };
        let Some(victim) = all.iter().filter(idle).min_by_key(|other| self.pools[**other].last_used_ms) else { return };
        self.evictions += 1;
        let victim = *victim;
        self.pools[victim].stage = Stage::Leaving;
        self.agenda.add(self.now_ms + self.pools[victim].stop_ms, Event::EngineEnded(victim, 0));
    }

    fn begin(&mut self, pool: usize, how: &OnDemand) {
        let times = self.memory.begin(pool, how);
        for _ in crate::memory::PARTS {
            for (device, bytes) in how.part() {
                let took = self.memory.take(pool, device, bytes);
                debug_assert!(took, "it looked before");
            }
        }
        self.loads += 1;
        self.loading_ms += times.load_ms * how.need_mib.len() as u64;
        let of = &mut self.pools[pool];
        (of.stage, of.stop_ms, of.back_ms) = (Stage::Loading, times.stop_ms, times.back_ms);
        self.agenda.add(self.now_ms + times.load_ms, Event::Loaded(pool, 0));
    }

    fn watch(&mut self, pool: usize) {
        let engine = &self.pools[pool].engine;
        if let Some(at_ms) = engine.next_ms() {
            self.agenda.add(at_ms, Event::Engine { pool, replica: 0, generation: engine.generation });
        }
    }

    fn how(&self, pool: usize) -> OnDemand {
        self.scenario.pools[pool].on_demand.expect("in such scenarios every pool is loaded on demand")
    }

    fn pool_of(&self, task: usize) -> usize {
        let model = self.tasks[task].traits.source.model;
        let pool = self.scenario.pools.iter().position(|pool| pool.model == model);
        pool.expect("clients ask for models that are there")
    }

    /// When its last task ended.
    pub(crate) fn ended_ms(&self) -> u64 {
        self.tasks.iter().filter_map(|task| task.ended_ms).max().unwrap_or(0)
    }
}
