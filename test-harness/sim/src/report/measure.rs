//! From the lives of tasks to numbers.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use api_types::Priority;
use orchestrator_core::task::End;

use super::statistics::{jain, mean, quantile, share};
use super::{Class, Decile, Ends, Moves, Next, Pool, Report, StartErrors, Times};
use crate::engine::tasks_per_ms;
use crate::scenario::Source;
use crate::world::{Fate, Life, World};

impl Report {
    pub(crate) fn of(world: &World, seed: u64) -> Self {
        let lives = &world.lives;
        let window_s = (world.window.ms.max(1)) as f64 / 1e3;
        let in_window = |life: &&Life| life.ended_ms <= world.window.ms;
        let completed: Vec<&Life> = lives.iter().filter(|life| life.completed()).filter(in_window).collect();
        let tokens: u64 = lives.iter().filter(in_window).map(|life| u64::from(life.tokens_out)).sum();
        Self {
            scenario: world.scenario.name,
            shows: world.scenario.shows,
            seed,
            tasks: lives.len(),
            simulated_ms: world.now_ms,
            events: world.steps,
            story: format!("{:016x}", world.story()),
            ends: Ends::of(lives),
            refusals: refusals(lives),
            moves: Moves::of(lives),
            retried: lives.iter().filter(|life| life.starts > 1).count(),
            tasks_per_s: completed.len() as f64 / window_s,
            tokens_per_s: tokens as f64 / window_s,
            share_of_ideal: world.scenario.saturated.then(|| share_of_ideal(world, &completed)),
            classes: Priority::ALL.iter().filter_map(|class| Class::of(world, *class)).collect(),
            pools: (0..world.pools.len()).map(|pool| Pool::of(world, pool)).collect(),
            starts: StartErrors::of(lives, 0..=usize::MAX),
            starts_by_depth: DEPTHS.map(|(name, ahead)| (name, StartErrors::of(lives, ahead))).into(),
            on_time: deciles(lives, |life| Some(life.promise.filter(|promise| promise.is_measured)?.on_time)),
            on_time_at_start: deciles(lives, |life| life.on_time_at_start),
            swap: None,
        }
    }
}

const DEPTHS: [(&str, RangeInclusive<usize>); 4] =
    [("0", 0..=0), ("1-3", 1..=3), ("4-15", 4..=15), ("16-", 16..=usize::MAX)];

impl Life {
    pub(super) fn completed(&self) -> bool {
        self.fate == Some(Fate::Ended(End::Completed))
    }
}

/// What was completed, against what all slots would complete of the same tasks if none of them were ever idle.
fn share_of_ideal(world: &World, completed: &[&Life]) -> f64 {
    let ideal_per_ms: f64 = world
        .scenario
        .pools
        .iter()
        .map(|pool| {
            // The mean of times, not of rates: that many tasks of this mix take that long.
            let ms_per_task = mean(completed.iter().map(|life| 1.0 / tasks_per_ms(pool, life.work(pool))));
            1.0 / ms_per_task
        })
        .sum();
    completed.len() as f64 / (ideal_per_ms * world.window.ms.max(1) as f64)
}

impl Ends {
    fn of(lives: &[Life]) -> Self {
        let mut ends = Self::default();
        for fate in lives.iter().filter_map(|life| life.fate) {
            *match fate {
                Fate::Ended(End::Completed) => &mut ends.completed,
                Fate::Ended(End::Failed) => &mut ends.failed,
                Fate::Ended(End::Canceled) => &mut ends.canceled,
                Fate::Ended(End::Expired) => &mut ends.expired,
                Fate::LostTwice => &mut ends.lost_twice,
                Fate::Evicted => &mut ends.evicted,
                Fate::TurnedOut => &mut ends.turned_out,
                Fate::GaveUp => &mut ends.gave_up,
            } += 1;
        }
        ends
    }
}

fn refusals(lives: &[Life]) -> BTreeMap<String, u64> {
    let mut refusals = BTreeMap::new();
    for ((kind, label), count) in lives.iter().flat_map(|life| &life.refusals) {
        let name = label.map_or_else(|| kind.to_string(), |label| format!("{kind} ({label})"));
        *refusals.entry(name).or_default() += u64::from(*count);
    }
    refusals
}

impl Moves {
    fn of(lives: &[Life]) -> Self {
        let sum = |of: fn(&Life) -> u32| lives.iter().map(of).sum();
        Self {
            idle: sum(|life| life.moves.idle),
            closed: sum(|life| life.moves.closed),
            lost: sum(|life| life.moves.lost),
        }
    }
}

