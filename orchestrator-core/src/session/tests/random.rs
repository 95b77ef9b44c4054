//! Sessions against a simple model in which a session owns its tasks, whatever happens in whatever order.

use std::collections::{BTreeMap, BTreeSet};

use api_types::{ErrorKind, PolicyLabel};
use proptest::prelude::*;

use super::{LIMITS, Refusal, SessionLimits, Sessions, Turn, Used, ask, home, id, task};
use crate::session::budget::Amount;
use crate::session::{Account, SessionView, Settled};

const SESSIONS: u8 = 4;
const TASKS: u8 = 10;
const POOLS: [&str; 2] = ["a", "b"];

#[derive(Clone, Copy, Debug)]
enum Step {
    Admit {
        session: u8,
        task: u8,
        max_tokens: u32,
        decode_ms: Option<u64>,
    },
    Undo(u8),
    Extend(u8, u64),
    /// Percent of what was reserved, of tokens and of time.
    Settle(u8, u64, u64),
    Warm(u8, usize),
    Cold(u8),
    FailOver(u8),
    Delete(u8),
    Pass(u64),
}

/// Ids repeat, so that tasks are admitted twice and settled never, and sessions end under their tasks. A task uses at
/// most `most_percent` of what it reserved.
fn steps(most_percent: u64) -> impl Strategy<Value = Vec<Step>> {
    let decode_ms = prop::option::weighted(0.6, 0_u64..1_200);
    let step = prop_oneof![
        8 => (0..SESSIONS, 0..TASKS, 0_u32..60, decode_ms)
            .prop_map(|(session, task, max_tokens, decode_ms)| Step::Admit { session, task, max_tokens, decode_ms }),
        2 => (0..TASKS).prop_map(Step::Undo),
        4 => (0..TASKS, 0_u64..1_500).prop_map(|(task, more_ms)| Step::Extend(task, more_ms)),
        6 => (0..TASKS, 0..=most_percent, 0..=most_percent)
            .prop_map(|(task, tokens, time)| Step::Settle(task, tokens, time)),
        2 => (0..TASKS, 0..POOLS.len()).prop_map(|(task, pool)| Step::Warm(task, pool)),
        1 => (0..SESSIONS).prop_map(Step::Cold),
        1 => (0..SESSIONS).prop_map(Step::FailOver),
        1 => (0..SESSIONS).prop_map(Step::Delete),
        3 => (0_u64..300).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 60..140)
}

fn limits() -> impl Strategy<Value = SessionLimits> {
    let tokens = prop::option::weighted(0.7, 0_u64..200);
    let time = prop::option::weighted(0.7, 0_u64..4_000);
    // Rates that no binary fraction is equal to; budgets that pay for so many tokens exactly, or are a billionth off.
    let rate = prop::option::weighted(0.8, prop::sample::select(&[0.1, 1.001, 7.000_001, 1_000.0 / 3.0, 1e-6][..]));
    let cost = prop::option::weighted(0.7, (1_u32..150, -1_i32..=1));
    let affinity = prop::option::of(0_u64..400);
    (tokens, time, cost, rate, affinity, 2_u32..8).prop_map(|(tokens, time, cost, rate, affinity, max_turns)| {
        let cost = cost
            .map(|(tokens, off)| f64::from(tokens) * rate.unwrap_or(1.0) / 1_000.0 + f64::from(off) / 1_000_000_000.0);
        SessionLimits {
            max_turns,
            max_sessions: 3,
            affinity_ttl_ms: affinity,
            tokens_budget: tokens,
            time_budget_ms: time,
            cost_budget: cost,
            cost_per_1k_tokens: rate,
            ..LIMITS
        }
    })
}

/// What a session is, told naively: everything is added up anew whenever it is asked for.
#[derive(Default)]
struct Known {
    expires_ms: u64,
    turns: u32,
    /// Tokens and time of each running task.
    reserved: BTreeMap<u8, (u64, u64)>,
    /// Tokens and time of each settled task.
    spent: Vec<(u64, u64)>,
    warm: Option<(usize, u64)>,
}

impl Known {
    fn sums(&self) -> (u64, u64) {
        let all = self.reserved.values().chain(&self.spent);
        all.fold((0, 0), |(tokens, ms), (more_tokens, more_ms)| (tokens + more_tokens, ms + more_ms))
    }
}

