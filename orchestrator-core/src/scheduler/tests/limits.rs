//! What refuses a task that has a pool: class limits, rates, deadlines; and shares between the classes.

use std::num::NonZeroU16;

use super::*;
use crate::queue::Weights;
use crate::throttle::RateLimit;

/// ORCH-3004: a class with a limit of its own is full before the queue is, and the refusal names it.
#[test]
fn a_class_has_its_own_capacity() {
    let mut spec = spec("a", 1, 8);
    spec.queue.class_capacity.batch = Some(1);
    let mut scheduler = scheduler(vec![spec]);
    admit(&mut scheduler, task(0, Priority::Batch));
    let refusal = refused(&mut scheduler, task(1, Priority::Batch));
    assert_eq!((refusal.kind, refusal.policy_label), (ErrorKind::AdmissionReject, Some(PolicyLabel::Reject)));
    assert!(refusal.message.contains("1 batch tasks waiting, its limit is 1"), "{refusal}");
    admit(&mut scheduler, task(2, Priority::Interactive));
}

/// ORCH-3006: a class that comes too fast is told when to come again, and a task refused for another reason costs nothing.
#[test]
fn a_class_has_its_own_rate() {
    let mut spec = spec("a", 1, 1);
    spec.rate_limits.batch = Some(RateLimit { rate_per_s: 2.0, burst: 1 });
    let mut scheduler = scheduler(vec![spec]);
    admit(&mut scheduler, task(0, Priority::Interactive));
    // The queue is full; the bucket is not touched by that.
    assert_eq!(refused(&mut scheduler, task(1, Priority::Batch)).policy_label, Some(PolicyLabel::Reject));
    dispatch_all(&mut scheduler, 0);
    admit(&mut scheduler, task(1, Priority::Batch));
    let throttled = refused(&mut scheduler, task(2, Priority::Batch));
    assert_eq!((throttled.policy_label, throttled.retry_after_ms), (Some(PolicyLabel::RateLimit), Some(500)));
    assert_eq!(scheduler.cancel(id(1), 0), Canceled::Queued);
    assert!(scheduler.admit(task(2, Priority::Batch), 499).is_err());
    scheduler.admit(task(2, Priority::Batch), 500).expect("a token is there");
}

/// A deadline that the prediction leaves no hope for is refused with the numbers; a guess refuses nobody.
#[test]
fn a_hopeless_deadline_is_refused() {
    let mut scheduler = scheduler(vec![spec("a", 1, 8)]);
    let short = |number| NewTask { deadline_ms: 50, ..task(number, Priority::Interactive) };
    admit(&mut scheduler, short(0));
    dispatch_all(&mut scheduler, 0);
    assert!(scheduler.finish(id(0), completed(), 600));
    let refusal = scheduler.admit(short(1), 600).expect_err("600 ms do not fit into 50").refusal;
    assert_eq!((refusal.kind, refusal.is_retriable()), (ErrorKind::DeadlineUnmet, false));
    assert!(refusal.message.contains("about 600 ms for it"), "{refusal}");
    scheduler.admit(task(1, Priority::Interactive), 600).expect("a minute is enough");
}

/// With shares of 2 and 1, every third start is a batch task while both wait; positions foresee it.
#[test]
fn shares_keep_batch_going() {
    let mut spec = spec("a", 1, 16);
    let weight = |weight| NonZeroU16::new(weight).expect("not zero");
    spec.queue.weights = Some(Weights { interactive: weight(2), batch: weight(1) });
    let mut scheduler = scheduler(vec![spec]);
    for number in 0..4 {
        admit(&mut scheduler, task(number, Priority::Interactive));
        admit(&mut scheduler, task(10 + number, Priority::Batch));
    }
    let order = [0, 1, 10, 2, 3, 11, 12, 13];
    for (position, number) in order.into_iter().enumerate() {
        assert_eq!(scheduler.queue_position(id(number)), Some(position));
    }
    for number in order {
        assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(number, "a")]));
        assert!(scheduler.finish(id(number), Outcome::unmeasured(End::Failed), 0));
    }
}

/// What was accepted before a restart waits again in its order, however full the queue is and whatever state its pool is
/// in; what no pool can run any more is refused.
#[test]
fn accepted_tasks_are_restored() {
    let mut scheduler = Scheduler::new(vec![spec("a", 1, 1), spec("b", 1, 1)]);
    for number in 0..3 {
        let restored = scheduler.restore(task(number, Priority::Batch), &"b".into(), 0);
        assert_eq!(restored, Ok("b".into()));
    }
    assert!(scheduler.restore(task(2, Priority::Batch), &"b".into(), 0).is_err(), "it is there already");
    assert_eq!(scheduler.restore(task(3, Priority::Batch), &"gone".into(), 0), Ok("a".into()));
    let mut unfit = task(4, Priority::Batch);
    unfit.job.model_ref = "gone".to_owned();
    assert_eq!(scheduler.restore(unfit, &"b".into(), 0).expect_err("no pool has it").kind, ErrorKind::InvalidParams);
    assert_eq!(dispatch_all(&mut scheduler, 0), []);
    for pool in ["a", "b"] {
        scheduler.update_replica(&pool.into(), &"r0".into(), &open(), 0);
    }
    assert!(scheduler.admit(task(5, Priority::Batch), 0).is_err(), "the queues are full");
    let (mut order, mut running) = (Vec::new(), dispatch_all(&mut scheduler, 0));
    while let Some((ended, _)) = running.pop() {
        assert!(scheduler.finish(ended, completed(), 0));
        order.push(ended);
        running.extend(dispatch_all(&mut scheduler, 0));
    }
    assert_eq!(order.iter().filter(|task| **task != id(3)).collect::<Vec<_>>(), [&id(0), &id(1), &id(2)]);
}
