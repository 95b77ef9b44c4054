//! The scheduler from outside: scenarios a person would name, and random lives against a model.

mod limits;
mod random;
mod replicas;

use api_types::{
    DeterminismLevel, Engine, ErrorKind, PlacementMode, PlacementOverrides, PolicyLabel, PoolId, Priority, TaskId,
    TaskState,
};

use super::{
    Action, Admission, Canceled, Dispatch, NewTask, Outcome, PoolSpec, ReplicaFacts, ReplicaSpec, Requeued, Scheduler,
};
use crate::Refusal;
use crate::classes::PerClass;
use crate::estimate::{Prompt, UNMEASURED_TASK_MS};
use crate::policy::{JobSpec, STALE_AFTER_MS, TieBreaker};
use crate::queue::{FullPolicy, QueueLimits};
use crate::task::End;

const MODEL: &str = "hf:org/model";

fn id(number: u32) -> TaskId {
    format!("00000000-0000-4000-8000-{number:012}").parse().expect("a UUID")
}

fn spec(pool_id: &str, slots: u32, queue_capacity: usize) -> PoolSpec {
    PoolSpec {
        pool_id: pool_id.into(),
        replicas: vec![ReplicaSpec { replica_id: "r0".into(), slots }],
        require_same_engine_version: true,
        engine: Engine::Llamacpp,
        models: vec![MODEL.to_owned()],
        queue: QueueLimits::new(queue_capacity, FullPolicy::Reject),
        rate_limits: PerClass::default(),
        determinism: DeterminismLevel::Strict,
        sampler_profile_version: None,
        device_mask: None,
        ctx_max: None,
    }
}

fn task(number: u32, priority: Priority) -> NewTask {
    NewTask {
        id: id(number),
        job: JobSpec {
            priority,
            expected_tokens: None,
            max_tokens: Some(100),
            engine: Engine::Llamacpp,
            model_ref: MODEL.to_owned(),
            required_ctx: 4_096,
            est_kv_bytes: None,
            placement: PlacementOverrides::default(),
            requirements: None,
            session_affinity_pool: None,
            session_affinity_replica: None,
            determinism: None,
            sampler_profile_version: None,
        },
        prompt: Prompt { tokens: Some(100), bytes: 400 },
        deadline_ms: 60_000,
    }
}

fn pinned(number: u32, priority: Priority, pool_id: &str) -> NewTask {
    let mut new = task(number, priority);
    new.job.placement.mode = PlacementMode::Pin;
    new.job.placement.pin_pool_id = Some(pool_id.to_owned());
    new
}

fn open() -> ReplicaFacts {
    ReplicaFacts { ready: true, live: true, ..ReplicaFacts::default() }
}

fn closed() -> ReplicaFacts {
    ReplicaFacts { ready: false, live: true, ..ReplicaFacts::default() }
}

/// A scheduler with all its pools open at time 0.
fn scheduler(specs: Vec<PoolSpec>) -> Scheduler {
    let ids: Vec<PoolId> = specs.iter().map(|spec| spec.pool_id.clone()).collect();
    let mut scheduler = Scheduler::new(specs);
    for pool_id in ids {
        assert_eq!(scheduler.update_replica(&pool_id, &"r0".into(), &open(), 0), []);
    }
    scheduler
}

#[track_caller]
fn admit(scheduler: &mut Scheduler, new: NewTask) -> Admission {
    scheduler.admit(new, 0).expect("it is taken")
}

#[track_caller]
fn refused(scheduler: &mut Scheduler, new: NewTask) -> Refusal {
    let tasks = scheduler.task_count();
    let refusal = scheduler.admit(new, 0).expect_err("it is refused").refusal;
    assert_eq!(scheduler.task_count(), tasks);
    refusal
}

/// Everything that can start now, as task numbers with their pools.
fn dispatch_all(scheduler: &mut Scheduler, now_ms: u64) -> Vec<(TaskId, String)> {
    std::iter::from_fn(|| scheduler.next_dispatch(now_ms))
        .map(|dispatch| (dispatch.task_id, dispatch.pool_id.to_string()))
        .collect()
}

