//! What the scheduler promises, in virtual time: every scenario, and the bounds that a change of policy must keep.

use sim::report::{Decile, Report, Swap};
use sim::{SCENARIOS, Scenario};

#[track_caller]
fn play(name: &str, seed: u64, tasks: usize) -> Report {
    let scenario = Scenario::named(name).expect("there is one");
    sim::run(scenario, seed, tasks).unwrap_or_else(|violation| panic!("{violation}: {}", violation.broken))
}

/// Nine tenths of what all slots could do are done at least, and clients of one source fare alike.
#[track_caller]
fn assert_saturated_and_fair(report: &Report) {
    assert!(report.share_of_ideal.is_some_and(|share| share >= 0.9), "{report}");
    assert!(report.classes.iter().all(|class| class.jain > 0.95), "{report}");
}

/// ORCH-3004, OC-CORE-1004, OC-CORE-1005, ORCH-3010, ORCH-3011, FR-PF-001: through more than a hundred thousand events, no
/// capacity and no slot is exceeded, order holds, nothing starts after its cancel, no pin, mask or closed pool is crossed,
/// no slot is idle beside a task for it, and every accepted task ends exactly once.
#[test]
fn every_promise_is_kept_after_every_step() {
    const TASKS: usize = 480;
    let mut events = 0;
    for scenario in SCENARIOS {
        for seed in 0..6 {
            let report = play(scenario.name, seed, TASKS);
            let ends = report.ends;
            let ended = [ends.completed, ends.failed, ends.lost_twice, ends.canceled, ends.expired];
            let not_run = [ends.evicted, ends.turned_out, ends.gave_up];
            assert_eq!(ended.iter().chain(&not_run).sum::<usize>(), TASKS, "{} with seed {seed}", scenario.name);
            events += report.events;
        }
    }
    println!("{events} events");
    assert!(events >= 100_000, "{events} events are too few");
}

/// LO-DET-01: the same scenario with the same seed is the same in every word; another seed tells another story.
#[test]
fn equal_seeds_give_equal_texts() {
    for scenario in SCENARIOS {
        let tell = |seed| play(scenario.name, seed, 100);
        let (one, same, other) = (tell(1), tell(1), tell(2));
        assert_eq!(one.to_string(), same.to_string());
        assert_eq!(serde_json::to_string(&one).unwrap(), serde_json::to_string(&same).unwrap());
        assert_ne!(one.story, other.story);
    }
}

/// OC-CORE-1004: however full the batch queue is, an interactive task waits for one running task at most.
#[test]
fn an_interactive_task_waits_for_one_running_task() {
    let report = play("interactive-behind-batch", 1, 2_000);
    let next = report.classes[0].next.unwrap();
    assert_eq!(next.tasks, report.classes[0].submitted, "every one of them was next, and had to wait");
    assert!(next.wait_over_remainder_p99 <= 1.0, "{next:?}");
    assert_saturated_and_fair(&report);
}

/// HME-010, FR-PF-001: two unlike cards together give nine tenths of what they can at least, the roomier one more.
#[test]
fn unlike_pools_give_what_they_can() {
    let report = play("unlike-pools", 1, 2_000);
    assert_saturated_and_fair(&report);
    assert!(report.pools[0].share > 2.0 * report.pools[1].share, "{report}");
}

/// FR-PF-001: replicas behind one queue are all kept busy.
#[test]
fn replicas_give_what_they_can() {
    assert_saturated_and_fair(&play("replicas", 1, 2_000));
}

/// OC-CORE-1004: where the operator gives shares of 4 to 1, they are kept.
#[test]
fn classes_get_the_shares_that_the_operator_gave() {
    let report = play("weights", 1, 2_000);
    let interactive = report.classes[0].submitted as f64 / report.tasks as f64;
    assert_saturated_and_fair(&report);
    assert!((interactive - 0.8).abs() < 0.01, "{report}");
}

/// LO-ADM-06, FR-PF-002: under a steady load half of the predicted starts are less than a quarter off, though nobody knows how long
/// outputs will be, and a predicted chance is what it says.
#[test]
fn waits_and_chances_are_predicted() {
    let report = play("steady", 1, 40_000);
    let starts = report.starts;
    assert!((0.75..0.85).contains(&report.pools[0].utilisation), "{report}");
    assert!(starts.tasks > 20_000 && starts.median < 0.25, "{report}");
    assert!(starts.median < 1.1 * starts.informed, "more is lost than to chance: {report}");
    let known = |decile: &&Decile| decile.tasks >= 50;
    let deciles: Vec<&Decile> = report.on_time.iter().filter(known).collect();
    assert_eq!(deciles.len(), 10, "{report}");
    assert!(deciles.iter().all(|decile| (decile.predicted - decile.observed).abs() <= 0.1), "{report}");
}

#[track_caller]
fn swap(report: &Report) -> &Swap {
    report.swap.as_ref().expect("its models are swapped")
}

/// LO-SWP-04: the trace A B A A C A B C, a hundred times, with loads of 20 s: at least twice the throughput of plain order of
/// arrival, and no task waits longer than the age limit. When a model will be loaded is foreseen.
#[test]
fn models_that_share_a_card_give_twice_what_order_of_arrival_gives() {
    for seed in 1..=3 {
        let report = play("swap-trace", seed, 800);
        let swap = swap(&report);
        assert_eq!((swap.ours.completed, swap.fifo.completed, swap.age_limit_ms), (800, 800, 120_000));
        assert!(swap.ours.tasks_per_min >= 2.0 * swap.fifo.tasks_per_min, "{report}");
        assert!(swap.ours.late() == 0 && swap.fifo.late() > 700, "{report}");
        let foreseen = |starts: &sim::report::ColdStarts| (0.9..1.1).contains(&starts.bias) && starts.off.0 < 0.15;
        assert!(swap.cold_starts.iter().all(foreseen), "{report}");
    }
}

/// LO-SWP-02, LO-SWP-03, LO-SWP-04: in a busy household no engine finds less memory than it was promised, none is ended under a
/// task, and nobody waits longer than the age limit; each of them would end the run.
#[test]
fn a_household_is_served_in_time() {
    for seed in 1..=10 {
        let report = play("swap-household", seed, 700);
        assert_eq!((report.ends.completed, swap(&report).ours.late()), (700, 0), "{report}");
    }
}

/// LO-SWP-04: with more work than can be done every model has its turns, and waits are bounded.
#[test]
fn nobody_starves_for_a_model() {
    for seed in 1..=3 {
        let report = play("swap-overload", seed, 2_000);
        let swap = swap(&report);
        assert!(swap.models.iter().all(|(_, completed, _)| *completed > 0.15), "{report}");
        assert!(swap.models.iter().all(|(.., longest_ms)| *longest_ms < 300_000.0), "{report}");
        assert!(swap.ours.tasks_per_min >= 2.0 * swap.fifo.tasks_per_min, "{report}");
    }
}

/// LO-SWP-04: a model that is asked for again and again is kept in the pause between two tasks, which spares loads.
#[test]
fn pauses_do_not_cost_a_load() {
    let loads = |of: fn(&Swap) -> usize| (1..=4).map(|seed| of(swap(&play("swap-thrash", seed, 1_000)))).sum::<usize>();
    let (kept, restless) = (loads(|swap| swap.ours.loads), loads(|swap| swap.restless.loads));
    assert!(kept * 10 <= restless * 9, "{kept} loads, {restless} without patience");
}