/// What sessions answered.
#[derive(Debug, PartialEq)]
enum Said {
    Admitted(Result<Turn, Refusal>),
    Settled(Option<Settled>),
    Shown(Option<SessionView>),
}

struct World {
    limits: SessionLimits,
    sessions: Sessions,
    known: BTreeMap<u8, Known>,
    /// Tasks that run on without their session.
    orphans: BTreeSet<u8>,
    now_ms: u64,
    said: Vec<Said>,
}

impl World {
    fn new(limits: SessionLimits) -> Self {
        Self {
            limits,
            sessions: Sessions::new(limits),
            known: BTreeMap::new(),
            orphans: BTreeSet::new(),
            now_ms: 0,
            said: Vec::new(),
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Admit { session, task, max_tokens, decode_ms } => self.admit(session, task, max_tokens, decode_ms),
            Step::Undo(number) => self.undo(number),
            Step::Extend(number, more_ms) => self.extend(number, more_ms),
            Step::Settle(number, tokens, time) => self.settle(number, tokens, time),
            Step::Warm(number, pool) => self.warm(number, pool),
            Step::Cold(session) => {
                let known = self.known.get_mut(&session).map(|known| known.warm = None);
                assert_eq!(self.sessions.mark_cold(id(session)), known.is_some());
            }
            Step::FailOver(session) => {
                let reset = |known: &mut Known| {
                    known.warm = None;
                    known.spent.clear();
                };
                let known = self.known.get_mut(&session).map(reset);
                assert_eq!(self.sessions.fail_over(id(session)), known.is_some());
            }
            Step::Delete(session) => assert_eq!(self.sessions.delete(id(session)), self.forget(session)),
            Step::Pass(ms) => self.now_ms += ms,
        }
    }

    fn admit(&mut self, session: u8, number: u8, max_tokens: u32, decode_ms: Option<u64>) {
        let answer = self.sessions.admit(id(session), task(number), ask(max_tokens, decode_ms), self.now_ms);
        self.said.push(Said::Admitted(answer.clone()));
        self.expire();
        let running = self.orphans.contains(&number) || self.owner(number).is_some();
        let turns = self.known.get(&session).map_or(0, |known| known.turns);
        let needed = self.needed(session, u64::from(max_tokens), decode_ms);
        if running {
            assert_eq!(answer.map_err(|refusal| refusal.kind), Err(ErrorKind::Conflict));
        } else if turns >= self.limits.max_turns {
            assert_eq!(label(&answer.expect_err("no turn is left")), PolicyLabel::SessionTurns);
            self.forget(session);
        } else if let Some(needed) = needed {
            let turn = answer.expect("the budgets cover it");
            assert_eq!((turn.turn_no, turn.created), (turns + 1, turns == 0));
            assert_eq!(turn.decode_ms, self.limits.time_budget_ms.map(|_| needed.1));
            self.begin(session);
            let known = self.known.get_mut(&session).expect("it has begun");
            known.turns += 1;
            known.reserved.insert(number, needed);
        } else {
            assert_eq!(label(&answer.expect_err("the budgets do not cover it")), PolicyLabel::SessionBudget);
        }
    }

    /// Tokens and time to reserve; `None` when a budget does not cover them.
    fn needed(&self, session: u8, tokens: u64, decode_ms: Option<u64>) -> Option<(u64, u64)> {
        let (taken, taken_ms) = self.known.get(&session).map_or((0, 0), Known::sums);
        // Whoever wants nothing fits, however much was overspent.
        let fits = tokens == 0
            || self.limits.tokens_budget.is_none_or(|budget| taken + tokens <= budget)
                && self.cost_budget().is_none_or(|budget| (taken + tokens) * self.rate() <= budget);
        let Some(budget_ms) = self.limits.time_budget_ms else {
            return fits.then_some((tokens, 0));
        };
        let left_ms = budget_ms.saturating_sub(taken_ms);
        let needed_ms = match decode_ms {
            Some(ms) => ms,
            None if tokens == 0 => 0,
            None => left_ms.clamp(1, 1_000),
        };
        (fits && needed_ms <= left_ms).then_some((tokens, needed_ms))
    }

