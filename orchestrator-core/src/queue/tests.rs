//! The queue against a model that is two plain lists.

use api_types::Priority;
use proptest::prelude::*;

use std::num::NonZeroU16;

use super::{BoundedQueue, EnqueueError, FullPolicy, QueueLimits, Weights};
use crate::classes::PerClass;

#[derive(Clone, Copy, Debug)]
enum Op {
    Enqueue(u16, Priority),
    Cancel(u16),
    Pop,
    /// Takes the next entry out and puts it back, like a task whose worker was lost.
    PutBack,
}

/// Ids repeat, so that duplicates and cancels that miss occur too.
fn ops(ids: u16, most: usize) -> impl Strategy<Value = Vec<Op>> {
    let priority = prop_oneof![Just(Priority::Interactive), Just(Priority::Batch)];
    let op = prop_oneof![
        5 => (0..ids, priority).prop_map(|(id, priority)| Op::Enqueue(id, priority)),
        2 => (0..ids).prop_map(Op::Cancel),
        2 => Just(Op::Pop),
        1 => Just(Op::PutBack),
    ];
    prop::collection::vec(op, 0..most)
}

fn limits() -> impl Strategy<Value = QueueLimits> {
    let policy = prop_oneof![Just(FullPolicy::Reject), Just(FullPolicy::DropLru)];
    let weight = || (1_u16..4).prop_map(|weight| NonZeroU16::new(weight).expect("it is at least one"));
    let weights = prop::option::of((weight(), weight()));
    let class = || prop::option::weighted(0.3, 0_usize..6);
    (0_usize..12, (class(), class()), policy, weights).prop_map(|(capacity, classes, full_policy, weights)| {
        QueueLimits {
            capacity,
            class_capacity: PerClass { interactive: classes.0, batch: classes.1 },
            full_policy,
            weights: weights.map(|(interactive, batch)| Weights { interactive, batch }),
        }
    })
}

struct Model {
    limits: QueueLimits,
    interactive: Vec<u16>,
    batch: Vec<u16>,
    /// Entries taken in this round of turns.
    taken: u16,
}

impl Model {
    fn new(limits: QueueLimits) -> Self {
        Self { limits, interactive: Vec::new(), batch: Vec::new(), taken: 0 }
    }

    fn lane(&mut self, priority: Priority) -> &mut Vec<u16> {
        if priority == Priority::Interactive { &mut self.interactive } else { &mut self.batch }
    }

    /// Everything in the order in which it starts: the model is played to its end.
    fn order(&self) -> Vec<u16> {
        let mut played = Self { interactive: self.interactive.clone(), batch: self.batch.clone(), ..*self };
        std::iter::from_fn(|| played.pop().map(|(id, _)| id)).collect()
    }

    fn len(&self) -> usize {
        self.interactive.len() + self.batch.len()
    }

    fn take_first(&mut self, priority: Priority) -> Option<u16> {
        let lane = self.lane(priority);
        (!lane.is_empty()).then(|| lane.remove(0))
    }

    fn pop(&mut self) -> Option<(u16, Priority)> {
        let contested = !self.interactive.is_empty() && !self.batch.is_empty();
        let class = match self.limits.weights {
            Some(weights) if contested && self.taken >= weights.interactive.get() => Priority::Batch,
            _ if self.interactive.is_empty() => Priority::Batch,
            _ => Priority::Interactive,
        };
        let id = self.take_first(class)?;
        if let Some(weights) = self.limits.weights {
            let round = weights.interactive.get() + weights.batch.get();
            self.taken = if contested { (self.taken + 1) % round } else { 0 };
        }
        Some((id, class))
    }

    fn enqueue(&mut self, id: u16, priority: Priority) -> Result<(usize, Option<u16>), EnqueueError> {
        if self.interactive.contains(&id) || self.batch.contains(&id) {
            return Err(EnqueueError::Duplicate);
        }
        let QueueLimits { capacity, class_capacity, full_policy, .. } = self.limits;
        let class_limit = class_capacity.of(priority).filter(|most| self.lane(priority).len() >= *most);
        let mut evicted = None;
        if self.len() >= capacity || class_limit.is_some() {
            evicted = match (full_policy, priority) {
                _ if capacity == 0 || class_limit == Some(0) => None,
                (FullPolicy::Reject, _) => None,
                (FullPolicy::DropLru, _) if class_limit.is_some() => self.take_first(priority),
                (FullPolicy::DropLru, Priority::Batch) => self.take_first(Priority::Batch),
                (FullPolicy::DropLru, Priority::Interactive) => {
                    self.take_first(Priority::Batch).or_else(|| self.take_first(Priority::Interactive))
                }
            };
            if evicted.is_none() {
                let class = class_limit.map(|_| priority);
                return Err(EnqueueError::QueueFull { capacity: class_limit.unwrap_or(capacity), class });
            }
        }
        self.lane(priority).push(id);
        let position = self.order().iter().position(|other| *other == id).expect("it was just put in");
        Ok((position, evicted))
    }

