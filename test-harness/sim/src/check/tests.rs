//! A checker that notices nothing would pass any scheduler: each promise is broken once.

use api_types::Priority::{self, Batch, Interactive};
use orchestrator_core::scheduler::{Action, Canceled, Dispatch, NewTask, Requeued};

use super::{Broken, Checker, Kept, Taken};
use crate::draw::Draw;
use crate::load::{Traits, id_of};
use crate::scenario::{Arrivals, Placement, Pool, Replica, SCENARIOS, Scenario, Size, Source, Swap};

const POOL: Pool = Pool {
    id: "a",
    replicas: &[Replica { slots: 1, speed: 1.0, vram_gib: 24 }],
    capacity: 2,
    device_mask: Some("0"),
    ..SCENARIOS[0].pools[0]
};

const SCENARIO: Scenario = Scenario {
    pools: &[POOL, Pool { id: "b", device_mask: None, ..POOL }, Pool { id: "c", weights: Some((1, 1)), ..POOL }],
    ..SCENARIOS[0]
};

const INTERACTIVE: Source = Source { class: Interactive, prompt: Size::Fixed(100), limit: Size::Fixed(256), ..BATCH };

const BATCH: Source =
    Source { class: Batch, arrivals: Arrivals::Closed { clients: 1, think_ms: 0.0 }, ..SCENARIOS[0].sources[0] };

/// A checker whose pools a and c are ready, and what is said to it.
struct Told(Checker);

impl Told {
    fn new() -> Self {
        let mut checker = Checker::new(&SCENARIO);
        checker.told(0, 0, true, 0);
        checker.told(2, 0, true, 0);
        Self(checker)
    }

    fn admitted(&mut self, number: usize, class: Priority, pool: &str, position: usize) -> Kept {
        self.placed(number, class, pool, position, Placement::Auto)
    }

    fn placed(&mut self, number: usize, class: Priority, pool: &str, position: usize, placement: Placement) -> Kept {
        let taken = Taken { pool, position, evicted: None, widened: false };
        self.0.admitted(placement, &new_task(number, class), taken)
    }

    fn started(&mut self, number: usize, pool: &str, from: Option<&str>) -> Kept {
        let dispatch = Dispatch {
            task_id: id_of(number),
            pool_id: pool.into(),
            replica_id: "r0".into(),
            moved_from: from.map(Into::into),
            attempt: 0,
        };
        self.0.dispatched(&dispatch, 0)
    }
}

fn new_task(number: usize, class: Priority) -> NewTask {
    let source: &'static Source = if class == Batch { &BATCH } else { &INTERACTIVE };
    Traits::new(source, &mut Draw::new(0, [0; 3])).new_task(number)
}

/// ORCH-3004: capacity, places, and order within a class.
#[test]
fn a_queue_that_is_no_bounded_fifo_is_noticed() {
    let mut told = Told::new();
    told.admitted(1, Interactive, "a", 0).unwrap();
    assert_eq!(told.admitted(2, Interactive, "a", 0), Err(Broken::Position { pool: "a", task: 2 }));
    assert_eq!(told.admitted(3, Interactive, "a", 2), Err(Broken::Capacity { pool: "a" }));
    assert_eq!(told.started(2, "a", None), Err(Broken::Overtaken { pool: "a", task: 2 }));
    let evicts = told.0.admitted(
        Placement::Auto,
        &new_task(4, Interactive),
        Taken { pool: "a", position: 2, evicted: Some(1), widened: false },
    );
    assert_eq!(evicts, Err(Broken::Evicted { pool: "a", task: 1 }));
}

/// OC-CORE-1004: interactive first, or in turns where the operator wants them.
#[test]
fn a_class_out_of_turn_is_noticed() {
    let mut told = Told::new();
    told.admitted(1, Batch, "a", 0).unwrap();
    told.admitted(2, Interactive, "a", 0).unwrap();
    assert_eq!(told.started(1, "a", None), Err(Broken::BatchFirst { pool: "a", task: 1 }));
    for (number, class) in [(3, Interactive), (4, Batch)] {
        told.admitted(number, class, "c", 0).unwrap();
    }
    told.started(3, "c", None).unwrap();
    told.0.finished(3, true).unwrap();
    told.admitted(5, Interactive, "c", 0).unwrap();
    assert_eq!(told.started(5, "c", None), Err(Broken::OutOfTurn { pool: "c", task: 5 }));
}

