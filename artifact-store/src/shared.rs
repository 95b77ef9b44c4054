//! What the callers and the writing thread share.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::blobs::{Blobs, Staged};
use crate::document::{Document, Draft, Entry, Lineage, Page, Query};
use crate::error::{PutError, ReadError};
use crate::index::Index;
use crate::key::Key;

/// Documents that retention removes at once; others may use the store in between.
const REMOVED_AT_ONCE: usize = 256;

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Age after which documents are removed; `None` keeps them.
    pub max_age: Option<Duration>,
    /// Bytes that documents may take together; `None` is unlimited.
    pub max_bytes: Option<u64>,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    blobs: Box<dyn Blobs>,
    limits: Limits,
    clock: Clock,
    /// Documents that were handed in and not kept.
    pub(crate) dropped: AtomicU64,
}

/// What became of several documents.
pub(crate) struct Kept {
    /// How many are kept.
    pub(crate) count: usize,
    /// Why others are not; the last reason.
    pub(crate) failure: Option<PutError>,
}

struct State {
    index: Index,
    documents: u64,
    bytes: u64,
}

/// The wall clock as it stood at the start, moved on by the monotonic one.
pub(crate) struct Clock {
    started: Instant,
    started_unix_ms: i64,
}

impl Clock {
    pub(crate) fn start(now_unix_ms: i64) -> Self {
        Self { started: Instant::now(), started_unix_ms: now_unix_ms }
    }

    fn now_unix_ms(&self) -> i64 {
        self.started_unix_ms.saturating_add(millis(self.started.elapsed()))
    }
}

impl Shared {
    pub(crate) fn new(index: Index, blobs: Box<dyn Blobs>, limits: Limits, clock: Clock) -> rusqlite::Result<Self> {
        let (documents, bytes) = index.totals()?;
        let state = Mutex::new(State { index, documents, bytes });
        Ok(Self { state, blobs, limits, clock, dropped: AtomicU64::new(0) })
    }

