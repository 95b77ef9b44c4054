//! When a tenant that does not take tasks would take one.

use super::victims::{choose, may_go};
use super::{Ledger, Limits, Part, Stage, Tenant};

/// Of each tenant that can be loaded and takes no tasks now: time until it would, if a task came now, in milliseconds.
pub(super) fn ready_in(
    ledger: &Ledger,
    tenants: &[Tenant],
    order: &[usize],
    limits: Limits,
    now_ms: u64,
) -> Vec<Option<u64>> {
    let of = |(index, tenant): (usize, &Tenant)| match tenant.stage {
        Stage::Serving { .. } if !tenant.fenced => None,
        Stage::Barred => None,
        Stage::Loading { since_ms } => Some(left(tenant.load_ms, now_ms.saturating_sub(since_ms))),
        Stage::Leaving => Some(tenant.unload_ms.saturating_add(tenant.load_ms)),
        Stage::Out | Stage::Preparing | Stage::Asking | Stage::Serving { .. } => {
            let room_ms = room_in(ledger, tenants, index, limits, now_ms);
            Some(room_ms.saturating_add(ahead(tenants, order, index)).saturating_add(tenant.load_ms))
        }
    };
    tenants.iter().enumerate().map(of).collect()
}

/// What is left of a load, which is never nothing as long as it lasts.
fn left(load_ms: u64, elapsed_ms: u64) -> u64 {
    load_ms.saturating_sub(elapsed_ms).max(load_ms / 20).max(1)
}

/// Loads that come before its own on the same devices.
fn ahead(tenants: &[Tenant], order: &[usize], index: usize) -> u64 {
    let before = order.iter().take_while(|other| **other != index);
    before
        .map(|other| &tenants[*other])
        .filter(|other| other.shares_with(&tenants[index]))
        .fold(0, |sum, other| sum.saturating_add(other.load_ms))
}

/// Time until there is room for it.
fn room_in(ledger: &Ledger, tenants: &[Tenant], index: usize, limits: Limits, now_ms: u64) -> u64 {
    let tenant = &tenants[index];
    let lack = |part: &Part| {
        let there = ledger.available(part.device).unwrap_or(0).saturating_add(ledger.coming(part.device, now_ms));
        Part { bytes: part.bytes.saturating_sub(there), ..*part }
    };
    let lacking: Vec<Part> = tenant.need.iter().map(lack).filter(|part| part.bytes > 0).collect();
    if lacking.is_empty() {
        return 0;
    }
    let among = |may: &dyn Fn(&Tenant) -> bool| {
        let candidates: Vec<usize> =
            (0..tenants.len()).filter(|other| *other != index && may(&tenants[*other])).collect();
        choose(&lacking, &candidates, tenants, ledger, now_ms)
    };
    let goes = |tenant: &Tenant| matches!(tenant.stage, Stage::Leaving) || may_go(tenant);
    let idle = |tenant: &Tenant| goes(tenant) && (tenant.is_idle() || tenant.stage == Stage::Leaving);
    let unload_ms = |victims: &[usize]| victims.iter().map(|victim| tenants[*victim].unload_ms).max().unwrap_or(0);
    if let Some(victims) = among(&idle) {
        return unload_ms(&victims);
    }
    // Busy ones end what they have, or yield when the limit comes near.
    let waited_ms = tenant.oldest_ms().map_or(0, |oldest_ms| now_ms.saturating_sub(oldest_ms));
    let longest_ms = limits.age_limit_ms.saturating_sub(waited_ms).saturating_sub(tenant.load_ms);
    let any = |tenant: &Tenant| goes(tenant) || matches!(tenant.stage, Stage::Loading { .. });
    match among(&any) {
        Some(victims) => {
            let busy_ms = victims.iter().map(|victim| tenants[*victim].backlog_ms).max().unwrap_or(0);
            let running_ms = victims.iter().map(|victim| tenants[*victim].running_ms).max().unwrap_or(0);
            busy_ms.min(longest_ms.max(running_ms)).saturating_add(unload_ms(&victims))
        }
        None => longest_ms,
    }
}
