//! The scheduler's promises, checked by what it has said and by what it was told: nothing here looks into it.

mod broken;
mod memory;

use std::collections::{HashMap, VecDeque};

use api_types::Priority;
use foldhash::fast::RandomState;
use orchestrator_core::Scheduler;
use orchestrator_core::classes::PerClass;
use orchestrator_core::policy::STALE_AFTER_MS;
use orchestrator_core::queue::FullPolicy;
use orchestrator_core::scheduler::{Action, Admission, Canceled, Dispatch, NewTask, Requeued};

use crate::load::number_of;
use crate::scenario::{Placement, Pool, Scenario};
pub use broken::Broken;

type Kept = Result<(), Broken>;

/// What the scheduler said when it took a task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken<'a> {
    pub(crate) pool: &'a str,
    pub(crate) position: usize,
    /// The task that lost its place.
    pub(crate) evicted: Option<usize>,
    /// Whether a preference was widened.
    pub(crate) widened: bool,
}

impl<'a> From<&'a Admission> for Taken<'a> {
    fn from(admission: &'a Admission) -> Self {
        Self {
            pool: admission.pool_id.as_str(),
            position: admission.queue_position,
            evicted: admission.evicted.map(number_of),
            widened: admission.decision.fallback_used,
        }
    }
}

/// Where a living task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting(usize),
    Running(usize, usize),
}

#[derive(Clone, Copy, Debug)]
struct Known {
    class: Priority,
    placement: Placement,
    ctx: i32,
    /// The model it asks for; empty when nobody serves it.
    model: &'static str,
    /// Whether a preference has been widened.
    widened: bool,
    canceled: bool,
    place: Place,
}

#[derive(Debug)]
struct KnownPool {
    spec: &'static Pool,
    draining: bool,
    /// Its model is not loaded, or is to go.
    cold: bool,
    replicas: Vec<KnownReplica>,
    waiting: PerClass<VecDeque<usize>>,
    /// Starts of the present turn while both classes waited.
    turn: Option<(Priority, u16)>,
}

/// What was told of a replica last, and what runs there.
#[derive(Clone, Copy, Debug)]
struct KnownReplica {
    ready: bool,
    told_ms: Option<u64>,
    /// It has lost a task since: it may be given work, and may as well be left alone until it is heard from.
    suspect: bool,
    slots: usize,
    running: usize,
}

impl KnownReplica {
    fn is_able(self, now_ms: u64) -> bool {
        self.ready && self.told_ms.is_some_and(|told_ms| now_ms.saturating_sub(told_ms) <= STALE_AFTER_MS)
    }
}

impl KnownPool {
    fn depth(&self) -> usize {
        self.waiting.interactive.len() + self.waiting.batch.len()
    }

    fn running(&self) -> usize {
        self.replicas.iter().map(|replica| replica.running).sum()
    }

    /// Whether it must start what waits for it.
    fn has_free_slot(&self, now_ms: u64) -> bool {
        let is_free =
            |replica: &KnownReplica| replica.is_able(now_ms) && !replica.suspect && replica.running < replica.slots;
        !self.draining && !self.cold && self.replicas.iter().any(is_free)
    }

    fn is_full_for(&self, class: Priority) -> bool {
        let own = match class {
            Priority::Batch => self.spec.batch_capacity,
            Priority::Interactive => None,
        };
        self.depth() >= self.spec.capacity || own.is_some_and(|most| self.waiting.of(class).len() >= most)
    }

    /// The tasks that start before the one at this place of its class.
    fn ahead(&self, class: Priority, place: usize) -> usize {
        match class {
            Priority::Interactive => place,
            Priority::Batch => self.waiting.interactive.len() + place,
        }
    }
}

/// Everything known about pools and living tasks.
#[derive(Debug)]
pub(crate) struct Checker {
    pools: Vec<KnownPool>,
    tasks: HashMap<usize, Known, RandomState>,
    accepted: usize,
    ended: usize,
    /// Longest that a task may wait, where the scenario promises it.
    age_limit_ms: Option<u64>,
}

