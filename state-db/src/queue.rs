//! What waits for the writing thread. A change that is in no hurry does not wake it, which would cost more than the change,
//! and does not go along with one that somebody waits for.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Items in one group at most, which bounds how long the first of them waits for the last.
const MAX_GROUP: usize = 512;
/// How long an item that is in no hurry waits for company.
const SOON: Duration = Duration::from_millis(250);

/// Items on their way to one consumer. Not bounded: a producer must never wait here.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    urgent: Vec<T>,
    patient: Vec<T>,
    /// When the patient ones are due; `None` while there is none.
    due: Option<Instant>,
    ending: bool,
    closed: bool,
}

/// What the consumer is handed.
pub(crate) enum Taken<T> {
    /// Items of one kind, in order.
    Group(Vec<T>),
    /// Nothing came for a while.
    Idle,
    /// The last items, perhaps none.
    Last(Vec<T>),
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let state = State { urgent: Vec::new(), patient: Vec::new(), due: None, ending: false, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<T> Queue<T> {
    /// Adds an item; urgent ones are handed over at once and before the others. Dropped when nobody takes items any more.
    pub(crate) fn push(&self, item: T, urgent: bool) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let wake = if urgent {
            state.urgent.push(item);
            state.urgent.len() == 1
        } else {
            state.patient.push(item);
            state.set_due()
        };
        if wake {
            self.changed.notify_one();
        }
    }

    /// Lets the consumer end after what is queued.
    pub(crate) fn end(&self) {
        self.lock().ending = true;
        self.changed.notify_one();
    }

    /// Drops what is queued and whatever comes.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let left = (mem::take(&mut state.urgent), mem::take(&mut state.patient));
        drop(state);
        drop(left);
    }

    /// Waits for a group that is due, at most `idle` while there is none.
    pub(crate) fn take(&self, idle: Duration) -> Taken<T> {
        let since = Instant::now();
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if let Some(taken) = state.take(now) {
                return taken;
            }
            let until = match state.due {
                Some(due) => due,
                None if now - since >= idle => return Taken::Idle,
                None => since + idle,
            };
            let waited = self.changed.wait_timeout(state, until - now);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// A patient item was added: says whether the consumer must hear of it, because it waits for nothing or for longer.
    fn set_due(&mut self) -> bool {
        match self.patient.len() {
            1 => {
                self.due = Some(Instant::now() + SOON);
                true
            }
            MAX_GROUP => {
                self.due = Some(Instant::now());
                true
            }
            _ => false,
        }
    }

    fn take(&mut self, now: Instant) -> Option<Taken<T>> {
        if self.ending {
            let mut last = mem::take(&mut self.urgent);
            last.append(&mut self.patient);
            return Some(Taken::Last(last));
        }
        // What has waited for its time must not wait for ever behind what never has to.
        if self.due.is_some_and(|due| due <= now) {
            let group = first(&mut self.patient);
            self.due = (!self.patient.is_empty()).then_some(now);
            return Some(Taken::Group(group));
        }
        (!self.urgent.is_empty()).then(|| Taken::Group(first(&mut self.urgent)))
    }
}

fn first<T>(items: &mut Vec<T>) -> Vec<T> {
    let rest = items.split_off(items.len().min(MAX_GROUP));
    mem::replace(items, rest)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::{Duration, MAX_GROUP, Queue, Taken};

    const IDLE: Duration = Duration::from_secs(20);

    fn group(queue: &Queue<usize>) -> Vec<usize> {
        match queue.take(IDLE) {
            Taken::Group(items) => items,
            Taken::Idle | Taken::Last(_) => panic!("there are items"),
        }
    }

    #[test]
    fn urgent_items_go_first_and_alone() {
        let queue = Queue::default();
        queue.push(1, false);
        queue.push(2, true);
        queue.push(3, false);
        queue.push(4, true);
        assert_eq!(group(&queue), [2, 4]);
        assert_eq!(group(&queue), [1, 3], "when their time has come");
        assert!(matches!(queue.take(Duration::ZERO), Taken::Idle));
    }

    #[test]
    fn groups_are_bounded_and_in_order() {
        let queue = Queue::default();
        (0..2 * MAX_GROUP + 1).for_each(|item| queue.push(item, false));
        let groups = [group(&queue), group(&queue), group(&queue)];
        assert_eq!(groups.each_ref().map(Vec::len), [MAX_GROUP, MAX_GROUP, 1]);
        assert!(groups.concat().into_iter().eq(0..2 * MAX_GROUP + 1));
    }

    #[test]
    fn a_waiting_consumer_hears_of_an_item_and_of_the_end() {
        let queue = Arc::new(Queue::default());
        let consumer = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || (group(&queue), matches!(queue.take(IDLE), Taken::Last(left) if left.is_empty())))
        };
        queue.push(7, true);
        while !queue.lock().urgent.is_empty() {
            thread::yield_now();
        }
        queue.end();
        assert_eq!(consumer.join().expect("it ends"), (vec![7], true));
        queue.close();
        queue.push(8, true);
        assert!(queue.lock().urgent.is_empty());
    }
}
