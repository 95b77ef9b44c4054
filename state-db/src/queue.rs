//! What waits for the writing thread. A change that is in no hurry does not wake it, which would cost more than the change.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Items in one group at most, which bounds how long the first of them waits for the last.
const MAX_GROUP: usize = 512;
/// How long an item that is in no hurry waits for company.
const SOON: Duration = Duration::from_millis(50);

/// Items on their way to one consumer. Not bounded: a producer must never wait here.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    items: Vec<T>,
    /// When the group must be handed over; `None` while there is none.
    due: Option<Instant>,
    ending: bool,
    closed: bool,
}

/// What the consumer is handed.
pub(crate) enum Taken<T> {
    /// Items, in order.
    Group(Vec<T>),
    /// Nothing came for a while.
    Idle,
    /// The last items, perhaps none.
    Last(Vec<T>),
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let state = State { items: Vec::new(), due: None, ending: false, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<T> Queue<T> {
    /// Adds an item; one that is `urgent` takes all before it along at once. Dropped when nobody takes items any more.
    pub(crate) fn push(&self, item: T, urgent: bool) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.items.push(item);
        let now = Instant::now();
        let due = if urgent || state.items.len() >= MAX_GROUP { now } else { now + SOON };
        // A consumer that waits for nothing must learn that there is something; later only that it is due earlier.
        if state.due.is_none_or(|earlier| due < earlier) {
            state.due = Some(due);
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
        let left = mem::take(&mut state.items);
        drop(state);
        drop(left);
    }

    /// Waits for a group that is due, at most `idle` while there is none.
    pub(crate) fn take(&self, idle: Duration) -> Taken<T> {
        let since = Instant::now();
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.ending {
                return Taken::Last(mem::take(&mut state.items));
            }
            let until = match state.due {
                Some(due) if due <= now => return Taken::Group(state.group(now)),
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
    fn group(&mut self, now: Instant) -> Vec<T> {
        let rest = self.items.split_off(self.items.len().min(MAX_GROUP));
        self.due = (!rest.is_empty()).then_some(now);
        mem::replace(&mut self.items, rest)
    }
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
    fn an_urgent_item_takes_those_before_it_along() {
        let queue = Queue::default();
        queue.push(1, false);
        queue.push(2, true);
        queue.push(3, false);
        assert_eq!(group(&queue), [1, 2, 3]);
        queue.push(4, false);
        assert_eq!(group(&queue), [4], "it is taken without an urgent one, when its time has come");
        assert!(matches!(queue.take(Duration::ZERO), Taken::Idle));
    }

    #[test]
    fn groups_are_bounded_and_in_order() {
        let queue = Queue::default();
        (0..2 * MAX_GROUP + 1).for_each(|item| queue.push(item, item == 0));
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
        while !queue.lock().items.is_empty() {
            thread::yield_now();
        }
        queue.end();
        assert_eq!(consumer.join().expect("it ends"), (vec![7], true));
        queue.close();
        queue.push(8, true);
        assert!(queue.lock().items.is_empty());
    }
}
