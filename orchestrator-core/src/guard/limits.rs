//! A request against what its model can do.

use api_types::TaskRequest;

use crate::Refusal;

/// What a model can do, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelLimits {
    /// Largest context, prompt and output together, in tokens.
    pub ctx_max: Option<i32>,
    /// Longest output, in tokens.
    pub max_tokens_out: Option<i32>,
}

/// Length of a task's input in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenCount {
    /// By the engine's own tokenizer, template included.
    Exact(u32),
    /// By a rule of thumb.
    Estimated(u32),
    /// Nobody can tell.
    Unknown,
}

impl TokenCount {
    /// Tokens that the input has for sure. A rule of thumb can be off by a factor; half of it is taken as certain, and
    /// what lies between is left for the engine to judge.
    const fn certain(self) -> u32 {
        match self {
            Self::Exact(tokens) => tokens,
            Self::Estimated(tokens) => tokens / 2,
            Self::Unknown => 0,
        }
    }
}

/// Checks a request's context and output against its model, and its input against its own context.
///
/// # Errors
/// `INVALID_PARAMS` with the numbers. Nothing is shortened to fit.
pub fn check_limits(request: &TaskRequest, limits: &ModelLimits, prompt: TokenCount) -> Result<(), Refusal> {
    if let Some(most) = limits.ctx_max.filter(|most| request.ctx > *most) {
        return Err(Refusal::invalid(format!(
            "ctx {} is more than the model's {most}; ask for at most {most}",
            request.ctx
        )));
    }
    if let Some(most) = limits.max_tokens_out.filter(|most| request.max_tokens > *most) {
        return Err(Refusal::invalid(format!(
            "max_tokens {} is more than the model's {most}; ask for at most {most}",
            request.max_tokens
        )));
    }
    let needed = i64::from(prompt.certain()) + i64::from(request.max_tokens);
    if needed > i64::from(request.ctx) {
        let about = if matches!(prompt, TokenCount::Exact(_)) { "" } else { "at least " };
        return Err(Refusal::invalid(format!(
            "the input has {about}{} tokens and max_tokens is {}, together more than ctx {}; shorten the input, lower \
             max_tokens or raise ctx",
            prompt.certain(),
            request.max_tokens,
            request.ctx
        )));
    }
    Ok(())
}
