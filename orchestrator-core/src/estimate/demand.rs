//! Work in tokens.

use crate::guard::TokenCount;

/// A task's input, as far as its length is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Tokens by the engine's own tokenizer.
    pub tokens: Option<u32>,
    /// Length of the text in bytes.
    pub bytes: u64,
}

impl Prompt {
    /// An input that was counted, or only measured.
    #[must_use]
    pub const fn new(count: TokenCount, bytes: u64) -> Self {
        match count {
            TokenCount::Exact(tokens) => Self { tokens: Some(tokens), bytes },
            TokenCount::Estimated(_) | TokenCount::Unknown => Self { tokens: None, bytes },
        }
    }
}

/// Work in tokens. Demands add up, so a queue's whole demand is kept as one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Tasks.
    pub tasks: u64,
    /// Prompt tokens, of the tasks whose prompt was counted.
    pub prompt_tokens: u64,
    /// Bytes of the prompts that were not.
    pub prompt_bytes: u64,
    /// Output tokens that clients announced.
    pub announced_tokens: u64,
    /// Output limits of the tasks that announced nothing.
    pub limit_tokens: u64,
}

impl Demand {
    /// The demand of one task. Numbers below zero count as zero; an announcement above the limit counts as the limit.
    #[must_use]
    pub fn of_task(prompt: Prompt, expected_tokens: Option<i32>, max_tokens: i32) -> Self {
        let count = |tokens: i32| u64::try_from(tokens).unwrap_or(0);
        Self {
            tasks: 1,
            prompt_tokens: prompt.tokens.map_or(0, u64::from),
            prompt_bytes: if prompt.tokens.is_none() { prompt.bytes } else { 0 },
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
            prompt_bytes: self.prompt_bytes + other.prompt_bytes,
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
            prompt_bytes: self.prompt_bytes - other.prompt_bytes,
            announced_tokens: self.announced_tokens - other.announced_tokens,
            limit_tokens: self.limit_tokens - other.limit_tokens,
        }
    }
}
