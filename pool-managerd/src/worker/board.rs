//! What this host's pools are like, for heartbeats and for the relay.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use api_types::{Heartbeat, HeartbeatAnswer, PoolId, PoolState, WorkerGate, WorkerModel, WorkerPool};
use config_schema::EngineUrl;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::machine::Why;
use crate::pool::{PoolReport, StagedModel};
use crate::registry::{Lease, Registry};

/// Every pool of this host.
#[derive(Default)]
pub(super) struct Board {
    pools: Mutex<Pools>,
    /// Something has changed that the orchestrator should know at once.
    pub(super) changed: Notify,
}

#[derive(Default)]
struct Pools {
    by_id: BTreeMap<PoolId, Entry>,
    /// Engines so far, of all pools; and wishes for memory.
    engines: u64,
    wishes: u64,
}

struct Entry {
    report: PoolReport,
    engine_number: u64,
    engine: Option<Target>,
    gate: Option<WorkerGate>,
    cuts: u64,
    staged: Option<WorkerModel>,
    /// Its start waits for memory.
    wish: Option<Wish>,
    /// Held while it is closed and the orchestrator has not said that none of its tasks are left: only it knows, and until then
    /// the pool is not idle.
    tasks_elsewhere: Option<Lease>,
}

/// A start that waits for memory, and where the answer goes.
struct Wish {
    turn: u64,
    /// It takes over an engine of an earlier life; that can be asked once.
    takes_over: Option<bool>,
    answer: oneshot::Sender<Result<(), Failure>>,
}

/// Where the relay leads.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) url: EngineUrl,
    /// Fires when it leads there no more.
    pub(super) over: CancellationToken,
}

impl Board {
    fn pools(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These pools and no others, none of which is up.
    pub(super) fn set(&self, pools: impl Iterator<Item = (PoolId, PoolReport)>) {
        let entry = |report| Entry {
            report,
            engine_number: 0,
            engine: None,
            gate: None,
            cuts: 0,
            staged: None,
            wish: None,
            tasks_elsewhere: None,
        };
        let by_id = pools.map(|(id, report)| (id, entry(report))).collect();
        let before = std::mem::replace(&mut self.pools().by_id, by_id);
        before.into_values().filter_map(|entry| entry.engine).for_each(|engine| engine.over.cancel());
        self.changed.notify_one();
    }

    /// Changes what is known of a pool, if there is such a pool, and tells.
    fn change<T>(&self, pool: &PoolId, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let changed = self.pools().by_id.get_mut(pool).map(change);
        self.changed.notify_one();
        changed
    }

    /// How a pool stands now; how it stood.
    pub(super) fn report(&self, pool: &PoolId, report: &PoolReport) -> Option<PoolReport> {
        self.change(pool, |entry| std::mem::replace(&mut entry.report, report.clone()))
    }

    /// Another engine of a pool listens there.
    pub(super) fn bind(&self, pool: &PoolId, url: EngineUrl) {
        let number = {
            let mut pools = self.pools();
            pools.engines += 1;
            pools.engines
        };
        let before = self.change(pool, |entry| {
            entry.engine_number = number;
            entry.engine.replace(Target { url, over: CancellationToken::new() })
        });
        before.flatten().into_iter().for_each(|before| before.over.cancel());
    }

    /// A model of a pool is here.
    pub(super) fn staged(&self, pool: &PoolId, model: &StagedModel) {
        let staged =
            WorkerModel { reference: model.reference.clone(), bytes: model.bytes, need_bytes: model.need_bytes };
        self.change(pool, |entry| entry.staged = Some(staged));
    }

    /// A pool's start waits for memory, for as long as the answer is waited for.
    pub(super) fn want_memory(&self, pool: &PoolId) -> oneshot::Receiver<Result<(), Failure>> {
        let (answer, answered) = oneshot::channel();
        let turn = {
            let mut pools = self.pools();
            pools.wishes += 1;
            pools.wishes
        };
        self.change(pool, |entry| entry.wish = Some(Wish { turn, takes_over: None, answer }));
        answered
    }

    /// Whether what waits for memory takes over an engine of an earlier life, which `ask` says.
    pub(super) fn takes_over(&self, pool: &PoolId, ask: impl FnOnce() -> bool) -> bool {
        let mut pools = self.pools();
        let wish = pools.by_id.get_mut(pool).and_then(|entry| entry.wish.as_mut());
        wish.is_some_and(|wish| *wish.takes_over.get_or_insert_with(ask))
    }

    /// The orchestrator has decided about a wish for memory. One that was withdrawn is nobody's.
    pub(super) fn answer_wish(&self, pool: &PoolId, turn: u64, answer: Result<(), Failure>) {
        let wish = self.change(pool, |entry| entry.wish.take_if(|wish| wish.turn == turn));
        if let Some(wish) = wish.flatten() {
            let _ = wish.answer.send(answer);
        }
    }

    /// Whether memory is on the move: an engine starts, ends, or waits for memory.
    pub(super) fn is_busy(&self) -> bool {
        let moves = |entry: &Entry| {
            entry.wish.is_some()
                || matches!(entry.report.state, PoolState::Preparing | PoolState::Starting | PoolState::Stopping)
        };
        self.pools().by_id.values().any(moves)
    }

    /// A pool was opened.
    pub(super) fn open(&self, pool: &PoolId) {
        let lease = self.change(pool, |entry| {
            entry.turn(None);
            entry.tasks_elsewhere.take()
        });
        // Outside the lock: whoever waits for the pool to be idle may wake.
        drop(lease);
    }

    /// A pool was closed.
    pub(super) fn close(&self, pool: &PoolId, why: Why, registry: &Registry) {
        let lease = registry.lease(pool);
        let before = self.change(pool, |entry| {
            entry.turn(Some(why));
            entry.tasks_elsewhere.replace(lease)
        });
        drop(before);
    }

    /// A pool's drain has come to its deadline. The orchestrator ends what is left; where it is not there, nothing is left but
    /// connections.
    pub(super) fn cut(&self, pool: &PoolId, orchestrator_is_there: bool) {
        let lease = self.change(pool, |entry| {
            entry.cuts += 1;
            if orchestrator_is_there {
                return None;
            }
            entry.break_off();
            entry.tasks_elsewhere.take()
        });
        drop(lease);
    }

    /// The orchestrator has given up every stream of this host: what still goes through the relay is nobody's.
    pub(super) fn break_off(&self) {
        self.pools().by_id.values_mut().for_each(Entry::break_off);
    }

    /// Where the relay leads for a pool.
    pub(super) fn target(&self, pool: &str) -> Option<Target> {
        self.pools().by_id.get(pool)?.engine.clone()
    }

    /// What a heartbeat says of the pools.
    pub(super) fn tell(&self) -> Vec<WorkerPool> {
        let now = Instant::now();
        let tell = |(id, entry): (&PoolId, &Entry)| WorkerPool {
            engine_number: entry.engine_number,
            gate: entry.gate.clone(),
            cuts: entry.cuts,
            staged: entry.staged.clone(),
            wants_memory: entry.wish.as_ref().filter(|wish| !wish.answer.is_closed()).map(|wish| wish.turn),
            ..entry.report.to_wire(id, now)
        };
        self.pools().by_id.iter().map(tell).collect()
    }

    /// A heartbeat was answered: pools that it told to be closed, and that have no tasks by the answer, are idle.
    pub(super) fn answered(&self, told: &Heartbeat, answer: &HeartbeatAnswer) {
        let mut idle = Vec::new();
        {
            let mut pools = self.pools();
            for told in &told.pools {
                let Some(entry) = pools.by_id.get_mut(&told.pool_id) else { continue };
                let has_tasks = answer.leases.iter().any(|leases| leases.pool_id == told.pool_id && leases.count > 0);
                if told.gate == entry.gate && !has_tasks {
                    idle.extend(entry.tasks_elsewhere.take());
                }
            }
        }
        drop(idle);
    }
}

impl Entry {
    fn turn(&mut self, closed: Option<Why>) {
        let turn = self.gate.as_ref().map_or(0, |gate| gate.turn) + 1;
        self.gate = Some(WorkerGate { turn, closed: closed.map(Into::into) });
    }

