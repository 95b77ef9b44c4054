//! A bounded queue of two classes: interactive before batch, first come first served inside each (ORCH-3004).

mod holes;
mod lane;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use api_types::Priority;
use serde::{Deserialize, Serialize};

use lane::Lane;

/// What a full queue does with a newcomer (ORCH-3005).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FullPolicy {
    /// It is refused and nothing changes (LO-ADM-01).
    Reject,
    /// An interactive newcomer evicts the oldest batch entry, else the oldest interactive one; a batch newcomer evicts
    /// the oldest batch entry, else it is refused (LO-ADM-02).
    DropLru,
}

/// Where a newcomer stands, and who had to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueued<T> {
    /// Entries that start before it.
    pub position: usize,
    /// The entry that lost its place to it.
    pub evicted: Option<T>,
}

/// Why a newcomer was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// The queue is full and its policy makes no room.
    #[error("the queue holds {capacity} entries, its limit")]
    QueueFull {
        /// The limit.
        capacity: usize,
    },
    /// The same id waits already.
    #[error("the same id waits already")]
    Duplicate,
}

/// The queue. Ids are unique in it. Enqueue and pop cost O(1) amortised, cancel and position O(log n).
#[derive(Clone, Debug)]
pub struct BoundedQueue<T> {
    capacity: usize,
    policy: FullPolicy,
    interactive: Lane<T>,
    batch: Lane<T>,
    places: HashMap<T, Place>,
}

/// Where an entry is. The ticket is the lane's own.
#[derive(Clone, Copy, Debug)]
struct Place {
    priority: Priority,
    ticket: u64,
}

impl<T: Clone + Eq + Hash> BoundedQueue<T> {
    /// An empty queue that holds at most `capacity` entries of both classes together.
    #[must_use]
    pub fn new(capacity: usize, policy: FullPolicy) -> Self {
        Self { capacity, policy, interactive: Lane::new(), batch: Lane::new(), places: HashMap::new() }
    }

    /// Puts an entry at the end of its class.
    ///
    /// # Errors
    /// [`EnqueueError::QueueFull`] as the policy says, [`EnqueueError::Duplicate`]; the queue is unchanged.
    pub fn enqueue(&mut self, id: T, priority: Priority) -> Result<Enqueued<T>, EnqueueError> {
        let evicted = if self.has_room() {
            None
        } else if self.places.contains_key(&id) {
            return Err(EnqueueError::Duplicate);
        } else {
            Some(self.evict_for(priority)?)
        };
        let lane = if priority == Priority::Interactive { &mut self.interactive } else { &mut self.batch };
        let Entry::Vacant(vacant) = self.places.entry(id.clone()) else {
            return Err(EnqueueError::Duplicate);
        };
        let place = Place { priority, ticket: lane.push_back(id) };
        vacant.insert(place);
        // Nothing of its own class is behind it.
        let ahead = if priority == Priority::Batch { self.interactive.len() } else { 0 };
        Ok(Enqueued { position: ahead + self.len_of(priority) - 1, evicted })
    }

    /// Puts an entry back to the front of its class, for a task that was taken out but could not be run. It is never
    /// refused: the queue may then hold more than its capacity, and newcomers wait until it no longer does.
    ///
    /// # Errors
    /// [`EnqueueError::Duplicate`]; the queue is unchanged.
    pub fn put_back(&mut self, id: T, priority: Priority) -> Result<(), EnqueueError> {
        let Entry::Vacant(vacant) = self.places.entry(id.clone()) else {
            return Err(EnqueueError::Duplicate);
        };
        let lane = if priority == Priority::Interactive { &mut self.interactive } else { &mut self.batch };
        let (ticket, renumbered) = lane.push_front(id);
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
        if self.lane_mut(place.priority).cancel(place.ticket) {
            self.renew_tickets(place.priority);
        }
        true
    }

    /// Takes out the entry that starts next.
    pub fn pop(&mut self) -> Option<(T, Priority)> {
        self.pop_of(Priority::Interactive).or_else(|| self.pop_of(Priority::Batch))
    }

    /// Takes out the oldest entry of one class.
    pub fn pop_of(&mut self, priority: Priority) -> Option<(T, Priority)> {
        let id = self.lane_mut(priority).pop_front()?;
        self.places.remove(&id);
        Some((id, priority))
    }

    /// The entry that starts next.
    #[must_use]
    pub fn peek(&self) -> Option<(&T, Priority)> {
        let first = |priority| self.lane(priority).front().map(|id| (id, priority));
        first(Priority::Interactive).or_else(|| first(Priority::Batch))
    }

    /// Entries that start before this one, interactive ones ahead of batch; `None` when it does not wait here.
    #[must_use]
    pub fn position(&self, id: &T) -> Option<usize> {
        self.places.get(id).map(|place| self.rank(*place))
    }

    /// Entries of both classes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Entries of one class.
    #[must_use]
    pub fn len_of(&self, priority: Priority) -> usize {
        self.lane(priority).len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The limit on waiting entries of both classes together.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// What happens when it is full.
    #[must_use]
    pub const fn policy(&self) -> FullPolicy {
        self.policy
    }

    /// Whether a newcomer is taken without anyone losing a place.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.len() < self.capacity
    }

    /// One class, oldest first.
    pub fn view(&self, priority: Priority) -> impl Iterator<Item = &T> {
        self.lane(priority).iter()
    }

    fn evict_for(&mut self, newcomer: Priority) -> Result<T, EnqueueError> {
        let full = EnqueueError::QueueFull { capacity: self.capacity };
        let evicted = match (self.policy, newcomer) {
            // Without a place at all there is nobody to evict and nowhere to stand.
            _ if self.capacity == 0 => None,
            (FullPolicy::Reject, _) => None,
            (FullPolicy::DropLru, Priority::Batch) => self.pop_of(Priority::Batch),
            (FullPolicy::DropLru, Priority::Interactive) => {
                self.pop_of(Priority::Batch).or_else(|| self.pop_of(Priority::Interactive))
            }
        };
        evicted.map(|(id, _)| id).ok_or(full)
    }

    fn rank(&self, place: Place) -> usize {
        let ahead = match place.priority {
            Priority::Interactive => 0,
            Priority::Batch => self.interactive.len(),
        };
        ahead + self.lane(place.priority).rank(place.ticket)
    }

    fn renew_tickets(&mut self, priority: Priority) {
        let lane = if priority == Priority::Interactive { &self.interactive } else { &self.batch };
        for (ticket, id) in lane.tickets() {
            if let Some(place) = self.places.get_mut(id) {
                place.ticket = ticket;
            }
        }
    }

    const fn lane(&self, priority: Priority) -> &Lane<T> {
        match priority {
            Priority::Interactive => &self.interactive,
            Priority::Batch => &self.batch,
        }
    }

    const fn lane_mut(&mut self, priority: Priority) -> &mut Lane<T> {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Batch => &mut self.batch,
        }
    }
}