    /// Documents and their bytes.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let state = self.lock();
        (state.documents, state.bytes)
    }

    /// Keeps one document, on the disk when this returns; the entry it has then.
    pub(crate) fn put(&self, draft: Draft) -> Result<Entry, PutError> {
        let (key, parent) = (draft.key, draft.parent);
        if let Some(known) = self.lock().index.find(key).map_err(PutError::Index)? {
            return Ok(known);
        }
        let staged = self.blobs.stage(key, draft.json.clone(), true).map_err(PutError::Io)?;
        let mut state = self.lock();
        let has_parent = match parent {
            Some(parent) => state.index.find(parent).map(|found| found.is_some()),
            None => Ok(true),
        };
        if !matches!(has_parent, Ok(true)) {
            self.blobs.discard(staged);
            has_parent.map_err(PutError::Index)?;
            return Err(PutError::NoParent { parent: parent.map_or_else(String::new, |parent| parent.to_string()) });
        }
        if let Some(failure) = self.enter(&mut state, vec![draft], vec![staged], true).failure {
            return Err(failure);
        }
        let found = state.index.find(key).map_err(PutError::Index)?;
        found.ok_or_else(|| PutError::Io(io::Error::other("it was removed at once")))
    }

    /// Keeps documents; the disk has them some time later.
    pub(crate) fn put_group(&self, drafts: Vec<Draft>) -> Kept {
        let mut failure = None;
        let mut ready = (Vec::with_capacity(drafts.len()), Vec::with_capacity(drafts.len()));
        for draft in drafts {
            match self.blobs.stage(draft.key, draft.json.clone(), false) {
                Ok(staged) => {
                    ready.0.push(draft);
                    ready.1.push(staged);
                }
                Err(error) => failure = Some(PutError::Io(error)),
            }
        }
        let kept = self.enter(&mut self.lock(), ready.0, ready.1, false);
        Kept { failure: kept.failure.or(failure), ..kept }
    }

    /// Enters what was staged into the index and then brings it to its place.
    fn enter(&self, state: &mut State, drafts: Vec<Draft>, staged: Vec<Staged>, durable: bool) -> Kept {
        let now = self.clock.now_unix_ms();
        let entries: Vec<_> = drafts.into_iter().map(|draft| draft.entry(now)).collect();
        let inserted = match state.index.insert(&entries) {
            Ok(inserted) => inserted,
            Err(error) => {
                staged.into_iter().for_each(|staged| self.blobs.discard(staged));
                return Kept { count: 0, failure: Some(PutError::Index(error)) };
            }
        };
        let mut kept = Kept { count: entries.len(), failure: None };
        for ((entry, staged), is_new) in entries.iter().zip(staged).zip(inserted) {
            if !is_new {
                self.blobs.discard(staged);
                continue;
            }
            state.documents += 1;
            state.bytes += entry.bytes;
            if let Err(error) = self.blobs.publish(staged, durable) {
                kept.count -= 1;
                kept.failure = Some(PutError::Io(error));
                if let Err(error) = state.forget(entry.key, entry.bytes) {
                    kept.failure = Some(PutError::Index(error));
                }
            }
        }
        kept
    }

    /// Reads a document and makes sure that it is what was kept; `None` when it is not kept.
    pub(crate) fn get(&self, key: Key) -> Result<Option<Document>, ReadError> {
        let Some(entry) = self.find(key)? else { return Ok(None) };
        let read = self.blobs.read(key).map_err(|source| ReadError::Io { key, source })?;
        if let Some(json) = read.as_ref().filter(|json| Key::of(json) == key) {
            return Ok(Some(Document { entry, json: json.clone() }));
        }
        self.give_up(key, read.is_some())
    }

    /// The file of a document is not what it was, or is gone; unless it was just removed by somebody.
    fn give_up(&self, key: Key, is_there: bool) -> Result<Option<Document>, ReadError> {
        let mut state = self.lock();
        let Some(entry) = state.index.find(key).map_err(ReadError::Index)? else { return Ok(None) };
        if is_there {
            self.blobs.set_aside(key).map_err(|source| ReadError::Io { key, source })?;
        }
        state.forget(key, entry.bytes).map_err(ReadError::Index)?;
        Err(if is_there { ReadError::Damaged { key } } else { ReadError::Lost { key } })
    }

    pub(crate) fn find(&self, key: Key) -> Result<Option<Entry>, ReadError> {
        self.lock().index.find(key).map_err(ReadError::Index)
    }

    pub(crate) fn list(&self, query: &Query) -> Result<Page, ReadError> {
        self.lock().index.list(query).map_err(ReadError::Index)
    }

    pub(crate) fn lineage(&self, of: &Entry, children: usize) -> Result<Lineage, ReadError> {
        let state = self.lock();
        let ancestors = state.index.ancestors(of).map_err(ReadError::Index)?;
        let children = state.index.children(of.key, children).map_err(ReadError::Index)?;
        Ok(Lineage { ancestors, children })
    }

    /// Removes a document; false when it is not kept.
    pub(crate) fn remove(&self, key: Key) -> Result<bool, ReadError> {
        let mut state = self.lock();
        let Some(entry) = state.index.find(key).map_err(ReadError::Index)? else { return Ok(false) };
        self.blobs.remove(key).map_err(|source| ReadError::Io { key, source })?;
        state.forget(key, entry.bytes).map_err(ReadError::Index)?;
        Ok(true)
    }

    /// Removes what is too old or too much, a few at a time.
    pub(crate) fn trim(&self) -> Result<(), ReadError> {
        while self.trim_some()? == REMOVED_AT_ONCE {}
        Ok(())
    }

    fn trim_some(&self) -> Result<usize, ReadError> {
        let mut state = self.lock();
        if self.limits.max_age.is_none() && self.excess(state.bytes) == 0 {
            return Ok(0);
        }
        let excess = self.excess(state.bytes);
        let oldest_ms = self.limits.max_age.map(|age| self.clock.now_unix_ms().saturating_sub(millis(age)));
        let mut freed = 0;
        let mut keys = Vec::new();
        for candidate in state.index.oldest(REMOVED_AT_ONCE).map_err(ReadError::Index)? {
            if freed >= excess && oldest_ms.is_none_or(|oldest| candidate.created_ms >= oldest) {
                break;
            }
            let key = candidate.key;
            self.blobs.remove(key).map_err(|source| ReadError::Io { key, source })?;
            freed += candidate.bytes;
            keys.push(key);
        }
        state.index.remove(&keys).map_err(ReadError::Index)?;
        state.documents -= keys.len() as u64;
        state.bytes = state.bytes.saturating_sub(freed);
        Ok(keys.len())
    }

    fn excess(&self, bytes: u64) -> u64 {
        self.limits.max_bytes.map_or(0, |most| bytes.saturating_sub(most))
    }

    /// Waits until all that was kept is on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.blobs.sync()
    }

    pub(crate) fn drop_some(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, key: Key, bytes: u64) -> rusqlite::Result<()> {
        self.index.remove(&[key])?;
        self.documents -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        Ok(())
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
