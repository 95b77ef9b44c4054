//! When a tenant that does not take tasks would take one.

use super::turns::Turns;
use super::victims::{choose, may_go};
use super::{Part, Stage, Tenant};

/// Of each tenant that can be loaded and takes no tasks now: time until it would, if a task came now, in milliseconds. `order` is
/// who asks for memory.
pub(super) fn ready_in(turns: Turns<'_>, order: &[usize]) -> Vec<Option<u64>> {
    let of = |(index, tenant): (usize, &Tenant)| match tenant.stage {
        Stage::Serving { .. } if !tenant.fenced => None,
        Stage::Barred => None,
        Stage::Loading { since_ms } => Some(left(tenant.load_ms, turns.now_ms.saturating_sub(since_ms))),
        Stage::Leaving => Some(tenant.unload_ms.saturating_add(tenant.load_ms)),
        Stage::Out | Stage::Preparing | Stage::Asking | Stage::Serving { .. } => {
            Some(turns.wait_in(order, index).saturating_add(tenant.load_ms))
        }
    };
    turns.tenants.iter().enumerate().map(of).collect()
}

/// What is left of a load, which is never nothing as long as it lasts.
fn left(load_ms: u64, elapsed_ms: u64) -> u64 {
    load_ms.saturating_sub(elapsed_ms).max(load_ms / 20).max(1)
}

impl Turns<'_> {
    /// Time until its load begins: those who have the memory now are done, and those ahead of it have had their turns.
    fn wait_in(&self, order: &[usize], index: usize) -> u64 {
        let tenant = &self.tenants[index];
        let before = order.iter().take_while(|other| **other != index);
        let ahead_ms = before
            .filter(|other| self.exclude(**other, index))
            .fold(0_u64, |sum, other| sum.saturating_add(self.whole_turn_ms(*other)));
        let room_ms = self.room_in(index);
        room_ms.saturating_add(ahead_ms).min(self.longest_ms(tenant).max(room_ms))
    }

    /// Longest until a tenant's load begins: nobody waits longer than the limit if that can be helped.
    fn longest_ms(&self, tenant: &Tenant) -> u64 {
        let waited_ms = tenant.oldest_ms().map_or(0, |oldest_ms| self.now_ms.saturating_sub(oldest_ms));
        self.limits.age_limit_ms.saturating_sub(waited_ms).saturating_sub(tenant.load_ms)
    }

    /// What the turn of one that is not loaded takes if nobody hurries it.
    fn whole_turn_ms(&self, index: usize) -> u64 {
        let tenant = &self.tenants[index];
        tenant.load_ms.saturating_add(tenant.backlog_ms).saturating_add(tenant.unload_ms)
    }

    /// Time until there is room for it, as far as those go who have the memory now.
    fn room_in(&self, index: usize) -> u64 {
        let tenant = &self.tenants[index];
        let lack = |part: &Part| {
            let there = self.ledger.available(part.device).unwrap_or(0);
            let there = there.saturating_add(self.ledger.coming(part.device, self.now_ms));
            Part { bytes: part.bytes.saturating_sub(there), ..*part }
        };
        let lacking: Vec<Part> = tenant.need.iter().map(lack).filter(|part| part.bytes > 0).collect();
        if lacking.is_empty() {
            return 0;
        }
        let among = |may: &dyn Fn(&usize) -> bool| {
            let candidates: Vec<usize> =
                (0..self.tenants.len()).filter(|other| *other != index && may(other)).collect();
            let victims = choose(&lacking, &candidates, self.tenants, self.ledger, self.now_ms)?;
            victims.into_iter().map(|victim| self.gone_in(victim, index)).max()
        };
        let leaves = |other: &usize| self.tenants[*other].stage == Stage::Leaving;
        let goes = |other: &usize| leaves(other) || may_go(&self.tenants[*other]);
        let loads = |other: &usize| matches!(self.tenants[*other].stage, Stage::Loading { .. });
        among(&|other| leaves(other) || (goes(other) && self.tenants[*other].is_idle()))
            .or_else(|| among(&|other| goes(other) || loads(other)))
            .unwrap_or_else(|| self.limits.age_limit_ms.saturating_sub(tenant.load_ms))
    }

    /// Time until another has made room.
    fn gone_in(&self, other: usize, index: usize) -> u64 {
        let tenant = &self.tenants[other];
        let busy_ms = match tenant.stage {
            Stage::Leaving => 0,
            Stage::Loading { since_ms } => {
                left(tenant.load_ms, self.now_ms.saturating_sub(since_ms)).saturating_add(tenant.backlog_ms)
            }
            _ => self.yields_in(other, index),
        };
        busy_ms.saturating_add(tenant.unload_ms)
    }

    /// Time until one that serves has done what it has to do, or must end for the sake of this one.
    fn yields_in(&self, other: usize, index: usize) -> u64 {
        let holder = &self.tenants[other];
        holder.backlog_ms.min(self.longest_ms(&self.tenants[index]).max(holder.running_ms))
    }
}
