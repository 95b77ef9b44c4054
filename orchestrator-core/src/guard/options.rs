//! Sampling, tools and placement.

use api_types::{PlacementMode, PlacementOverrides, Sampling, TaskRequest};

use crate::Refusal;

pub(super) fn check(request: &TaskRequest) -> Result<(), Refusal> {
    request.sampling.as_ref().map_or(Ok(()), check_sampling)?;
    check_tools(request)?;
    request.placement.as_ref().map_or(Ok(()), check_placement)
}

fn check_sampling(sampling: &Sampling) -> Result<(), Refusal> {
    let bounds = [
        ("temperature", sampling.temperature, 0.0, f64::MAX),
        ("top_p", sampling.top_p, 0.0, 1.0),
        ("min_p", sampling.min_p, 0.0, 1.0),
        ("repeat_penalty", sampling.repeat_penalty, 0.0, f64::MAX),
        ("presence_penalty", sampling.presence_penalty, f64::MIN, f64::MAX),
        ("frequency_penalty", sampling.frequency_penalty, f64::MIN, f64::MAX),
    ];
    for (name, value, least, most) in bounds {
        // Written so that "not a number" is outside of every range.
        if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
            return Err(Refusal::invalid(format!("sampling.{name} is {value} and must be {}", range(least, most))));
        }
    }
    if let Some(top_k) = sampling.top_k.filter(|top_k| *top_k < 0) {
        return Err(Refusal::invalid(format!("sampling.top_k is {top_k} and must be at least 0; 0 keeps all")));
    }
    if sampling.stop.iter().flatten().any(String::is_empty) {
        return Err(Refusal::invalid(
            "sampling.stop holds an empty text, which would end the output at once; take it out",
        ));
    }
    Ok(())
}

fn range(least: f64, most: f64) -> String {
    match (least == f64::MIN, most == f64::MAX) {
        (true, _) => "finite".to_owned(),
        (false, true) => format!("finite and at least {least}"),
        (false, false) => format!("from {least} to {most}"),
    }
}

fn check_tools(request: &TaskRequest) -> Result<(), Refusal> {
    if request.tools.is_some() && request.messages.is_none() {
        return Err(Refusal::invalid("tools need messages; the engine's chat template renders them"));
    }
    if request.tool_choice.is_some() && request.tools.is_none() {
        return Err(Refusal::invalid("tool_choice needs tools"));
    }
    Ok(())
}

fn check_placement(placement: &PlacementOverrides) -> Result<(), Refusal> {
    let prefers = placement.prefer_pools.as_ref().is_some_and(|pools| !pools.is_empty());
    let pin = placement.pin_pool_id.as_deref();
    match placement.mode {
        PlacementMode::Pin if pin.is_none_or(str::is_empty) => {
            Err(Refusal::invalid("placement mode `pin` needs pin_pool_id"))
        }
        PlacementMode::Prefer if !prefers => {
            Err(Refusal::invalid("placement mode `prefer` needs prefer_pools with at least one pool"))
        }
        PlacementMode::Prefer | PlacementMode::Auto if pin.is_some() => {
            Err(Refusal::invalid(format!("pin_pool_id needs placement mode `pin`, not `{}`", placement.mode)))
        }
        PlacementMode::Pin | PlacementMode::Auto if placement.prefer_pools.is_some() => {
            Err(Refusal::invalid(format!("prefer_pools needs placement mode `prefer`, not `{}`", placement.mode)))
        }
        PlacementMode::Pin | PlacementMode::Prefer | PlacementMode::Auto => check_avoided(placement),
    }
}

/// A pool cannot be asked for and avoided at once.
fn check_avoided(placement: &PlacementOverrides) -> Result<(), Refusal> {
    let avoided = placement.avoid_pools.as_deref().unwrap_or_default();
    if placement.pin_pool_id.as_ref().is_some_and(|pin| avoided.contains(pin)) {
        return Err(Refusal::invalid("pin_pool_id is in avoid_pools too; take it out of one"));
    }
    let preferred = placement.prefer_pools.as_deref().unwrap_or_default();
    let none_left = !preferred.is_empty() && preferred.iter().all(|pool| avoided.contains(pool));
    if none_left && !placement.allow_fallback {
        return Err(Refusal::invalid("every pool in prefer_pools is in avoid_pools too; take one out"));
    }
    Ok(())
}
