//! What engines say: kept in files that rotate, in memory for diagnosis, and handed to followers.
//!
//! ```text
//! pipes ── capture thread ── bounded queue ── writer thread ── <pool>.log, <pool>.log.1, …
//!                   └── memory: last lines, notable lines, time of the last one; followers
//! ```
//!
//! An engine must never wait for a disk: what the writer cannot take in time goes without being written, and is counted. Every
//! line passes the redactor before anything else sees it.

mod capture;
mod file;
mod follow;
mod line;
mod split;
mod write;

use std::collections::VecDeque;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, oneshot, watch};

use crate::diagnose::{self, Alarm};
use file::LogFile;
pub use follow::{Followed, Follower};
pub use line::{LogLine, Source};

/// Lines that are kept in memory.
const RECENT: usize = 200;

/// Lines beyond these that are kept because they look like the cause of a failure.
const NOTABLE: usize = 50;

/// Lines that may wait to be written.
const QUEUE: usize = 16_384;

/// How long an engine waits for a slow disk before lines go unwritten.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long dropping a log waits for its last lines to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Lines a follower may be behind before it misses some.
const FOLLOWER: usize = 1024;

/// The log of one pool's engine, over all its starts. Clones are the same log; the last one dropped waits up to a second for
/// the lines to be written.
#[derive(Clone, Debug)]
pub struct EngineLog {
    writer: Arc<Writer>,
}

/// A log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the engine's log {path}; make its folder writable, or choose another data directory")]
pub struct OpenLogError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Signs of life of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Lines since the log was opened, progress bars included, notes not.
    pub lines: u64,
    /// When the last one came.
    pub last: Option<Instant>,
}

/// Stops the writer when no log is left.
#[derive(Debug)]
struct Writer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something is to be written, or no more will be.
    work: Condvar,
    /// The writer has taken something, or has ended.
    taken: Condvar,
    followers: broadcast::Sender<Arc<LogLine>>,
    alarm: watch::Sender<Option<Alarm>>,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Order>,
    /// Lines that found no room in the queue since the last that did.
    unwritten: u64,
    /// With whether they look like the cause of a failure.
    recent: VecDeque<(Arc<LogLine>, bool)>,
    notable: Vec<Arc<LogLine>>,
    activity: Activity,
    closed: bool,
    writer_ended: bool,
}

/// What the writer is to do, in order.
#[derive(Debug)]
enum Order {
    Write(Arc<LogLine>),
    /// So many lines went unwritten.
    Skipped(u64),
    /// Hand over the last lines of the files.
    Read(usize, oneshot::Sender<Vec<Arc<LogLine>>>),
}

impl EngineLog {
    /// Opens `<dir>/<pool_id>.log` and starts its writer. No file grows beyond `max_bytes`; `files` of them are kept, the
    /// present one included. Blocks for a moment.
    ///
    /// # Errors
    /// [`OpenLogError`] when the folder or the file cannot be written.
    pub fn open(dir: &Path, pool_id: &str, max_bytes: u64, files: usize) -> Result<Self, OpenLogError> {
        let path = dir.join(format!("{pool_id}.log"));
        let opened = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        let opened = opened.and_then(|()| LogFile::open(&path, max_bytes, files));
        let file = opened.map_err(|source| OpenLogError { path: path.clone(), source })?;
        let shared = Arc::new(Shared::new());
        let spawned = std::thread::Builder::new().name("engine-log".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || write::run(&shared, file)
        });
        spawned.map_err(|source| OpenLogError { path, source })?;
        Ok(Self { writer: Arc::new(Writer { shared }) })
    }

    /// Marks a new start: what was kept for diagnosis belongs to the one before.
    pub fn begin(&self, note: &str) {
        let mut state = self.shared().state();
        state.recent.clear();
        state.notable.clear();
        self.shared().alarm.send_replace(None);
        drop(state);
        self.note(note);
    }

    /// A line of ours.
    pub fn note(&self, text: &str) {
        self.shared().take(LogLine::new(Source::Note, text));
    }

    /// A line of an engine whose output does not come through pipes, such as a container's.
    pub fn line(&self, source: Source, text: &str) {
        self.shared().take(LogLine::new(source, text));
    }

    /// The last lines since [`EngineLog::begin`], preceded by older ones that look like the cause of a failure.
    #[must_use]
    pub fn tail(&self) -> Vec<Arc<LogLine>> {
        let state = self.shared().state();
        state.notable.iter().chain(state.recent.iter().map(|(line, _)| line)).cloned().collect()
    }

    /// The last `count` lines, read back from all files, oldest first.
    pub async fn lines(&self, count: usize) -> Vec<Arc<LogLine>> {
        let (reply, lines) = oneshot::channel();
        self.shared().order(&mut self.shared().state(), Order::Read(count, reply));
        lines.await.unwrap_or_default()
    }

    /// The last `count` lines and all that come after them, without a gap.
    #[must_use]
    pub fn follow(&self, count: usize) -> Follower {
        let (reply, lines) = oneshot::channel();
        // Both under the lock: a line stands in the files by then, or comes to the follower, and never both.
        let mut state = self.shared().state();
        let live = self.shared().followers.subscribe();
        self.shared().order(&mut state, Order::Read(count, reply));
        drop(state);
        Follower::new(lines, live)
    }

    /// Signs of life.
    #[must_use]
    pub fn activity(&self) -> Activity {
        self.shared().state().activity
    }

    /// The first line since [`EngineLog::begin`] that is an [`Alarm`]; one that says that the engine is lost replaces one that
    /// does not.
    #[must_use]
    pub fn alarm(&self) -> watch::Receiver<Option<Alarm>> {
        self.shared().alarm.subscribe()
    }

    /// Takes down what comes out of the pipes until both are closed. The receiver's other end goes when that is done.
    pub(crate) fn capture(&self, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Receiver<()>> {
        capture::start(self.clone(), stdout, stderr)
    }

    /// Counts a sign of life that is no line of its own.
    fn count_activity(&self) {
        self.shared().state().activity.count();
    }

    fn shared(&self) -> &Shared {
        &self.writer.shared
    }
}

