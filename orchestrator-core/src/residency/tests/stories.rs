//! What is done in situations that a person would name.

use super::super::{Ledger, Limits, Part, Plan, Stage, Step, Tenant, Waiters, plan};
use crate::classes::PerClass;

const LIMITS: Limits = Limits { age_limit_ms: 120_000 };
const NOW_MS: u64 = 1_000_000;

/// A tenant of the first device that needs so much and does nothing.
fn tenant(bytes: u64, stage: Stage) -> Tenant {
    Tenant {
        stage,
        on_demand: true,
        keep: false,
        wanted: false,
        is_next: false,
        fenced: false,
        need: vec![Part { device: 0, bytes }],
        load_ms: 20_000,
        unload_ms: 500,
        idle_unload_ms: None,
        running: 0,
        running_ms: 0,
        backlog_ms: 0,
        waiting: PerClass::default(),
        last_used_ms: 0,
        gap_ms: None,
    }
}

fn serving(bytes: u64) -> Tenant {
    tenant(bytes, Stage::Serving { since_ms: 0 })
}

/// It asks for memory, and so many have waited for so long.
fn asking(bytes: u64, count: usize, waited_ms: u64) -> Tenant {
    let waiters = Waiters { count, oldest_ms: NOW_MS - waited_ms };
    Tenant { waiting: PerClass { interactive: Waiters::default(), batch: waiters }, ..tenant(bytes, Stage::Asking) }
}

/// One device of 24, of which everybody who serves has what they need.
fn decide(tenants: &[Tenant]) -> Plan {
    let mut ledger = Ledger::default();
    ledger.add_device(24, 0);
    let has = |tenant: &Tenant| matches!(tenant.stage, Stage::Serving { .. } | Stage::Leaving | Stage::Loading { .. });
    let mut held = Vec::new();
    for (index, tenant) in tenants.iter().enumerate().filter(|(_, tenant)| has(tenant)) {
        ledger.claim(index, &tenant.need);
        ledger.loaded(index, 1);
        held.push((index, tenant.need[0].bytes));
    }
    let used: u64 = held.iter().map(|(_, bytes)| bytes).sum();
    ledger.read(0, Some(24 - used), &held, 2);
    plan(&mut ledger, tenants, LIMITS, NOW_MS)
}

/// LO-SWP-01: a pool is prepared when a task waits for it, has memory that is free, and is not loaded for nobody.
#[test]
fn a_model_is_loaded_for_who_asks() {
    let waits = |stage| Tenant { stage, ..asking(10, 1, 0) };
    assert_eq!(decide(&[waits(Stage::Out), serving(4)]).steps, [Step::Begin(0)]);
    assert_eq!(decide(&[waits(Stage::Asking), serving(4)]).steps, [Step::Grant(0)]);
    let gone = |stage| tenant(10, stage);
    for stage in [Stage::Preparing, Stage::Asking, Stage::Loading { since_ms: 0 }] {
        assert_eq!(decide(&[gone(stage)]).steps, [Step::Abort(0)], "{stage:?}");
        assert!(!decide(&[Tenant { wanted: true, ..gone(stage) }]).steps.contains(&Step::Abort(0)));
    }
    assert_eq!(decide(&[gone(Stage::Out)]).steps, []);
}

/// LO-SWP-03: who was not used for longest, for what a load costs, has to go, and nobody beside; never one that is kept, runs or has
/// been asked for.
#[test]
fn idle_ones_make_room() {
    let used = |bytes, ago_ms: u64| Tenant { last_used_ms: NOW_MS - ago_ms, ..serving(bytes) };
    let evict = |tenant| Step::Evict { tenant, for_tenant: 0 };
    assert_eq!(decide(&[asking(10, 1, 0), used(9, 5_000), used(9, 9_000)]).steps, [evict(2)]);
    let quick = Tenant { load_ms: 1_000, ..used(9, 5_000) };
    assert_eq!(decide(&[asking(10, 1, 0), quick, used(9, 9_000)]).steps, [evict(1)], "it is back sooner");
    let kept = Tenant { keep: true, ..used(9, 9_000) };
    assert_eq!(decide(&[asking(10, 1, 0), used(9, 5_000), kept]).steps, [evict(1)]);
    let busy = Tenant { running: 1, ..used(9, 9_000) };
    assert_eq!(decide(&[asking(10, 1, 0), used(9, 5_000), busy]).steps, [evict(1)]);
    assert_eq!(decide(&[asking(20, 1, 0), used(9, 5_000), used(9, 9_000)]).steps, [evict(2), evict(1)]);
    // The small one alone would not do, so it may stay although it is the older.
    assert_eq!(decide(&[asking(12, 1, 0), used(3, 9_000), used(15, 5_000)]).steps, [evict(2)]);
}