fn started(numbers: &[(u32, &str)]) -> Vec<(TaskId, String)> {
    numbers.iter().map(|(number, pool)| (id(*number), (*pool).to_owned())).collect()
}

/// A completed task of 100 prompt tokens and 51 of at most 100 output tokens: 1 ms per prompt token, 10 ms per output
/// token, 600 ms in all.
fn completed() -> Outcome {
    Outcome {
        tokens_in: Some(100),
        tokens_out: Some(51),
        first_token_ms: Some(100),
        decode_ms: Some(500),
        ..Outcome::unmeasured(End::Completed)
    }
}

/// OC-CORE-1004, LO-ADM-05: interactive first, first come first served in a class, and positions that say so.
#[test]
fn a_busy_pool_queues_by_class() {
    let mut scheduler = scheduler(vec![spec("a", 1, 8)]);
    assert_eq!(admit(&mut scheduler, task(0, Priority::Batch)).queue_position, 0);
    assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(0, "a")]));
    for (number, priority, position) in
        [(1, Priority::Batch, 0), (2, Priority::Interactive, 0), (3, Priority::Batch, 2), (4, Priority::Interactive, 1)]
    {
        assert_eq!(admit(&mut scheduler, task(number, priority)).queue_position, position);
    }
    assert_eq!(dispatch_all(&mut scheduler, 0), []);
    assert_eq!(scheduler.queue_position(id(1)), Some(2));
    assert_eq!((scheduler.queue_position(id(0)), scheduler.queue_position(id(9))), (None, None));
    assert_eq!(scheduler.queue_depth(&"a".into(), Priority::Batch), 2);
    for (ended, next) in [(0, 2), (2, 4), (4, 1), (1, 3)] {
        assert!(scheduler.finish(id(ended), completed(), 0));
        assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(next, "a")]));
        assert_eq!(scheduler.active_leases(&"a".into()), 1);
    }
}

/// FR-PF-001, HME-010: load spreads over pools, and what waits for one goes to another that falls idle.
#[test]
fn work_spreads_and_idle_pools_take_over() {
    let mut scheduler = scheduler(vec![spec("a", 1, 8), spec("b", 1, 8)]);
    for number in 0..2 {
        admit(&mut scheduler, task(number, Priority::Interactive));
    }
    assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(0, "a"), (1, "b")]));
    admit(&mut scheduler, pinned(2, Priority::Interactive, "a"));
    admit(&mut scheduler, pinned(3, Priority::Batch, "b"));
    let waiting = admit(&mut scheduler, task(4, Priority::Interactive));
    assert_eq!((waiting.pool_id.as_str(), waiting.decision.tie_breakers_applied), ("a", vec![TieBreaker::PoolId]));
    // The pinned task ahead of it stays; the interactive one goes before the batch task that b has itself.
    assert!(scheduler.finish(id(1), completed(), 0));
    let taken = scheduler.next_dispatch(0).expect("b is idle");
    assert_eq!((taken.task_id, taken.pool_id.as_str()), (id(4), "b"));
    assert_eq!((taken.moved_from, taken.attempt), (Some("a".into()), 0));
    assert_eq!(scheduler.task_pool(id(4)), Some(&"b".into()));
    assert!(scheduler.finish(id(4), completed(), 0));
    assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(3, "b")]));
    assert_eq!(scheduler.queue_depth(&"a".into(), Priority::Interactive), 1);
}

/// What has waited longest anywhere is taken over first.
#[test]
fn an_idle_pool_takes_the_oldest() {
    let mut scheduler = scheduler(vec![spec("a", 1, 8), spec("b", 1, 8), spec("c", 1, 8)]);
    for number in 0..3 {
        admit(&mut scheduler, task(number, Priority::Interactive));
    }
    dispatch_all(&mut scheduler, 0);
    for (number, home) in [(3, "b"), (4, "a")] {
        let mut new = task(number, Priority::Interactive);
        new.job.session_affinity_pool = Some(home.into());
        assert_eq!(admit(&mut scheduler, new).pool_id, home.into());
    }
    assert!(scheduler.finish(id(2), completed(), 0));
    assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(3, "c")]));
}

