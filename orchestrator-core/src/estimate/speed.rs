//! What a pool's finished tasks tell about its next ones.

use super::Demand;
use super::fit::{Average, Fitted, Line};

/// Assumed for a task on a pool that has not finished any, in milliseconds. A guess, and reported as one.
pub const UNMEASURED_TASK_MS: u64 = 2_000;
/// Tokens in a byte of text, until a pool has shown its own share: English prose has one in four to five bytes.
const TOKENS_PER_BYTE: f64 = 0.25;

/// How long something takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// In milliseconds.
    pub ms: u64,
    /// Whether it rests on observed tasks; if not it is [`UNMEASURED_TASK_MS`] per task.
    pub measured: bool,
}

/// One task that ran and ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// What was asked.
    pub demand: Demand,
    /// Length of its prompt in bytes.
    pub prompt_bytes: u64,
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

/// A pool's speed, learned from its finished tasks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolSpeed {
    /// First token against prompt tokens.
    prefill: Line,
    /// Decode time against tokens after the first.
    decode: Line,
    first_token_ms: Average,
    tokens_per_byte: Average,
    /// Output over limit, and over what was announced.
    limit_share: Average,
    announced_share: Average,
    service_ms: Average,
}

impl PoolSpeed {
    /// Learns from a task.
    pub fn observe(&mut self, seen: &Observation) {
        if let Some(ms) = seen.first_token_ms {
            self.first_token_ms.add(ms as f64);
        }
        if let Some(tokens @ 1..) = seen.tokens_in {
            if let Some(ms) = seen.first_token_ms {
                self.prefill.add(f64::from(tokens), ms as f64);
            }
            if seen.prompt_bytes > 0 {
                self.tokens_per_byte.add(f64::from(tokens) / seen.prompt_bytes as f64);
            }
        }
        // The first token belongs to the prefill; a single one tells nothing about decoding.
        if let (Some(tokens @ 2..), Some(ms)) = (seen.tokens_out, seen.decode_ms) {
            self.decode.add(f64::from(tokens - 1), ms as f64);
        }
        if seen.completed {
            self.service_ms.add(seen.service_ms as f64);
            self.observe_length(seen);
        }
    }

    fn observe_length(&mut self, seen: &Observation) {
        let Some(tokens) = seen.tokens_out.map(f64::from) else {
            return;
        };
        if seen.demand.limit_tokens > 0 {
            self.limit_share.add((tokens / seen.demand.limit_tokens as f64).min(1.0));
        }
        if seen.demand.announced_tokens > 0 {
            self.announced_share.add(tokens / seen.demand.announced_tokens as f64);
        }
    }

    /// Time that a demand takes on one slot: by tokens where both speeds are known, else by the average task, else a
    /// guess.
    #[must_use]
    pub fn service(&self, demand: &Demand) -> Estimate {
        let average = || Some(demand.tasks as f64 * self.service_ms.get()?);
        match self.by_tokens(demand).or_else(average) {
            Some(ms) => Estimate { ms: whole(ms), measured: true },
            None => Estimate { ms: demand.tasks.saturating_mul(UNMEASURED_TASK_MS), measured: false },
        }
    }

    fn by_tokens(&self, demand: &Demand) -> Option<f64> {
        let (prefill, decode) = (self.prefill.fitted()?, self.decode.fitted()?);
        let tasks = demand.tasks as f64;
        // The first token of each comes with the prefill.
        let further = (self.output_tokens(demand) - tasks).max(0.0);
        let on = |line: Fitted, tokens: f64| line.base * tasks + line.slope * tokens;
        let decoding = if further > 0.0 { on(decode, further) } else { 0.0 };
        Some(on(prefill, self.prompt_tokens(demand)) + decoding)
    }

    /// Tokens that the prompts of a demand have, by the pool's own share of tokens in a byte where nobody counted.
    #[must_use]
    pub fn prompt_tokens(&self, demand: &Demand) -> f64 {
        let share = self.tokens_per_byte.get().unwrap_or(TOKENS_PER_BYTE);
        demand.prompt_tokens as f64 + demand.prompt_bytes as f64 * share
    }

    /// Tokens that a demand will generate. An output shorter than its limit is the rule; until one was seen the limit
    /// itself is the honest guess.
    #[must_use]
    pub fn output_tokens(&self, demand: &Demand) -> f64 {
        demand.announced_tokens as f64 * self.announced_share.get().unwrap_or(1.0)
            + demand.limit_tokens as f64 * self.limit_share.get().unwrap_or(1.0)
    }

    /// Time from the first token to the end that a demand takes, in milliseconds.
    #[must_use]
    pub fn decode_ms(&self, demand: &Demand) -> Option<u64> {
        let line = self.decode.fitted()?;
        Some(whole(line.base * demand.tasks as f64 + line.slope * self.output_tokens(demand)))
    }

    /// Decode speed of one task, in tokens per second.
    #[must_use]
    pub fn tokens_per_s(&self) -> Option<f64> {
        self.decode.fitted().filter(|line| line.slope > 0.0).map(|line| 1_000.0 / line.slope)
    }

    /// Time from dispatch to the first token, in milliseconds.
    #[must_use]
    pub fn first_token_ms(&self) -> Option<f64> {
        self.first_token_ms.get()
    }

    /// Share of its limit that an output reaches on average.
    #[must_use]
    pub fn limit_share(&self) -> Option<f64> {
        self.limit_share.get()
    }

    /// Time from dispatch to the end of an average completed task, in milliseconds.
    #[must_use]
    pub fn service_ms(&self) -> Option<f64> {
        self.service_ms.get()
    }
}

/// Whole milliseconds; the cast saturates, and no input makes it negative.
fn whole(ms: f64) -> u64 {
    ms.round() as u64
}
