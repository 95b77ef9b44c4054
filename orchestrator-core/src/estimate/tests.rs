//! Predictions against what they promise.

use proptest::prelude::*;

use api_types::Priority;

use super::{
    Accuracy, Demand, Estimate, Observation, PoolSpeed, Prompt, Situation, UNMEASURED_TASK_MS, Waiting, backoff_ms,
    predict_start_ms,
};

fn counted(tokens: u32) -> Prompt {
    Prompt { tokens: Some(tokens), bytes: u64::from(tokens) * 4 }
}

fn uncounted(bytes: u64) -> Prompt {
    Prompt { tokens: None, bytes }
}

/// A completed task of 100 prompt tokens and 50 of at most 100 output tokens: 2 ms per prompt token, 10 ms per further
/// output token.
fn completed() -> Observation {
    Observation {
        demand: Demand::of_task(counted(100), None, 100),
        prompt_bytes: 400,
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
    let two = Demand::of_task(counted(9), None, 9).plus(Demand::of_task(uncounted(400), Some(3), 9));
    assert_eq!(speed.service(&two), Estimate { ms: 2 * UNMEASURED_TASK_MS, measured: false });
    assert_eq!((speed.tokens_per_s(), speed.first_token_ms(), speed.service_ms()), (None, None, None));
}

/// LO-ADM-06, ORCH-3972: speeds come from observed tasks, and so do durations.
#[test]
fn a_pool_learns_its_speed() {
    let mut speed = PoolSpeed::default();
    speed.observe(&completed());
    assert_eq!(speed.tokens_per_s(), Some(100.0));
    let cases = [
        (Demand::of_task(counted(100), Some(21), 100), 400),
        (Demand::of_task(counted(100), None, 102), 700),
        (Demand::of_task(uncounted(400), None, 202), 1_200),
        (Demand::of_task(counted(0), Some(0), 0), 0),
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
    assert_eq!(speed.service(&Demand::of_task(counted(0), None, 101)).ms, 1_000);
}

/// A share of every task is the same however long it is; the rest grows with its tokens.
#[test]
fn a_pool_learns_what_a_task_costs_apart_from_its_tokens() {
    let mut speed = PoolSpeed::default();
    for tokens in [10_u32, 50, 100, 200] {
        speed.observe(&Observation {
            tokens_in: Some(tokens),
            tokens_out: Some(tokens),
            first_token_ms: Some(30 + u64::from(tokens)),
            decode_ms: Some(7 + 10 * u64::from(tokens - 1)),
            ..completed()
        });
    }
    let demand = Demand::of_task(counted(300), Some(20), 100);
    assert_eq!(speed.service(&demand).ms, 330 + 7 + 190);
}

const WAITING: Situation = Situation::waiting(Priority::Batch, 2);

/// Half of what was predicted took twice as long: the next one is corrected, and others are left alone until they have
/// a record of their own.
#[test]
fn a_start_is_corrected_by_the_median() {
    let mut accuracy = Accuracy::default();
    assert_eq!(accuracy.corrected_start_ms(WAITING, 100), 100);
    for actual_ms in [200, 200, 200, 200, 200, 900, 100, 150] {
        accuracy.started(WAITING, 100, actual_ms);
    }
    assert_eq!(accuracy.corrected_start_ms(WAITING, 50), 100);
    assert_eq!(accuracy.corrected_start_ms(Situation::waiting(Priority::Interactive, 2), 50), 50);
}

/// A task that has outlived the quick ones is one of the slow ones; before anything was seen the prediction stands.
#[test]
fn the_remainder_is_that_of_the_survivors() {
    let mut accuracy = Accuracy::default();
    let left = |accuracy: &Accuracy, elapsed| accuracy.remainder_ms(Priority::Batch, 1_000, elapsed);
    assert_eq!((left(&accuracy, 300), left(&accuracy, 1_000)), (700, 250));
    for number in 0..10 {
        accuracy.ended(Situation::immediate(Priority::Batch), 1_000, if number % 2 == 0 { 500 } else { 1_500 }, true);
    }
    assert_eq!((left(&accuracy, 0), left(&accuracy, 600), left(&accuracy, 1_600)), (1_000, 900, 250));
}

/// Nothing known: an even chance at what was predicted, a good one at thrice that. Known: the share that made it. A task
/// cut short is no success.
#[test]
fn the_probability_follows_the_record() {
    let mut accuracy = Accuracy::default();
    let chance = |accuracy: &Accuracy, elapsed, limit| accuracy.on_time_probability(WAITING, 1_000, elapsed, limit);
    assert_eq!((chance(&accuracy, 0, 0), chance(&accuracy, 0, 1_000), chance(&accuracy, 0, 3_000)), (0.0, 0.5, 0.9));
    for number in 0..100 {
        accuracy.ended(WAITING, 1_000, if number % 4 == 0 { 2_000 } else { 900 }, true);
    }
    assert!((chance(&accuracy, 0, 1_000) - 0.75).abs() < 0.02);
    assert!(chance(&accuracy, 0, 2_500) > 0.98);
    // Whoever has outlived the quick ones is one of the slow ones.
    assert!(chance(&accuracy, 1_000, 1_900) < 0.1);
    for _ in 0..100 {
        accuracy.ended(WAITING, 1_000, 500, false);
    }
    assert!(chance(&accuracy, 0, 1_000) < 0.75);
}

/// ORCH-2007: never so short that it is a busy loop, never so long that nobody comes back.
#[test]
fn backoff_is_bounded() {
    for (start, wait) in [(5_000, 5_000), (0, 100), (900_000, 60_000)] {
        assert_eq!(backoff_ms(start), wait);
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
