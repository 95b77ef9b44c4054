//! What is put away, of which engines, and how much of it there may be.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use api_types::PoolId;
use orchestrator_core::session::Prefix;
use pool_managerd::pool::EngineIdentity;

use super::folder::{Folders, KvFile};
use crate::app::App;
use crate::pools::Pool;

/// What an engine must have in common with the one whose files it is given. The pool's flags cannot change while the daemon lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EngineMark {
    model: String,
    digest: Option<String>,
    /// Path, size and time of change of the model's first file.
    file: Option<(PathBuf, u64, Option<SystemTime>)>,
    engine: Option<EngineIdentity>,
    ctx: Option<u32>,
    slots: u32,
}

/// A session's KV in a file.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) pool: PoolId,
    pub(super) prefix: Prefix,
    /// The slot it was in.
    pub(super) slot: u32,
    pub(super) tokens: u64,
    pub(super) bytes: u64,
    pub(super) mark: EngineMark,
    pub(super) file: KvFile,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Store {
    folders: Folders,
    limit_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The engines that are bound; without a mark those that put nothing away.
    engines: HashMap<PoolId, Option<EngineMark>>,
    parked: Vec<Parked>,
    /// What was written last for a thousand tokens of a pool, in bytes.
    bytes_per_1k: HashMap<PoolId, u64>,
}

impl EngineMark {
    /// The engine that a pool is about to have.
    pub(super) fn of(app: &App, pool: &Pool) -> Self {
        let report = pool.report();
        let (model, engine) = report.map_or_else(Default::default, |report| (report.model, report.engine));
        let file = app.residency.model_of(&pool.id).map(|model| {
            let changed = std::fs::metadata(&model.path).and_then(|about| about.modified()).ok();
            (model.path, model.bytes, changed)
        });
        Self {
            model,
            digest: app.model_digest(pool, &pool.replicas()[0]),
            file,
            engine,
            ctx: pool.config.ctx.map(std::num::NonZero::get),
            slots: pool.config.slots.get(),
        }
    }
}

