//! What a pool's finished tasks tell about its next ones.

use std::collections::VecDeque;

/// Assumed for a task on a pool that has not finished any, in milliseconds. A guess, and reported as one.
pub const UNMEASURED_TASK_MS: u64 = 2_000;

/// Weight of the newest observation in a moving average.
const NEWEST: f64 = 0.2;
/// Observations kept to judge how far off the estimates are.
const KEPT: usize = 64;

/// Work in tokens. Demands add up, so a queue's whole demand is kept as one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Tasks.
    pub tasks: u64,
    /// Prompt tokens, of the tasks whose prompt is known.
    pub prompt_tokens: u64,
    /// Tasks whose prompt's length is not known.
    pub unknown_prompts: u64,
    /// Output tokens that clients announced.
    pub announced_tokens: u64,
    /// Output limits of the tasks that announced nothing.
    pub limit_tokens: u64,
}

impl Demand {
    /// The demand of one task. Numbers below zero count as zero; an announcement above the limit counts as the limit.
    #[must_use]
    pub fn of_task(prompt_tokens: Option<i32>, expected_tokens: Option<i32>, max_tokens: i32) -> Self {
        let count = |tokens: i32| u64::try_from(tokens).unwrap_or(0);
        Self {
            tasks: 1,
            prompt_tokens: prompt_tokens.map_or(0, count),
            unknown_prompts: u64::from(prompt_tokens.is_none()),
            announced_tokens: expected_tokens.map_or(0, |tokens| count(tokens.min(max_tokens))),
            limit_tokens: if expected_tokens.is_none() { count(max_tokens) } else { 0 },
        }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            tasks: self.tasks + other.tasks,
            prompt_tokens: self.prompt_tokens + other.prompt_tokens,
            unknown_prompts: self.unknown_prompts + other.unknown_prompts,
            announced_tokens: self.announced_tokens + other.announced_tokens,
            limit_tokens: self.limit_tokens + other.limit_tokens,
        }
    }

    /// This without a demand that was added before.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self {
            tasks: self.tasks - other.tasks,
            prompt_tokens: self.prompt_tokens - other.prompt_tokens,
            unknown_prompts: self.unknown_prompts - other.unknown_prompts,
            announced_tokens: self.announced_tokens - other.announced_tokens,
            limit_tokens: self.limit_tokens - other.limit_tokens,
        }
    }
}

/// How long something takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// In milliseconds.
    pub ms: u64,
    /// Whether it rests on observed tasks; if not it is [`UNMEASURED_TASK_MS`] per task.
    pub measured: bool,
}

/// One task that ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// What was asked.
    pub demand: Demand,
    /// What it was predicted to take when it started, in milliseconds.
    pub predicted: Estimate,
    /// Whether it ran to the end that the engine meant. Others teach speeds, but neither length nor duration.
    pub completed: bool,
    /// Prompt tokens.
    pub tokens_in: Option<u32>,
    /// Generated tokens.
    pub tokens_out: Option<u32>,
    /// Time from dispatch to the first token, in milliseconds.
    pub first_token_ms: Option<u64>,
    /// Time from the first token to the end, in milliseconds.
    pub decode_ms: Option<u64>,
    /// Time from dispatch to the end, in milliseconds.
    pub service_ms: u64,
}

/// A pool's speed, learned from its finished tasks as moving averages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolSpeed {
    prefill_ms_per_token: Average,
    decode_ms_per_token: Average,
    first_token_ms: Average,
    prompt_tokens: Average,
    output_share: Average,
    service_ms: Average,
    /// Duration over prediction of the latest completed tasks.
    surprises: VecDeque<f64>,
}

