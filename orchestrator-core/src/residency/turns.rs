//! Whose turn it is: who would wait too long, and who has had enough.

use std::cmp::Reverse;

use api_types::Priority;

use super::{Ledger, Limits, Stage, Tenant};

/// Part of the age limit that is left for what takes longer than predicted: one in so many.
const SPARE: u64 = 8;

/// Part of the age limit by which interactive tasks that are late come before batch tasks that are: one in so many.
const AHEAD: u64 = 4;

/// Everybody at one moment.
#[derive(Clone, Copy)]
pub(super) struct Turns<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) tenants: &'a [Tenant],
    pub(super) limits: Limits,
    pub(super) now_ms: u64,
}

impl Turns<'_> {
    /// Who asks for memory, the first to be served first: those that room is being made for, those that are late by who has to begin soonest, then what the operator
    /// wants, then interactive tasks; among equals who waits longest.
    pub(super) fn order(&self) -> Vec<usize> {
        let asks = |index: &usize| {
            let tenant = &self.tenants[*index];
            tenant.stage == Stage::Asking && (tenant.is_asked_for() || !tenant.on_demand)
        };
        let mut order: Vec<usize> = (0..self.tenants.len()).filter(asks).collect();
        order.sort_by_key(|index| self.rank(*index));
        order
    }

    fn rank(&self, index: usize) -> impl Ord + use<> {
        let tenant = &self.tenants[index];
        let oldest_ms = tenant.oldest_ms().unwrap_or(self.now_ms);
        let is_late = self.would_be_late(index, self.longest_turn_ms(index).saturating_add(tenant.load_ms));
        let is_wanted = tenant.wanted || !tenant.on_demand;
        let is_interactive = tenant.waiting.of(Priority::Interactive).count > 0;
        // Of two that are late, the one with the longer task does less harm as the second. Interactive ones are put first by so
        // much and no more: where everybody is late, batch tasks would wait for ever.
        let ahead_ms = if is_interactive { self.limits.age_limit_ms / AHEAD } else { 0 };
        let due_ms =
            if is_late { oldest_ms.saturating_add(tenant.task_ms()).saturating_sub(ahead_ms) } else { oldest_ms };
        (
            Reverse(tenant.is_next),
            Reverse(is_late),
            Reverse(is_wanted),
            Reverse(is_interactive && !is_late),
            due_ms,
            index,
        )
    }

    /// The longest that another one takes which could come first.
    fn longest_turn_ms(&self, index: usize) -> u64 {
        let comes = |other: &usize| {
            let stage = self.tenants[*other].stage;
            *other != index && matches!(stage, Stage::Asking | Stage::Loading { .. }) && self.exclude(*other, index)
        };
        let others = (0..self.tenants.len()).filter(comes);
        others.map(|other| self.turn_ms(other)).max().unwrap_or(0)
    }

    /// What a tenant's turn takes that is not loaded: the load, something of it, and its end.
    pub(super) fn turn_ms(&self, index: usize) -> u64 {
        let tenant = &self.tenants[index];
        let use_ms = tenant.backlog_ms.min(tenant.load_ms);
        tenant.load_ms.saturating_add(use_ms).saturating_add(tenant.unload_ms)
    }

    /// Whether two tenants cannot both be loaded.
    pub(super) fn exclude(&self, one: usize, other: usize) -> bool {
        let theirs = &self.tenants[other].need;
        self.tenants[one].need.iter().any(|part| {
            let same = theirs.iter().filter(|their| their.device == part.device);
            same.map(|their| their.bytes).any(|bytes| bytes.saturating_add(part.bytes) > self.ledger.room(part.device))
        })
    }

    /// Whether one that is behind can be loaded without delaying one ahead of it: there is room for both, and for those that may
    /// stay.
    pub(super) fn beside(&self, behind: usize, ahead: usize) -> bool {
        let need = |tenant: &Tenant, device: usize| {
            let parts = tenant.need.iter().filter(|part| part.device == device);
            parts.map(|part| part.bytes).fold(0, u64::saturating_add)
        };
        let stays = |other: &usize| {
            let is_up = matches!(self.tenants[*other].stage, Stage::Serving { .. } | Stage::Loading { .. });
            *other != ahead && *other != behind && is_up && !self.exclude(*other, ahead)
        };
        let staying: Vec<&Tenant> = (0..self.tenants.len()).filter(stays).map(|other| &self.tenants[other]).collect();
        self.tenants[ahead].need.iter().all(|part| {
            let own = need(&self.tenants[behind], part.device);
            let all = staying.iter().fold(own, |sum, other| sum.saturating_add(need(other, part.device)));
            own == 0 || all.saturating_add(part.bytes) <= self.ledger.room(part.device)
        })
    }

    /// Whether the task that waits longest for a tenant would reach the limit if it started after so long.
    fn would_be_late(&self, index: usize, after_ms: u64) -> bool {
        let oldest_ms = self.tenants[index].oldest_ms();
        oldest_ms.is_some_and(|oldest_ms| {
            let limit_ms = self.limits.age_limit_ms - self.limits.age_limit_ms / SPARE;
            self.now_ms.saturating_sub(oldest_ms).saturating_add(after_ms) >= limit_ms
        })
    }

    /// Whether a busy tenant must make room for one that asks, which serves so long after there is room: what waits there would be
    /// late otherwise, or matters more.
    pub(super) fn must_yield(&self, busy: usize, asking: usize, ahead_ms: u64) -> bool {
        let (holder, asker) = (&self.tenants[busy], &self.tenants[asking]);
        if holder.fenced {
            return true;
        }
        if holder.is_idle() {
            return !self.lingers(busy, asking);
        }
        let Stage::Serving { since_ms } = holder.stage else { return false };
        let still_ms = holder.running_ms.saturating_add(holder.unload_ms).saturating_add(ahead_ms);
        let is_late = self.would_be_late(asking, still_ms);
        let back_ms = still_ms.saturating_add(asker.unload_ms).saturating_add(holder.load_ms);
        let makes_late = self.would_be_late(busy, back_ms);
        // Whoever has waited for a load is to have something of it: at least as long as the load took, or all it came for. Another
        // one's limit comes first, unless its own would be missed for it.
        let is_new = self.now_ms.saturating_sub(since_ms) < holder.load_ms && holder.has_waiters();
        if is_new && (makes_late || !is_late) {
            return false;
        }
        if asker.oldest_ms().is_none() {
            return asker.wanted || !asker.on_demand;
        }
        let matters_more = asker.waiting.interactive.count > 0 && holder.waiting.interactive.count == 0;
        is_late || (matters_more && holder.has_waiters() && !makes_late)
    }

    /// Whether an idle tenant is likely to be asked again before long, and worth keeping until then: not longer than a swap would
    /// cost those who wait.
    pub(super) fn lingers(&self, idle: usize, asking: usize) -> bool {
        let (holder, asker) = (&self.tenants[idle], &self.tenants[asking]);
        let (Some(gap_ms), Some(oldest_ms)) = (holder.gap_ms, asker.oldest_ms()) else { return false };
        let idle_ms = self.now_ms.saturating_sub(holder.last_used_ms);
        let swap_ms = holder.load_ms.saturating_add(asker.load_ms);
        let waited_ms = self.now_ms.saturating_sub(oldest_ms);
        holder.running == 0
            && gap_ms.saturating_mul(4) <= holder.load_ms
            && idle_ms < gap_ms.saturating_mul(2)
            && waited_ms < swap_ms
            && !self.would_be_late(asking, swap_ms)
    }
}