/// LO-SWP-03: what is on its way back is waited for, and nobody else goes.
#[test]
fn one_eviction_is_enough() {
    let leaving = tenant(14, Stage::Leaving);
    let plan = decide(&[asking(14, 1, 0), leaving, serving(10)]);
    assert_eq!(plan.steps, []);
    assert_eq!(plan.ready_in_ms[0], Some(20_500));
}

/// LO-SWP-04: what waits for a loaded model runs first, until somebody else would have waited too long; then running tasks end, and
/// the others go on later.
#[test]
fn waiting_tasks_of_a_loaded_model_run_first() {
    let busy = |running| Tenant { running, running_ms: 1_000, backlog_ms: 9_000, ..asking(20, 5, 10_000) };
    let busy = |running| Tenant { stage: Stage::Serving { since_ms: 0 }, ..busy(running) };
    assert_eq!(decide(&[asking(20, 1, 50_000), busy(1)]).steps, []);
    assert_eq!(decide(&[asking(20, 1, 50_000), busy(1)]).ready_in_ms[0], Some(29_500));
    // 20 s to load, one until the running task has ended, half of one for the memory, 15 to spare.
    assert_eq!(decide(&[asking(20, 1, 83_400), busy(1)]).steps, []);
    assert_eq!(decide(&[asking(20, 1, 83_500), busy(1)]).steps, [Step::Fence { tenant: 1, for_tenant: 0 }]);
    let fenced = |running| Tenant { fenced: true, ..busy(running) };
    assert_eq!(decide(&[asking(20, 1, 83_500), fenced(1)]).steps, []);
    assert_eq!(decide(&[asking(20, 1, 83_500), fenced(0)]).steps, [Step::Evict { tenant: 1, for_tenant: 0 }]);
    assert_eq!(decide(&[tenant(20, Stage::Out), fenced(1)]).steps, [Step::Unfence(1)], "nobody asks any more");
}

/// LO-SWP-04: the room that was made for one is not taken by another, although that has waited longer.
#[test]
fn who_was_evicted_does_not_come_back_first() {
    let gone = asking(20, 5, 110_000);
    let next = Tenant { is_next: true, ..asking(20, 1, 98_500) };
    assert_eq!(decide(&[next, gone]).steps, [Step::Grant(0)]);
}

/// LO-SWP-04: interactive tasks do not wait for batch tasks of another model, once that has had something of its load.
#[test]
fn interactive_tasks_come_first() {
    let mut person = asking(20, 1, 100);
    person.waiting = PerClass { interactive: person.waiting.batch, batch: Waiters::default() };
    let batch = |since_ms| Tenant {
        stage: Stage::Serving { since_ms },
        running: 1,
        running_ms: 1_000,
        backlog_ms: 90_000,
        ..asking(20, 5, 0)
    };
    assert_eq!(decide(&[person.clone(), batch(NOW_MS - 30_000)]).steps, [Step::Fence { tenant: 1, for_tenant: 0 }]);
    assert_eq!(decide(&[person.clone(), batch(NOW_MS - 5_000)]).steps, [], "it was loaded just now");
    let other = asking(20, 1, 60_000);
    assert_eq!(decide(&[other, person]).steps, [Step::Grant(1)]);
}

/// LO-SWP-04: a model that is asked for again and again is not given up in a pause between two tasks; one that is not is.
#[test]
fn a_pause_is_not_an_end() {
    let paused = |gap_ms| Tenant { gap_ms, last_used_ms: NOW_MS - 100, ..serving(20) };
    let evict = [Step::Evict { tenant: 1, for_tenant: 0 }];
    assert_eq!(decide(&[asking(20, 1, 1_000), paused(Some(1_000))]).steps, []);
    assert_eq!(decide(&[asking(20, 1, 1_000), paused(Some(60_000))]).steps, evict);
    assert_eq!(decide(&[asking(20, 1, 1_000), paused(None)]).steps, evict);
    assert_eq!(decide(&[asking(20, 1, 41_000), paused(Some(1_000))]).steps, evict, "a swap costs less by now");
}

/// LO-SWP-05: what nobody of ours can make room for is said, by how much, and holds up nobody behind it.
#[test]
fn what_cannot_fit_is_said() {
    let kept = Tenant { keep: true, ..serving(10) };
    let lack = |bytes| vec![Part { device: 0, bytes }];
    let plan = decide(&[asking(30, 1, 50_000), kept, asking(14, 1, 0)]);
    assert_eq!(plan.steps, [Step::Short(0, lack(6)), Step::Grant(2)], "it never fits");
    let kept = Tenant { keep: true, ..serving(10) };
    let plan = decide(&[asking(20, 1, 50_000), kept, asking(14, 1, 0)]);
    assert_eq!(plan.steps, [Step::Short(0, lack(6)), Step::Grant(2)], "the operator wants it so");
}