impl Checker {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let replicas = |pool: &'static Pool| {
            let slots = |slots: u32| usize::try_from(slots).expect("slots fit in memory");
            let unknown = |slots| KnownReplica { ready: false, told_ms: None, suspect: false, slots, running: 0 };
            pool.replicas.iter().map(|replica| unknown(slots(replica.slots))).collect()
        };
        let pool = |spec: &'static Pool| KnownPool {
            spec,
            draining: false,
            cold: false,
            replicas: replicas(spec),
            waiting: PerClass::default(),
            turn: None,
        };
        Self {
            pools: scenario.pools.iter().map(pool).collect(),
            tasks: HashMap::default(),
            accepted: 0,
            ended: 0,
            age_limit_ms: scenario.swap.filter(|swap| swap.is_sustainable).map(|swap| swap.age_limit_ms),
        }
    }

    /// A probe was answered.
    pub(crate) fn told(&mut self, pool: usize, replica: usize, ready: bool, now_ms: u64) {
        let known = &mut self.pools[pool].replicas[replica];
        known.ready = ready;
        known.told_ms = Some(now_ms);
        known.suspect = false;
    }

    /// The operator drains a pool, or takes that back.
    pub(crate) fn drained(&mut self, pool: usize, draining: bool) {
        self.pools[pool].draining = draining;
    }

    /// Tasks that were accepted and have not ended.
    pub(crate) const fn living(&self) -> usize {
        self.accepted - self.ended
    }

    /// The tasks that start before one that waits, if nobody comes and the classes have no shares.
    pub(crate) fn ahead_of(&self, task: usize) -> Vec<usize> {
        let Some((known, Place::Waiting(pool))) = self.tasks.get(&task).map(|known| (known, known.place)) else {
            return Vec::new();
        };
        let waiting = &self.pools[pool].waiting;
        let higher = waiting.interactive.iter().filter(|_| known.class == Priority::Batch);
        let own = waiting.of(known.class).iter().take_while(|other| **other != task);
        higher.chain(own).copied().collect()
    }

    /// A task was taken.
    pub(crate) fn admitted(&mut self, placement: Placement, new: &NewTask, taken: Taken<'_>) -> Kept {
        let (task, class) = (number_of(new.id), new.job.priority);
        let pool = self.pool(taken.pool, task)?;
        let known = Known {
            class,
            placement,
            ctx: new.job.required_ctx,
            model: self.model(&new.job.model_ref),
            widened: taken.widened,
            canceled: false,
            place: Place::Waiting(pool),
        };
        self.check_may_use(pool, task, &known)?;
        if let Some(evicted) = taken.evicted {
            self.evicted(pool, class, evicted)?;
        }
        if self.pools[pool].is_full_for(class) {
            return Err(Broken::Capacity { pool: self.pools[pool].spec.id });
        }
        if self.tasks.insert(task, known).is_some() {
            return Err(Broken::Story { task });
        }
        self.accepted += 1;
        let pool = &mut self.pools[pool];
        let queue = pool.waiting.of_mut(class);
        queue.push_back(task);
        let place = queue.len() - 1;
        let in_place = pool.spec.weights.is_some() || taken.position == pool.ahead(class, place);
        in_place.then_some(()).ok_or(Broken::Position { pool: pool.spec.id, task })
    }

    /// An interactive newcomer drives out the oldest batch task, or the oldest interactive one; a batch newcomer the oldest
    /// batch task.
    fn evicted(&mut self, pool: usize, newcomer: Priority, task: usize) -> Kept {
        let known = &self.pools[pool];
        let batch = known.waiting.batch.front();
        let oldest = batch.or(known.waiting.interactive.front().filter(|_| newcomer == Priority::Interactive));
        let is_due = known.spec.full_policy == FullPolicy::DropLru && known.is_full_for(newcomer);
        if !is_due || oldest != Some(&task) {
            return Err(Broken::Evicted { pool: known.spec.id, task });
        }
        self.leave_queue(task)?;
        self.end(task)
    }

    /// A task was handed out.
    pub(crate) fn dispatched(&mut self, dispatch: &Dispatch, now_ms: u64) -> Kept {
        let task = number_of(dispatch.task_id);
        let pool = self.pool(dispatch.pool_id.as_str(), task)?;
        let id = self.pools[pool].spec.id;
        let Some((known, Place::Waiting(from))) = self.tasks.get(&task).map(|known| (*known, known.place)) else {
            return Err(Broken::NotWaiting { pool: id, task });
        };
        let told_from = dispatch.moved_from.as_ref().unwrap_or(&dispatch.pool_id);
        if known.canceled || told_from.as_str() != self.pools[from].spec.id {
            return Err(Broken::NotWaiting { pool: id, task });
        }
        self.check_may_use(pool, task, &known)?;
        if from == pool {
            self.check_own_start(pool, task, known.class)?;
        } else {
            self.check_take_over(pool, from, task, known.class, now_ms)?;
        }
        self.leave_queue(task)?;
        self.occupy(pool, replica_of(dispatch), task, now_ms)
    }

    fn check_own_start(&mut self, pool: usize, task: usize, class: Priority) -> Kept {
        let known = &mut self.pools[pool];
        let id = known.spec.id;
        if known.waiting.of(class).front() != Some(&task) {
            return Err(Broken::Overtaken { pool: id, task });
        }
        let contested = !known.waiting.interactive.is_empty() && !known.waiting.batch.is_empty();
        let Some((interactive, batch)) = known.spec.weights else {
            let is_first = class == Priority::Interactive || !contested;
            return is_first.then_some(()).ok_or(Broken::BatchFirst { pool: id, task });
        };
        let most = if class == Priority::Interactive { interactive } else { batch };
        let before = known.turn.filter(|(turn, _)| *turn == class && contested).map_or(0, |(_, starts)| starts);
        known.turn = contested.then_some((class, before + 1));
        (before < most || !contested).then_some(()).ok_or(Broken::OutOfTurn { pool: id, task })
    }

    fn check_take_over(&self, pool: usize, from: usize, task: usize, class: Priority, now_ms: u64) -> Kept {
        let (here, there) = (&self.pools[pool], &self.pools[from]);
        if there.has_free_slot(now_ms) {
            return Err(Broken::TakenFromAble { pool: here.spec.id, task });
        }
        let own_first = !here.waiting.interactive.is_empty() || (class == Priority::Batch && here.depth() > 0);
        (!own_first).then_some(()).ok_or(Broken::Overtaken { pool: here.spec.id, task })
    }

    fn occupy(&mut self, pool: usize, replica: Option<usize>, task: usize, now_ms: u64) -> Kept {
        let known = &mut self.pools[pool];
        let id = known.spec.id;
        let replica = replica.filter(|replica| *replica < known.replicas.len()).ok_or(Broken::Count { pool: id })?;
        let closed = known.draining || known.cold;
        let on = &mut known.replicas[replica];
        if closed || !on.is_able(now_ms) {
            return Err(Broken::NotReady { pool: id, task });
        }
        on.running += 1;
        if on.running > on.slots {
            return Err(Broken::Slots { pool: id, replica });
        }
        if let Some(known) = self.tasks.get_mut(&task) {
            known.place = Place::Running(pool, replica);
        }
        Ok(())
    }

    /// The scheduler says that nothing can start.
    pub(crate) fn nothing_starts(&self, now_ms: u64) -> Kept {
        let idle = self.pools.iter().find(|pool| pool.depth() > 0 && pool.has_free_slot(now_ms));
        idle.map_or(Ok(()), |pool| Err(Broken::Idle { pool: pool.spec.id }))
    }

    /// A running task has ended, and the scheduler agrees if `said`.
    pub(crate) fn finished(&mut self, task: usize, said: bool) -> Kept {
        if !said {
            return Err(Broken::Story { task });
        }
        self.leave_slot(task)?;
        self.end(task)
    }

    /// A task was canceled, or its deadline has passed.
    pub(crate) fn canceled(&mut self, task: usize, canceled: Canceled) -> Kept {
        match (canceled, self.tasks.get_mut(&task)) {
            (Canceled::Queued, Some(_)) => {
                self.leave_queue(task)?;
                self.end(task)
            }
            (Canceled::Running, Some(known)) if matches!(known.place, Place::Running(..)) => {
                known.canceled = true;
                Ok(())
            }
            (Canceled::Unknown, None) => Ok(()),
            _ => Err(Broken::Story { task }),
        }
    }

    /// A task's worker was lost.
    pub(crate) fn requeued(&mut self, task: usize, requeued: &Requeued) -> Kept {
        let known = self.tasks.get(&task).copied().ok_or(Broken::Story { task })?;
        self.leave_slot(task)?;
        if let Place::Running(pool, replica) = known.place {
            self.pools[pool].replicas[replica].suspect = true;
        }
        match requeued {
            Requeued::Again { pool_id, queue_position } if !known.canceled => {
                let pool = self.pool(pool_id.as_str(), task)?;
                self.enter(pool, task, true)?;
                let in_place = self.pools[pool].spec.weights.is_some()
                    || *queue_position == self.pools[pool].ahead(known.class, 0);
                in_place.then_some(()).ok_or(Broken::Position { pool: self.pools[pool].spec.id, task })
            }
            Requeued::Canceled if known.canceled => self.end(task),
            Requeued::GivenUp if !known.canceled => self.end(task),
            _ => Err(Broken::Story { task }),
        }
    }

    /// A waiting task was moved or turned out.
    pub(crate) fn acted(&mut self, action: &Action) -> Kept {
        match action {
            Action::Moved { task, from, to, .. } => {
                let task = number_of(*task);
                let to = self.pool(to.as_str(), task)?;
                let class = self.tasks.get(&task).map(|known| known.class).ok_or(Broken::Story { task })?;
                if self.pools[to].is_full_for(class) {
                    return Err(Broken::Capacity { pool: self.pools[to].spec.id });
                }
                let left = self.leave_queue(task)?;
                if self.pools[left].spec.id != from.as_str() {
                    return Err(Broken::Story { task });
                }
                self.enter(to, task, false)
            }
            Action::Rejected { task, .. } => {
                self.leave_queue(number_of(*task))?;
                self.end(number_of(*task))
            }
        }
    }

    /// What the scheduler counts agrees with what it has said.
    pub(crate) fn check(&self, scheduler: &Scheduler) -> Kept {
        if scheduler.task_count() != self.living() || self.tasks.len() != self.living() {
            return Err(Broken::Count { pool: "(all)" });
        }
        for (known, view) in self.pools.iter().zip(scheduler.pools()) {
            let pool = known.spec.id;
            let queued = usize::try_from(view.snapshot.queued).ok();
            let on_replicas = scheduler.replicas(&view.snapshot.id).map(|replica| replica.active_leases as usize);
            let agrees = queued == Some(known.depth())
                && view.active_leases == known.running()
                && on_replicas.eq(known.replicas.iter().map(|replica| replica.running));
            if !agrees {
                return Err(Broken::Count { pool });
            }
            known.check_positions(scheduler)?;
        }
        Ok(())
    }

    /// Whether a task may be on a pool at all.
    fn check_may_use(&self, pool: usize, task: usize, known: &Known) -> Kept {
        let spec = self.pools[pool].spec;
        let allowed = match known.placement {
            Placement::Auto => true,
            Placement::Pin(wanted) | Placement::PreferOnly(wanted) => spec.id == wanted,
            Placement::Prefer(wanted) => spec.id == wanted || known.widened,
            Placement::Avoid(unwanted) => spec.id != unwanted,
            Placement::Mask(mask) => spec.device_mask == Some(mask),
        };
        (allowed && known.ctx <= spec.ctx && known.model == spec.model)
            .then_some(())
            .ok_or(Broken::Crossed { pool: spec.id, task })
    }

    fn enter(&mut self, pool: usize, task: usize, at_front: bool) -> Kept {
        let known = self.tasks.get_mut(&task).ok_or(Broken::Story { task })?;
        let (Place::Waiting(from) | Place::Running(from, _)) = known.place;
        // The scheduler widens a preference only for a pool that is closed or has lost the task.
        known.widened |= from != pool;
        known.place = Place::Waiting(pool);
        let known = *known;
        self.check_may_use(pool, task, &known)?;
        let queue = self.pools[pool].waiting.of_mut(known.class);
        if at_front {
            queue.push_front(task);
        } else {
            queue.push_back(task);
        }
        Ok(())
    }

    /// Takes a task out of its queue and says which one it was.
    fn leave_queue(&mut self, task: usize) -> Result<usize, Broken> {
        let known = self.tasks.get(&task).ok_or(Broken::Story { task })?;
        let Place::Waiting(pool) = known.place else {
            return Err(Broken::Story { task });
        };
        let queue = self.pools[pool].waiting.of_mut(known.class);
        let place = queue.iter().position(|other| *other == task).ok_or(Broken::Story { task })?;
        queue.remove(place);
        Ok(pool)
    }

    fn leave_slot(&mut self, task: usize) -> Kept {
        let Some(Place::Running(pool, replica)) = self.tasks.get(&task).map(|known| known.place) else {
            return Err(Broken::Story { task });
        };
        self.pools[pool].replicas[replica].running -= 1;
        Ok(())
    }

    fn end(&mut self, task: usize) -> Kept {
        self.tasks.remove(&task).ok_or(Broken::Story { task })?;
        self.ended += 1;
        Ok(())
    }

    fn model(&self, name: &str) -> &'static str {
        self.pools.iter().map(|pool| pool.spec.model).find(|model| *model == name).unwrap_or("")
    }

    fn pool(&self, id: &str, task: usize) -> Result<usize, Broken> {
        self.pools.iter().position(|pool| pool.spec.id == id).ok_or(Broken::Story { task })
    }
}

/// Entries of a queue that are looked at from either end; a step changes few of them.
const LOOKED_AT: usize = 4;

impl KnownPool {
    fn check_positions(&self, scheduler: &Scheduler) -> Kept {
        if self.spec.weights.is_some() {
            return Ok(());
        }
        for class in Priority::ALL {
            let queue = self.waiting.of(*class);
            let places = (0..queue.len()).filter(|place| *place < LOOKED_AT || place + LOOKED_AT >= queue.len());
            for place in places {
                let task = queue[place];
                if scheduler.queue_position(crate::load::id_of(task)) != Some(self.ahead(*class, place)) {
                    return Err(Broken::Position { pool: self.spec.id, task });
                }
            }
        }
        Ok(())
    }
}

/// The replica's place, which is its name.
pub(crate) fn replica_of(dispatch: &Dispatch) -> Option<usize> {
    dispatch.replica_id.as_str().strip_prefix('r')?.parse().ok()
}

#[cfg(test)]
mod tests;
