//! From "nowhere" to the error a client gets (LO-PLC-05).

use std::fmt::Write as _;

use api_types::{ErrorKind, PoolId, strict};

use super::filter::{Scope, first_failure};
use super::{NoCapacityReason as Reason, PlacementInput, PoolSnapshot};
use crate::Refusal;

/// How soon an unready pool is worth another try, in milliseconds: about one probe later.
const UNREADY_RETRY_MS: i64 = 1_000;
/// Names from a request are shown up to this many characters.
const SHOWN_CHARS: usize = 120;
/// Known names are listed up to this many.
const SHOWN_NAMES: usize = 8;

/// The refusal for a job that has nowhere to go. A pinned or preferred pool that exists is explained by what is wrong with
/// that pool, so that "still loading" stays worth a retry.
#[must_use]
pub fn explain(input: &PlacementInput<'_>, reason: Reason) -> Refusal {
    match reason {
        Reason::PinnedPoolInfeasible => pinned(input),
        Reason::NoPreferredFeasible => preferred(input),
        other => explain_filter(input, other, closest(input, other)),
    }
}

/// The first pool that failed exactly this filter.
fn closest<'a>(input: &PlacementInput<'a>, reason: Reason) -> Option<&'a PoolSnapshot> {
    input.pools.iter().find(|pool| first_failure(input, Scope::All, pool) == Some(reason))
}

fn pinned(input: &PlacementInput<'_>) -> Refusal {
    let id = input.job.placement.pin_pool_id.as_deref().unwrap_or_default();
    let Some(pool) = input.pools.iter().find(|pool| pool.id.as_str() == id) else {
        return unknown_pool(input, id, "pin_pool_id");
    };
    let refusal = first_failure(input, Scope::Pinned, pool).map_or_else(
        || unavailable(format!("the pinned pool {} cannot take the task", pool.id)),
        |reason| explain_filter(input, reason, Some(pool)),
    );
    Refusal { message: format!("the task is pinned to pool {}: {}", pool.id, refusal.message), ..refusal }
}

fn preferred(input: &PlacementInput<'_>) -> Refusal {
    let ids = input.job.placement.prefer_pools.as_deref().unwrap_or_default();
    let known = |id: &String| input.pools.iter().find(|pool| pool.id.as_str() == id);
    let nearest = ids
        .iter()
        .filter_map(known)
        .filter_map(|pool| first_failure(input, Scope::Preferred, pool).map(|reason| (reason, pool)))
        .max_by_key(|(reason, _)| *reason);
    match (nearest, ids.first()) {
        (Some((reason, pool)), _) => {
            let refusal = explain_filter(input, reason, Some(pool));
            let message =
                format!("no preferred pool can take the task and allow_fallback is false: {}", refusal.message);
            Refusal { message, ..refusal }
        }
        (None, Some(id)) => unknown_pool(input, id, "prefer_pools"),
        (None, None) => Refusal::invalid("placement mode `prefer` needs prefer_pools; name at least one pool"),
    }
}

fn unknown_pool(input: &PlacementInput<'_>, id: &str, field: &str) -> Refusal {
    let names = input.pools.iter().map(|pool| pool.id.as_str());
    let mut message = format!("{field} names the pool `{}`, which does not exist", shown(id));
    suggest(&mut message, id, names);
    unavailable(message)
}

fn explain_filter(input: &PlacementInput<'_>, reason: Reason, pool: Option<&PoolSnapshot>) -> Refusal {
    let id = pool.map(|pool| pool.id.as_str());
    let at = id.map_or_else(|| "no pool".to_owned(), |id| format!("pool {id}"));
    let refusal = match reason {
        Reason::NoPools => unavailable("no pool is configured; the operator must add one"),
        Reason::EngineMismatch => engine_mismatch(input),
        Reason::ModelMismatch => model_mismatch(input),
        Reason::NotReady => not_ready(pool, &at),
        Reason::Draining => unready(format!("{at} is draining and takes no new task; try again later or use another")),
        Reason::StaleSnapshot => {
            unready(format!("{at} has not been heard from for {STALE_AFTER_S} s; try again shortly"))
        }
        Reason::NoFreeSlots => Refusal::new(ErrorKind::ReplicaExhausted, format!("{at} has no slot; try again later")),
        misfit => explain_misfit(input, misfit, pool, &at),
    };
    let refusal = refusal.with_engine(input.job.engine);
    match id {
        Some(id) if !matches!(reason, Reason::EngineMismatch | Reason::ModelMismatch) => {
            refusal.with_pool(PoolId::from(id))
        }
        _ => refusal,
    }
}

/// A pool that is not ready: why, where that is known.
fn not_ready(pool: Option<&PoolSnapshot>, at: &str) -> Refusal {
    match pool.and_then(|pool| pool.trouble.as_ref()) {
        Some(trouble) if trouble.lasting => unavailable(format!("{at} cannot be loaded: {}", trouble.text)),
        Some(trouble) => unready(format!("{at} is not ready: {}", trouble.text)),
        None => unready(format!("{at} is not ready yet; try again shortly")),
    }
}