impl Times {
    pub(super) fn of(times: &[f64]) -> Self {
        let at = |share| quantile(times, share);
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

impl Class {
    /// `None` when nothing of the class was submitted.
    fn of(world: &World, class: Priority) -> Option<Self> {
        let lives: Vec<&Life> = world.lives.iter().filter(|life| life.traits.class() == class).collect();
        let submitted = Some(lives.len()).filter(|submitted| *submitted > 0)?;
        let completed = || lives.iter().filter(|life| life.completed());
        let waits: Vec<f64> = lives.iter().filter_map(|life| life.wait_ms()).map(|ms| ms as f64).collect();
        let turnarounds = completed().filter_map(|life| Some((life.ended_ms - life.promise?.at_ms) as f64));
        let wait = Times::of(&waits);
        Some(Self {
            class,
            submitted,
            completed: share(completed().count(), submitted),
            wait,
            turnaround: Times::of(&turnarounds.collect::<Vec<f64>>()),
            max_over_mean: wait.max / mean(waits.iter().copied()).max(1.0),
            jain: least_fair(world, class),
            // Where models are swapped, running tasks are not all that is waited for.
            next: if world.scenario.swap.is_none() { Next::of(&lives) } else { None },
        })
    }
}

impl Next {
    fn of(lives: &[&Life]) -> Option<Self> {
        let shares = lives.iter().filter_map(|life| {
            let (promise, wait_ms) = (life.promise?, life.wait_ms()?);
            (promise.position == 0 && wait_ms > 0).then(|| wait_ms as f64 / promise.remainder_ms.max(1) as f64)
        });
        let shares: Vec<f64> = shares.collect();
        (!shares.is_empty()).then(|| Self { tasks: shares.len(), wait_over_remainder_p99: quantile(&shares, 0.99) })
    }
}

/// Jain's index of tokens by client, of the source of this class where it is lowest.
fn least_fair(world: &World, class: Priority) -> f64 {
    let sources = world.scenario.sources.iter().enumerate().filter(|(_, source)| source.class == class);
    let index = |(source, of): (usize, &Source)| {
        let mut tokens = vec![0.0; of.arrivals.clients()];
        for life in world.lives.iter().filter(|life| life.client.0 == source) {
            tokens[life.client.1] += f64::from(life.tokens_out);
        }
        jain(&tokens)
    };
    sources.map(index).fold(1.0, f64::min)
}

impl Pool {
    fn of(world: &World, index: usize) -> Self {
        let pool = &world.scenario.pools[index];
        let slots: u32 = pool.replicas.iter().map(|replica| replica.slots).sum();
        let started = || world.lives.iter().filter(|life| life.starts > 0);
        let here = || started().filter(|life| life.last_pool == index);
        let tokens: u64 =
            here().filter(|life| life.ended_ms <= world.window.ms).map(|life| u64::from(life.tokens_out)).sum();
        let window_ms = world.window.ms.max(1) as f64;
        let leased_ms = world.window.leased_ms.get(index).copied().unwrap_or(0);
        Self {
            id: pool.id,
            slots,
            utilisation: leased_ms as f64 / (window_ms * f64::from(slots)),
            share: share(here().count(), started().count()),
            tokens_per_s: tokens as f64 * 1e3 / window_ms,
        }
    }
}

impl StartErrors {
    /// Of the tasks with so many ahead at their admission.
    fn of(lives: &[Life], ahead: RangeInclusive<usize>) -> Self {
        let ratio = |life: &Life| {
            let promise = life.promise.filter(|promise| {
                promise.is_measured && promise.load_ms.is_none() && ahead.contains(&promise.position)
            })?;
            let wait_ms = life.wait_ms().filter(|wait_ms| *wait_ms > 0)?;
            Some((promise.start_ms as f64 / wait_ms as f64, promise.foreseen_ms as f64 / wait_ms as f64))
        };
        let (ratios, informed): (Vec<f64>, Vec<f64>) = lives.iter().filter_map(ratio).unzip();
        let errors = |ratios: &[f64]| ratios.iter().map(|ratio| (ratio - 1.0).abs()).collect::<Vec<f64>>();
        let (informed, errors) = (errors(&informed), errors(&ratios));
        Self {
            tasks: ratios.len(),
            median: quantile(&errors, 0.5),
            p90: quantile(&errors, 0.9),
            bias: quantile(&ratios, 0.5),
            informed: quantile(&informed, 0.5),
        }
    }
}

fn deciles(lives: &[Life], predicted: impl Fn(&Life) -> Option<f64>) -> Vec<Decile> {
    let mut seen = vec![Vec::new(); 10];
    for life in lives {
        let completed = match life.fate {
            Some(Fate::Ended(End::Completed)) => 1.0,
            Some(Fate::Ended(End::Expired)) => 0.0,
            _ => continue,
        };
        if let Some(predicted) = predicted(life) {
            seen[((predicted * 10.0) as usize).min(9)].push((predicted, completed));
        }
    }
    let decile = |(decile, seen): (usize, Vec<(f64, f64)>)| Decile {
        decile,
        tasks: seen.len(),
        predicted: mean(seen.iter().map(|(predicted, _)| *predicted)),
        observed: mean(seen.iter().map(|(_, completed)| *completed)),
    };
    seen.into_iter().enumerate().filter(|(_, seen)| !seen.is_empty()).map(decile).collect()
}
