//! What swapping models came to: by our plan, by our plan without patience, and in plain order of arrival.

use std::fmt::{self, Formatter};

use api_types::Priority;
use serde::Serialize;

use super::Times;
use super::statistics::{quantile, share};
use crate::fifo::{Fifo, Past};
use crate::world::{Life, World};

/// The same tasks, done in three ways.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Swap {
    /// Longest that a task is to wait, in milliseconds.
    pub age_limit_ms: u64,
    /// As the daemon plans it.
    pub ours: Swapping,
    /// The same, but no model is kept in the pause between two tasks.
    pub restless: Swapping,
    /// Strictly in order of arrival.
    pub fifo: Swapping,
    /// By model: share of its tasks that completed, and the longest wait of one in milliseconds; ours.
    pub models: Vec<(&'static str, f64, f64)>,
    /// Predicted against actual starts of tasks whose model was not loaded when they came; ours.
    pub cold_starts: Vec<ColdStarts>,
}

/// One way of doing it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Swapping {
    /// From the beginning to the end of the last task, in milliseconds.
    pub makespan_ms: u64,
    /// Tasks that completed.
    pub completed: usize,
    /// The same per minute.
    pub tasks_per_min: f64,
    /// Loads of models.
    pub loads: usize,
    /// Models that had to make room.
    pub evictions: usize,
    /// Times that a model was told to start no more tasks so that another gets its turn, and of those how often it was called off.
    pub fences: (usize, usize),
    /// Share of the devices' time in which a model was loaded.
    pub loading: f64,
    /// By class.
    pub waits: Vec<Waits>,
}

/// Waits of one class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Waits {
    /// The class.
    pub class: Priority,
    /// Times from submission to start.
    pub times: Times,
    /// Tasks that waited longer than the limit.
    pub late: usize,
}

/// How far off predictions were of tasks whose model was not loaded when they came.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ColdStarts {
    /// Which of them.
    pub ahead: &'static str,
    /// Tasks.
    pub tasks: usize,
    /// Median of predicted over actual wait.
    pub bias: f64,
    /// Median of the error as a share of the actual wait, and the value that one in ten exceeds.
    pub off: (f64, f64),
    /// Median of predicted over actual, before experience has corrected the prediction; of tasks that were next.
    pub uncorrected: f64,
}

impl Swap {
    /// `None` when models are not swapped.
    pub(crate) fn of(ours: &World, restless: &World, fifo: &Fifo) -> Option<Self> {
        let swap = ours.scenario.swap?;
        let limit_ms = swap.age_limit_ms;
        let devices = swap.devices.len() as u64;
        Some(Self {
            age_limit_ms: limit_ms,
            ours: Swapping::of(ours, limit_ms, devices)?,
            restless: Swapping::of(restless, limit_ms, devices)?,
            fifo: Swapping::of_fifo(fifo, limit_ms, devices),
            models: ours.scenario.pools.iter().map(|pool| model(ours, pool.model)).collect(),
            cold_starts: [("next", 0..1), ("behind others", 1..usize::MAX)]
                .map(|(ahead, positions)| ColdStarts::of(ours, ahead, &positions))
                .into_iter()
                .filter(|starts| starts.tasks > 0)
                .collect(),
        })
    }
}

fn model(world: &World, model: &'static str) -> (&'static str, f64, f64) {
    let lives: Vec<&Life> = world.lives.iter().filter(|life| life.traits.source.model == model).collect();
    let completed = lives.iter().filter(|life| life.completed()).count();
    let longest_ms = lives.iter().filter_map(|life| life.wait_ms()).max().unwrap_or(0);
    (model, share(completed, lives.len()), longest_ms as f64)
}

impl Swapping {
    fn of(world: &World, limit_ms: u64, devices: u64) -> Option<Self> {
        let counts = world.residency.as_ref()?.counts;
        let wait = |life: &Life| Some((life.traits.class(), life.wait_ms()?));
        let completed = world.lives.iter().filter(|life| life.completed());
        let makespan_ms = completed.clone().map(|life| life.ended_ms).max().unwrap_or(0);
        Some(
            Self {
                completed: completed.count(),
                loads: counts.loads,
                evictions: counts.evictions,
                fences: (counts.fences, counts.unfences),
                ..Self::common(makespan_ms, counts.loading_ms, devices, world.lives.iter().filter_map(wait), limit_ms)
            }
            .with_rate(),
        )
    }

    fn of_fifo(fifo: &Fifo, limit_ms: u64, devices: u64) -> Self {
        let wait = |task: &Past| Some((task.traits.class(), task.started_ms? - task.came_ms));
        Self {
            completed: fifo.tasks.iter().filter(|task| task.ended_ms.is_some()).count(),
            loads: fifo.loads,
            evictions: fifo.evictions,
            ..Self::common(fifo.ended_ms(), fifo.loading_ms, devices, fifo.tasks.iter().filter_map(wait), limit_ms)
        }
        .with_rate()
    }