    fn undo(&mut self, number: u8) {
        self.sessions.undo(task(number));
        self.orphans.remove(&number);
        if let Some(session) = self.owner(number) {
            let known = self.known.get_mut(&session).expect("it owns the task");
            known.reserved.remove(&number);
            known.turns -= 1;
            if known.turns == 0 {
                self.known.remove(&session);
            }
        }
    }

    fn extend(&mut self, number: u8, more_ms: u64) {
        let granted = self.sessions.extend_time(task(number), more_ms);
        let Some((session, budget_ms)) = self.owner(number).zip(self.limits.time_budget_ms) else {
            assert_eq!(granted, more_ms);
            return;
        };
        let known = self.known.get_mut(&session).expect("it owns the task");
        assert_eq!(granted, more_ms.min(budget_ms.saturating_sub(known.sums().1)));
        known.reserved.entry(number).and_modify(|(_, ms)| *ms += granted);
    }

    fn settle(&mut self, number: u8, tokens_percent: u64, time_percent: u64) {
        let owner = self.owner(number);
        let reserved = owner.map_or((50, 500), |session| self.known[&session].reserved[&number]);
        let used = (reserved.0 * tokens_percent / 100, reserved.1 * time_percent / 100);
        let charge = Used { tokens_out: u32::try_from(used.0).expect("it is small"), decode_ms: used.1 };
        let settled = self.sessions.settle(task(number), charge, self.now_ms);
        self.said.push(Said::Settled(settled));
        self.expire();
        self.orphans.remove(&number);
        let Some(session) = self.owner(number) else {
            assert_eq!(settled, None);
            return;
        };
        let known = self.known.get_mut(&session).expect("it owns the task");
        known.reserved.remove(&number);
        known.spent.push(used);
        let settled = settled.expect("its session lives");
        assert_eq!(settled.session_id, id(session));
        assert_eq!((settled.cost * 1e9).round() as u64, used.0 * self.rate());
        let overrun_ms = self.limits.time_budget_ms.map_or(0, |_| used.1.saturating_sub(reserved.1));
        let overrun = (u64::from(settled.overrun.tokens_out), settled.overrun.decode_ms);
        assert_eq!(overrun, (used.0.saturating_sub(reserved.0), overrun_ms));
        assert_eq!(Some(settled.budgets), self.sessions.budgets(id(session)));
    }

    fn warm(&mut self, number: u8, pool: usize) {
        let owner = self.owner(number);
        let marked = self.sessions.mark_warm(task(number), home(POOLS[pool]), self.now_ms);
        assert_eq!(marked, owner.is_some());
        if let Some(known) = owner.and_then(|session| self.known.get_mut(&session)) {
            known.warm = Some((pool, self.now_ms));
        }
    }

    fn begin(&mut self, session: u8) {
        if self.known.contains_key(&session) {
            return;
        }
        if self.known.len() >= self.limits.max_sessions {
            let oldest = self.known.iter().map(|(number, known)| (known.expires_ms, *number)).min();
            self.forget(oldest.expect("there is one").1);
        }
        let expires_ms = self.now_ms + self.limits.ttl_ms;
        self.known.insert(session, Known { expires_ms, ..Known::default() });
    }

    fn forget(&mut self, session: u8) -> bool {
        let forgotten = self.known.remove(&session);
        let was_there = forgotten.is_some();
        self.orphans.extend(forgotten.into_iter().flat_map(|known| known.reserved.into_keys()));
        was_there
    }

    fn expire(&mut self) {
        let gone: Vec<u8> = (0..SESSIONS)
            .filter(|session| self.known.get(session).is_some_and(|known| known.expires_ms <= self.now_ms))
            .collect();
        for session in gone {
            self.forget(session);
        }
    }

    fn owner(&self, number: u8) -> Option<u8> {
        self.known.iter().find(|(_, known)| known.reserved.contains_key(&number)).map(|(session, _)| *session)
    }

    /// Billionths per token.
    fn rate(&self) -> u64 {
        self.limits.cost_per_1k_tokens.map_or(0, |rate| (rate * 1e6).round() as u64)
    }

    /// In billionths.
    fn cost_budget(&self) -> Option<u64> {
        self.limits.cost_budget.map(|cost| (cost * 1e9).round() as u64)
    }

