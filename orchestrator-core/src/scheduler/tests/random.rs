//! Random lives of tasks and pools, followed by a model that only knows what the scheduler has said.

use std::collections::{BTreeMap, BTreeSet};

use api_types::{Engine, PlacementMode, PoolId, Priority, TaskId};
use proptest::prelude::*;

use super::{
    Action, Canceled, Dispatch, End, FullPolicy, NewTask, Outcome, PerClass, PoolSpec, ReplicaFacts, ReplicaSpec,
    Requeued, Scheduler, closed, id, open, spec, task,
};

const POOLS: [&str; 3] = ["a", "b", "c"];
const REPLICAS: [&str; 2] = ["r0", "r1"];

#[derive(Clone, Debug)]
enum Op {
    Admit {
        number: u32,
        priority: Priority,
        mode: PlacementMode,
        pool: usize,
        ctx: i32,
    },
    /// Asks for at most so many dispatches.
    Dispatch(usize),
    FirstToken(u32),
    Finish(u32, End),
    Cancel(u32),
    Requeue(u32),
    Update {
        pool: usize,
        replica: usize,
        ready: bool,
        /// The engine's version, told by replicas of pool a only.
        version: u8,
        ctx: i32,
        slots: u32,
    },
    Drain(usize, bool),
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let number = || 0_u32..40;
    let pool = || 0_usize..POOLS.len();
    let priority = prop::sample::select(Priority::ALL);
    let mode = prop::sample::select(PlacementMode::ALL);
    let end = prop::sample::select(&[End::Completed, End::Failed, End::Canceled, End::Expired][..]);
    prop_oneof![
        8 => (number(), priority, mode, pool(), 1_i32..4).prop_map(|(number, priority, mode, pool, ctx)| {
            Op::Admit { number, priority, mode, pool, ctx }
        }),
        5 => (0_usize..4).prop_map(Op::Dispatch),
        2 => number().prop_map(Op::FirstToken),
        5 => (number(), end).prop_map(|(number, end)| Op::Finish(number, end)),
        2 => number().prop_map(Op::Cancel),
        2 => number().prop_map(Op::Requeue),
        2 => (pool(), 0_usize..2, prop::bool::weighted(0.7), 0_u8..2, 2_i32..5, 1_u32..4).prop_map(
            |(pool, replica, ready, version, ctx, slots)| Op::Update { pool, replica, ready, version, ctx, slots },
        ),
        1 => (pool(), prop::bool::ANY).prop_map(|(pool, draining)| Op::Drain(pool, draining)),
        1 => (0_u64..3_000).prop_map(Op::Pass),
    ]
}

/// Three unlike pools: a has two replicas and a limit on batch tasks, b drops, c gives turns.
fn specs() -> Vec<PoolSpec> {
    let mut specs: Vec<PoolSpec> = POOLS.iter().map(|pool| spec(pool, 1, 3)).collect();
    specs[0].replicas = REPLICAS.iter().map(|id| ReplicaSpec { replica_id: (*id).into(), slots: 1 }).collect();
    specs[0].queue.class_capacity.batch = Some(2);
    specs[1].queue.full_policy = FullPolicy::DropLru;
    specs[2].engine = Engine::Mock;
    specs[2].replicas[0].slots = 2;
    let weight = std::num::NonZeroU16::MIN;
    specs[2].queue.weights = Some(PerClass { interactive: weight, batch: weight });
    specs
}

fn new_task(number: u32, priority: Priority, mode: PlacementMode, pool: usize, ctx: i32) -> NewTask {
    let mut new = task(number, priority);
    if POOLS[pool] == "c" {
        new.job.engine = Engine::Mock;
    }
    new.job.required_ctx = ctx;
    new.job.placement.mode = mode;
    match mode {
        PlacementMode::Pin => new.job.placement.pin_pool_id = Some(POOLS[pool].to_owned()),
        PlacementMode::Prefer => new.job.placement.prefer_pools = Some(vec![POOLS[pool].to_owned()]),
        PlacementMode::Auto => {}
    }
    new
}

/// What must be true, by what the scheduler has answered so far.
struct World {
    scheduler: Scheduler,
    now_ms: u64,
    /// Waiting tasks by pool and class, in order.
    queues: BTreeMap<(PoolId, Priority), Vec<TaskId>>,
    /// Running tasks and their pools.
    running: BTreeMap<TaskId, PoolId>,
    classes: BTreeMap<TaskId, Priority>,
    admitted: usize,
    ended: usize,
    /// Everything the scheduler said, for comparing two runs.
    said: Vec<String>,
}