const STALE_AFTER_S: u64 = super::STALE_AFTER_MS / 1_000;

/// What the client can only mend by asking for something else.
fn explain_misfit(input: &PlacementInput<'_>, reason: Reason, pool: Option<&PoolSnapshot>, at: &str) -> Refusal {
    let job = input.job;
    match reason {
        Reason::CtxTooSmall => Refusal::invalid(format!(
            "ctx {} is more than any feasible pool has; ask for at most {}",
            job.required_ctx,
            largest_ctx(input)
        )),
        Reason::QuantUnsupported => {
            Refusal::invalid(format!("{at} cannot run this model's quantisation; use another model"))
        }
        Reason::MissingExtension => {
            Refusal::invalid(format!("{at} lacks an ability that the model needs; use another model or pool"))
        }
        Reason::ComputeCapability => {
            Refusal::invalid(format!("the GPU of {at} is too old for this model; use another model or pool"))
        }
        Reason::VramInsufficient => {
            Refusal::invalid(format!("{at} has too little video memory for ctx {}; ask for less", job.required_ctx))
        }
        Reason::SamplerProfileMismatch => Refusal::invalid(format!(
            "no feasible pool has sampler profile `{}`{}; change or omit sampler_profile_version",
            shown(job.sampler_profile_version.as_deref().unwrap_or_default()),
            pool.and_then(|pool| pool.sampler_profile_version.as_deref())
                .map_or_else(String::new, |profile| format!(", {at} has `{profile}`")),
        )),
        Reason::DeterminismMismatch => Refusal::invalid(format!(
            "{at} is best_effort and the task asks for determinism strict; omit determinism or use a strict pool"
        )),
        Reason::MaskMismatch => {
            unavailable("no feasible pool has the required device mask; change require_device_mask")
        }
        Reason::Avoided => unavailable("every feasible pool is in avoid_pools; take one out"),
        _ => unavailable("no pool can take the task; loosen its placement"),
    }
}

fn engine_mismatch(input: &PlacementInput<'_>) -> Refusal {
    let mut engines: Vec<&str> = input.pools.iter().map(|pool| pool.engine.as_str()).collect();
    engines.sort_unstable();
    engines.dedup();
    unavailable(format!("no pool runs engine {}; configured: {}", input.job.engine, engines.join(", ")))
}

fn model_mismatch(input: &PlacementInput<'_>) -> Refusal {
    let job = input.job;
    let wanted = job.model_ref.trim();
    let serving = || input.pools.iter().filter(|pool| pool.serves(wanted));
    if let Some(other) = serving().find(|pool| pool.engine == job.engine) {
        let message =
            format!("model `{}` is served by pool {} and not there; change placement", shown(wanted), other.id);
        return Refusal::invalid(message);
    }
    if let Some(other) = serving().next() {
        let message = format!(
            "model `{}` is not served by engine {} but by {} (pool {}); change engine",
            shown(wanted),
            job.engine,
            other.engine,
            other.id
        );
        return Refusal::invalid(message);
    }
    let names = input
        .pools
        .iter()
        .filter(|pool| pool.engine == job.engine)
        .flat_map(|pool| pool.models.iter().map(|name| &**name));
    let mut message = format!("no pool serves model `{}`", shown(wanted));
    suggest(&mut message, wanted, names);
    Refusal::invalid(message)
}

/// Appends the nearest known name, or the known names when none is near.
fn suggest<'a>(message: &mut String, given: &str, known: impl Iterator<Item = &'a str>) {
    let mut names: Vec<&str> = known.collect();
    names.sort_unstable();
    names.dedup();
    let near = strict::nearest(given, names.iter().copied());
    let written = match near {
        Some(name) => write!(message, "; did you mean `{name}`?"),
        None if names.is_empty() => Ok(()),
        None => {
            let more = names.len().saturating_sub(SHOWN_NAMES);
            names.truncate(SHOWN_NAMES);
            let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
            write!(message, "; known: {}{tail}", names.join(", "))
        }
    };
    written.expect("writing to a String cannot fail");
}

fn largest_ctx(input: &PlacementInput<'_>) -> i32 {
    let fits_but_for_ctx = |pool: &&PoolSnapshot| first_failure(input, Scope::All, pool) == Some(Reason::CtxTooSmall);
    input.pools.iter().filter(fits_but_for_ctx).filter_map(|pool| pool.ctx_max_supported).max().unwrap_or(0)
}

fn unavailable(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorKind::PoolUnavailable, message)
}

fn unready(message: String) -> Refusal {
    Refusal { retry_after_ms: Some(UNREADY_RETRY_MS), ..Refusal::new(ErrorKind::PoolUnready, message) }
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