    fn cancel(&mut self, id: u16) -> bool {
        let before = self.len();
        self.interactive.retain(|other| *other != id);
        self.batch.retain(|other| *other != id);
        self.len() < before
    }
}

fn run(ops: &[Op], limits: QueueLimits) {
    let (mut queue, mut model) = (BoundedQueue::new(limits), Model::new(limits));
    for op in ops {
        match *op {
            Op::Enqueue(id, priority) => {
                let got = queue.enqueue(id, priority).map(|done| (done.ahead.all(), done.evicted));
                assert_eq!(got, model.enqueue(id, priority));
                assert!(queue.len() <= limits.capacity);
                let within =
                    |class: &Priority| limits.class_capacity.of(*class).is_none_or(|most| queue.len_of(*class) <= most);
                assert!(Priority::ALL.iter().all(within));
            }
            Op::Cancel(id) => assert_eq!(queue.cancel(&id), model.cancel(id)),
            Op::Pop => {
                assert_eq!(queue.peek().map(|(id, _)| *id), model.order().first().copied());
                assert_eq!(queue.pop(), model.pop());
            }
            Op::PutBack => {
                if let Some((id, priority)) = queue.pop() {
                    assert_eq!(Some((id, priority)), model.pop());
                    assert_eq!(queue.put_back(id, priority), Ok(()));
                    assert_eq!(queue.put_back(id, priority), Err(EnqueueError::Duplicate));
                    model.lane(priority).insert(0, id);
                }
            }
        }
        check_same(&queue, &model);
    }
}

fn check_same(queue: &BoundedQueue<u16>, model: &Model) {
    assert_eq!(queue.view(Priority::Interactive).copied().collect::<Vec<_>>(), model.interactive);
    assert_eq!(queue.view(Priority::Batch).copied().collect::<Vec<_>>(), model.batch);
    assert_eq!(queue.len(), model.len());
    assert_eq!(queue.len_of(Priority::Batch), model.batch.len());
    for (position, id) in model.order().iter().enumerate() {
        assert_eq!(queue.position(id), Some(position));
    }
}

proptest! {
    /// ORCH-3004, ORCH-3005, OC-CORE-1001..1005, LO-ADM-01, LO-ADM-02, LO-ADM-05: capacities, order inside a class,
    /// interactive first or by turns, canceled entries never come out, positions, and who is evicted, with both policies.
    #[test]
    fn the_queue_is_its_model(ops in ops(40, 200), limits in limits()) {
        run(&ops, limits);
    }
}

/// The same over so many entries that windows are tidied and tickets are renewed while entries wait.
#[test]
fn a_long_life_changes_nothing() {
    let mut queue = BoundedQueue::new(QueueLimits::new(100_000, FullPolicy::Reject));
    let mut expected = std::collections::VecDeque::new();
    // The first entry stays: everything behind it comes and goes.
    for id in 0..20_000_u32 {
        queue.enqueue(id, Priority::Batch).expect("there is room");
        if id % 5 != 0 {
            assert!(queue.cancel(&id));
        } else {
            expected.push_back(id);
        }
    }
    for id in (100_000..100_200).rev() {
        queue.put_back(id, Priority::Batch).expect("it is new");
        expected.push_front(id);
    }
    for id in 200_000..220_000 {
        let front = expected.pop_front().expect("it is never empty");
        assert_eq!(queue.pop(), Some((front, Priority::Batch)));
        queue.enqueue(id, Priority::Batch).expect("there is room");
        expected.push_back(id);
        if id % 500 == 0 {
            queue.put_back(front, Priority::Batch).expect("it is out");
            expected.push_front(front);
            for (position, id) in expected.iter().enumerate().step_by(97) {
                assert_eq!(queue.position(id), Some(position));
            }
        }
    }
    assert_eq!(queue.view(Priority::Batch).copied().collect::<Vec<_>>(), Vec::from(expected));
}

/// An entry that is put back is never lost: the queue holds more than its capacity until it drains.
#[test]
fn an_entry_put_back_may_stand_above_the_capacity() {
    let mut queue = BoundedQueue::new(QueueLimits::new(1, FullPolicy::Reject));
    queue.enqueue(1, Priority::Batch).expect("there is room");
    let (first, class) = queue.pop().expect("it waits");
    queue.enqueue(2, Priority::Batch).expect("there is room");
    queue.put_back(first, class).expect("it is out");
    assert_eq!((queue.len(), queue.has_room(class)), (2, false));
    assert_eq!(queue.enqueue(3, Priority::Batch), Err(EnqueueError::QueueFull { capacity: 1, class: None }));
    assert_eq!((queue.pop(), queue.pop()), (Some((1, class)), Some((2, class))));
}
