//! What engines hold of sessions (their KV), kept in files while their models are unloaded (LO-SWP-07).
//!
//! Before an engine is unloaded it is asked to write the slots of living sessions to files, the latest first; its next life is asked
//! to read back those that still matter, before it takes tasks. All of it may fail: then a session's next turn costs its prompt
//! again, and nothing else. A file is only ever given to an engine that is what wrote it: same model, same build, same context.
//!
//! Sessions live in memory alone, so files mean nothing to the next life of the daemon: they are deleted when it starts and when
//! it ends. They hold prompts, so their folder is nobody else's to read, and they are deleted as soon as their session is gone.

mod assign;
mod folder;
mod store;

use std::sync::Arc;
use std::time::Duration;

use adapter_api::{SlotFile, WorkerError};
use api_types::PoolState;
use config_schema::Config;
use orchestrator_core::session::{Prefix, Tail};
use pool_managerd::pool::PoolReport;
use tokio::time::{Instant, timeout_at};

use self::assign::{assign, holds};
use self::store::{EngineMark, Parked, Store};
use crate::app::App;
use crate::narrate;
use crate::pools::Pool;
use crate::pools::managed::has_process;

/// Time for all slots of an engine, before its unload. The pool's driver waits a little longer.
const PARK_LIMIT: Duration = Duration::from_secs(14);
/// Time for all slots of an engine, before it takes tasks.
const UNPARK_LIMIT: Duration = Duration::from_secs(15);
/// And the part of the pool's `start_timeout_ms` that it takes at most: the start must not fail for it.
const SHARE_OF_START: u32 = 4;

/// What becomes of a session's KV; the `outcome` label of `kv_parked_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was written to a file.
    Saved,
    /// It could not be written, or was not what the session had left.
    SaveFailed,
    /// `swap.kv_cache_mb` had no room for it.
    NoRoom,
    /// The engine has it again.
    Restored,
    /// The engine could not take it up.
    RestoreFailed,
    /// It was of no use any more.
    Dropped,
}

impl Outcome {
    /// As a label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Saved => "saved",
            Self::SaveFailed => "save_failed",
            Self::NoRoom => "no_room",
            Self::Restored => "restored",
            Self::RestoreFailed => "restore_failed",
            Self::Dropped => "dropped",
        }
    }
}

/// The files, and the engines that they are of.
pub struct Parking {
    store: Store,
}

impl Parking {
    /// Deletes what an earlier life has left.
    pub fn open(config: &Config) -> Self {
        let store = Store::new(&config.server.data_dir.join("run"), config.swap.kv_cache_bytes());
        store.clear();
        Self { store }
    }

    /// Deletes everything.
    pub fn close(&self) {
        self.store.clear();
    }
}

/// What one round has done, for the log.
#[derive(Debug, Default)]
pub struct Round {
    /// Sessions whose KV was written or read.
    pub done: usize,
    /// How much that was.
    pub bytes: u64,
    /// Sessions for which it did not work.
    pub failed: usize,
    /// Why not, the first time.
    pub why: Option<String>,
}

impl Round {
    fn failed(&mut self, why: impl FnOnce() -> String) {
        self.failed += 1;
        self.why.get_or_insert_with(why);
    }
}

impl App {
    /// A new engine is bound to a pool: it holds nothing yet.
    pub fn engine_bound(&self, pool: &Pool) {
        self.sessions().cool(&pool.id);
        let parks = pool.config.parks_kv() && self.config.swap.kv_cache_mb > 0;
        self.parking.store.bound(&pool.id, parks.then(|| EngineMark::of(self, pool)));
    }

    /// A pool stands otherwise than before: without an engine it holds nothing.
    pub fn engine_may_be_gone(&self, pool: &Pool, report: &PoolReport) {
        // One that cannot be reached may have all of it yet.
        let is_gone = !has_process(report.state) && report.state != PoolState::Away;
        if is_gone && self.parking.store.gone(&pool.id) {
            self.sessions().cool(&pool.id);
            self.parking.store.tidy(&pool.id);
        }
    }

    /// A pool takes tasks: what was put away for it and not taken up is of no use any more.
    pub fn engine_serves(&self, pool: &Pool) {
        drop(self.parking.store.take(&pool.id));
    }

    /// Deletes the files of sessions that are gone or have moved on.
    pub fn sweep_parked(&self) {
        if self.parking.store.is_empty() {
            return;
        }
        let now_ms = self.clock.now_ms();
        let mut unwanted = self.parking.store.prefixes();
        {
            let mut sessions = self.sessions();
            unwanted.retain(|prefix| !sessions.is_wanted(prefix, now_ms));
        }
        for parked in self.parking.store.drain(|parked| unwanted.contains(&parked.prefix)) {
            self.metrics.kv_parked(parked.pool.as_str(), Outcome::Dropped);
        }
    }

