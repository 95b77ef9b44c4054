//! The queue against a model that is two plain lists.

use api_types::Priority;
use proptest::prelude::*;

use super::{BoundedQueue, EnqueueError, FullPolicy};

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

fn policies() -> impl Strategy<Value = FullPolicy> {
    prop_oneof![Just(FullPolicy::Reject), Just(FullPolicy::DropLru)]
}

#[derive(Default)]
struct Model {
    interactive: Vec<u16>,
    batch: Vec<u16>,
}

impl Model {
    fn lane(&mut self, priority: Priority) -> &mut Vec<u16> {
        if priority == Priority::Interactive { &mut self.interactive } else { &mut self.batch }
    }

    fn all(&self) -> Vec<u16> {
        self.interactive.iter().chain(&self.batch).copied().collect()
    }

    fn take_first(&mut self, priority: Priority) -> Option<u16> {
        let lane = self.lane(priority);
        (!lane.is_empty()).then(|| lane.remove(0))
    }

    fn pop(&mut self) -> Option<(u16, Priority)> {
        let first = |model: &mut Self, priority| model.take_first(priority).map(|id| (id, priority));
        first(self, Priority::Interactive).or_else(|| first(self, Priority::Batch))
    }

    fn enqueue(
        &mut self,
        id: u16,
        priority: Priority,
        capacity: usize,
        policy: FullPolicy,
    ) -> Result<(usize, Option<u16>), EnqueueError> {
        if self.all().contains(&id) {
            return Err(EnqueueError::Duplicate);
        }
        let mut evicted = None;
        if self.all().len() >= capacity {
            evicted = match (policy, priority) {
                _ if capacity == 0 => None,
                (FullPolicy::Reject, _) => None,
                (FullPolicy::DropLru, Priority::Batch) => self.take_first(Priority::Batch),
                (FullPolicy::DropLru, Priority::Interactive) => {
                    self.take_first(Priority::Batch).or_else(|| self.take_first(Priority::Interactive))
                }
            };
            if evicted.is_none() {
                return Err(EnqueueError::QueueFull { capacity });
            }
        }
        self.lane(priority).push(id);
        let position = self.all().iter().position(|other| *other == id).expect("it was just put in");
        Ok((position, evicted))
    }

    fn cancel(&mut self, id: u16) -> bool {
        let before = self.all().len();
        self.interactive.retain(|other| *other != id);
        self.batch.retain(|other| *other != id);
        self.all().len() < before
    }
}

fn run(ops: &[Op], capacity: usize, policy: FullPolicy) {
    let (mut queue, mut model) = (BoundedQueue::new(capacity, policy), Model::default());
    for op in ops {
        match *op {
            Op::Enqueue(id, priority) => {
                let got = queue.enqueue(id, priority).map(|done| (done.position, done.evicted));
                assert_eq!(got, model.enqueue(id, priority, capacity, policy));
                assert!(queue.len() <= capacity);
            }
            Op::Cancel(id) => assert_eq!(queue.cancel(&id), model.cancel(id)),
            Op::Pop => {
                assert_eq!(queue.peek().map(|(id, priority)| (*id, priority)), model.pop_preview());
                assert_eq!(queue.pop(), model.pop());
            }
            Op::PutBack => {
                if let Some((id, priority)) = queue.pop() {
                    assert_eq!(queue.put_back(id, priority), Ok(()));
                    assert_eq!(queue.put_back(id, priority), Err(EnqueueError::Duplicate));
                }
            }
        }
        check_same(&queue, &model);
    }
}

impl Model {
    fn pop_preview(&self) -> Option<(u16, Priority)> {
        let first = self.interactive.first().map(|id| (*id, Priority::Interactive));
        first.or_else(|| self.batch.first().map(|id| (*id, Priority::Batch)))
    }
}

fn check_same(queue: &BoundedQueue<u16>, model: &Model) {
    assert_eq!(queue.view(Priority::Interactive).copied().collect::<Vec<_>>(), model.interactive);
    assert_eq!(queue.view(Priority::Batch).copied().collect::<Vec<_>>(), model.batch);
    assert_eq!(queue.len(), model.all().len());
    assert_eq!(queue.len_of(Priority::Batch), model.batch.len());
    for (position, id) in model.all().iter().enumerate() {
        assert_eq!(queue.position(id), Some(position));
    }
}

proptest! {
    /// ORCH-3004, ORCH-3005, OC-CORE-1001..1005, LO-ADM-01, LO-ADM-02, LO-ADM-05: capacity, order inside a class,
    /// interactive first, canceled entries never come out, positions, and who is evicted, with both policies.
    #[test]
    fn the_queue_is_its_model(ops in ops(40, 200), capacity in 0_usize..12, policy in policies()) {
        run(&ops, capacity, policy);
    }
}

/// The same over so many entries that windows are tidied and tickets are renewed while entries wait.
#[test]
fn a_long_life_changes_nothing() {
    let mut queue = BoundedQueue::new(100_000, FullPolicy::Reject);
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
    let mut queue = BoundedQueue::new(1, FullPolicy::Reject);
    queue.enqueue(1, Priority::Batch).expect("there is room");
    let (first, class) = queue.pop().expect("it waits");
    queue.enqueue(2, Priority::Batch).expect("there is room");
    queue.put_back(first, class).expect("it is out");
    assert_eq!((queue.len(), queue.has_room()), (2, false));
    assert_eq!(queue.enqueue(3, Priority::Batch), Err(EnqueueError::QueueFull { capacity: 1 }));
    assert_eq!((queue.pop(), queue.pop()), (Some((1, class)), Some((2, class))));
}