/// ORCH-3009, ORCH-3903.2: a session goes home, and a met preference is not given up for an earlier start.
#[test]
fn homes_and_preferences_are_kept() {
    let mut scheduler = scheduler(vec![spec("a", 1, 8), spec("b", 1, 8)]);
    let mut home = task(0, Priority::Interactive);
    home.job.session_affinity_pool = Some("b".into());
    assert_eq!(admit(&mut scheduler, home).pool_id, "b".into());
    assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(0, "b")]));
    let mut preferring = task(1, Priority::Interactive);
    preferring.job.placement.mode = PlacementMode::Prefer;
    preferring.job.placement.prefer_pools = Some(vec!["b".to_owned()]);
    assert_eq!(admit(&mut scheduler, preferring).pool_id, "b".into());
    admit(&mut scheduler, task(2, Priority::Interactive));
    assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(2, "a")]));
    assert!(scheduler.finish(id(2), completed(), 0));
    assert_eq!(dispatch_all(&mut scheduler, 0), []);
}

/// LO-ADM-07: an id that is alive cannot be admitted again; one that has ended can.
#[test]
fn an_id_lives_once() {
    let mut scheduler = scheduler(vec![spec("a", 1, 8)]);
    admit(&mut scheduler, task(0, Priority::Batch));
    assert_eq!(refused(&mut scheduler, task(0, Priority::Batch)).kind, ErrorKind::Conflict);
    dispatch_all(&mut scheduler, 0);
    assert_eq!(refused(&mut scheduler, task(0, Priority::Batch)).kind, ErrorKind::Conflict);
    assert!(scheduler.finish(id(0), completed(), 0));
    admit(&mut scheduler, task(0, Priority::Batch));
}

/// ORCH-3005, ORCH-2007, C11: `reject` refuses with everything a 429 needs.
#[test]
fn a_full_queue_rejects() {
    let mut scheduler = scheduler(vec![spec("a", 1, 2)]);
    admit(&mut scheduler, task(0, Priority::Batch));
    dispatch_all(&mut scheduler, 0);
    assert_eq!(admit(&mut scheduler, task(1, Priority::Batch)).backoff_ms, 0);
    assert!(admit(&mut scheduler, task(2, Priority::Batch)).backoff_ms > 0);
    let refusal = refused(&mut scheduler, task(3, Priority::Interactive));
    assert_eq!((refusal.kind, refusal.policy_label), (ErrorKind::AdmissionReject, Some(PolicyLabel::Reject)));
    assert_eq!((refusal.retry_after_ms, refusal.pool_id), (Some(UNMEASURED_TASK_MS as i64), Some("a".into())));
}

/// LO-ADM-02, LO-ADM-04: `drop-lru` makes room for interactive tasks, and a batch task never displaces an interactive one.
#[test]
fn a_full_queue_drops_the_oldest() {
    let drop_lru = PoolSpec { queue: QueueLimits::new(2, FullPolicy::DropLru), ..spec("a", 1, 2) };
    let mut scheduler = scheduler(vec![drop_lru]);
    admit(&mut scheduler, task(0, Priority::Batch));
    dispatch_all(&mut scheduler, 0);
    for (number, priority, evicted) in [
        (1, Priority::Batch, None),
        (2, Priority::Interactive, None),
        (3, Priority::Batch, Some(1)),
        (4, Priority::Interactive, Some(3)),
        (5, Priority::Interactive, Some(2)),
    ] {
        assert_eq!(admit(&mut scheduler, task(number, priority)).evicted, evicted.map(id));
        if let Some(evicted) = evicted {
            assert_eq!(
                (scheduler.task_state(id(evicted)), scheduler.cancel(id(evicted), 0)),
                (None, Canceled::Unknown)
            );
        }
    }
    let refusal = refused(&mut scheduler, task(6, Priority::Batch));
    assert_eq!((refusal.kind, refusal.policy_label), (ErrorKind::QueueFullDropLru, Some(PolicyLabel::DropLru)));
}

