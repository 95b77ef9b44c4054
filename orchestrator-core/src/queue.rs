//! A bounded queue of two classes: interactive before batch, first come first served inside each (ORCH-3004).

mod holes;
mod lane;
mod turns;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use api_types::Priority;
use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::classes::PerClass;
use lane::Lane;
use turns::Turns;
pub use turns::Weights;

/// What a full queue does with a newcomer (ORCH-3005).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FullPolicy {
    /// It is refused and nothing changes (LO-ADM-01).
    Reject,
    /// An interactive newcomer evicts the oldest batch entry, else the oldest interactive one; a batch newcomer evicts
    /// the oldest batch entry, else it is refused (LO-ADM-02). Where only its own class is full, it evicts the oldest of
    /// that class.
    DropLru,
}

/// How much a queue holds, and who comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Most entries of both classes together.
    pub capacity: usize,
    /// Most entries of single classes, where they have a limit of their own.
    pub class_capacity: PerClass<Option<usize>>,
    /// What a full queue does with a newcomer.
    pub full_policy: FullPolicy,
    /// Shares of the starts while both classes wait; without them interactive entries always come first.
    pub weights: Option<Weights>,
}

impl QueueLimits {
    /// One limit for both classes, interactive entries first.
    #[must_use]
    pub const fn new(capacity: usize, full_policy: FullPolicy) -> Self {
        Self { capacity, class_capacity: PerClass { interactive: None, batch: None }, full_policy, weights: None }
    }
}

/// Entries that start before one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Of its own class.
    pub own: usize,
    /// Of the other class.
    pub others: usize,
}

impl Ahead {
    /// Of both.
    #[must_use]
    pub const fn all(self) -> usize {
        self.own + self.others
    }
}

/// Where a newcomer stands, and who had to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueued<T> {
    /// Entries that start before it.
    pub ahead: Ahead,
    /// The entry that lost its place to it.
    pub evicted: Option<T>,
}

/// Why a newcomer was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// The queue is full and its policy makes no room.
    #[error("the queue holds {capacity} entries, its limit")]
    QueueFull {
        /// The limit that was reached, of the queue or of the newcomer's class.
        capacity: usize,
        /// The class whose own limit it is; `None` for the queue's.
        class: Option<Priority>,
    },
    /// The same id waits already.
    #[error("the same id waits already")]
    Duplicate,
}

/// The queue. Ids are unique in it. Enqueue and pop cost O(1) amortised, cancel and position O(log n).
#[derive(Clone, Debug)]
pub struct BoundedQueue<T> {
    limits: QueueLimits,
    lanes: PerClass<Lane<T>>,
    turns: Option<Turns>,
    places: HashMap<T, Place, RandomState>,
}

/// Where an entry is. The ticket is the lane's own.
#[derive(Clone, Copy, Debug)]
struct Place {
    priority: Priority,
    ticket: u64,
}

