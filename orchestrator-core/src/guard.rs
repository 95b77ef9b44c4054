//! Checks of a request that need no engine, and checks against a model's limits (ORCH-3014).
//!
//! Nothing is ever shortened or adjusted (ORCH-3016): a request is taken as it is or refused with a sentence that says
//! what to change. Sentences hold numbers and field names, never what the prompt says (LO-ERR-01).

mod input;
mod limits;
mod options;

#[cfg(test)]
mod tests;

use api_types::{ErrorKind, TaskRequest, Workload};

use crate::Refusal;

pub use limits::{ModelLimits, TokenCount, check_limits, fits_for_sure, input_bytes};

/// The largest seed. 4294967295 means "draw one" to llama.cpp (`LLAMA_DEFAULT_SEED`), so it would not be repeatable.
pub const MAX_SEED: i64 = 4_294_967_294;

/// Checks everything about a request that can be told from the request alone.
///
/// # Errors
/// `DEADLINE_UNMET` for a deadline that is not positive, else `INVALID_PARAMS`; the first thing that is wrong is named.
pub fn check_request(request: &TaskRequest) -> Result<(), Refusal> {
    if request.model_ref.trim().is_empty() {
        return Err(Refusal::invalid("model_ref is empty; name a model that GET /v1/capabilities lists"));
    }
    check_deadline(request)?;
    check_sizes(request)?;
    input::check(request)?;
    options::check(request)
}

fn check_deadline(request: &TaskRequest) -> Result<(), Refusal> {
    if request.deadline_ms > 0 {
        return Ok(());
    }
    let message = format!("deadline_ms is {} and must be above 0; give the task time to run", request.deadline_ms);
    Err(Refusal::new(ErrorKind::DeadlineUnmet, message))
}

fn check_sizes(request: &TaskRequest) -> Result<(), Refusal> {
    let least_tokens = i32::from(request.workload == Workload::Completion);
    at_least("ctx", request.ctx, 1)?;
    at_least("max_tokens", request.max_tokens, least_tokens)?;
    if request.max_tokens > request.ctx {
        return Err(Refusal::invalid(format!(
            "max_tokens {} is more than ctx {}, which holds prompt and output together; lower max_tokens or raise ctx",
            request.max_tokens, request.ctx
        )));
    }
    request.expected_tokens.map_or(Ok(()), |tokens| at_least("expected_tokens", tokens, 0))?;
    match request.seed {
        Some(seed) if !(0..=MAX_SEED).contains(&seed) => {
            Err(Refusal::invalid(format!("seed {seed} must be from 0 to {MAX_SEED}; omit it to have one drawn")))
        }
        _ => Ok(()),
    }
}

fn at_least(field: &str, value: i32, least: i32) -> Result<(), Refusal> {
    if value >= least {
        Ok(())
    } else {
        Err(Refusal::invalid(format!("{field} is {value} and must be at least {least}")))
    }
}
