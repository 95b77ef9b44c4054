//! What to do next.

use super::turns::Turns;
use super::victims::{choose, may_go};
use super::{Ledger, Part, Stage, Tenant, outlook};

/// What the operator sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest that a task waits because other models are loaded, as far as that can be helped, in milliseconds.
    pub age_limit_ms: u64,
}

/// One thing to do. Tenants are named by their place in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Tasks wait for it: have its model and its program made present, so that it asks for memory.
    Begin(usize),
    /// It asks for memory, and has it: the ledger has promised it.
    Grant(usize),
    /// It asks for memory that is not there, and nothing of ours can make room: by how much, part by part.
    Short(usize, Vec<Part>),
    /// It is to start no more tasks, so that its running ones end and another can be loaded.
    Fence {
        /// Who.
        tenant: usize,
        /// Who comes.
        for_tenant: usize,
    },
    /// It may start tasks again; nobody wants its memory any more.
    Unfence(usize),
    /// It has no running task: its engine is to end, to make room for this other one.
    Evict {
        /// Who goes.
        tenant: usize,
        /// Who comes.
        for_tenant: usize,
    },
    /// It was idle for as long as it may be: its engine is to end.
    Unload(usize),
    /// Nobody waits for its load any more.
    Abort(usize),
}

/// What to do, and what to expect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// Of each tenant that does not take tasks and can be loaded: time until it would, if a task came now, in milliseconds.
    pub ready_in_ms: Vec<Option<u64>>,
}

/// Looks at everybody and says what is to be done. The promises of [`Step::Grant`] are written into the ledger.
#[must_use]
pub fn plan(ledger: &mut Ledger, tenants: &[Tenant], limits: Limits, now_ms: u64) -> Plan {
    let mut planner = Planner { ledger, tenants, limits, now_ms, steps: Vec::new(), leaving: Vec::new() };
    planner.begin_and_abort();
    let order = planner.turns().order();
    let fenced = planner.make_room(&order);
    planner.unfence(&fenced);
    planner.unload_idle();
    let Planner { ledger, steps, .. } = planner;
    let turns = Turns { ledger, tenants, limits, now_ms };
    Plan { steps, ready_in_ms: outlook::ready_in(turns, &order) }
}

struct Planner<'a> {
    ledger: &'a mut Ledger,
    tenants: &'a [Tenant],
    limits: Limits,
    now_ms: u64,
    steps: Vec<Step>,
    /// Who is on the way out: by an earlier plan, or by this one.
    leaving: Vec<usize>,
}