/// OC-CORE-1005: a canceled waiting task is gone; a canceled running one keeps its slot until it has really ended.
#[test]
fn cancel_meets_a_task_where_it_is() {
    let mut scheduler = scheduler(vec![spec("a", 1, 8)]);
    for number in 0..3 {
        admit(&mut scheduler, task(number, Priority::Batch));
    }
    dispatch_all(&mut scheduler, 0);
    assert_eq!(scheduler.cancel(id(1), 0), Canceled::Queued);
    assert_eq!(scheduler.cancel(id(1), 0), Canceled::Unknown);
    assert_eq!(scheduler.queue_position(id(2)), Some(0));
    assert_eq!(scheduler.cancel(id(0), 0), Canceled::Running);
    assert_eq!(dispatch_all(&mut scheduler, 0), []);
    assert!(scheduler.finish(id(0), Outcome::unmeasured(End::Canceled), 0));
    assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(2, "a")]));
    assert!(!scheduler.finish(id(0), completed(), 0));
}

/// A waiting task is not ended by `finish`, which would leave it in its queue.
#[test]
fn finish_is_for_running_tasks() {
    let mut scheduler = scheduler(vec![spec("a", 1, 8)]);
    admit(&mut scheduler, task(0, Priority::Batch));
    assert!(!scheduler.finish(id(0), Outcome::unmeasured(End::Failed), 0));
    assert!(!scheduler.first_token(id(0)));
    assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(0, "a")]));
    assert!(scheduler.first_token(id(0)));
    assert_eq!(scheduler.task_state(id(0)), Some(TaskState::Streaming));
}

/// Failover: once, elsewhere if possible, ahead of its class, and never after a token or a cancel.
#[test]
fn a_lost_worker_costs_a_task_its_place_once() {
    let mut scheduler = scheduler(vec![spec("a", 1, 8), spec("b", 1, 8)]);
    for (number, pool) in [(0, "a"), (1, "b"), (2, "b")] {
        admit(&mut scheduler, pinned(number, Priority::Interactive, pool));
    }
    assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(0, "a"), (1, "b")]));
    // A pinned task waits for its own pool again.
    assert_eq!(scheduler.requeue(id(0), 0), Requeued::Again { pool_id: "a".into(), queue_position: 0 });
    let again = scheduler.next_dispatch(0).expect("its slot is free");
    assert_eq!((again.task_id, again.attempt), (id(0), 1));
    assert_eq!(scheduler.requeue(id(0), 0), Requeued::GivenUp);
    assert_eq!((scheduler.task_state(id(0)), scheduler.active_leases(&"a".into())), (None, 0));

    admit(&mut scheduler, task(3, Priority::Interactive));
    assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(3, "a")]));
    assert_eq!(scheduler.requeue(id(3), 0), Requeued::Again { pool_id: "b".into(), queue_position: 0 });
    assert_eq!(scheduler.queue_position(id(2)), Some(1));
    // The pool that lost it does not get it back.
    assert_eq!(dispatch_all(&mut scheduler, 0), []);
    assert!(scheduler.finish(id(1), completed(), 0));
    assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(3, "b")]));

    assert!(scheduler.first_token(id(3)));
    assert_eq!(scheduler.requeue(id(3), 0), Requeued::GivenUp);
    assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(2, "b")]));
    assert_eq!(scheduler.cancel(id(2), 0), Canceled::Running);
    assert_eq!(scheduler.requeue(id(2), 0), Requeued::Canceled);
    assert_eq!((scheduler.requeue(id(2), 0), scheduler.task_count()), (Requeued::Unknown, 0));
}