    /// Has a pool's engine write to files what it holds of sessions.
    pub async fn park(self: &Arc<Self>, pool: &Arc<Pool>) {
        let Some(mark) = self.parking.store.engine(&pool.id) else { return };
        let held = self.sessions().warm_on(&pool.id, self.clock.now_ms());
        if held.iter().all(|prefix| prefix.tail.is_none()) {
            return;
        }
        let until = Instant::now() + PARK_LIMIT;
        let mut round = Round::default();
        match timeout_at(until, self.host.slots(&pool.id, &pool.replicas()[0].id)).await {
            Ok(Ok(Some(slots))) => {
                for (prefix, tail, slot) in assign(&held, &slots) {
                    self.park_one(pool, &mark, prefix, tail, slot, until, &mut round).await;
                }
            }
            // It has no way to tell.
            Ok(Ok(None)) => return,
            Ok(Err(error)) => round.failed(|| error.to_string()),
            Err(_) => round.failed(|| "it did not say in time what its slots hold".to_owned()),
        }
        for dropped in self.parking.store.fit() {
            self.metrics.kv_parked(dropped.pool.as_str(), Outcome::Dropped);
        }
        narrate::parked(pool, &round);
    }

    #[expect(clippy::too_many_arguments, reason = "one step of one loop")]
    async fn park_one(
        &self,
        pool: &Pool,
        mark: &EngineMark,
        prefix: &Prefix,
        tail: Tail,
        slot: u32,
        until: Instant,
        round: &mut Round,
    ) {
        let store = &self.parking.store;
        if !store.has_room(&pool.id, prefix.since_ms, tail.tokens) {
            return self.metrics.kv_parked(pool.id.as_str(), Outcome::NoRoom);
        }
        let file = store.new_file(&pool.id);
        let saving = self.host.save_slot(&pool.id, &pool.replicas()[0].id, slot, file.name());
        let saved = in_time(timeout_at(until, saving).await).and_then(|saved| {
            // An empty file, or one of another task that ran there since, helps nobody.
            let is_it = saved.bytes > 0 && holds(saved.tokens, tail);
            is_it.then_some(saved).ok_or_else(|| "its slot held something else".to_owned())
        });
        match saved {
            Ok(SlotFile { tokens, bytes }) => {
                (round.done, round.bytes) = (round.done + 1, round.bytes + bytes);
                let (pool, prefix, mark) = (pool.id.clone(), prefix.clone(), mark.clone());
                self.metrics.kv_parked(pool.as_str(), Outcome::Saved);
                store.keep(Parked { pool, prefix, slot, tokens, bytes, mark, file });
            }
            Err(why) => {
                self.metrics.kv_parked(pool.id.as_str(), Outcome::SaveFailed);
                round.failed(|| why);
            }
        }
    }

    /// Has a pool's engine, which was started just now, read back what still matters.
    pub async fn unpark(self: &Arc<Self>, pool: &Arc<Pool>) {
        let store = &self.parking.store;
        store.tidy(&pool.id);
        let mut parked = store.take(&pool.id);
        if parked.is_empty() {
            return;
        }
        parked.sort_by_key(|parked| std::cmp::Reverse(parked.prefix.since_ms));
        let mark = store.engine(&pool.id);
        let start_limit = Duration::from_millis(pool.config.supervision.start_timeout_ms);
        let until = Instant::now() + UNPARK_LIMIT.min(start_limit / SHARE_OF_START);
        let mut round = Round::default();
        for parked in parked {
            let fits = mark.as_ref() == Some(&parked.mark) && parked.slot < pool.config.slots.get();
            if !fits || !self.sessions().is_wanted(&parked.prefix, self.clock.now_ms()) {
                self.metrics.kv_parked(pool.id.as_str(), Outcome::Dropped);
                continue;
            }
            self.unpark_one(pool, &parked, until, &mut round).await;
        }
        narrate::unparked(pool, &round);
    }

    async fn unpark_one(&self, pool: &Pool, parked: &Parked, until: Instant, round: &mut Round) {
        let reading = self.host.restore_slot(&pool.id, &pool.replicas()[0].id, parked.slot, parked.file.name());
        let restored = in_time(timeout_at(until, reading).await).and_then(|restored| {
            let is_whole = restored.tokens == parked.tokens;
            is_whole.then_some(restored).ok_or_else(|| "it took up less than was put away".to_owned())
        });
        match restored {
            Ok(restored) => {
                (round.done, round.bytes) = (round.done + 1, round.bytes + restored.bytes);
                self.metrics.kv_parked(pool.id.as_str(), Outcome::Restored);
                self.sessions().rewarm(&parked.prefix, self.clock.now_ms());
            }
            Err(why) => {
                self.metrics.kv_parked(pool.id.as_str(), Outcome::RestoreFailed);
                round.failed(|| why);
            }
        }
    }
}

/// What came of a call, or why nothing did.
fn in_time(
    answer: Result<Result<Option<SlotFile>, WorkerError>, tokio::time::error::Elapsed>,
) -> Result<SlotFile, String> {
    match answer {
        Ok(Ok(Some(file))) => Ok(file),
        Ok(Ok(None)) => Err("this build of the engine cannot do it".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it took too long".to_owned()),
    }
}
