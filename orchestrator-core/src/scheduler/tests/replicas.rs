//! Several replicas in a pool, and pools of unlike speed.

use super::*;

/// A pool of replicas with one slot each, all open, with this much free memory.
fn set(free: &[(&str, i64)]) -> Scheduler {
    let replicas = free.iter().map(|(replica, _)| ReplicaSpec { replica_id: (*replica).into(), slots: 1 }).collect();
    let mut scheduler = Scheduler::new(vec![PoolSpec { replicas, ..spec("a", 1, 8) }]);
    for (replica, bytes) in free {
        tell(&mut scheduler, replica, &ReplicaFacts { vram_free_bytes: Some(*bytes), ..open() });
    }
    scheduler
}

fn tell(scheduler: &mut Scheduler, replica: &str, facts: &ReplicaFacts) {
    scheduler.update_replica(&"a".into(), &replica.into(), facts, 0);
}

fn replicas_started(scheduler: &mut Scheduler) -> Vec<String> {
    std::iter::from_fn(|| scheduler.next_dispatch(0)).map(|dispatch| dispatch.replica_id.to_string()).collect()
}

/// ORCH-3012, OC-CORE-1012, OC-CORE-1017: free memory, then fewest tasks, then the id.
#[test]
fn replicas_are_taken_in_order() {
    let mut scheduler = set(&[("r0", 5), ("r1", 9), ("r2", 9)]);
    for number in 0..4 {
        admit(&mut scheduler, task(number, Priority::Batch));
    }
    assert_eq!(replicas_started(&mut scheduler), ["r1", "r2", "r0"]);
    assert_eq!(scheduler.pool(&"a".into()).map(|view| view.snapshot.slots_total), Some(3));
    assert!(scheduler.finish(id(1), completed(), 0));
    assert_eq!(replicas_started(&mut scheduler), ["r2"]);
}

/// ORCH-3009: a session goes back to its own replica.
#[test]
fn a_session_returns_to_its_replica() {
    let mut scheduler = set(&[("r0", 9), ("r1", 5)]);
    let mut back = task(0, Priority::Batch);
    back.job.session_affinity_replica = Some("r1".into());
    admit(&mut scheduler, back);
    assert_eq!(replicas_started(&mut scheduler), ["r1"]);
}

/// ORCH-3046: a replica of another version gets no task; the pool goes on.
#[test]
fn versions_do_not_mix() {
    let mut scheduler = set(&[("r0", 0), ("r1", 0)]);
    for (replica, version) in [("r0", "b1"), ("r1", "b2")] {
        tell(&mut scheduler, replica, &ReplicaFacts { engine_version: Some(version.to_owned()), ..open() });
    }
    let odd: Vec<bool> = scheduler.replicas(&"a".into()).map(|replica| replica.odd_version).collect();
    assert_eq!(odd, [false, true]);
    for number in 0..2 {
        admit(&mut scheduler, task(number, Priority::Batch));
    }
    assert_eq!(replicas_started(&mut scheduler), ["r0"]);
    tell(&mut scheduler, "r1", &ReplicaFacts { engine_version: Some("b1".to_owned()), ..open() });
    assert_eq!(replicas_started(&mut scheduler), ["r1"]);
}

/// A pool is ready as long as one replica is, and can do what all ready ones can.
#[test]
fn a_pool_is_what_its_replicas_are() {
    let mut scheduler = set(&[("r0", 0), ("r1", 0)]);
    tell(&mut scheduler, "r0", &ReplicaFacts { ctx_max: Some(8_192), ..open() });
    tell(&mut scheduler, "r1", &ReplicaFacts { ctx_max: Some(4_096), ..open() });
    let seen = |scheduler: &Scheduler| {
        let snapshot = scheduler.pool(&"a".into()).expect("it exists").snapshot;
        (snapshot.ready, snapshot.slots_total, snapshot.ctx_max_supported)
    };
    assert_eq!(seen(&scheduler), (true, 2, Some(4_096)));
    tell(&mut scheduler, "r1", &closed());
    assert_eq!(seen(&scheduler), (true, 1, Some(8_192)));
    tell(&mut scheduler, "r0", &closed());
    assert!(!seen(&scheduler).0);
}

/// DESIGN section 8, failover: a task whose worker was lost goes to another replica of its pool before any other pool.
#[test]
fn a_lost_task_goes_to_another_replica() {
    let mut scheduler = set(&[("r0", 9), ("r1", 5)]);
    admit(&mut scheduler, task(0, Priority::Interactive));
    assert_eq!(replicas_started(&mut scheduler), ["r0"]);
    assert!(matches!(scheduler.requeue(id(0), 0), Requeued::Again { .. }));
    assert_eq!(replicas_started(&mut scheduler), ["r1"]);
    assert_eq!(scheduler.requeue(id(0), 0), Requeued::GivenUp);
}

/// Two pools, three times and once as fast, both known.
fn unlike() -> Scheduler {
    let mut scheduler = scheduler(vec![spec("fast", 1, 64), spec("slow", 1, 64)]);
    for (number, pool, times) in [(90, "fast", 1), (91, "slow", 3)] {
        admit(&mut scheduler, pinned(number, Priority::Batch, pool));
        dispatch_all(&mut scheduler, 0);
        let outcome = Outcome { first_token_ms: Some(100 * times), decode_ms: Some(500 * times), ..completed() };
        assert!(scheduler.finish(id(number), outcome, 600 * times));
    }
    scheduler
}

/// ORCH-3902.1, HME-010: work goes where it ends first, so the slow pool gets some once the fast one's queue is long enough.
#[test]
fn work_goes_where_it_ends_first() {
    let mut scheduler = unlike();
    let mut pools = Vec::new();
    for number in 0..8 {
        let admission = scheduler.admit(task(number, Priority::Batch), 1_800).expect("it is taken");
        pools.push(admission.pool_id.to_string());
        while scheduler.next_dispatch(1_800).is_some() {}
    }
    assert_eq!(pools, ["fast", "fast", "slow", "fast", "fast", "fast", "slow", "fast"]);
    let decision = scheduler.admit(task(8, Priority::Batch), 1_800).expect("it is taken").decision;
    assert_eq!(decision.outranked.len(), 1);
    assert_eq!(decision.outranked[0].by, TieBreaker::PredictedEnd);
}

/// An idle slow pool leaves the head of a fast pool's queue where it ends sooner, and takes what would wait too long.
#[test]
fn an_idle_pool_takes_what_it_ends_sooner() {
    let mut scheduler = unlike();
    scheduler.drain(&"slow".into(), 1_800);
    for number in 0..6 {
        scheduler.admit(task(number, Priority::Batch), 1_800).expect("it is taken");
    }
    while scheduler.next_dispatch(1_800).is_some() {}
    scheduler.undrain(&"slow".into(), 1_800);
    let taken = scheduler.next_dispatch(1_800).expect("one of them ends sooner on the slow pool");
    // 600 ms to the next slot, 600 ms for each; 1,800 ms here.
    assert_eq!((taken.task_id, taken.moved_from), (id(3), Some("fast".into())));
    assert_eq!(scheduler.next_dispatch(1_800), None);
}
