//! The load: tasks of many lengths at random times, with deadlines from hopeless to generous.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};

use super::super::statistics::float;
use super::super::task::{Rng, Task, task_id};
use crate::args::PredictArgs;

const PROMPT_TOKENS: (u16, u16) = (16, 512);
const MAX_TOKENS: (u16, u16) = (16, 256);
/// Prompt tokens that the engine reads in the time of one output token.
const PREFILL_RATIO: f64 = 10.0;
/// Deadlines as multiples of the time that a task is expected to take, waiting included: of half of the tasks, and of the
/// rest.
const HURRIED: (f64, f64) = (0.4, 2.0);
const PATIENT: f64 = 20.0;
/// A task whose deadline is a smaller multiple is most likely refused.
const HOPELESS: f64 = 0.5;
/// Rounds in which the times between arrivals are brought to the utilisation asked for.
const ROUNDS: u32 = 20;

/// The engine's speed.
pub(super) fn prefill_tokens_per_second(interval_ms: u32) -> f64 {
    PREFILL_RATIO * 1000.0 / f64::from(interval_ms)
}

/// All tasks, those of the warm-up first.
pub(super) fn draw(args: &PredictArgs) -> Vec<Task> {
    let mut rng = Rng::seed_from_u64(args.seed);
    let mut drawn: Vec<Drawn> = (0..args.warm_up + args.tasks).map(|_| Drawn::new(&mut rng, args)).collect();
    // A share of the slots' time is asked for, and tasks that are refused or expire need less of it than others.
    let mut gap_s = drawn.iter().map(|task| task.service_s).sum::<f64>() / float(drawn.len() as u64);
    for _ in 0..ROUNDS {
        gap_s *= (play(&mut drawn, gap_s, args.slots) / args.utilisation).clamp(0.1, 10.0);
    }
    play(&mut drawn, gap_s, args.slots);
    drawn.into_iter().map(|drawn| drawn.task).collect()
}

/// A task with what its times are made of.
struct Drawn {
    task: Task,
    /// Time since the task before it, as a multiple of the mean.
    gap: f64,
    /// Its deadline, as a multiple of the time that it is expected to take, waiting included.
    patience: f64,
    /// Time it is expected to run, in seconds.
    service_s: f64,
}

impl Drawn {
    fn new(rng: &mut Rng, args: &PredictArgs) -> Self {
        let task = Task {
            at: Duration::ZERO,
            id: task_id(rng),
            priority: args.priority.of(rng.random()),
            prompt_tokens: log_uniform_tokens(rng, PROMPT_TOKENS),
            max_tokens: log_uniform_tokens(rng, MAX_TOKENS),
            deadline: Duration::ZERO,
        };
        Self {
            task,
            gap: -(1.0 - rng.random::<f64>()).ln(),
            patience: if rng.random() { log_uniform(rng, HURRIED) } else { PATIENT },
            service_s: service_s(args, &task),
        }
    }
}

/// Sets times and deadlines by playing the tasks through in the order of their arrival; returns the utilisation.
fn play(drawn: &mut [Drawn], gap_s: f64, slots: u32) -> f64 {
    let mut free_at = vec![0.0_f64; slots as usize];
    let (mut now, mut busy) = (0.0, 0.0);
    for Drawn { task, gap, patience, service_s } in drawn {
        now += *gap * gap_s;
        let slot = free_at.iter_mut().min_by(|one, other| one.total_cmp(other)).expect("there is a slot");
        let wait = (*slot - now).max(0.0);
        let deadline = (wait + *service_s) * *patience;
        task.at = Duration::from_secs_f64(now);
        task.deadline = Duration::from_secs_f64(deadline);
        let runs = if *patience < HOPELESS { 0.0 } else { (deadline - wait).clamp(0.0, *service_s) };
        *slot = now + wait + runs;
        busy += runs;
    }
    busy / (now * f64::from(slots)).max(f64::MIN_POSITIVE)
}

/// Time a task is expected to take on the engine, in seconds.
fn service_s(args: &PredictArgs, task: &Task) -> f64 {
    let share = f64::from(args.shortest + 100) / 200.0;
    let output_tokens = (f64::from(task.max_tokens) * share).max(1.0);
    let tokens = f64::from(task.prompt_tokens) / PREFILL_RATIO + output_tokens - 1.0;
    tokens * f64::from(args.interval_ms) / 1000.0
}

fn log_uniform(rng: &mut Rng, (low, high): (f64, f64)) -> f64 {
    low * (high / low).powf(rng.random())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between the two bounds")]
fn log_uniform_tokens(rng: &mut Rng, (low, high): (u16, u16)) -> u16 {
    log_uniform(rng, (low.into(), high.into())).round() as u16
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::super::super::statistics::mean;
    use super::{Drawn, MAX_TOKENS, PROMPT_TOKENS, Rng, Task, draw, play};
    use crate::args::{Classes, PredictArgs};

    const ARGS: PredictArgs = PredictArgs {
        tasks: 4_000,
        warm_up: 1_000,
        slots: 2,
        utilisation: 0.5,
        priority: Classes::Both,
        shortest: 50,
        interval_ms: 2,
        records: None,
        seed: 7,
    };

    #[test]
    fn equal_seeds_give_equal_loads() {
        let tasks = draw(&ARGS);
        assert_eq!(tasks.len(), 5_000);
        assert!(tasks.is_sorted_by_key(|task| task.at));
        assert_eq!(tasks, draw(&ARGS));
        assert_ne!(tasks, draw(&PredictArgs { seed: 8, ..ARGS }));
    }

    /// The slots are as busy as asked for, as far as lengths and deadlines tell.
    #[test]
    fn arrivals_are_brought_to_the_utilisation() {
        for utilisation in [0.3, 0.8, 1.2] {
            let mut rng = Rng::seed_from_u64(7);
            let mut drawn: Vec<Drawn> = (0..5_000).map(|_| Drawn::new(&mut rng, &ARGS)).collect();
            let tasks = draw(&PredictArgs { utilisation, ..ARGS });
            let gap_s = tasks[4_999].at.as_secs_f64() / drawn.iter().map(|task| task.gap).sum::<f64>();
            let busy = play(&mut drawn, gap_s, ARGS.slots);
            assert!((busy - utilisation).abs() < 0.02, "{busy} instead of {utilisation}");
        }
    }

    /// However few they are, and whatever becomes of them.
    #[test]
    fn a_single_task_is_a_load() {
        for seed in 0..50 {
            assert_eq!(draw(&PredictArgs { tasks: 1, warm_up: 0, seed, ..ARGS }).len(), 1);
        }
    }

    /// Half of the logarithmic scale lies below the geometric mean of its ends.
    #[test]
    fn lengths_and_deadlines_cover_their_ranges() {
        let tasks = draw(&ARGS);
        let below =
            |is_below: &dyn Fn(&Task) -> bool| mean(tasks.iter().map(|task| f64::from(u8::from(is_below(task)))));
        for share in [
            below(&|task| task.max_tokens < 64),
            below(&|task| task.prompt_tokens < 91),
            below(&|task| task.priority == api_types::Priority::Batch),
        ] {
            assert!((0.45..0.55).contains(&share), "{share}");
        }
        let within = |value: u16, (low, high): (u16, u16)| (low..=high).contains(&value);
        assert!(
            tasks.iter().all(|task| within(task.max_tokens, MAX_TOKENS) && within(task.prompt_tokens, PROMPT_TOKENS))
        );
        assert!(tasks.iter().all(|task| task.deadline.as_millis() > 0));
    }
}
