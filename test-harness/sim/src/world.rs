//! Virtual time: the clients, the engines and the operator around one scheduler, and what the daemon does between them.

mod arriving;
pub(crate) mod events;
mod life;
mod loading;
mod operator;
mod residency;
mod round;
mod running;
mod tell;

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};

use api_types::{PoolId, ReplicaId};
use foldhash::fast::{FixedState, FoldHasher};
use orchestrator_core::Scheduler;
use orchestrator_core::task::End;

use crate::check::{Broken, Checker};
use crate::draw::Draw;
use crate::engine::Engine;
use crate::faults::{Condition, Faults};
use crate::fifo::Fifo;
use crate::foresight::Foresight;
use crate::load::Load;
use crate::report::{Report, Swap};
use crate::scenario::Scenario;
use events::{Agenda, Event};
pub(crate) use life::{Fate, Life, Start};
pub(crate) use residency::Residency;

/// Gap between two probes of a replica, in milliseconds.
const PROBE_EVERY_MS: u64 = 1_000;
/// Time from a lost connection until the daemon knows what is wrong with the replica, in milliseconds.
const NUDGED_PROBE_MS: u64 = 20;
/// Time from the order to stop until an engine has let go of a task, in milliseconds.
const STOP_MS: u64 = 10;
/// Time until a submission to a dead engine has failed, in milliseconds.
const REFUSED_MS: u64 = 2;

/// Equal stories have equal digests, in every run.
static STORY: FixedState = FixedState::with_seed(0);

/// A promise of the scheduler that was not kept, and how to see it again.
#[derive(Debug, thiserror::Error)]
#[error("{scenario} with seed {seed} breaks a promise at {at_ms} ms, in step {step}")]
pub struct Violation {
    /// The scenario.
    pub scenario: &'static str,
    /// The seed.
    pub seed: u64,
    /// Events that came before.
    pub step: u64,
    /// When, in virtual time.
    pub at_ms: u64,
    /// The promise.
    #[source]
    pub broken: Broken,
}

/// Plays a scenario to the end of its last task. Equal arguments give equal reports.
///
/// # Errors
/// [`Violation`] at the first step after which a promise of the scheduler does not hold.
pub fn run(scenario: &'static Scenario, seed: u64, tasks: usize) -> Result<Report, Violation> {
    let world = played(scenario, seed, tasks, true)?;
    let mut report = Report::of(&world, seed);
    if let Some(fifo) = Fifo::played(scenario, seed, tasks) {
        let restless = played(scenario, seed, tasks, false)?;
        report.swap = Swap::of(&world, &restless, &fifo);
    }
    Ok(report)
}

/// A world after its last task. `lingers` is false for one in which no model is kept in the pause between two tasks.
pub(crate) fn played(scenario: &'static Scenario, seed: u64, tasks: usize, lingers: bool) -> Result<World, Violation> {
    let mut world = World::new(scenario, seed, tasks, lingers);
    let played = world.play();
    let (step, at_ms) = (world.steps, world.now_ms);
    played.map_err(|broken| Violation { scenario: scenario.name, seed, step, at_ms, broken })?;
    Ok(world)
}

/// One pool as it really is.
pub(crate) struct Pool {
    pub(crate) id: PoolId,
    pub(crate) replicas: Vec<Replica>,
    /// Drains in force.
    draining: u32,
    /// Time that slots were leased, in milliseconds.
    pub(crate) leased_ms: u64,
}

pub(crate) struct Replica {
    id: ReplicaId,
    engine: Engine,
    condition: Condition,
}

/// How far things were when the last task was submitted: what comes after is no longer the scenario's load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    pub(crate) ms: u64,
    /// Leased time by pool, in milliseconds.
    pub(crate) leased_ms: Vec<u64>,
}

pub(crate) struct World {
    pub(crate) scenario: &'static Scenario,
    scheduler: Scheduler,
    checker: Checker,
    agenda: Agenda,
    pub(crate) now_ms: u64,
    pub(crate) steps: u64,
    pub(crate) pools: Vec<Pool>,
    pub(crate) load: Load,
    faults: Faults,
    foresight: Foresight,
    /// Where models are swapped.
    pub(crate) residency: Option<Residency>,
    /// How late readings are.
    delays: Draw,
    /// Every task, by number.
    pub(crate) lives: Vec<Life>,
    /// Tasks to submit in all.
    tasks: usize,
    /// Tasks that have not come to their end, refused ones included.
    open: usize,
    pub(crate) window: Window,
    /// A digest of everything the scheduler has said.
    story: FoldHasher<'static>,
}

