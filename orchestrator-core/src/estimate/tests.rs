//! Predictions against what they promise.

use proptest::prelude::*;

use super::{Demand, Estimate, Observation, PoolSpeed, UNMEASURED_TASK_MS, Waiting, backoff_ms, predict_start_ms};

/// A completed task of 100 prompt tokens and 50 of at most 100 output tokens: 2 ms per prompt token, 10 ms per further
/// output token.
fn completed() -> Observation {
    Observation {
        demand: Demand::of_task(Some(100), None, 100),
        predicted: Estimate { ms: 690, measured: true },
        completed: true,
        tokens_in: Some(100),
        tokens_out: Some(50),
        first_token_ms: Some(200),
        decode_ms: Some(490),
        service_ms: 690,
    }
}

/// LO-ADM-06: the constant is only the fallback, and says that it is one.
#[test]
fn an_unmeasured_pool_admits_that_it_guesses() {
    let speed = PoolSpeed::default();
    let two = Demand::of_task(Some(9), None, 9).plus(Demand::of_task(None, Some(3), 9));
    assert_eq!(speed.service(&two), Estimate { ms: 2 * UNMEASURED_TASK_MS, measured: false });
    assert_eq!((speed.tokens_per_s(), speed.first_token_ms(), speed.service_ms()), (None, None, None));
    assert_eq!(speed.on_time_probability(speed.service(&two), 1), 0.5);
}

/// LO-ADM-06, ORCH-3972: speeds come from observed tasks, and so do durations.
#[test]
fn a_pool_learns_its_speed() {
    let mut speed = PoolSpeed::default();
    speed.observe(&completed());
    assert_eq!(speed.tokens_per_s(), Some(100.0));
    let cases = [
        (Demand::of_task(Some(100), Some(20), 100), 400),
        (Demand::of_task(Some(100), None, 100), 700),
        (Demand::of_task(None, None, 200), 1_200),
        (Demand::of_task(Some(0), Some(0), 0), 0),
    ];
    for (demand, ms) in cases {
        assert_eq!(speed.service(&demand), Estimate { ms, measured: true }, "{demand:?}");
    }
}

/// Without token counts the average duration is what is left.
#[test]
fn an_engine_that_counts_nothing_is_judged_by_the_clock() {
    let mut speed = PoolSpeed::default();
    let silent =
        Observation { tokens_in: None, tokens_out: None, first_token_ms: None, decode_ms: None, ..completed() };
    speed.observe(&silent);
    let three = Demand { tasks: 3, ..Demand::default() };
    assert_eq!(speed.service(&three), Estimate { ms: 2_070, measured: true });
}

/// A canceled task was cut short: it tells nothing about how long tasks are.
#[test]
fn a_task_cut_short_teaches_speed_but_not_length() {
    let mut speed = PoolSpeed::default();
    speed.observe(&Observation { completed: false, ..completed() });
    assert_eq!(speed.tokens_per_s(), Some(100.0));
    assert_eq!(speed.service_ms(), None);
    assert_eq!(speed.service(&Demand::of_task(Some(0), None, 100)).ms, 1_000);
}

#[test]
fn the_probability_follows_the_surprises() {
    let mut speed = PoolSpeed::default();
    for service_ms in [690, 690, 690, 6_900] {
        speed.observe(&Observation { service_ms, ..completed() });
    }
    let task = Estimate { ms: 1_000, measured: true };
    let cases = [(0, 0.0), (999, 1.0 / 6.0), (1_000, 4.0 / 6.0), (10_000, 5.0 / 6.0)];
    for (left_ms, probability) in cases {
        assert_eq!(speed.on_time_probability(task, left_ms), probability, "{left_ms}");
    }
}

/// ORCH-2007: nothing while there is room, never so short that it is a busy loop.
#[test]
fn backoff_is_zero_while_there_is_room() {
    let cases = [(true, 5_000, 0), (false, 5_000, 5_000), (false, 0, 100), (false, 900_000, 60_000)];
    for (has_room, start, wait) in cases {
        assert_eq!(backoff_ms(has_room, start), wait);
    }
}

proptest! {
    /// LO-ADM-06: the bisection gives what playing the queue through gives.
    #[test]
    fn the_start_is_that_of_a_simulation(
        free_slots in 0_u64..4,
        running in prop::collection::vec(0_u64..5_000, 0..5),
        tasks_ahead in 0_u64..40,
        mean_service_ms in 0_u64..3_000,
    ) {
        prop_assume!(free_slots + running.len() as u64 > 0);
        let mut slots: Vec<u64> = running.iter().copied().chain((0..free_slots).map(|_| 0)).collect();
        let mut take = || {
            let slot = slots.iter_mut().min().expect("there is a slot");
            let start = *slot;
            *slot += mean_service_ms;
            start
        };
        for _ in 0..tasks_ahead {
            take();
        }
        let waiting = Waiting { free_slots, tasks_ahead, mean_service_ms };
        prop_assert_eq!(predict_start_ms(waiting, &running.iter().copied()), take());
    }
}