impl Planner<'_> {
    fn begin_and_abort(&mut self) {
        for (index, tenant) in self.tenants.iter().enumerate() {
            match tenant.stage {
                Stage::Out if tenant.is_asked_for() => self.steps.push(Step::Begin(index)),
                Stage::Preparing | Stage::Asking | Stage::Loading { .. }
                    if tenant.on_demand && !tenant.is_asked_for() =>
                {
                    self.steps.push(Step::Abort(index));
                }
                Stage::Leaving => self.leaving.push(index),
                _ => {}
            }
        }
    }

    const fn turns(&self) -> Turns<'_> {
        Turns { ledger: self.ledger, tenants: self.tenants, limits: self.limits, now_ms: self.now_ms }
    }

    /// Grants what can be granted, and sees to it that the others get theirs. Who is to stay fenced.
    fn make_room(&mut self, order: &[usize]) -> Vec<usize> {
        let mut fenced = Vec::new();
        // What those ahead wait for is not given to those behind.
        let mut ahead: Vec<usize> = Vec::new();
        for (place, &index) in order.iter().enumerate() {
            let tenant = &self.tenants[index];
            let never = self.beyond_room(index);
            if !never.is_empty() {
                self.steps.push(Step::Short(index, never));
                continue;
            }
            let lacking = self.lacking(index, &ahead);
            if lacking.is_empty() && self.ledger.promise(index, &tenant.need).is_ok() {
                self.steps.push(Step::Grant(index));
                continue;
            }
            // What is on its way back already needs nobody else to go.
            let lacking = self.beyond_leaving(lacking);
            let ahead_ms = self.turns_ahead_ms(index, &order[..place]);
            let later_ms = ahead_ms.saturating_add(tenant.load_ms);
            if !lacking.is_empty() && !self.evict_idle(index, &lacking) {
                match self.fence_busy(index, &lacking, later_ms) {
                    Some(mut busy) => fenced.append(&mut busy),
                    None if self.could_wait(index, &order[..place]) => {}
                    None => {
                        // Nobody waits behind one that may never be served.
                        self.steps.push(Step::Short(index, lacking));
                        continue;
                    }
                }
            }
            ahead.push(index);
        }
        fenced
    }

    /// What the turns take of those ahead that cannot be loaded beside a tenant.
    fn turns_ahead_ms(&self, index: usize, before: &[usize]) -> u64 {
        let turns = self.turns();
        let others = before.iter().filter(|other| turns.exclude(**other, index));
        others.fold(0, |sum, other| sum.saturating_add(turns.turn_ms(*other)))
    }

    /// What a tenant lacks now, beside what those ahead of it wait for.
    fn lacking(&self, index: usize, ahead: &[usize]) -> Vec<Part> {
        let turns = self.turns();
        let rivals = ahead.iter().filter(|other| !turns.beside(index, **other));
        let ahead: Vec<&Part> = rivals.flat_map(|other| &self.tenants[*other].need).collect();
        let short = |part: &Part| {
            let theirs: u64 = ahead.iter().filter(|other| other.device == part.device).map(|other| other.bytes).sum();
            let there = self.ledger.available(part.device).unwrap_or(0);
            Part { device: part.device, bytes: part.bytes.saturating_add(theirs).saturating_sub(there) }
        };
        self.tenants[index].need.iter().map(short).filter(|part| part.bytes > 0).collect()
    }

    fn beyond_leaving(&self, lacking: Vec<Part>) -> Vec<Part> {
        let beyond = |part: Part| {
            let freed: u64 = self.leaving.iter().map(|tenant| self.ledger.freed_by(*tenant, part.device)).sum();
            let back = freed.saturating_add(self.ledger.coming(part.device, self.now_ms));
            Part { bytes: part.bytes.saturating_sub(back), ..part }
        };
        lacking.into_iter().map(beyond).filter(|part| part.bytes > 0).collect()
    }

    /// Has idle tenants evicted if that is enough.
    fn evict_idle(&mut self, index: usize, lacking: &[Part]) -> bool {
        let idle = |other: &usize| {
            let tenant = &self.tenants[*other];
            may_go(tenant)
                && tenant.running == 0
                && (tenant.is_idle() || tenant.fenced)
                && !self.turns().lingers(*other, index)
        };
        let Some(victims) = choose(lacking, &self.others(idle), self.tenants, self.ledger, self.now_ms) else {
            return false;
        };
        for tenant in victims {
            self.steps.push(Step::Evict { tenant, for_tenant: index });
            self.leaving.push(tenant);
        }
        true
    }

    /// Has tenants fenced that are busy, if it is time for that and enough; says which of them stay or become fenced.
    /// `None` when no tenant of ours could make room at all.
    fn fence_busy(&mut self, index: usize, lacking: &[Part], ahead_ms: u64) -> Option<Vec<usize>> {
        let all = self.others(|other| may_go(&self.tenants[*other]));
        choose(lacking, &all, self.tenants, self.ledger, self.now_ms)?;
        let ready =
            self.others(|other| may_go(&self.tenants[*other]) && self.turns().must_yield(*other, index, ahead_ms));
        let victims = choose(lacking, &ready, self.tenants, self.ledger, self.now_ms).unwrap_or_default();
        for &tenant in &victims {
            if self.tenants[tenant].running == 0 {
                self.steps.push(Step::Evict { tenant, for_tenant: index });
                self.leaving.push(tenant);
            } else if !self.tenants[tenant].fenced && !self.is_fenced_now(tenant) {
                self.steps.push(Step::Fence { tenant, for_tenant: index });
            }
        }
        Some(victims)
    }

    /// Whether this plan has a tenant fenced already.
    fn is_fenced_now(&self, tenant: usize) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Fence { tenant: fenced, .. } if *fenced == tenant))
    }

    /// Tenants that are not leaving and of which this holds.
    fn others(&self, holds: impl Fn(&usize) -> bool) -> Vec<usize> {
        (0..self.tenants.len()).filter(|other| !self.leaving.contains(other)).filter(holds).collect()
    }

    /// Whether something of ours is under way after which there may be room: others come or go, or come first.
    fn could_wait(&self, index: usize, before: &[usize]) -> bool {
        let asker = &self.tenants[index];
        if asker.need.iter().any(|part| self.ledger.may_come_back(part.device, self.now_ms)) {
            return true;
        }
        let under_way = |stage: Stage| matches!(stage, Stage::Loading { .. } | Stage::Leaving);
        self.tenants.iter().enumerate().any(|(other, tenant)| {
            let moves = under_way(tenant.stage) || self.leaving.contains(&other) || before.contains(&other);
            other != index && moves && asker.shares_with(tenant)
        })
    }

    /// By how much a tenant needs more than devices have when nobody but the reserve uses them.
    fn beyond_room(&self, index: usize) -> Vec<Part> {
        let beyond = |part: &Part| Part { bytes: part.bytes.saturating_sub(self.ledger.room(part.device)), ..*part };
        self.tenants[index].need.iter().map(beyond).filter(|part| part.bytes > 0).collect()
    }

    fn unfence(&mut self, still: &[usize]) {
        for (index, tenant) in self.tenants.iter().enumerate() {
            let serves = matches!(tenant.stage, Stage::Serving { .. });
            if tenant.fenced && serves && !still.contains(&index) && !self.leaving.contains(&index) {
                self.steps.push(Step::Unfence(index));
            }
        }
    }

    fn unload_idle(&mut self) {
        for (index, tenant) in self.tenants.iter().enumerate() {
            let idle_ms = self.now_ms.saturating_sub(tenant.last_used_ms);
            let is_over = tenant.idle_unload_ms.is_some_and(|limit_ms| idle_ms >= limit_ms);
            if is_over && may_go(tenant) && tenant.is_idle() && !self.leaving.contains(&index) {
                self.steps.push(Step::Unload(index));
            }
        }
    }
}