/// A pool whose workers keep dying does not fill another's queue beyond its limit.
#[test]
fn a_lost_task_goes_where_there_is_room() {
    let mut scheduler = scheduler(vec![spec("a", 1, 1), spec("b", 1, 1)]);
    for (number, pool) in [(0, "a"), (1, "b")] {
        let mut new = task(number, Priority::Batch);
        new.job.session_affinity_pool = Some(pool.into());
        admit(&mut scheduler, new);
    }
    dispatch_all(&mut scheduler, 0);
    admit(&mut scheduler, pinned(2, Priority::Batch, "b"));
    assert_eq!(scheduler.requeue(id(0), 0), Requeued::Again { pool_id: "a".into(), queue_position: 0 });
    assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(0, "a")]));
}

/// ORCH-3010, LO-ADM-08: before the first probe, while closed, and when not heard from, nothing is taken or started.
#[test]
fn only_open_pools_work() {
    let mut scheduler = Scheduler::new(vec![spec("a", 1, 8)]);
    let pool = PoolId::from("a");
    assert_eq!(refused(&mut scheduler, task(0, Priority::Batch)).kind, ErrorKind::PoolUnready);
    scheduler.update_replica(&pool, &"r0".into(), &open(), 0);
    admit(&mut scheduler, task(0, Priority::Batch));
    assert_eq!(dispatch_all(&mut scheduler, STALE_AFTER_MS + 1), []);
    let stale = scheduler.admit(task(1, Priority::Batch), STALE_AFTER_MS + 1).expect_err("nobody knows");
    assert_eq!(stale.refusal.kind, ErrorKind::PoolUnready);
    scheduler.update_replica(&pool, &"r0".into(), &open(), STALE_AFTER_MS + 1);
    assert_eq!(dispatch_all(&mut scheduler, STALE_AFTER_MS + 1), started(&[(0, "a")]));

    scheduler.drain(&pool, STALE_AFTER_MS);
    assert!(scheduler.finish(id(0), completed(), STALE_AFTER_MS));
    let draining = scheduler.admit(task(1, Priority::Batch), STALE_AFTER_MS).expect_err("it is draining");
    assert_eq!(draining.refusal.kind, ErrorKind::PoolUnready);
    scheduler.undrain(&pool, STALE_AFTER_MS);
    scheduler.admit(task(1, Priority::Batch), STALE_AFTER_MS).expect("it is open again");
}

/// A pool that closes gives its waiting tasks back, pinned ones excepted; those start when it opens again.
#[test]
fn a_closing_pool_gives_its_queue_back() {
    let mut scheduler = scheduler(vec![spec("a", 1, 8), spec("b", 1, 2)]);
    for number in 0..2 {
        admit(&mut scheduler, task(number, Priority::Interactive));
    }
    dispatch_all(&mut scheduler, 0);
    admit(&mut scheduler, pinned(2, Priority::Interactive, "a"));
    let mut preferring = |number, priority| {
        let mut new = task(number, priority);
        new.job.placement.mode = PlacementMode::Prefer;
        new.job.placement.prefer_pools = Some(vec!["a".to_owned()]);
        assert_eq!(admit(&mut scheduler, new).pool_id, "a".into());
    };
    preferring(3, Priority::Batch);
    preferring(4, Priority::Interactive);
    preferring(5, Priority::Batch);
    let moved = |number| Action::Moved { task: id(number), from: "a".into(), to: "b".into(), misfit: false };
    // Interactive ones first, and no more than b has room for.
    assert_eq!(scheduler.update_replica(&"a".into(), &"r0".into(), &closed(), 0), [moved(4), moved(3)]);
    assert_eq!((scheduler.queue_position(id(2)), scheduler.queue_position(id(5))), (Some(0), Some(1)));
    assert_eq!((scheduler.queue_position(id(4)), scheduler.queue_position(id(3))), (Some(0), Some(1)));
    assert!(scheduler.finish(id(0), Outcome::unmeasured(End::Failed), 0));
    assert_eq!(dispatch_all(&mut scheduler, 0), []);
    assert_eq!(scheduler.update_replica(&"a".into(), &"r0".into(), &open(), 0), []);
    assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(2, "a")]));
}

