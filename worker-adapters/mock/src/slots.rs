//! The engine's slots: who waits, who runs, what each one's cache holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use crate::simulation::Shared;

/// What one slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Its number, from 0.
    pub id: usize,
    /// The task it runs.
    pub task: Option<u32>,
    /// Tokens it has generated for that task.
    pub decoded: u32,
    /// Tokens it remembers, when it has had a task.
    pub cached: Option<usize>,
}

/// One slot.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    running: Option<Running>,
    /// What it remembers.
    memory: SlotMemory,
    /// When it was taken last, as a count.
    taken_at: u32,
}

/// What a slot remembers of its last task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotMemory {
    /// The prompt that it read.
    prompt: Vec<u32>,
    /// Tokens that it generated after it.
    written: u32,
}

impl SlotMemory {
    /// Tokens that it is made of. The last generated one was never read by the model.
    pub(crate) fn tokens(&self) -> usize {
        self.prompt.len() + usize::try_from(self.written.saturating_sub(1)).unwrap_or(usize::MAX)
    }
}

#[derive(Debug)]
struct Running {
    task: u32,
    decoded: Arc<AtomicU32>,
}

/// Every slot, and how many requests wait for one.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    tasks: u32,
    pub(crate) deferred: u32,
}

impl Slots {
    pub(crate) fn new(count: u32) -> Self {
        Self { slots: (0..count).map(|_| Slot::default()).collect(), tasks: 0, deferred: 0 }
    }

    pub(crate) fn running(&self) -> u32 {
        self.slots.iter().map(|slot| u32::from(slot.running.is_some())).sum()
    }

    pub(crate) fn views(&self) -> Vec<SlotView> {
        let view = |(id, slot): (usize, &Slot)| SlotView {
            id,
            task: slot.running.as_ref().map(|running| running.task),
            decoded: slot.running.as_ref().map_or(0, |running| running.decoded.load(Ordering::Relaxed)),
            cached: (slot.taken_at > 0).then(|| slot.memory.tokens()),
        };
        self.slots.iter().enumerate().map(view).collect()
    }

    /// Gives a prompt to the free slot that remembers most of it, else to the one idle longest. The caller holds a permit,
    /// so there is one.
    fn take(&mut self, prompt: Vec<u32>, use_cache: bool, decoded: Arc<AtomicU32>) -> Taken {
        let free = self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.running.is_none());
        let best = free.max_by_key(|(_, slot)| (remembers(slot, &prompt), std::cmp::Reverse(slot.taken_at)));
        let (index, slot) = best.expect("a permit stands for a free slot");
        // The last prompt token is always read again: its result is what the first token comes from.
        let reusable = common(&slot.memory.prompt, &prompt).min(prompt.len().saturating_sub(1));
        let cached = if use_cache { u32::try_from(reusable).unwrap_or(u32::MAX) } else { 0 };
        self.tasks += 1;
        slot.taken_at = self.tasks;
        slot.memory = SlotMemory { prompt, written: 0 };
        slot.running = Some(Running { task: self.tasks, decoded });
        Taken { index, cached }
    }
}

impl Slots {
    /// What an idle slot remembers; `None` while it works. Numbers beyond the last begin again at the first, as llama.cpp has it.
    pub(crate) fn memory(&self, slot: usize) -> Option<SlotMemory> {
        let slot = &self.slots[slot % self.slots.len()];
        slot.running.is_none().then(|| slot.memory.clone())
    }

    /// Has an idle slot remember something else. Whether it was idle.
    pub(crate) fn remember(&mut self, slot: usize, memory: &SlotMemory) -> bool {
        let count = self.slots.len();
        let slot = &mut self.slots[slot % count];
        if slot.running.is_none() {
            slot.memory = memory.clone();
        }
        slot.running.is_none()
    }
}

struct Taken {
    index: usize,
    cached: u32,
}

/// The first token is the same in every prompt, so a slot that has only that one remembers nothing.
fn remembers(slot: &Slot, prompt: &[u32]) -> usize {
    common(&slot.memory.prompt, prompt).saturating_sub(1)
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A slot in use; dropping it frees the slot.
#[derive(Debug)]
pub(crate) struct Lease {
    shared: Arc<Shared>,
    /// The slot's number.
    pub(crate) slot: usize,
    /// Prompt tokens that need not be read.
    pub(crate) cached: u32,
    pub(crate) decoded: Arc<AtomicU32>,
    /// How the task ended; cancelled until something else is known.
    pub(crate) ending: Ending,
    _permit: OwnedSemaphorePermit,
}

/// How a task ended, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Cancelled,
    Completed,
    Failed,
}

impl Lease {
    /// Waits for a slot, in turn. Dropping the future leaves the queue.
    pub(crate) async fn wait(shared: &Arc<Shared>, prompt: Vec<u32>, use_cache: bool) -> Self {
        let permit = match Arc::clone(&shared.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _deferred = Deferred::enter(shared);
                Arc::clone(&shared.permits).acquire_owned().await.expect("the semaphore is never closed")
            }
        };
        let decoded = Arc::new(AtomicU32::new(0));
        let taken = shared.update(|state| {
            let taken = state.slots.take(prompt, use_cache, Arc::clone(&decoded));
            state.counters.cached_tokens += u64::from(taken.cached);
            taken
        });
        Self {
            shared: Arc::clone(shared),
            slot: taken.index,
            cached: taken.cached,
            decoded,
            ending: Ending::Cancelled,
            _permit: permit,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.update(|state| {
            let slot = &mut state.slots.slots[self.slot];
            slot.running = None;
            slot.memory.written = self.decoded.load(Ordering::Relaxed);
            match self.ending {
                Ending::Cancelled => state.counters.cancelled += 1,
                Ending::Completed => state.counters.completed += 1,
                Ending::Failed => state.counters.failed += 1,
            }
        });
    }
}

struct Deferred<'a>(&'a Shared);

impl<'a> Deferred<'a> {
    fn enter(shared: &'a Shared) -> Self {
        shared.update(|state| state.slots.deferred += 1);
        Self(shared)
    }
}

impl Drop for Deferred<'_> {
    fn drop(&mut self) {
        self.0.update(|state| state.slots.deferred -= 1);
    }
}
