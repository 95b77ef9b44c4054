//! The decision itself.

use api_types::PlacementMode;

use super::filter::{Filters, Scope};
use super::rank::{Candidate, Ranking};
use super::{
    DecisionLog, Exclusion, MAX_LISTED, NoCapacityReason as Reason, Outranked, PlacementDecision, PlacementInput,
    PoolSnapshot, TieBreaker,
};

/// Chooses a pool: filters first, then tie-breakers (ORCH-3901.1, ORCH-3902.2). Equal inputs give equal answers.
#[must_use]
pub fn decide(input: &PlacementInput<'_>) -> PlacementDecision {
    let placement = &input.job.placement;
    let mut scope = Scope::of(placement.mode);
    let mut survey = Survey::of(input, scope);
    if survey.feasible.is_empty() && scope == Scope::Preferred && placement.allow_fallback {
        scope = Scope::All;
        survey = Survey::of(input, scope);
        survey.log.fallback_used = true;
    }
    survey.log.pinned = placement.mode == PlacementMode::Pin;
    survey.prefer_room(input);
    match survey.choose(input) {
        Some(best) => survey.assigned(input, best),
        None => survey.no_capacity(input, scope),
    }
}

/// One look at all pools.
struct Survey<'a> {
    /// The pools that can take the job.
    feasible: Vec<Candidate<'a>>,
    /// One bit per filter that acted.
    filters: u32,
    /// One bit per tie-breaker that acted.
    tie_breakers: u32,
    /// The reason of the pool that came furthest.
    closest: Reason,
    log: DecisionLog,
}

impl<'a> Survey<'a> {
    fn of(input: &PlacementInput<'a>, scope: Scope) -> Self {
        let mut survey = Self {
            feasible: Vec::with_capacity(input.pools.len()),
            filters: 0,
            tie_breakers: 0,
            closest: Reason::NoPools,
            log: DecisionLog { candidates_considered: input.pools.len(), ..DecisionLog::default() },
        };
        let mut filters = Filters::new(input, scope);
        for (index, pool) in input.pools.iter().enumerate() {
            match filters.failed(pool) {
                None => survey.feasible.push(Candidate::new(index, pool, input.job, input.now_ms)),
                Some(reason) => survey.exclude(pool, reason),
            }
        }
        survey
    }

    fn exclude(&mut self, pool: &PoolSnapshot, reason: Reason) {
        self.filters |= 1 << reason as u32;
        self.closest = self.closest.max(reason);
        if self.log.excluded.len() < MAX_LISTED {
            self.log.excluded.push(Exclusion { pool_id: pool.id.clone(), reason });
        } else {
            self.log.excluded_more += 1;
        }
    }

    /// A pool whose queue is full is left out as long as another one has room; when all are full, the queue's own policy
    /// decides what happens.
    fn prefer_room(&mut self, input: &PlacementInput<'a>) {
        let pool = |candidate: &Candidate<'_>| &input.pools[candidate.index];
        let full = |candidate: &Candidate<'_>| pool(candidate).is_full_for(input.job.priority);
        let full_count = self.feasible.iter().filter(|candidate| full(candidate)).count();
        if full_count == 0 || full_count == self.feasible.len() {
            return;
        }
        let (left_out, kept): (Vec<_>, _) =
            std::mem::take(&mut self.feasible).into_iter().partition(|candidate| full(candidate));
        self.feasible = kept;
        for candidate in &left_out {
            self.exclude(pool(candidate), Reason::QueueFull);
        }
    }

    /// The index of the best pool.
    fn choose(&mut self, input: &PlacementInput<'_>) -> Option<usize> {
        let ranking = Ranking::new(&self.feasible);
        let (mut best, others) = self.feasible.split_first()?;
        for other in others {
            let (order, decided_by) = ranking.compare(other, best);
            let bit = 1 << decided_by as u32;
            if order.is_lt() {
                best = other;
                // Whoever lost to the former best by a weaker rule has now lost by this one already.
                self.tie_breakers &= bit - 1;
            }
            self.tie_breakers |= bit;
        }
        let losers = self.feasible.iter().filter(|other| other.index != best.index);
        let outranked = losers.clone().take(MAX_LISTED).map(|other| Outranked {
            pool_id: input.pools[other.index].id.clone(),
            by: ranking.compare(best, other).1,
        });
        self.log.outranked = outranked.collect();
        self.log.outranked_more = losers.count() - self.log.outranked.len();
        self.log.predicted_end_ms = best.predicted_end_ms();
        Some(best.index)
    }

    fn assigned(mut self, input: &PlacementInput<'_>, best: usize) -> PlacementDecision {
        let pool_id = input.pools[best].id.clone();
        self.log.selected_pool_id = Some(pool_id.clone());
        self.log.tie_breakers_applied = members(TieBreaker::ALL, self.tie_breakers);
        self.log.filters_applied = members(Reason::ALL, self.filters);
        PlacementDecision::Assigned { pool_id, index: best, reason: self.log }
    }

    fn no_capacity(mut self, input: &PlacementInput<'_>, scope: Scope) -> PlacementDecision {
        self.log.filters_applied = members(Reason::ALL, self.filters);
        let reason = match scope {
            _ if input.pools.is_empty() => Reason::NoPools,
            Scope::All => self.closest,
            Scope::Pinned => Reason::PinnedPoolInfeasible,
            Scope::Preferred => Reason::NoPreferredFeasible,
        };
        PlacementDecision::NoCapacity { reason, considered: input.pools.len(), log: self.log }
    }
}

/// The members of a closed list whose bits are set, in the list's order.
fn members<T: Copy>(all: &[T], bits: u32) -> Vec<T> {
    all.iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0).map(|(_, member)| *member).collect()
}