/// What waits for closed pools is taken in by one that opens.
#[test]
fn an_opening_pool_takes_in_the_stranded() {
    let mut scheduler = scheduler(vec![spec("a", 1, 8), spec("b", 1, 8)]);
    scheduler.drain(&"b".into(), 0);
    for (number, priority) in [(0, Priority::Batch), (1, Priority::Batch), (2, Priority::Interactive)] {
        admit(&mut scheduler, task(number, priority));
    }
    admit(&mut scheduler, pinned(3, Priority::Interactive, "a"));
    assert_eq!(scheduler.update_replica(&"a".into(), &"r0".into(), &closed(), 0), []);
    let moved = |number| Action::Moved { task: id(number), from: "a".into(), to: "b".into(), misfit: false };
    assert_eq!(scheduler.undrain(&"b".into(), 0), [moved(2), moved(0), moved(1)]);
    assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(2, "b")]));
}

/// A pool that comes back with less context turns out what no longer fits: elsewhere if it fits there, else to its end.
#[test]
fn a_shrunken_pool_turns_misfits_out() {
    let mut scheduler = scheduler(vec![spec("a", 1, 8), spec("b", 1, 1)]);
    for number in 0..2 {
        admit(&mut scheduler, task(number, Priority::Interactive));
    }
    dispatch_all(&mut scheduler, 0);
    for number in 2..4 {
        let mut small = pinned(number, Priority::Interactive, "a");
        small.job.required_ctx = 2_048 * (number as i32 - 1);
        admit(&mut scheduler, small);
    }
    let mut preferring = task(4, Priority::Interactive);
    preferring.job.placement.mode = PlacementMode::Prefer;
    preferring.job.placement.prefer_pools = Some(vec!["a".to_owned()]);
    admit(&mut scheduler, preferring);
    let shrunken = ReplicaFacts { ctx_max: Some(2_048), ..open() };
    let version = scheduler.snapshot_version();
    let actions = scheduler.update_replica(&"a".into(), &"r0".into(), &shrunken, 0);
    assert!(scheduler.snapshot_version() > version);
    let [Action::Rejected { task: rejected, refusal }, Action::Moved { task: moved, .. }] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!((*rejected, refusal.kind, *moved), (id(3), ErrorKind::InvalidParams, id(4)));
    assert_eq!((scheduler.queue_position(id(2)), scheduler.task_state(id(3))), (Some(0), None));
}

/// ORCH-3410.1: the version moves with the topology, and not with load, heartbeats or free memory.
#[test]
fn the_version_follows_the_topology() {
    let mut scheduler = Scheduler::new(vec![spec("a", 2, 8)]);
    let pool = PoolId::from("a");
    let mut version = scheduler.snapshot_version();
    let mut grew = |scheduler: &Scheduler| {
        let before = std::mem::replace(&mut version, scheduler.snapshot_version());
        assert!(version >= before);
        version > before
    };
    scheduler.update_replica(&pool, &"r0".into(), &open(), 0);
    assert!(grew(&scheduler));
    scheduler.update_replica(&pool, &"r0".into(), &ReplicaFacts { vram_free_bytes: Some(1), ..open() }, 9);
    admit(&mut scheduler, task(0, Priority::Batch));
    dispatch_all(&mut scheduler, 0);
    assert!(!grew(&scheduler));
    scheduler.update_replica(&pool, &"r0".into(), &ReplicaFacts { engine_version: Some("b1".to_owned()), ..open() }, 9);
    assert!(grew(&scheduler));
    scheduler.update_replica(
        &pool,
        &"r0".into(),
        &ReplicaFacts { engine_version: Some("b1".to_owned()), ..open() },
        10,
    );
    assert!(!grew(&scheduler));
    scheduler.drain(&pool, 10);
    assert!(grew(&scheduler));
    scheduler.update_replica(&"unknown".into(), &"r0".into(), &open(), 10);
    assert!(!grew(&scheduler));
}

