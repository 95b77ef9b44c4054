//! What is going to happen, in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::load::Turn;

/// Something that happens at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// A client submits its next task.
    Turn(Turn),
    /// A client submits a refused task again.
    Retry(usize),
    /// A client cancels a task.
    Cancel(usize),
    /// A task's deadline passes.
    Deadline(usize),
    /// An engine has let go of a task.
    Stopped(usize),
    /// The worker of a task is lost, if this is still its latest start.
    Lost(usize, u32),
    /// A milestone on an engine, if nothing has changed there since.
    Engine { pool: usize, replica: usize, generation: u64 },
    /// A regular probe of a replica.
    Probe(usize, usize),
    /// A probe out of turn.
    Nudged(usize, usize),
    /// A mishap.
    FaultBegins(usize),
    /// Its end.
    FaultEnds(usize),
    /// A plan is made of who is in memory.
    Round,
    /// A device is looked at.
    Look(usize),
    /// What was read of it is known.
    Read { device: usize, free: u64, taken_ms: u64 },
    /// The other program of a device takes or gives back memory.
    Others(usize),
    /// The driver gives back what an ended engine held.
    Back { device: usize, bytes: u64 },
    /// A pool's model and program are present, if this is still the same start.
    Prepared(usize, u32),
    /// An engine that loads takes a part of its memory, if it still is that engine.
    Part(usize, u32),
    /// It has loaded its model.
    Loaded(usize, u32),
    /// An engine has ended.
    EngineEnded(usize, u32),
}

/// Events by time; those of one moment in the order in which they were added.
#[derive(Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<Entry>>,
    added: u64,
}

struct Entry {
    key: (u64, u64),
    event: Event,
}

impl Agenda {
    pub(crate) fn add(&mut self, at_ms: u64, event: Event) {
        self.heap.push(Reverse(Entry { key: (at_ms, self.added), event }));
        self.added += 1;
    }

    pub(crate) fn next(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|Reverse(entry)| (entry.key.0, entry.event))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Entry {}