impl World {
    fn new(scenario: &'static Scenario, seed: u64, tasks: usize, lingers: bool) -> Self {
        let replica = |pool, (place, replica)| Replica {
            id: tell::replica_id(place),
            engine: Engine::new(pool, replica),
            condition: Condition::new(scenario.swap.is_none()),
        };
        let pool = |pool: &'static crate::scenario::Pool| Pool {
            id: pool.id.into(),
            replicas: pool.replicas.iter().enumerate().map(|entry| replica(pool, entry)).collect(),
            draining: 0,
            leased_ms: 0,
        };
        Self {
            scenario,
            scheduler: Scheduler::new(tell::specs(scenario)),
            checker: Checker::new(scenario),
            agenda: Agenda::default(),
            now_ms: 0,
            steps: 0,
            pools: scenario.pools.iter().map(pool).collect(),
            load: Load::new(scenario.sources, seed),
            faults: Faults::new(scenario.faults, seed),
            foresight: Foresight::new(scenario, seed),
            residency: Residency::new(scenario, seed, lingers),
            delays: Draw::new(seed, [6, 0, 0]),
            lives: Vec::with_capacity(tasks),
            tasks,
            open: 0,
            window: Window::default(),
            story: STORY.build_hasher(),
        }
    }

    fn play(&mut self) -> Result<(), Broken> {
        self.begin()?;
        while self.lives.len() < self.tasks || self.open > 0 {
            let Some((at_ms, event)) = self.agenda.next() else {
                break;
            };
            self.now_ms = at_ms;
            if self.happens(event)? {
                self.steps += 1;
                self.start_what_can()?;
                self.checker.check(&self.scheduler)?;
                self.nudge();
            }
        }
        Ok(())
    }

    /// Every replica is probed, then the clients come.
    fn begin(&mut self) -> Result<(), Broken> {
        for pool in 0..self.pools.len() {
            for replica in 0..self.pools[pool].replicas.len() {
                self.probe(pool, replica)?;
                self.agenda.add(PROBE_EVERY_MS, Event::Probe(pool, replica));
            }
        }
        self.begin_memory()?;
        for source in 0..self.scenario.sources.len() {
            for turn in self.load.first(source) {
                self.agenda.add(turn.at_ms, Event::Turn(turn));
            }
        }
        for fault in 0..self.scenario.faults.len() {
            let at_ms = self.faults.pause_ms(fault);
            self.agenda.add(at_ms, Event::FaultBegins(fault));
        }
        Ok(())
    }

    /// `false` when it concerns nobody any more.
    fn happens(&mut self, event: Event) -> Result<bool, Broken> {
        match event {
            Event::Turn(turn) => return self.turn(turn),
            Event::Retry(task) => self.submit(task)?,
            Event::Cancel(task) => return self.cut(task, End::Canceled),
            Event::Deadline(task) => return self.cut(task, End::Expired),
            Event::Stopped(task) => return self.stopped(task),
            Event::Lost(task, attempt) => return self.lost(task, attempt),
            Event::Engine { pool, replica, generation } => return self.engine(pool, replica, generation),
            Event::Probe(pool, replica) => {
                self.agenda.add(self.now_ms + PROBE_EVERY_MS, event);
                self.probe(pool, replica)?;
            }
            Event::Nudged(pool, replica) => self.probe(pool, replica)?,
            Event::FaultBegins(fault) => self.fault(fault, true)?,
            Event::FaultEnds(fault) => self.fault(fault, false)?,
            _ => return self.memory(event),
        }
        Ok(true)
    }

    fn ended(&mut self, task: usize, fate: Fate) {
        self.open -= 1;
        let life = &mut self.lives[task];
        life.ends(fate, self.now_ms);
        let ((source, client), not_before_ms) = (life.client, life.not_before_ms);
        if let Some(turn) = self.load.after_end(source, client, self.now_ms, not_before_ms) {
            self.agenda.add(turn.at_ms, Event::Turn(turn));
        }
    }

    fn pool(&self, id: &PoolId) -> usize {
        self.pools.iter().position(|pool| pool.id == *id).expect("the checker knows the same pools")
    }

    fn said(&mut self, answer: &impl std::fmt::Debug) {
        format!("{} {answer:?}", self.now_ms).hash(&mut self.story);
    }

    /// The digest of everything the scheduler has said.
    pub(crate) fn story(&self) -> u64 {
        self.story.finish()
    }
}