impl Activity {
    fn count(&mut self) {
        self.lines += 1;
        self.last = Some(Instant::now());
    }
}

impl Shared {
    fn new() -> Self {
        let state = State {
            queue: VecDeque::new(),
            unwritten: 0,
            recent: VecDeque::with_capacity(RECENT),
            notable: Vec::new(),
            activity: Activity { lines: 0, last: None },
            closed: false,
            writer_ended: false,
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            taken: Condvar::new(),
            followers: broadcast::Sender::new(FOLLOWER),
            alarm: watch::Sender::new(None),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No step of a change leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, line: LogLine) {
        let is_engines = line.source != Source::Note;
        let notable = is_engines && diagnose::is_notable(&line.text);
        let alarm = if notable { diagnose::diagnose_line(&line.text) } else { None };
        let line = Arc::new(line);
        let mut state = self.state();
        if is_engines {
            state.activity.count();
        }
        state.remember(&line, notable);
        if let Some(alarm) = alarm {
            self.raise(alarm);
        }
        // Under the lock, so that followers see the order of the files. Without one, nobody takes it.
        let _nobody_follows = self.followers.send(Arc::clone(&line));
        state = self.wait_for_room(state);
        if state.queue.len() >= QUEUE {
            state.unwritten += 1;
        } else {
            let unwritten = std::mem::take(&mut state.unwritten);
            if unwritten > 0 {
                self.order(&mut state, Order::Skipped(unwritten));
            }
            self.order(&mut state, Order::Write(Arc::clone(&line)));
        }
    }

    fn raise(&self, new: Alarm) {
        self.alarm.send_if_modified(|alarm| {
            let is_news = alarm.as_ref().is_none_or(|old| new.lost && !old.lost);
            if is_news {
                *alarm = Some(new);
            }
            is_news
        });
    }

    /// Waits while the queue is full, but only once in a row: a disk that has stopped must not slow every line.
    fn wait_for_room<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.unwritten > 0 {
            return state;
        }
        let is_full = |state: &mut State| state.queue.len() >= QUEUE && !state.writer_ended;
        let waited = self.taken.wait_timeout_while(state, PATIENCE, is_full);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn order(&self, state: &mut State, order: Order) {
        // An order that nobody will carry out is dropped, and its asker told so.
        if !state.writer_ended {
            state.queue.push_back(order);
            self.work.notify_one();
        }
    }
}

impl State {
    fn remember(&mut self, line: &Arc<LogLine>, notable: bool) {
        if self.recent.len() == RECENT
            && let Some((oldest, true)) = self.recent.pop_front()
            && self.notable.len() < NOTABLE
        {
            self.notable.push(oldest);
        }
        self.recent.push_back((Arc::clone(line), notable));
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.closed = true;
        self.shared.work.notify_one();
        let is_busy = |state: &mut State| !state.writer_ended;
        drop(self.shared.taken.wait_timeout_while(state, LAST_WORDS, is_busy));
    }
}
