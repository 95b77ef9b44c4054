//! The handle.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use api_types::Artifact;

use crate::blobs::{Blobs as _, FsArtifacts, MemoryArtifacts};
use crate::document::{Document, Draft, Entry, Lineage, Page, Query};
use crate::error::{OpenError, PutError, ReadError};
use crate::index::{self, Index};
use crate::key::Key;
use crate::queue::{Pushed, Queue};
use crate::shared::{Clock, Limits, Shared};
use crate::writer;

/// Memory that documents may hold on to which are not written yet.
const QUEUED_BYTES: usize = 64 << 20;
/// Longest that [`ArtifactStore::flush`] waits.
const FLUSH: Duration = Duration::from_secs(2);
/// Labels of one document, and bytes of each.
const MOST_TAGS: usize = 64;
const LONGEST_TAG: usize = 512;

/// The store. All methods but [`put_later`](Self::put_later) wait for the disk: they are not for an async thread. Dropping it
/// closes it.
pub struct ArtifactStore {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Released when the store goes.
    _lock: Option<File>,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Documents.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Documents that were handed to [`ArtifactStore::put_later`] since the start and were not kept.
    pub dropped: u64,
}

impl ArtifactStore {
    /// Opens the store in a directory, or creates both. `now_unix_ms` is the wall clock, in milliseconds since the Unix epoch.
    /// An index that is missing is made again, for which every document is read.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(dir: &Path, limits: Limits, now_unix_ms: i64) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Io { action: "open", path: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let lock = lock(dir)?;
        let files = FsArtifacts::open(dir).map_err(failed)?;
        let opened = index::open(dir, |index| fill(index, &files, dir))?;
        let (mut index, path) = (opened.index, opened.path);
        take_leftovers(&mut index, &files, dir, &path)?;
        let shared = Shared::new(index, Box::new(files), limits, Clock::start(now_unix_ms));
        let shared = shared.map_err(|source| OpenError::Index { path, source })?;
        Self::start(shared, Some(lock)).map_err(failed)
    }

    /// A store that is gone with the process.
    ///
    /// # Errors
    /// When not even a thread can be had.
    pub fn in_memory(limits: Limits, now_unix_ms: i64) -> Result<Self, OpenError> {
        let path = || Path::new("memory").to_owned();
        let shared = index::in_memory().and_then(|index| {
            Shared::new(index, Box::new(MemoryArtifacts::default()), limits, Clock::start(now_unix_ms))
        });
        let shared = shared.map_err(|source| OpenError::Index { path: path(), source })?;
        Self::start(shared, None).map_err(|source| OpenError::Io { action: "open", path: path(), source })
    }

    fn start(shared: Shared, lock: Option<File>) -> io::Result<Self> {
        let (shared, queue) = (Arc::new(shared), Arc::new(Queue::new(QUEUED_BYTES)));
        let writer = writer::spawn(Arc::clone(&shared), Arc::clone(&queue))?;
        Ok(Self { shared, queue, writer: Mutex::new(Some(writer)), _lock: lock })
    }

    /// Keeps a document; it is on the disk when this returns. An equal one that is kept already stays as it is.
    ///
    /// # Errors
    /// [`PutError`]; nothing has changed then.
    pub fn put(&self, artifact: Artifact) -> Result<Entry, PutError> {
        let fits = |tag: &String| (1..=LONGEST_TAG).contains(&tag.len());
        if artifact.tags.len() > MOST_TAGS || !artifact.tags.iter().all(fits) {
            return Err(PutError::Tags { most: MOST_TAGS, longest: LONGEST_TAG });
        }
        if let Some(parent) = artifact.parent.as_ref().filter(|parent| parent.parse::<Key>().is_err()) {
            return Err(PutError::NoParent { parent: parent.clone() });
        }
        let entry = self.shared.put(Draft::of(artifact).map_err(PutError::Json)?)?;
        if let Err(error) = self.shared.trim() {
            tracing::error!(%error, "old artifacts were not removed");
        }
        Ok(entry)
    }

    /// Keeps a document that is made later, on another thread; meanwhile it holds on to about `bytes` of memory. It is dropped,
    /// counted and logged when too many wait. It can be read within a second, and is on the disk a second later.
    pub fn put_later(&self, bytes: usize, make: impl FnOnce() -> Artifact + Send + 'static) {
        match self.queue.push(bytes, Box::new(make)) {
            Pushed::Taken => return,
            Pushed::Full { is_first: true } => {
                tracing::warn!("records of tasks are not kept for now: the disk does not keep up");
            }
            Pushed::Full { is_first: false } | Pushed::Closed => {}
        }
        self.shared.drop_some(1);
    }

    /// Waits until what was handed to [`put_later`](Self::put_later) can be read, for two seconds at most.
    pub fn flush(&self) {
        self.queue.flush(FLUSH);
    }

    /// Reads a document and makes sure that it is what was kept; `None` when it is not kept.
    ///
    /// # Errors
    /// [`ReadError`]; one that is damaged is not kept any more.
    pub fn get(&self, key: Key) -> Result<Option<Document>, ReadError> {
        self.shared.get(key)
    }

    /// One page, newest first.
    ///
    /// # Errors
    /// [`ReadError::Index`].
    pub fn list(&self, query: &Query) -> Result<Page, ReadError> {
        self.shared.list(query)
    }

    /// Where a document comes from, and up to `children` of those that came from it.
    ///
    /// # Errors
    /// [`ReadError::Index`].
    pub fn lineage(&self, of: &Entry, children: usize) -> Result<Lineage, ReadError> {
        self.shared.lineage(of, children)
    }

    /// Removes a document, whatever came from it; false when it is not kept.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn remove(&self, key: Key) -> Result<bool, ReadError> {
        self.shared.remove(key)
    }

    /// What it holds.
    pub fn usage(&self) -> Usage {
        let (documents, bytes) = self.shared.totals();
        Usage { documents, bytes, dropped: self.shared.dropped.load(Ordering::Relaxed) }
    }

    /// Writes what is queued and waits until it is on the disk. What is handed in later is dropped.
    pub fn close(&self) {
        self.queue.end();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // What the writer makes documents from may hold the last handle.
        let another = writer.take().filter(|writer| writer.thread().id() != std::thread::current().id());
        if another.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the thread that writes artifacts ended in a panic");
        }
    }
}

