//! One pool that another host runs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api_types::{PoolId, WorkerFailure, WorkerId, WorkerOrder, WorkerPool};
use config_schema::Pool;
use pool_managerd::adapter::adapter_at;
use pool_managerd::failure::Failure;
use pool_managerd::machine::Conflict;
use pool_managerd::manager::Memory;
use pool_managerd::pool::{Activity, Host as _, PoolHandle, PoolReport, RemoteEnd, StagedModel, Wanted};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::leash::Leashed;
use super::relay::Relay;
use crate::app::App;
use crate::pools::managed::DaemonHost;

/// The pool as its host tells it.
pub(super) struct RemotePool {
    report: watch::Sender<PoolReport>,
    taken_in: Mutex<TakenIn>,
}

/// What of a host's word has been carried out here.
#[derive(Default)]
struct TakenIn {
    /// The engine that is bound, by its host's number.
    engine: u64,
    /// Lets go of that engine's streams.
    leash: CancellationToken,
    /// Openings and closings.
    gate_turn: u64,
    /// Ends of drains; `None` before the first word, which is about the past.
    cuts: Option<u64>,
    /// Whether it was closed last.
    is_closed: bool,
    memory: Option<Memory>,
    /// Its host waits for memory for it.
    asking: Option<Asking>,
}

/// A wish for memory that is passed on to whoever plans.
struct Asking {
    turn: u64,
    activity: Activity,
    withdrawn: CancellationToken,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.withdrawn.cancel();
    }
}

impl RemotePool {
    /// A pool whose host has not been heard from, the way to it, and that way's other end.
    pub(super) fn new(worker: &WorkerId, pool: &Pool) -> (PoolHandle, RemoteEnd, Self) {
        let (handle, end, report) = PoolHandle::remote(pool.id.clone(), away(worker, &pool.model));
        (handle, end, Self { report, taken_in: Mutex::default() })
    }

    fn taken_in(&self) -> MutexGuard<'_, TakenIn> {
        self.taken_in.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn memory(&self) -> Option<Memory> {
        self.taken_in().memory.clone()
    }

    /// Whether its host waits for its tasks to end.
    pub(super) fn is_closed(&self) -> bool {
        self.taken_in().is_closed
    }

    /// The host's daemon has begun a new life: what it counted begins anew.
    pub(super) fn begin_anew(&self) {
        *self.taken_in() = TakenIn::default();
    }

    /// Takes in what the host tells, in the order in which its driver did it: first that no tasks are taken any more, last that they
    /// are.
    pub(super) fn take_in(
        &self,
        app: &Arc<App>,
        host: &DaemonHost,
        worker: &WorkerId,
        relay: &Relay,
        told: &WorkerPool,
    ) {
        let id = &told.pool_id;
        let mut report = PoolReport::told(told, Instant::now());
        if let Some(activity) = self.ask_for_memory(app, worker, told) {
            // Why it waits is known here, and not there.
            report.activity = activity.get().or(report.activity);
        }
        if !report.takes_tasks {
            self.publish(host, id, report.clone());
        }
        let (turned, cut, is_other_engine, old_leash) = {
            let mut taken = self.taken_in();
            taken.memory = told.memory.as_ref().map(|memory| Memory {
                total_bytes: memory.total_bytes,
                free_bytes: memory.free_bytes,
                compute_capability: memory.compute_capability.clone(),
            });
            let gate = told.gate.as_ref().filter(|gate| gate.turn != taken.gate_turn);
            if let Some(gate) = gate {
                taken.gate_turn = gate.turn;
                taken.is_closed = gate.closed.is_some();
            }
            let cut = taken.cuts.replace(told.cuts).is_some_and(|before| told.cuts > before);
            let is_other_engine = taken.engine != told.engine_number && told.engine_number != 0;
            let old_leash = is_other_engine.then(|| std::mem::take(&mut taken.leash));
            taken.engine = told.engine_number;
            (gate, cut, is_other_engine, old_leash)
        };
        if is_other_engine {
            old_leash.into_iter().for_each(|leash| leash.cancel());
            if let Err(failure) = self.bind(app, host, worker, relay, id) {
                // As if the host had said so itself: it cannot know.
                return self.publish(host, id, PoolReport { failure: Some(failure), takes_tasks: false, ..report });
            }
        }
        match turned.map(|gate| gate.closed) {
            Some(Some(reason)) => host.close(id, reason.into()),
            Some(None) => host.open(id, &told.model),
            None => {}
        }
        if cut {
            host.cut(id);
        }
        self.publish(host, id, report);
    }