impl<T: Clone + Eq + Hash> BoundedQueue<T> {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        let lanes = PerClass { interactive: Lane::new(), batch: Lane::new() };
        Self { limits, lanes, turns: limits.weights.map(Turns::new), places: HashMap::default() }
    }

    /// Puts an entry at the end of its class.
    ///
    /// # Errors
    /// [`EnqueueError::QueueFull`] as the policy says, [`EnqueueError::Duplicate`]; the queue is unchanged.
    pub fn enqueue(&mut self, id: T, priority: Priority) -> Result<Enqueued<T>, EnqueueError> {
        let evicted = if self.has_room(priority) {
            None
        } else if self.places.contains_key(&id) {
            return Err(EnqueueError::Duplicate);
        } else {
            Some(self.evict_for(priority)?)
        };
        self.push_back(id, priority)?;
        // It is the last of its class.
        Ok(Enqueued { ahead: self.ahead_of(priority, self.len_of(priority) - 1), evicted })
    }

    /// Puts an entry at the end of its class whatever the limits say, for a task that was accepted in an earlier life of
    /// the process. The queue may then hold more than its capacity, and newcomers wait until it no longer does.
    ///
    /// # Errors
    /// [`EnqueueError::Duplicate`]; the queue is unchanged.
    pub fn push_back(&mut self, id: T, priority: Priority) -> Result<(), EnqueueError> {
        let Entry::Vacant(vacant) = self.places.entry(id.clone()) else {
            return Err(EnqueueError::Duplicate);
        };
        let ticket = self.lanes.of_mut(priority).push_back(id);
        vacant.insert(Place { priority, ticket });
        Ok(())
    }

    /// Puts an entry back to the front of its class, for a task that was taken out but could not be run. It is never
    /// refused, as in [`BoundedQueue::push_back`].
    ///
    /// # Errors
    /// [`EnqueueError::Duplicate`]; the queue is unchanged.
    pub fn put_back(&mut self, id: T, priority: Priority) -> Result<(), EnqueueError> {
        let Entry::Vacant(vacant) = self.places.entry(id.clone()) else {
            return Err(EnqueueError::Duplicate);
        };
        let (ticket, renumbered) = self.lanes.of_mut(priority).push_front(id);
        vacant.insert(Place { priority, ticket });
        if renumbered {
            self.renew_tickets(priority);
        }
        Ok(())
    }

    /// Takes an entry out, wherever it waits; it will never be popped (OC-CORE-1005). `false` when it does not wait here.
    pub fn cancel(&mut self, id: &T) -> bool {
        let Some(place) = self.places.remove(id) else {
            return false;
        };
        if self.lanes.of_mut(place.priority).cancel(place.ticket) {
            self.renew_tickets(place.priority);
        }
        true
    }

    /// Takes out the entry that starts next.
    pub fn pop(&mut self) -> Option<(T, Priority)> {
        self.pop_of(self.next_class()?)
    }

    /// Takes out the oldest entry of one class.
    pub fn pop_of(&mut self, priority: Priority) -> Option<(T, Priority)> {
        let contested = self.is_contested();
        let id = self.lanes.of_mut(priority).pop_front()?;
        self.places.remove(&id);
        if let Some(turns) = &mut self.turns {
            turns.took(priority, contested);
        }
        Some((id, priority))
    }

    /// The class whose turn it is; `None` when nothing waits.
    #[must_use]
    pub fn next_class(&self) -> Option<Priority> {
        match self.turns {
            Some(turns) if self.is_contested() => Some(turns.next()),
            _ => [Priority::Interactive, Priority::Batch].into_iter().find(|class| self.len_of(*class) > 0),
        }
    }

    /// The entry that starts next.
    #[must_use]
    pub fn peek(&self) -> Option<(&T, Priority)> {
        let class = self.next_class()?;
        self.lanes.of(class).front().map(|id| (id, class))
    }

    /// Entries that start before this one; `None` when it does not wait here.
    #[must_use]
    pub fn position(&self, id: &T) -> Option<usize> {
        self.ahead(id).map(Ahead::all)
    }

    /// [`BoundedQueue::position`] by class.
    #[must_use]
    pub fn ahead(&self, id: &T) -> Option<Ahead> {
        self.places.get(id).map(|place| self.ahead_of(place.priority, self.lanes.of(place.priority).rank(place.ticket)))
    }

    /// Entries that would start before a newcomer of this class.
    #[must_use]
    pub fn ahead_of_newcomer(&self, priority: Priority) -> Ahead {
        self.ahead_of(priority, self.len_of(priority))
    }

    /// Entries of both classes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Entries of one class.
    #[must_use]
    pub fn len_of(&self, priority: Priority) -> usize {
        self.lanes.of(priority).len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How much it holds, and who comes first.
    #[must_use]
    pub const fn limits(&self) -> &QueueLimits {
        &self.limits
    }

    /// Whether a newcomer of this class is taken without anyone losing a place.
    #[must_use]
    pub fn has_room(&self, priority: Priority) -> bool {
        self.full_class(priority).is_none() && self.len() < self.limits.capacity
    }

    /// One class, oldest first.
    pub fn view(&self, priority: Priority) -> impl Iterator<Item = &T> {
        self.lanes.of(priority).iter()
    }

    /// The limit of a class that has reached it.
    fn full_class(&self, priority: Priority) -> Option<usize> {
        self.limits.class_capacity.of(priority).filter(|most| self.len_of(priority) >= *most)
    }

    fn evict_for(&mut self, newcomer: Priority) -> Result<T, EnqueueError> {
        let class_limit = self.full_class(newcomer);
        let full = EnqueueError::QueueFull {
            capacity: class_limit.unwrap_or(self.limits.capacity),
            class: class_limit.map(|_| newcomer),
        };
        let evicted = match (self.limits.full_policy, newcomer) {
            // Without a place at all there is nobody to evict and nowhere to stand.
            _ if self.limits.capacity == 0 || class_limit == Some(0) => None,
            (FullPolicy::Reject, _) => None,
            (FullPolicy::DropLru, _) if class_limit.is_some() => self.drop_oldest(newcomer),
            (FullPolicy::DropLru, Priority::Batch) => self.drop_oldest(Priority::Batch),
            (FullPolicy::DropLru, Priority::Interactive) => {
                self.drop_oldest(Priority::Batch).or_else(|| self.drop_oldest(Priority::Interactive))
            }
        };
        evicted.ok_or(full)
    }

    fn drop_oldest(&mut self, priority: Priority) -> Option<T> {
        let id = self.lanes.of_mut(priority).pop_front()?;
        self.places.remove(&id);
        Some(id)
    }

    fn is_contested(&self) -> bool {
        self.len_of(Priority::Interactive) > 0 && self.len_of(Priority::Batch) > 0
    }

    /// Entries that start before the one with so many of its own class ahead.
    fn ahead_of(&self, priority: Priority, own: usize) -> Ahead {
        let waiting = self.len_of(match priority {
            Priority::Interactive => Priority::Batch,
            Priority::Batch => Priority::Interactive,
        });
        let others = match (self.turns, priority) {
            (Some(turns), _) if waiting > 0 => turns.others_before(priority, own).min(waiting),
            (_, Priority::Interactive) => 0,
            (_, Priority::Batch) => waiting,
        };
        Ahead { own, others }
    }

    fn renew_tickets(&mut self, priority: Priority) {
        for (ticket, id) in self.lanes.of(priority).tickets() {
            if let Some(place) = self.places.get_mut(id) {
                place.ticket = ticket;
            }
        }
    }
}
