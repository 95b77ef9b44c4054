//! A request against what its model can do.

use api_types::{TaskRequest, Workload};

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

/// Bytes of text that make a token, on the careful side: prose has four to five, code and other scripts have fewer.
const BYTES_PER_TOKEN: u64 = 3;
/// Tokens that an engine puts around any input, and a chat template around a conversation and around each message.
const FRAME_TOKENS: u64 = 8;
const TEMPLATE_TOKENS: u64 = 512;
const MESSAGE_TOKENS: u64 = 16;

/// Length of a request's input in bytes of text; of a conversation, the JSON of what is not plain text included.
#[must_use]
pub fn input_bytes(request: &TaskRequest) -> u64 {
    let prompt = request.prompt.iter().chain(request.inputs.iter().flatten()).map(String::len);
    let messages = request.messages.iter().flatten().map(|message| {
        let content =
            message.content.as_ref().map_or(0, |content| content.as_str().map_or_else(|| json_len(content), str::len));
        content + message.other.values().map(json_len).sum::<usize>()
    });
    let tools = request.tools.iter().flatten().map(json_len);
    prompt.chain(messages).chain(tools).sum::<usize>() as u64
}

fn json_len(value: &impl serde::Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |json| json.len())
}

/// Whether a completion fits its own context however its engine splits the input: a token has at least one byte.
#[must_use]
pub fn fits_for_sure(request: &TaskRequest, input_bytes: u64) -> bool {
    let around = match &request.messages {
        Some(messages) => TEMPLATE_TOKENS + MESSAGE_TOKENS * messages.len() as u64,
        None => FRAME_TOKENS,
    };
    let most = i64::try_from(input_bytes + around).unwrap_or(i64::MAX);
    // Each input of the other workloads is an own sequence, and none of them is generated from.
    request.workload != Workload::Completion
        || most.saturating_add(i64::from(request.max_tokens)) <= i64::from(request.ctx)
}

impl TokenCount {
    /// By the rule of thumb.
    #[must_use]
    pub fn estimate(input_bytes: u64) -> Self {
        Self::Estimated(u32::try_from(input_bytes.div_ceil(BYTES_PER_TOKEN)).unwrap_or(u32::MAX))
    }

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
    if request.workload != Workload::Completion {
        return Ok(());
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