/// HME-012: the operator's number of slots is a limit, the engine's own is another, and neither is exceeded.
#[test]
fn slots_are_the_smaller_of_wanted_and_real() {
    let mut scheduler = scheduler(vec![spec("a", 2, 8)]);
    for number in 0..4 {
        admit(&mut scheduler, task(number, Priority::Batch));
    }
    for (told, slots) in [(8, 2), (1, 1), (2, 2)] {
        scheduler.update_replica(&"a".into(), &"r0".into(), &ReplicaFacts { slots_total: Some(told), ..open() }, 0);
        assert_eq!(scheduler.pool(&"a".into()).map(|view| view.snapshot.slots_total), Some(slots));
    }
    assert_eq!(dispatch_all(&mut scheduler, 0).len(), 2);
    scheduler.update_replica(&"a".into(), &"r0".into(), &ReplicaFacts { slots_total: Some(1), ..open() }, 0);
    assert!(scheduler.finish(id(0), completed(), 0));
    assert_eq!(dispatch_all(&mut scheduler, 0), []);
    assert!(scheduler.finish(id(1), completed(), 0));
    assert_eq!(dispatch_all(&mut scheduler, 0), started(&[(2, "a")]));
}

/// A model is found under its configured name and under those that the engine tells.
#[test]
fn aliases_are_learned() {
    let mut scheduler = scheduler(vec![spec("a", 1, 8)]);
    let mut aliased = task(0, Priority::Batch);
    aliased.job.model_ref = " file.gguf ".to_owned();
    assert_eq!(refused(&mut scheduler, aliased.clone()).kind, ErrorKind::InvalidParams);
    let facts = ReplicaFacts { model_aliases: Some(vec!["file.gguf".to_owned(), MODEL.to_owned()]), ..open() };
    scheduler.update_replica(&"a".into(), &"r0".into(), &facts, 0);
    admit(&mut scheduler, aliased);
    let view = scheduler.pools().next().expect("there is one");
    assert_eq!(view.snapshot.models.iter().map(|name| &**name).collect::<Vec<_>>(), [MODEL, "file.gguf"]);
}

/// LO-ADM-06, HME-020: predictions are guesses that say so, until tasks have ended; then they follow the clock.
#[test]
fn predictions_learn_and_run_down() {
    let mut scheduler = scheduler(vec![spec("a", 1, 8)]);
    let first = admit(&mut scheduler, task(0, Priority::Batch));
    assert_eq!((first.predicted_start_ms, first.on_time_probability > 0.9), (0, true));
    dispatch_all(&mut scheduler, 0);
    let second = admit(&mut scheduler, task(1, Priority::Batch));
    assert_eq!((second.predicted_start_ms, second.prediction_is_measured), (UNMEASURED_TASK_MS, false));
    assert!(scheduler.finish(id(0), completed(), 600));
    dispatch_all(&mut scheduler, 600);
    // 100 prompt tokens at 1 ms, 50 more of 100 at 10 ms: 600 ms each.
    for number in 2..4 {
        let admission = scheduler.admit(task(number, Priority::Batch), 600).expect("it is taken");
        assert_eq!((admission.predicted_start_ms, admission.prediction_is_measured), ((number as u64 - 1) * 600, true));
    }
    assert_eq!(scheduler.predicted_start_ms(id(2), 800), Some(400));
    assert_eq!(scheduler.predicted_start_ms(id(3), 800), Some(400 + 600));
    assert_eq!(scheduler.predicted_start_ms(id(1), 800), Some(0));
    // A task that outlives its prediction is given a little more, not an end in the past.
    assert_eq!(scheduler.predicted_start_ms(id(2), 9_000), Some(600 / 4));
    assert!(scheduler.finish(id(1), completed(), 1_200));
    let outlook = scheduler.outlook(id(2), 1_200).expect("it waits");
    assert_eq!((outlook.queue_position, outlook.predicted_start_ms), (0, 0));
    assert!(outlook.on_time_probability > 0.5);
    assert_eq!(scheduler.outlook(id(2), 70_000).map(|outlook| outlook.on_time_probability), Some(0.0));
}