/// LO-SWP-04: who asked first is served first, also when the second would fit at once.
#[test]
fn the_small_do_not_overtake_for_ever() {
    let busy = Tenant { running: 1, ..serving(14) };
    assert_eq!(decide(&[asking(20, 1, 50_000), busy.clone(), asking(8, 1, 0)]).steps, []);
    assert_eq!(decide(&[asking(20, 1, 0), busy, asking(8, 1, 50_000)]).steps, [Step::Grant(2)]);
}

/// LO-SWP-06: an idle pool is unloaded when its time is over, unless it is kept.
#[test]
fn idle_pools_are_unloaded() {
    let idle =
        |ago_ms: u64, keep| Tenant { idle_unload_ms: Some(60_000), last_used_ms: NOW_MS - ago_ms, keep, ..serving(10) };
    assert_eq!(decide(&[idle(60_000, false)]).steps, [Step::Unload(0)]);
    assert_eq!(decide(&[idle(59_000, false)]).steps, []);
    assert_eq!(decide(&[idle(60_000, true)]).steps, []);
}

/// LO-SWP-04: one that is small enough to stay beside all who come before it need not wait for them.
#[test]
fn the_small_pass_where_they_delay_nobody() {
    let busy = Tenant { running: 1, ..serving(14) };
    assert_eq!(decide(&[asking(20, 1, 50_000), busy.clone(), asking(4, 1, 0)]).steps, [Step::Grant(2)]);
    let stays = Tenant { running: 1, ..serving(2) };
    assert_eq!(decide(&[asking(20, 1, 50_000), busy, asking(4, 1, 0), stays]).steps, [], "there is one beside already");
}

/// LO-SWP-04: one that was loaded just now ends for the sake of another's limit, unless its own tasks would miss theirs.
#[test]
fn limits_come_before_residence() {
    let new = |waited_ms| Tenant {
        stage: Stage::Serving { since_ms: NOW_MS - 1_000 },
        running: 1,
        running_ms: 1_000,
        ..asking(20, 5, waited_ms)
    };
    assert_eq!(decide(&[asking(20, 1, 98_000), new(10_000)]).steps, [Step::Fence { tenant: 1, for_tenant: 0 }]);
    assert_eq!(decide(&[asking(20, 1, 98_000), new(90_000)]).steps, []);
    let two = [asking(20, 1, 98_000), asking(20, 1, 97_000), new(10_000)];
    assert_eq!(decide(&two).steps, [Step::Fence { tenant: 2, for_tenant: 0 }], "once");
}

/// LO-SWP-04: interactive tasks do not end batch tasks that would reach their limit for it.
#[test]
fn a_person_does_not_make_others_late() {
    let mut person = asking(20, 1, 100);
    person.waiting = PerClass { interactive: person.waiting.batch, batch: Waiters::default() };
    let batch = |waited_ms| Tenant {
        stage: Stage::Serving { since_ms: NOW_MS - 30_000 },
        running: 1,
        running_ms: 1_000,
        ..asking(20, 5, waited_ms)
    };
    assert_eq!(decide(&[person.clone(), batch(50_000)]).steps, [Step::Fence { tenant: 1, for_tenant: 0 }]);
    assert_eq!(decide(&[person, batch(70_000)]).steps, []);
}

/// LO-SWP-04: among those that are late, interactive ones come first, but not for ever.
#[test]
fn where_everybody_is_late_everybody_has_turns() {
    let person = |waited_ms| {
        let batch = asking(20, 1, waited_ms);
        Tenant { waiting: PerClass { interactive: batch.waiting.batch, batch: Waiters::default() }, ..batch }
    };
    assert_eq!(decide(&[asking(20, 1, 130_000), person(110_000)]).steps, [Step::Grant(1)]);
    assert_eq!(decide(&[asking(20, 1, 150_000), person(110_000)]).steps, [Step::Grant(0)]);
}

/// LO-SWP-04: who waits for others' turns is told so: what they load, what they have to do, and their ends.
#[test]
fn turns_ahead_are_foreseen() {
    let ahead = Tenant { backlog_ms: 5_000, ..asking(20, 5, 9_000) };
    let loading = Tenant { backlog_ms: 4_000, ..tenant(20, Stage::Loading { since_ms: NOW_MS - 5_000 }) };
    let loading = Tenant { wanted: true, ..loading };
    let plan = decide(&[tenant(20, Stage::Out), ahead.clone(), loading.clone()]);
    // 15 s, 4 s and half of one until the first has gone; 20 s, 5 s and half of one for the second; 20 s of its own.
    assert_eq!(plan.ready_in_ms[0], Some(19_500 + 25_500 + 20_000));
    let small =
        decide(&[tenant(4, Stage::Out), ahead, Tenant { need: vec![Part { device: 0, bytes: 16 }], ..loading }]);
    assert_eq!(small.ready_in_ms[0], Some(20_000), "there is room beside them");
}