impl Drop for ArtifactStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for ArtifactStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArtifactStore").finish_non_exhaustive()
    }
}

/// Takes the one lock on a directory. It goes with the process, however that ends.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let failed = |source| OpenError::Io { action: "lock", path: path.clone(), source };
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = open.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Enters every document that has a file; those that are damaged are set aside.
fn fill(index: &mut Index, files: &FsArtifacts, dir: &Path) -> Result<(), OpenError> {
    const AT_ONCE: usize = 4096;
    let failed = |source| OpenError::Io { action: "read", path: dir.to_owned(), source };
    let all = files.all().map_err(failed)?;
    for some in all.chunks(AT_ONCE) {
        let mut entries = Vec::with_capacity(some.len());
        for &(written_ms, key) in some {
            let json = files.read(key).map_err(failed)?.unwrap_or_default();
            match Draft::read(key, json.into()).ok().filter(|draft| Key::of(&draft.json) == key) {
                Some(draft) => entries.push(draft.entry(written_ms)),
                None => {
                    tracing::error!(artifact = %key, "a damaged artifact is set aside");
                    files.set_aside(key).map_err(failed)?;
                }
            }
        }
        index.insert(&entries).map_err(|source| OpenError::Index { path: dir.to_owned(), source })?;
    }
    if !all.is_empty() {
        tracing::info!(documents = all.len(), "the index of artifacts was missing and is made again");
    }
    Ok(())
}

/// Takes up what a crash has kept from its place.
fn take_leftovers(index: &mut Index, files: &FsArtifacts, dir: &Path, path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io { action: "tidy up", path: dir.to_owned(), source };
    for leftover in files.leftovers().map_err(failed)? {
        let (found, file) = leftover.map_err(failed)?;
        let whole = found.filter(|found| Key::of(&found.json) == found.key);
        let draft = whole.and_then(|found| Some((Draft::read(found.key, found.json).ok()?, found.written_ms)));
        if let Some((draft, written_ms)) = draft {
            let key = draft.key;
            let inserted = index.insert(&[draft.entry(written_ms)]);
            inserted.map_err(|source| OpenError::Index { path: path.to_owned(), source })?;
            files.adopt(&file, key).map_err(failed)?;
        } else {
            std::fs::remove_file(&file).map_err(failed)?;
        }
    }
    Ok(())
}