    /// Every session is as the model has it, and every reservation belongs to a task that has not ended.
    fn check(&mut self) {
        self.sessions.prune(self.now_ms);
        self.expire();
        assert_eq!(self.sessions.len(), self.known.len());
        let held: usize = self.known.values().map(|known| known.reserved.len()).sum();
        assert_eq!(self.sessions.reservations.len(), held + self.orphans.len());
        for session in 0..SESSIONS {
            let view = self.sessions.get(id(session), self.now_ms);
            self.said.push(Said::Shown(view.clone()));
            let Some(known) = self.known.get(&session) else {
                assert_eq!(view, None);
                continue;
            };
            let view = view.expect("it is alive");
            let seen = (view.ttl_ms_remaining, view.turns, view.running as usize);
            assert_eq!(seen, (known.expires_ms - self.now_ms, known.turns, known.reserved.len()));
            let fresh = self.limits.affinity_ttl_ms.unwrap_or(self.limits.ttl_ms);
            let warm = known.warm.filter(|(_, since_ms)| self.now_ms < since_ms + fresh).map(|(pool, _)| POOLS[pool]);
            assert_eq!((view.kv_warmth, view.home), (warm.is_some(), warm.map(home)));
            let (tokens, ms) = known.sums();
            let left = view.budgets;
            assert_eq!(left.tokens_used, known.spent.iter().map(|(tokens, _)| tokens).sum::<u64>());
            assert_eq!(left.tokens_remaining, self.limits.tokens_budget.map(|budget| budget.saturating_sub(tokens)));
            assert_eq!(left.time_remaining_ms, self.limits.time_budget_ms.map(|budget| budget.saturating_sub(ms)));
            let cost = self.cost_budget().map(|budget| budget.saturating_sub(tokens * self.rate()));
            assert_eq!(left.cost_remaining.map(|cost| (cost * 1e9).round() as u64), cost);
        }
    }

    /// What is spent and reserved is within every budget, by the sessions' own books.
    fn check_never_overspent(&self) {
        for session in self.sessions.sessions.values() {
            let [spent, reserved] = [session.account.spent, session.account.reserved];
            let tokens = spent.tokens + reserved.tokens;
            assert!(self.limits.tokens_budget.is_none_or(|budget| tokens <= budget));
            assert!(self.limits.time_budget_ms.is_none_or(|budget| spent.decode_ms + reserved.decode_ms <= budget));
            assert!(self.cost_budget().is_none_or(|budget| tokens * self.rate() <= budget));
        }
    }

    /// Ends every task; nothing stays reserved.
    fn wind_up(&mut self) {
        for number in 0..TASKS {
            self.settle(number, 100, 100);
        }
        assert!(self.sessions.reservations.is_empty());
        let idle = |account: &Account| account.reserved == Amount::default();
        assert!(self.sessions.sessions.values().all(|session| session.running == 0 && idle(&session.account)));
        self.check();
    }
}

fn label(refusal: &Refusal) -> PolicyLabel {
    assert_eq!((refusal.kind, refusal.is_retriable()), (ErrorKind::AdmissionReject, false));
    refusal.policy_label.expect("it has one")
}

proptest! {
    // At least 256 × 60 steps.
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// ORCH-3099, OC-CORE-1023, LO-SES-04, LO-SES-06: budgets are never overspent under any interleaving, what is left
    /// is what the model says, and no reservation survives its task.
    #[test]
    fn budgets_are_never_overspent(limits in limits(), steps in steps(100)) {
        let mut world = World::new(limits);
        for step in steps {
            world.run(step);
            world.check();
            world.check_never_overspent();
        }
        world.wind_up();
        world.check_never_overspent();
    }

    /// LO-SES-04: tasks that use more than they reserved are charged all of it, and what was reserved by others stands.
    #[test]
    fn overruns_are_accounted_for(limits in limits(), steps in steps(300)) {
        let mut world = World::new(limits);
        for step in steps {
            world.run(step);
            world.check();
        }
        world.wind_up();
    }

    /// ORCH-3252: the same story told twice gives the same answers.
    #[test]
    fn equal_stories_have_equal_answers(limits in limits(), steps in steps(150)) {
        let tell = || {
            let mut world = World::new(limits);
            for step in &steps {
                world.run(*step);
                world.check();
            }
            world.said
        };
        prop_assert_eq!(tell(), tell());
    }
}
