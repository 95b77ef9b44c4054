//! Documents on their way to the writing thread, which are not even made yet. Bounded by the memory that they hold on to.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api_types::Artifact;

/// Documents in one group at most.
const MAX_GROUP: usize = 512;
/// How long a document waits for company.
const SOON: Duration = Duration::from_millis(250);

/// Makes a document.
pub(crate) type Make = Box<dyn FnOnce() -> Artifact + Send>;

/// What waits.
pub(crate) struct Queue {
    state: Mutex<State>,
    limit: usize,
    /// The writer has something to do.
    came: Condvar,
    /// The writer has done something.
    went: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(usize, Make)>,
    /// Memory they hold on to.
    bytes: usize,
    /// When they are due; `None` while there is none.
    due: Option<Instant>,
    /// How many ever came, and how many of them were taken and written.
    pushed: u64,
    written: u64,
    /// How many were turned away since there was room last.
    turned_away: u64,
    is_ending: bool,
}

/// What became of a document that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It will be made and written.
    Taken,
    /// There is no room; the first of a burst, or a later one.
    Full { is_first: bool },
    /// Nothing is taken any more.
    Closed,
}

/// What the writer is handed.
pub(crate) enum Taken {
    /// Documents in order.
    Group(Vec<Make>),
    /// Nothing came for a while.
    Idle,
    /// Nothing will come any more.
    Over,
}

impl Queue {
    pub(crate) fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), limit, came: Condvar::new(), went: Condvar::new() }
    }

    /// Hands in a document that holds on to so many bytes. One that is larger than the limit finds room when it is alone.
    pub(crate) fn push(&self, bytes: usize, make: Make) -> Pushed {
        let mut state = self.lock();
        if state.is_ending {
            return Pushed::Closed;
        }
        if state.bytes > 0 && state.bytes.saturating_add(bytes) > self.limit {
            state.turned_away += 1;
            return Pushed::Full { is_first: state.turned_away == 1 };
        }
        state.bytes += bytes;
        state.pushed += 1;
        state.waiting.push_back((bytes, make));
        let (count, is_first) = (state.waiting.len(), state.due.is_none());
        if is_first {
            state.due = Some(Instant::now() + SOON);
        } else if count == MAX_GROUP {
            state.due = Some(Instant::now());
        }
        drop(state);
        if is_first || count == MAX_GROUP {
            self.came.notify_one();
        }
        Pushed::Taken
    }

    /// Waits until everything that has come so far is written, but no longer than `patience`.
    pub(crate) fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut state = self.lock();
        let goal = state.pushed;
        while state.written < goal {
            if !state.waiting.is_empty() {
                state.due = Some(Instant::now());
                self.came.notify_one();
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            (state, _) = self.went.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes nothing any more; the writer ends after what waits.
    pub(crate) fn end(&self) {
        self.lock().is_ending = true;
        self.came.notify_one();
    }

    /// Waits for a group that is due, at most `idle`.
    pub(crate) fn take(&self, idle: Duration) -> Taken {
        let since = Instant::now();
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let is_due = state.is_ending || state.due.is_some_and(|due| due <= now);
            if is_due && !state.waiting.is_empty() {
                return Taken::Group(state.take());
            }
            if state.is_ending {
                return Taken::Over;
            }
            let idle_until = since + idle;
            if idle_until <= now {
                return Taken::Idle;
            }
            let until = state.due.map_or(idle_until, |due| due.min(idle_until));
            (state, _) = self.came.wait_timeout(state, until - now).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// So many of those that were taken are written. How many were turned away, once there is room again.
    pub(crate) fn written(&self, count: usize) -> Option<u64> {
        let mut state = self.lock();
        state.written += count as u64;
        let turned_away = if state.waiting.is_empty() { mem::take(&mut state.turned_away) } else { 0 };
        drop(state);
        self.went.notify_all();
        (turned_away > 0).then_some(turned_away)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self) -> Vec<Make> {
        let count = self.waiting.len().min(MAX_GROUP);
        let group: Vec<_> = self.waiting.drain(..count).collect();
        self.due = (!self.waiting.is_empty()).then(Instant::now);
        group
            .into_iter()
            .map(|(bytes, make)| {
                self.bytes -= bytes;
                make
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use api_types::{Artifact, ArtifactKind};

    use super::{Duration, MAX_GROUP, Make, Pushed, Queue, Taken};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn make() -> Make {
        Box::new(|| Artifact {
            kind: ArtifactKind::Other,
            content: serde_json::Map::default(),
            tags: Vec::new(),
            parent: None,
            metadata: std::collections::BTreeMap::default(),
        })
    }

    fn group(queue: &Queue) -> usize {
        match queue.take(PATIENCE) {
            Taken::Group(items) => items.len(),
            Taken::Idle | Taken::Over => panic!("there are documents"),
        }
    }

    /// What there is no room for is turned away and counted, and there is room again when the others are gone.
    #[test]
    fn memory_is_bounded() {
        let queue = Queue::new(100);
        assert_eq!(queue.push(1000, make()), Pushed::Taken, "it is alone");
        assert_eq!(queue.push(1, make()), Pushed::Full { is_first: true });
        assert_eq!(queue.push(1, make()), Pushed::Full { is_first: false });
        assert_eq!(group(&queue), 1);
        assert_eq!((queue.written(1), queue.written(0)), (Some(2), None));
        for _ in 0..10 {
            assert_eq!(queue.push(10, make()), Pushed::Taken);
        }
        assert_eq!(queue.push(1, make()), Pushed::Full { is_first: true }, "of a new burst");
    }

    #[test]
    fn groups_are_bounded_and_the_last_ones_come_before_the_end() {
        let queue = Queue::new(usize::MAX);
        (0..MAX_GROUP + 1).for_each(|_| assert_eq!(queue.push(1, make()), Pushed::Taken));
        assert_eq!(group(&queue), MAX_GROUP);
        queue.end();
        assert_eq!(queue.push(1, make()), Pushed::Closed);
        assert_eq!(group(&queue), 1);
        assert!(matches!(queue.take(PATIENCE), Taken::Over));
    }

    #[test]
    fn a_flush_waits_for_what_came_before_it() {
        let queue = Arc::new(Queue::new(usize::MAX));
        queue.flush(PATIENCE);
        assert!(matches!(queue.take(Duration::ZERO), Taken::Idle));
        queue.push(1, make());
        let writer = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let taken = group(&queue);
                queue.written(taken);
            })
        };
        queue.flush(PATIENCE);
        assert!(writer.is_finished() || queue.lock().written == 1);
        writer.join().expect("it ends");
        queue.push(1, make());
        queue.flush(Duration::ZERO);
        assert_eq!(queue.lock().written, 1, "nobody writes");
    }
}