impl Store {
    pub(super) fn new(run_dir: &Path, limit_bytes: u64) -> Self {
        Self { folders: Folders::new(run_dir), limit_bytes, state: Mutex::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().parked.is_empty()
    }

    /// A pool has another engine.
    pub(super) fn bound(&self, pool: &PoolId, mark: Option<EngineMark>) {
        self.lock().engines.insert(pool.clone(), mark);
    }

    /// A pool has none. Whether it had one.
    pub(super) fn gone(&self, pool: &PoolId) -> bool {
        self.lock().engines.remove(pool).is_some()
    }

    /// A pool's engine, if it puts anything away.
    pub(super) fn engine(&self, pool: &PoolId) -> Option<EngineMark> {
        self.lock().engines.get(pool).cloned().flatten()
    }

    /// What is put away.
    pub(super) fn prefixes(&self) -> Vec<Prefix> {
        self.lock().parked.iter().map(|parked| parked.prefix.clone()).collect()
    }

    pub(super) fn new_file(&self, pool: &PoolId) -> KvFile {
        self.folders.new_file(pool)
    }

    /// Whether there is room for so many tokens of a session that streamed then: what is older makes room. A pool of which nothing
    /// was written yet is tried.
    pub(super) fn has_room(&self, pool: &PoolId, since_ms: u64, tokens: u64) -> bool {
        let state = self.lock();
        let per_1k = state.bytes_per_1k.get(pool).copied().unwrap_or(0);
        let newer = state.parked.iter().filter(|parked| parked.prefix.since_ms >= since_ms);
        let newer_bytes: u64 = newer.map(|parked| parked.bytes).sum();
        newer_bytes.saturating_add(per_1k.saturating_mul(tokens) / 1000) <= self.limit_bytes
    }

    pub(super) fn keep(&self, parked: Parked) {
        let mut state = self.lock();
        let per_1k = parked.bytes.saturating_mul(1000) / parked.tokens.max(1);
        state.bytes_per_1k.insert(parked.pool.clone(), per_1k);
        state.parked.push(parked);
    }

    /// Takes out what does not fit beside what is newer.
    pub(super) fn fit(&self) -> Vec<Parked> {
        let mut state = self.lock();
        state.parked.sort_by_key(|parked| std::cmp::Reverse(parked.prefix.since_ms));
        let mut bytes = 0_u64;
        let too_much = |parked: &mut Parked| {
            let fits = bytes.saturating_add(parked.bytes) <= self.limit_bytes;
            bytes += if fits { parked.bytes } else { 0 };
            !fits
        };
        state.parked.extract_if(.., too_much).collect()
    }

    /// Takes out what is of a pool.
    pub(super) fn take(&self, pool: &PoolId) -> Vec<Parked> {
        self.drain(|parked| &parked.pool == pool)
    }

    /// Takes out what is like this.
    pub(super) fn drain(&self, is_it: impl FnMut(&mut Parked) -> bool) -> Vec<Parked> {
        self.lock().parked.extract_if(.., is_it).collect()
    }

    /// Deletes files of a pool that are nobody's.
    pub(super) fn tidy(&self, pool: &PoolId) {
        self.folders.tidy(pool);
    }

    /// Deletes everything.
    pub(super) fn clear(&self) {
        let parked = std::mem::take(&mut self.lock().parked);
        drop(parked);
        self.folders.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use orchestrator_core::session::{Ask, Home, Prefix, SessionLimits, Sessions};

    use super::{EngineMark, Parked, Store};

    /// Prefixes of sessions that streamed at 1, 2, 3 and so on.
    fn prefixes(count: usize) -> VecDeque<Prefix> {
        let mut sessions = Sessions::new(SessionLimits::default());
        for now_ms in (1..).take(count) {
            let id = |kind: u8| format!("00000000-0000-4000-{kind}000-{now_ms:012}");
            let task = id(9).parse().expect("a UUID");
            let ask = Ask { max_tokens: 1, decode_ms: None };
            sessions.admit(id(8).parse().expect("a UUID"), task, ask, now_ms).expect("it is admitted");
            sessions.mark_warm(task, Home { pool_id: "a".into(), replica_id: "r0".into() }, now_ms);
        }
        let mut all = sessions.warm_on(&"a".into(), 100);
        all.reverse();
        all.into()
    }

    /// LO-SWP-07: what is kept never takes more than there is room for; the latest sessions have it, whatever their pool, and what
    /// will not fit is not written at all once it is known what a token takes.
    #[test]
    fn the_latest_sessions_have_the_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path(), 1000);
        let mark = EngineMark { model: "m".to_owned(), digest: None, file: None, engine: None, ctx: None, slots: 2 };
        let mut prefixes = prefixes(5);
        let mut keep = |pool: &str, bytes: u64| {
            let prefix = prefixes.pop_front().expect("there is one");
            let (pool, mark) = (pool.into(), mark.clone());
            let file = store.new_file(&pool);
            store.keep(Parked { pool, prefix, slot: 0, tokens: 100, bytes, mark, file });
            store.fit().iter().map(|parked| parked.prefix.since_ms).collect::<Vec<_>>()
        };
        assert!(store.has_room(&"a".into(), 1, 1_000_000), "nobody knows how much that is");
        assert!(keep("a", 400).is_empty());
        assert!(keep("b", 300).is_empty());
        assert!(!store.has_room(&"a".into(), 3, 300), "4 bytes each are more than there is");
        assert!(
            store.has_room(&"a".into(), 3, 200) && !store.has_room(&"a".into(), 1, 200),
            "the older ones make room"
        );
        assert_eq!(keep("a", 600), [1]);
        assert_eq!(keep("a", 1000), [3, 2]);
        assert_eq!(keep("b", 1001), [5], "one that is too large even alone goes by itself");
        assert!(!store.is_empty());
    }
}