    /// Passes on that its host waits for memory, or does so no more; what is said of a wish that is under way.
    fn ask_for_memory(&self, app: &Arc<App>, worker: &WorkerId, told: &WorkerPool) -> Option<Activity> {
        let model = told.staged.as_ref().map(|staged| StagedModel {
            reference: staged.reference.clone(),
            path: PathBuf::new(),
            bytes: staged.bytes,
            need_bytes: staged.need_bytes,
            shape: None,
        });
        if let Some(model) = &model {
            app.residency.knows(&told.pool_id, model.clone());
        }
        let mut taken = self.taken_in();
        let Some((turn, model)) = told.wants_memory.zip(model) else {
            taken.asking = None;
            return None;
        };
        if let Some(asking) = taken.asking.as_ref().filter(|asking| asking.turn == turn) {
            return Some(asking.activity.clone());
        }
        let (activity, withdrawn) = (Activity::default(), CancellationToken::new());
        taken.asking = Some(Asking { turn, activity: activity.clone(), withdrawn: withdrawn.clone() });
        drop(taken);
        let takes_over = told.takes_over;
        let (app, worker, id, says) = (Arc::clone(app), worker.clone(), told.pool_id.clone(), activity.clone());
        tokio::spawn(async move {
            let pool = Arc::clone(app.pools.scheduled(&id));
            let reserved = app.residency.reserve(&pool, &model, &says, &withdrawn, takes_over).await;
            if withdrawn.is_cancelled() {
                return;
            }
            let order = match reserved {
                Ok(()) => WorkerOrder::MemoryGranted { turn },
                Err(Failure { fault, message, fix }) => {
                    WorkerOrder::MemoryRefused { turn, failure: WorkerFailure { fault, message, fix } }
                }
            };
            if let Ok(worker) = app.workers.get(&worker) {
                worker.order(&id, order, None);
            }
        });
        Some(activity)
    }

    fn bind(
        &self,
        app: &Arc<App>,
        host: &DaemonHost,
        worker: &WorkerId,
        relay: &Relay,
        id: &PoolId,
    ) -> Result<(), Failure> {
        let unfit = |what: String| Failure::new(api_types::PoolFault::WorkerAway, what);
        let config = &app.pools.scheduled(id).config;
        let url = relay.engine(id).map_err(|error| {
            unfit(format!(
                "worker {worker} says that its relay is at {}: {error}; correct worker.advertise there",
                relay.authority
            ))
        })?;
        let inner = adapter_at(config.engine, &url, Some(&relay.secret), config.slots).map_err(unfit)?;
        let gone = self.taken_in().leash.clone();
        host.bind_adapter(id, Arc::new(Leashed { inner, gone, host: worker.to_string() }));
        Ok(())
    }

    /// Its host is not heard from.
    pub(super) fn give_up(&self, app: &Arc<App>, host: &DaemonHost, id: &PoolId, worker: &WorkerId) {
        let leash = {
            let mut taken = self.taken_in();
            taken.engine = 0;
            taken.memory = None;
            taken.asking = None;
            std::mem::take(&mut taken.leash)
        };
        let model = self.report.borrow().model.clone();
        // Before its streams end, so that none of their tasks comes back here.
        self.publish(host, id, away(worker, &model));
        host.unbind(id);
        leash.cancel();
        let pool = app.pools.scheduled(id);
        pool.replicas().iter().for_each(|replica| replica.nudge.notify_one());
    }

    fn publish(&self, host: &DaemonHost, id: &PoolId, mut report: PoolReport) {
        let mut is_news = false;
        self.report.send_if_modified(|known| {
            // The daemon's end is nothing that another host could take back.
            report.is_over = known.is_over;
            is_news = !known.says_the_same(&report);
            *known = report.clone();
            is_news
        });
        if is_news {
            host.changed(id, &report);
        }
    }
}

fn away(worker: &WorkerId, model: &str) -> PoolReport {
    PoolReport::away(model, format!("worker {worker} has not been heard from; is pool-managerd running there?"))
}

/// Passes on what is wanted of a pool, until nobody can want anything.
pub(super) async fn drive(app: Arc<App>, worker: WorkerId, pool: PoolId, mut end: RemoteEnd) {
    while let Some(wanted) = end.next().await {
        let Ok(worker) = app.workers.get(&worker) else { return };
        match wanted {
            Wanted::Order(order, waiter) => worker.order(&pool, order, Some(waiter)),
            Wanted::LookNow => worker.order(&pool, WorkerOrder::LookNow, None),
            Wanted::Over(waiter) => {
                if let Some(remote) = worker.pools.get(&pool) {
                    remote.report.send_modify(|report| report.is_over = true);
                }
                let _ = waiter.send(Ok(()));
            }
        }
    }
}

impl super::Worker {
    /// Has something done with one of its pools.
    fn order(&self, pool: &PoolId, order: WorkerOrder, waiter: Option<super::Waiter>) {
        let mut link = self.link();
        match &mut link.session {
            Some(session) => {
                session.orders.push(pool.clone(), order, waiter);
                self.news.notify_waiters();
            }
            None => super::answer(waiter, Err(Conflict::Away)),
        }
    }
}
