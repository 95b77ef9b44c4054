//! One class of the queue: a window of consecutive tickets with holes where entries were canceled.

use std::collections::VecDeque;

use super::holes::Holes;

/// Tickets kept free before the first entry after a renumbering, for entries that are put back.
const HEADROOM: u64 = 64;
/// Windows and gaps smaller than this are not worth tidying.
const TIDY_FROM: usize = 1_024;

/// Entries in order. An entry's ticket is its place in the window: `entries[ticket - first]`.
#[derive(Clone, Debug)]
pub(super) struct Lane<T> {
    entries: VecDeque<Option<T>>,
    /// Ticket of `entries[0]`, which is never a hole.
    first: u64,
    /// Ticket that `holes` counts from.
    origin: u64,
    holes: Holes,
    len: usize,
}

impl<T> Lane<T> {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), first: HEADROOM, origin: 0, holes: Holes::default(), len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.entries.front()?.as_ref()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().flatten()
    }

    /// Every entry with its ticket.
    pub(super) fn tickets(&self) -> impl Iterator<Item = (u64, &T)> {
        (self.first..).zip(&self.entries).filter_map(|(ticket, entry)| Some((ticket, entry.as_ref()?)))
    }

    /// Entries before the one with this ticket.
    pub(super) fn rank(&self, ticket: u64) -> usize {
        let holes = self.holes.before(self.offset(ticket)) - self.holes.before(self.offset(self.first));
        self.index(ticket) - holes
    }

    pub(super) fn push_back(&mut self, entry: T) -> u64 {
        self.entries.push_back(Some(entry));
        self.len += 1;
        self.first + self.entries.len() as u64 - 1
    }

    /// Puts an entry before all others. The flag says that every ticket has changed.
    pub(super) fn push_front(&mut self, entry: T) -> (u64, bool) {
        let renumbered = self.first == self.origin;
        if renumbered {
            self.renumber();
        }
        self.first -= 1;
        // The ticket may have belonged to a canceled entry.
        self.holes.clear(self.offset(self.first));
        self.entries.push_front(Some(entry));
        self.len += 1;
        (self.first, renumbered)
    }

    pub(super) fn pop_front(&mut self) -> Option<T> {
        let entry = self.entries.pop_front()??;
        self.first += 1;
        self.len -= 1;
        self.skip_holes();
        self.forget_passed();
        Some(entry)
    }

    /// Takes an entry out of the middle. `true` when every ticket has changed.
    pub(super) fn cancel(&mut self, ticket: u64) -> bool {
        let index = self.index(ticket);
        if self.entries.get_mut(index).and_then(Option::take).is_none() {
            return false;
        }
        self.holes.mark(self.offset(ticket));
        self.len -= 1;
        self.skip_holes();
        let holes = self.entries.len() - self.len;
        let crowded = holes > TIDY_FROM && holes > self.len;
        if crowded {
            self.renumber();
        } else {
            self.forget_passed();
        }
        crowded
    }

    fn index(&self, ticket: u64) -> usize {
        usize::try_from(ticket - self.first).expect("a window fits in memory")
    }

    fn offset(&self, ticket: u64) -> usize {
        usize::try_from(ticket - self.origin).expect("a window fits in memory")
    }

    fn skip_holes(&mut self) {
        while matches!(self.entries.front(), Some(None)) {
            self.entries.pop_front();
            self.first += 1;
        }
    }

    /// Drops what is known about tickets before the window once that is more than the window itself. Tickets stay.
    fn forget_passed(&mut self) {
        let passed = self.offset(self.first);
        if passed > TIDY_FROM.max(2 * self.entries.len()) {
            self.origin = self.first - HEADROOM;
            self.rebuild_holes();
        }
    }

    /// Closes all holes. Tickets change.
    fn renumber(&mut self) {
        self.entries.retain(Option::is_some);
        self.origin = 0;
        self.first = HEADROOM;
        self.rebuild_holes();
    }

    fn rebuild_holes(&mut self) {
        self.holes = Holes::default();
        let shift = self.offset(self.first);
        for (index, _) in self.entries.iter().enumerate().filter(|(_, entry)| entry.is_none()) {
            self.holes.mark(shift + index);
        }
    }
}
