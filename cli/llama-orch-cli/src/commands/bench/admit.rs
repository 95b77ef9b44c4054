//! `bench admit`: how long an admission takes at a given rate.

mod figures;

use std::sync::Arc;
use std::time::Duration;

use api_types::Priority;
use rand::SeedableRng as _;

use figures::Figures;

use super::PATIENCE;
use super::open_loop::drive;
use super::rig::{EngineSpec, Rig};
use super::task::{Rng, Task, task_id};
use crate::args::AdmitArgs;
use crate::failure::Failure;

const POOL: &str = "bench-admit";
/// Enough that the engine is never the bottleneck.
const SLOTS: u32 = 64;
/// Longer than any load, and than what is left of it afterwards.
const DEADLINE: Duration = Duration::from_secs(600);

/// Ten times the load's own time, and a while for the rest.
pub(super) fn time_limit(args: &AdmitArgs) -> Duration {
    Duration::from_secs(args.seconds.into()) * 10 + PATIENCE
}

/// Measures once.
pub(super) async fn measure(args: &AdmitArgs) -> Result<Figures, Failure> {
    let tasks: Arc<[Task]> = draw(args).into();
    let queue = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
    // Nobody opens the streams of the interactive tasks.
    let settings = format!("[stream]\nattach_timeout_ms = {}\n", DEADLINE.as_millis());
    let (slots, interval_ms) = if args.waiting { (1, SLOW_MS) } else { (SLOTS, 0) };
    let rig = Rig::start(&[EngineSpec { queue, ..EngineSpec::new(POOL, slots, interval_ms) }], &settings).await?;
    if args.waiting {
        drive(&rig.orchestrator.url, POOL, &[blocker(args)].into(), 1).await?;
    }
    let meter = rig.orchestrator.meter();
    let before = meter.cpu_time()?;
    let answers = drive(&rig.orchestrator.url, POOL, &tasks, args.connections).await?;
    if !args.waiting {
        rig.orchestrator.idle().await?;
    }
    let cpu = meter.cpu_time()?.saturating_sub(before);
    Ok(Figures::new(args, &tasks, &answers, warm_up(args), cpu))
}

/// Time from one token to the next of the task that all others wait for, in milliseconds.
const SLOW_MS: u32 = 1_000;

/// A task that occupies the only slot for longer than any load lasts.
fn blocker(args: &AdmitArgs) -> Task {
    Task {
        at: Duration::ZERO,
        id: task_id(&mut Rng::seed_from_u64(!args.seed)),
        priority: Priority::Batch,
        prompt_tokens: 8,
        max_tokens: 1_000,
        deadline: DEADLINE * 2,
    }
}

/// Tasks that are not counted: those of a second, and enough to open every connection.
fn warm_up(args: &AdmitArgs) -> u32 {
    args.rate.max(2 * args.connections)
}

fn draw(args: &AdmitArgs) -> Vec<Task> {
    let mut rng = Rng::seed_from_u64(args.seed);
    let task = |index: u32| Task {
        at: Duration::from_secs(index.into()) / args.rate,
        id: task_id(&mut rng),
        priority: args.priority.of(index),
        prompt_tokens: 8,
        max_tokens: 1,
        deadline: DEADLINE,
    };
    (0..warm_up(args) + args.rate * args.seconds).map(task).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Priority, draw, warm_up};
    use crate::args::{AdmitArgs, Classes};

    #[test]
    fn tasks_come_evenly_and_classes_in_turn() {
        let args =
            AdmitArgs { rate: 100, seconds: 2, priority: Classes::Both, waiting: false, connections: 4, seed: 1 };
        let tasks = draw(&args);
        assert_eq!((warm_up(&args), tasks.len()), (100, 300));
        assert_eq!((tasks[1].at, tasks[299].at), (Duration::from_millis(10), Duration::from_millis(2_990)));
        assert_eq!(tasks.iter().filter(|task| task.priority == Priority::Batch).count(), 150);
        assert_eq!(tasks, draw(&args));
        assert_ne!(tasks[0].id, draw(&AdmitArgs { seed: 2, ..args })[0].id);
    }
}