/// OC-CORE-1005: what was canceled or has ended does not start, and no task ends twice.
#[test]
fn a_second_life_is_noticed() {
    let mut told = Told::new();
    told.admitted(1, Batch, "a", 0).unwrap();
    told.0.canceled(1, Canceled::Queued).unwrap();
    assert_eq!(told.started(1, "a", None), Err(Broken::NotWaiting { pool: "a", task: 1 }));
    assert_eq!(told.0.finished(1, true), Err(Broken::Story { task: 1 }));
    told.admitted(2, Batch, "a", 0).unwrap();
    told.started(2, "a", None).unwrap();
    assert_eq!(told.started(2, "a", None), Err(Broken::NotWaiting { pool: "a", task: 2 }));
    assert_eq!(told.0.requeued(2, &Requeued::Canceled), Err(Broken::Story { task: 2 }));
}

/// ORCH-3010, ORCH-3011: only ready pools, and only those that the task may use.
#[test]
fn a_wrong_pool_is_noticed() {
    let mut told = Told::new();
    for (number, placement) in [
        Placement::Pin("a"),
        Placement::PreferOnly("a"),
        Placement::Prefer("a"),
        Placement::Avoid("b"),
        Placement::Mask("0"),
    ]
    .into_iter()
    .enumerate()
    {
        let crossed = told.placed(number, Batch, "b", 0, placement);
        assert_eq!(crossed, Err(Broken::Crossed { pool: "b", task: number }), "{placement:?}");
    }
    told.admitted(8, Batch, "b", 0).unwrap();
    assert_eq!(told.started(8, "b", None), Err(Broken::NotReady { pool: "b", task: 8 }));
}

/// FR-PF-001: slots are neither given twice nor left idle, and no pool takes what another could start.
#[test]
fn a_slot_misused_is_noticed() {
    let mut told = Told::new();
    told.admitted(1, Batch, "a", 0).unwrap();
    assert_eq!(told.0.nothing_starts(0), Err(Broken::Idle { pool: "a" }));
    assert_eq!(told.started(1, "c", Some("a")), Err(Broken::TakenFromAble { pool: "c", task: 1 }));
    told.started(1, "a", None).unwrap();
    told.0.nothing_starts(0).unwrap();
    told.admitted(2, Batch, "a", 0).unwrap();
    assert_eq!(told.started(2, "a", None), Err(Broken::Slots { pool: "a", replica: 0 }));
}

/// A task that is said to move must have been where it is said to come from.
#[test]
fn a_move_from_nowhere_is_noticed() {
    let mut told = Told::new();
    told.admitted(1, Batch, "a", 0).unwrap();
    let moved = |from: &str| Action::Moved { task: id_of(1), from: from.into(), to: "c".into(), misfit: false };
    told.0.acted(&moved("a")).unwrap();
    assert_eq!(told.0.acted(&moved("a")), Err(Broken::Story { task: 1 }));
}

/// LO-SWP-02, LO-SWP-03, LO-SWP-04: memory that is not there, engines that are ended under their tasks, starts before a load, and
/// waits beyond the limit.
#[test]
fn a_swap_that_hurts_is_noticed() {
    let mut told = Told::new();
    told.0.took(0, 1, true).unwrap();
    assert_eq!(told.0.took(0, 1, false), Err(Broken::OverCommitted { pool: "a", device: 1 }));
    told.admitted(1, Batch, "a", 0).unwrap();
    told.0.unloads(0).unwrap();
    told.0.cold(0, true);
    told.0.nothing_starts(0).unwrap();
    assert_eq!(told.started(1, "a", None), Err(Broken::NotReady { pool: "a", task: 1 }));
    let mut told = Told::new();
    told.admitted(1, Batch, "a", 0).unwrap();
    told.started(1, "a", None).unwrap();
    assert_eq!(told.0.unloads(0), Err(Broken::Killed { pool: "a" }));
    told.0.waited(0, 1, u64::MAX).unwrap();
    let swap = Some(Swap { devices: &[], age_limit_ms: 10, is_sustainable: true });
    let told = Checker::new(&Scenario { swap, ..SCENARIO });
    told.waited(0, 1, 10).unwrap();
    assert_eq!(told.waited(0, 1, 11), Err(Broken::TooLate { pool: "a", task: 1, wait_ms: 11 }));
}