    /// Breaks off what goes through the relay; the engine stays.
    fn break_off(&mut self) {
        if let Some(target) = &mut self.engine {
            std::mem::take(&mut target.over).cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use api_types::{Heartbeat, HeartbeatAnswer, PoolId, PoolLeases};

    use super::Board;
    use crate::machine::Why;
    use crate::pool::PoolReport;
    use crate::registry::Registry;

    fn beat(board: &Board) -> Heartbeat {
        Heartbeat {
            session: String::new(),
            seq: 1,
            taken_through: 0,
            done: Vec::new(),
            pools: board.tell(),
            devices: Vec::new(),
            devices_age_ms: None,
            leaving: false,
        }
    }

    fn leases(count: u32) -> HeartbeatAnswer {
        let leases = vec![PoolLeases { pool_id: PoolId::from("p"), count }];
        HeartbeatAnswer { leases, ..HeartbeatAnswer::default() }
    }

    /// LO-HST-05: a closed pool is idle once the orchestrator, told that it is closed, knows of no task on it; an answer to what was
    /// told before does not count.
    #[test]
    fn a_closed_pool_is_idle_when_the_orchestrator_says_so() {
        let (board, registry, pool) = (Board::default(), Registry::default(), PoolId::from("p"));
        board.set([(pool.clone(), PoolReport::stopped("m", false))].into_iter());
        let open = beat(&board);
        board.close(&pool, Why::Drain, &registry);
        assert_eq!(registry.get_active_leases(&pool), 1);
        board.answered(&open, &leases(0));
        assert_eq!(registry.get_active_leases(&pool), 1, "that was about an open pool");
        let closed = beat(&board);
        board.answered(&closed, &leases(2));
        assert_eq!(registry.get_active_leases(&pool), 1, "two tasks are left");
        board.answered(&closed, &leases(0));
        assert_eq!(registry.get_active_leases(&pool), 0);
        // Opened and closed again meanwhile: an old answer says nothing of it.
        board.open(&pool);
        board.close(&pool, Why::Stop, &registry);
        board.answered(&closed, &leases(0));
        assert_eq!(registry.get_active_leases(&pool), 1);
        board.cut(&pool, true);
        assert_eq!(registry.get_active_leases(&pool), 1, "the orchestrator ends what is left");
        board.cut(&pool, false);
        assert_eq!(registry.get_active_leases(&pool), 0, "nobody is there to end anything");
    }
}