impl PoolSpeed {
    /// Learns from a task.
    pub fn observe(&mut self, seen: &Observation) {
        if let (Some(tokens), Some(ms)) = (seen.tokens_in.filter(|tokens| *tokens > 0), seen.first_token_ms) {
            self.prefill_ms_per_token.add(ms as f64 / f64::from(tokens));
            self.prompt_tokens.add(f64::from(tokens));
        }
        if let Some(ms) = seen.first_token_ms {
            self.first_token_ms.add(ms as f64);
        }
        // The first token belongs to the prefill; a single one tells nothing about decoding.
        if let (Some(tokens @ 2..), Some(ms)) = (seen.tokens_out, seen.decode_ms) {
            self.decode_ms_per_token.add(ms as f64 / f64::from(tokens - 1));
        }
        if seen.completed {
            self.observe_completed(seen);
        }
    }

    fn observe_completed(&mut self, seen: &Observation) {
        self.service_ms.add(seen.service_ms as f64);
        if let (Some(tokens), limit @ 1..) = (seen.tokens_out, seen.demand.limit_tokens) {
            self.output_share.add((f64::from(tokens) / limit as f64).min(1.0));
        }
        if seen.predicted.measured {
            if self.surprises.len() == KEPT {
                self.surprises.pop_front();
            }
            self.surprises.push_back(seen.service_ms as f64 / seen.predicted.ms.max(1) as f64);
        }
    }

    /// Time that a demand takes on one slot: by tokens where both speeds are known, else by the average task, else a
    /// guess.
    #[must_use]
    pub fn service(&self, demand: &Demand) -> Estimate {
        let tasks = demand.tasks as f64;
        let by_tokens = || {
            let prompts = demand.prompt_tokens as f64 + demand.unknown_prompts as f64 * self.prompt_tokens.get()?;
            // An output shorter than its limit is the rule; until one was seen the limit itself is the honest guess.
            let outputs =
                demand.announced_tokens as f64 + demand.limit_tokens as f64 * self.output_share.get().unwrap_or(1.0);
            Some(prompts * self.prefill_ms_per_token.get()? + outputs * self.decode_ms_per_token.get()?)
        };
        match by_tokens().or_else(|| Some(tasks * self.service_ms.get()?)) {
            Some(ms) => Estimate { ms: whole(ms), measured: true },
            None => Estimate { ms: demand.tasks.saturating_mul(UNMEASURED_TASK_MS), measured: false },
        }
    }

    /// Probability that a task of this predicted duration ends within `left_ms` after it starts: the share of the latest
    /// completed tasks that would have, had they been off by as much as they were, with one success and one failure
    /// assumed beforehand. 0.5 while nothing is known, 0 when no time is left.
    #[must_use]
    pub fn on_time_probability(&self, service: Estimate, left_ms: u64) -> f64 {
        if left_ms == 0 {
            return 0.0;
        }
        let in_time = self.surprises.iter().filter(|surprise| **surprise * service.ms as f64 <= left_ms as f64).count();
        (in_time as f64 + 1.0) / (self.surprises.len() as f64 + 2.0)
    }

    /// Decode speed of one task, in tokens per second.
    #[must_use]
    pub fn tokens_per_s(&self) -> Option<f64> {
        self.decode_ms_per_token.get().filter(|ms| *ms > 0.0).map(|ms| 1_000.0 / ms)
    }

    /// Time from dispatch to the first token, in milliseconds.
    #[must_use]
    pub fn first_token_ms(&self) -> Option<f64> {
        self.first_token_ms.get()
    }

    /// Time from dispatch to the end of an average completed task, in milliseconds.
    #[must_use]
    pub fn service_ms(&self) -> Option<f64> {
        self.service_ms.get()
    }
}

/// An exponential moving average that starts at its first value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Average(Option<f64>);

impl Average {
    fn add(&mut self, value: f64) {
        self.0 = Some(self.0.map_or(value, |average| average + NEWEST * (value - average)));
    }

    const fn get(self) -> Option<f64> {
        self.0
    }
}

/// Whole milliseconds; the cast saturates, and no input makes it negative.
fn whole(ms: f64) -> u64 {
    ms.round() as u64
}