    /// Nothing is counted yet but times.
    fn common(
        makespan_ms: u64,
        loading_ms: u64,
        devices: u64,
        waits: impl Iterator<Item = (Priority, u64)>,
        limit_ms: u64,
    ) -> Self {
        let all: Vec<(Priority, u64)> = waits.collect();
        let of = |class: &Priority| {
            let waits = all.iter().filter(|(of, _)| of == class).map(|(_, wait_ms)| *wait_ms as f64);
            let waits: Vec<f64> = waits.collect();
            let late = waits.iter().filter(|wait_ms| **wait_ms > limit_ms as f64).count();
            (!waits.is_empty()).then(|| Waits { class: *class, times: Times::of(&waits), late })
        };
        Self {
            makespan_ms,
            completed: 0,
            tasks_per_min: 0.0,
            loads: 0,
            evictions: 0,
            fences: (0, 0),
            loading: loading_ms as f64 / (makespan_ms * devices).max(1) as f64,
            waits: Priority::ALL.iter().filter_map(of).collect(),
        }
    }

    fn with_rate(self) -> Self {
        Self { tasks_per_min: self.completed as f64 * 60_000.0 / self.makespan_ms.max(1) as f64, ..self }
    }

    /// Tasks that waited longer than the limit.
    #[must_use]
    pub fn late(&self) -> usize {
        self.waits.iter().map(|waits| waits.late).sum()
    }
}

impl ColdStarts {
    fn of(world: &World, ahead: &'static str, positions: &std::ops::Range<usize>) -> Self {
        let pair = |life: &Life| {
            let promise = life.promise.filter(|promise| positions.contains(&promise.position))?;
            let load_ms = promise.load_ms? as f64;
            let wait_ms = life.wait_ms()?.max(1) as f64;
            Some((promise.start_ms as f64 / wait_ms, load_ms / wait_ms))
        };
        let (ratios, uncorrected): (Vec<f64>, Vec<f64>) = world.lives.iter().filter_map(pair).unzip();
        let errors: Vec<f64> = ratios.iter().map(|ratio| (ratio - 1.0).abs()).collect();
        Self {
            ahead,
            tasks: ratios.len(),
            bias: quantile(&ratios, 0.5),
            off: (quantile(&errors, 0.5), quantile(&errors, 0.9)),
            uncorrected: quantile(&uncorrected, 0.5),
        }
    }
}

impl fmt::Display for Swap {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { ours, restless, fifo, .. } = self;
        writeln!(
            f,
            "  {:<26}{:>12}{:>14}{:>12}{:>14}",
            "the same tasks", "ours", "no lingering", "in order", "ours/in order"
        )?;
        let mut row = |name: &str, of: &dyn Fn(&Swapping) -> f64, unit: &str| {
            let [ours, restless, fifo] = [of(ours), of(restless), of(fifo)];
            write!(f, "  {:<26}{ours:>12.1}{restless:>14.1}{fifo:>12.1}", format!("{name}{unit}"))?;
            if fifo > 0.0 { writeln!(f, "{:>14.2}", ours / fifo) } else { writeln!(f) }
        };
        row("makespan", &|way| way.makespan_ms as f64 / 60e3, ", min")?;
        row("tasks per minute", &|way| way.tasks_per_min, "")?;
        row("completed", &|way| way.completed as f64, "")?;
        row("loads", &|way| way.loads as f64, "")?;
        row("evictions", &|way| way.evictions as f64, "")?;
        row("fences", &|way| way.fences.0 as f64, "")?;
        row("fences called off", &|way| way.fences.1 as f64, "")?;
        row("time spent loading", &|way| way.loading * 100.0, ", %")?;
        for (place, waits) in ours.waits.iter().enumerate() {
            let class = waits.class;
            for (name, of) in QUANTILES {
                let of = |way: &Swapping| way.waits.get(place).map_or(0.0, |waits| of(&waits.times) / 1e3);
                row(&format!("{class} wait {name}"), &of, ", s")?;
            }
            let late = |way: &Swapping| way.waits.get(place).map_or(0.0, |waits| waits.late as f64);
            row(&format!("{class} over {} s", self.age_limit_ms / 1_000), &late, "")?;
        }
        for (model, completed, longest_ms) in &self.models {
            writeln!(f, "  {model:<14}{:>6.1} % done, longest wait {:.1} s", completed * 100.0, longest_ms / 1e3)?;
        }
        for ColdStarts { ahead, tasks, bias, off, uncorrected } in &self.cold_starts {
            writeln!(
                f,
                "  predicted/actual start of {tasks} tasks whose model was not loaded, {ahead}: {bias:.2} \
                 (load alone, uncorrected: {uncorrected:.2}), median off {:.1} %, p90 {:.1} %",
                off.0 * 100.0,
                off.1 * 100.0
            )?;
        }
        Ok(())
    }
}

/// A quantile's name, and where it is.
type Quantile = (&'static str, fn(&Times) -> f64);

const QUANTILES: [Quantile; 4] =
    [("p50", |times| times.p50), ("p90", |times| times.p90), ("p99", |times| times.p99), ("max", |times| times.max)];