fn every_replica() -> impl Iterator<Item = (&'static str, &'static str)> {
    POOLS.into_iter().flat_map(|pool| REPLICAS.map(|replica| (pool, replica)))
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            scheduler: Scheduler::new(specs()),
            now_ms: 0,
            queues: BTreeMap::new(),
            running: BTreeMap::new(),
            classes: BTreeMap::new(),
            admitted: 0,
            ended: 0,
            said: Vec::new(),
        };
        for (pool, replica) in every_replica() {
            world.update(pool, replica, &open());
        }
        world
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Admit { number, priority, mode, pool, ctx } => self.admit(new_task(number, priority, mode, pool, ctx)),
            Op::Dispatch(most) => {
                (0..most).all(|_| self.dispatch());
            }
            Op::FirstToken(number) => {
                let known = self.scheduler.first_token(id(number));
                assert!(!known || self.running.contains_key(&id(number)));
            }
            Op::Finish(number, end) => self.finish(id(number), end),
            Op::Cancel(number) => self.cancel(id(number)),
            Op::Requeue(number) => self.requeue(id(number)),
            Op::Update { pool, replica, ready, version, ctx, slots } => {
                let facts = if ready { open() } else { closed() };
                let engine_version = (pool == 0).then(|| format!("b{version}"));
                let facts = ReplicaFacts { ctx_max: Some(ctx), slots_total: Some(slots), engine_version, ..facts };
                self.update(POOLS[pool], REPLICAS[replica], &facts);
            }
            Op::Drain(pool, draining) => {
                let pool = PoolId::from(POOLS[pool]);
                let actions = if draining {
                    self.scheduler.drain(&pool, self.now_ms)
                } else {
                    self.scheduler.undrain(&pool, self.now_ms)
                };
                self.carry_out(actions);
            }
            Op::Pass(ms) => self.now_ms += ms,
        }
        self.check();
    }

    fn queue(&mut self, pool: &PoolId, task: TaskId) -> &mut Vec<TaskId> {
        self.queues.entry((pool.clone(), self.classes[&task])).or_default()
    }

    fn waits_at(&self, task: TaskId) -> Option<PoolId> {
        self.queues.iter().find(|(_, tasks)| tasks.contains(&task)).map(|((pool, _), _)| pool.clone())
    }

    fn leave_queue(&mut self, task: TaskId) -> PoolId {
        let pool = self.waits_at(task).expect("it waits");
        self.queue(&pool, task).retain(|other| *other != task);
        pool
    }

    fn end(&mut self, task: TaskId) {
        self.classes.remove(&task).expect("it was alive");
        self.ended += 1;
    }

    fn depth(&self, pool: &PoolId) -> usize {
        Priority::ALL.iter().map(|class| self.queues.get(&(pool.clone(), *class)).map_or(0, Vec::len)).sum()
    }

    fn admit(&mut self, new: NewTask) {
        let (task, priority) = (new.id, new.job.priority);
        let alive = self.classes.contains_key(&task);
        let admission = self.scheduler.admit(new, self.now_ms);
        self.said.push(format!("{admission:?}"));
        let Ok(admission) = admission else {
            return;
        };
        assert!(!alive, "an id lives once");
        let depth_before = self.depth(&admission.pool_id);
        if let Some(evicted) = admission.evicted {
            assert_eq!(self.leave_queue(evicted), admission.pool_id);
            self.end(evicted);
        }
        self.admitted += 1;
        self.classes.insert(task, priority);
        self.queue(&admission.pool_id, task).push(task);
        assert_eq!(self.scheduler.queue_position(task), Some(admission.queue_position));
        assert!(self.depth(&admission.pool_id) <= depth_before.max(3), "capacity");
    }

    /// Whether something was started.
    fn dispatch(&mut self) -> bool {
        let dispatch = self.scheduler.next_dispatch(self.now_ms);
        self.said.push(format!("{dispatch:?}"));
        let started = dispatch.is_some();
        match dispatch {
            Some(dispatch) => self.started(&dispatch),
            None => self.check_nothing_can_start(),
        }
        self.check();
        started
    }

    fn started(&mut self, dispatch: &Dispatch) {
        let task = dispatch.task_id;
        let snapshot = self.scheduler.pool(&dispatch.pool_id).expect("it exists").snapshot;
        assert!(snapshot.ready && !snapshot.draining);
        assert!(!self.running.contains_key(&task));
        let own_interactive = self.queues.get(&(dispatch.pool_id.clone(), Priority::Interactive)).map_or(0, Vec::len);
        let class = self.classes[&task];
        let by_turns = dispatch.pool_id.as_str() == "c";
        assert!(class == Priority::Interactive || own_interactive == 0 || by_turns, "interactive first");
        let replica =
            self.scheduler.replicas(&dispatch.pool_id).find(|replica| *replica.replica_id == dispatch.replica_id);
        assert!(replica.is_some_and(|replica| replica.ready && !replica.odd_version));
        let from = self.waits_at(task).expect("only what waits is started");
        if dispatch.moved_from.is_none() {
            assert_eq!(from, dispatch.pool_id);
            assert_eq!(self.queue(&from, task).first(), Some(&task), "first come first served");
        } else {
            assert_eq!(dispatch.moved_from.as_ref(), Some(&from));
        }
        self.leave_queue(task);
        self.running.insert(task, dispatch.pool_id.clone());
    }

    /// After `None`, no open pool has both a free slot and a waiting task.
    fn check_nothing_can_start(&self) {
        for (view, pool) in self.scheduler.pools().zip(&self.scheduler.pools) {
            let able = !view.snapshot.draining && pool.has_free_slot(self.now_ms);
            assert!(!able || self.depth(&view.snapshot.id) == 0, "pool {} idles", view.snapshot.id);
        }
    }

    fn finish(&mut self, task: TaskId, end: End) {
        let outcome = Outcome { tokens_in: Some(7), tokens_out: Some(5), ..Outcome::unmeasured(end) };
        let finished = self.scheduler.finish(task, outcome, self.now_ms);
        assert_eq!(finished, self.running.remove(&task).is_some());
        if finished {
            self.end(task);
        }
    }

    fn cancel(&mut self, task: TaskId) {
        match self.scheduler.cancel(task, self.now_ms) {
            Canceled::Queued => {
                self.leave_queue(task);
                self.end(task);
            }
            Canceled::Running => assert!(self.running.contains_key(&task)),
            Canceled::Unknown => assert!(!self.classes.contains_key(&task)),
        }
    }

    fn requeue(&mut self, task: TaskId) {
        let requeued = self.scheduler.requeue(task, self.now_ms);
        self.said.push(format!("{requeued:?}"));
        match requeued {
            Requeued::Again { pool_id, .. } => {
                self.running.remove(&task).expect("it ran");
                self.queue(&pool_id, task).insert(0, task);
            }
            Requeued::GivenUp | Requeued::Canceled => {
                self.running.remove(&task).expect("it ran");
                self.end(task);
            }
            Requeued::Unknown => assert!(!self.running.contains_key(&task)),
        }
    }

    fn update(&mut self, pool: &str, replica: &str, facts: &ReplicaFacts) {
        let actions = self.scheduler.update_replica(&pool.into(), &replica.into(), facts, self.now_ms);
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.said.push(format!("{action:?}"));
            match action {
                Action::Moved { task, from, to, .. } => {
                    assert_eq!(self.leave_queue(task), from);
                    self.queue(&to, task).push(task);
                }
                Action::Rejected { task, .. } => {
                    self.leave_queue(task);
                    self.end(task);
                }
            }
        }
    }

    /// Queues, leases and counts agree with the model, and no limit is exceeded.
    fn check(&self) {
        assert_eq!(self.admitted - self.ended, self.scheduler.task_count());
        for view in self.scheduler.pools() {
            let pool = &view.snapshot.id;
            assert_eq!(view.active_leases, self.running.values().filter(|at| *at == pool).count());
            let configured = if pool.as_str() == "b" { 1 } else { 2 };
            assert!(view.active_leases <= configured, "leases");
            let on_replicas: u32 = self.scheduler.replicas(pool).map(|replica| replica.active_leases).sum();
            assert_eq!(view.active_leases, on_replicas as usize);
            assert!((0..=view.snapshot.slots_total).contains(&view.snapshot.slots_free));
            let versions: BTreeSet<_> = self
                .scheduler
                .replicas(pool)
                .filter(|replica| replica.ready)
                .map(|replica| replica.odd_version)
                .collect();
            assert!(!versions.contains(&true), "a replica of another version takes no task");
            assert!(self.depth(pool) <= 3 + configured, "only what was put back stands above the capacity");
            let waiting = |class| self.queues.get(&(pool.clone(), class)).into_iter().flatten();
            let mut positions: Vec<_> = waiting(Priority::Interactive)
                .chain(waiting(Priority::Batch))
                .map(|task| self.scheduler.queue_position(*task).expect("it waits"))
                .collect();
            if pool.as_str() == "c" {
                positions.sort_unstable();
            }
            assert!(positions.iter().copied().eq(0..positions.len()));
        }
    }

    /// Lets everything run to its end.
    fn settle(&mut self) {
        for pool in POOLS {
            let actions = self.scheduler.undrain(&pool.into(), self.now_ms);
            self.carry_out(actions);
        }
        for (pool, replica) in every_replica() {
            self.update(pool, replica, &ReplicaFacts { engine_version: Some("b0".to_owned()), ..open() });
        }
        loop {
            while self.dispatch() {}
            let Some(task) = self.running.keys().next().copied() else {
                break;
            };
            self.finish(task, End::Completed);
        }
        assert_eq!((self.scheduler.task_count(), self.ended), (0, self.admitted));
        assert!(
            self.scheduler.pools.iter().all(|pool| {
                pool.demand.interactive == Default::default() && pool.demand.batch == Default::default()
            })
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// ORCH-3004, ORCH-3010, OC-CORE-1004, OC-CORE-1005, ORCH-3960: whatever happens, capacity and slots hold, order
    /// holds, nothing starts after its cancel, and every admitted task ends exactly once.
    #[test]
    fn every_admitted_task_ends_once(ops in prop::collection::vec(op(), 0..120)) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
        }
        world.settle();
    }

    /// ORCH-3252, LO-PLC-01, LO-DET-01: the same story told twice gives the same answers.
    #[test]
    fn equal_stories_have_equal_answers(ops in prop::collection::vec(op(), 0..60)) {
        let tell = || {
            let mut world = World::new();
            ops.iter().for_each(|op| world.run(op));
            world.said
        };
        prop_assert_eq!(tell(), tell());
    }
}
