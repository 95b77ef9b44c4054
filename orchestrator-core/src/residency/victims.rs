//! Who has to go.

use super::{Ledger, Part, Stage, Tenant};

/// The tenants among `candidates` to evict so that `lacking` is covered, fewest first regrets: those that were not used for long,
/// for what it costs to load them again. `None` when all of them together do not cover it.
pub(super) fn choose(
    lacking: &[Part],
    candidates: &[usize],
    tenants: &[Tenant],
    ledger: &Ledger,
    now_ms: u64,
) -> Option<Vec<usize>> {
    let mut order = candidates.to_vec();
    order.sort_by(|one, other| {
        let regret = |tenant: &usize| idle_for_load(&tenants[*tenant], now_ms);
        regret(other).total_cmp(&regret(one)).then(one.cmp(other))
    });
    let mut left = lacking.to_vec();
    let mut chosen = Vec::new();
    for tenant in order {
        if left.is_empty() {
            break;
        }
        let mut helps = false;
        for part in &mut left {
            let freed = ledger.freed_by(tenant, part.device);
            helps |= freed > 0;
            part.bytes = part.bytes.saturating_sub(freed);
        }
        left.retain(|part| part.bytes > 0);
        if helps {
            chosen.push(tenant);
        }
    }
    if !left.is_empty() {
        return None;
    }
    spare(&mut chosen, lacking, ledger);
    Some(chosen)
}

/// Leaves in peace who was chosen early and is not needed any more, the one with the most regret first.
fn spare(chosen: &mut Vec<usize>, lacking: &[Part], ledger: &Ledger) {
    for at in (0..chosen.len()).rev() {
        let enough = lacking.iter().all(|part| {
            let others = chosen.iter().enumerate().filter(|(other, _)| *other != at);
            others.map(|(_, tenant)| ledger.freed_by(*tenant, part.device)).sum::<u64>() >= part.bytes
        });
        if enough {
            chosen.remove(at);
        }
    }
}

/// How long it was idle, in units of the time that loading it again takes.
fn idle_for_load(tenant: &Tenant, now_ms: u64) -> f64 {
    now_ms.saturating_sub(tenant.last_used_ms) as f64 / tenant.load_ms.max(1) as f64
}

/// Whether a tenant's engine is up and may be asked to make room.
pub(super) const fn may_go(tenant: &Tenant) -> bool {
    matches!(tenant.stage, Stage::Serving { .. }) && !tenant.keep
}
