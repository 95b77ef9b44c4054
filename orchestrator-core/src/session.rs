//! Sessions: how long they live, how much they may use, and which pool holds their prefix (ORCH-3021, ORCH-3099).
//!
//! What a task may use at most is reserved when it is admitted and settled with what it really used when it ends, so
//! tasks that run side by side cannot overspend a budget together: what is spent and reserved never exceeds it as long as
//! no task uses more than it reserved.

mod budget;
mod prefix;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};

use api_types::{ErrorKind, PolicyLabel, PoolId, ReplicaId, SessionId, TaskId};

use crate::Refusal;
use budget::{Account, Allowance, Amount};
pub use prefix::{Prefix, Tail};

/// What a session may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SessionLimits {
    /// How long a session lasts from its first task on, used or not, in milliseconds.
    pub ttl_ms: u64,
    /// Tasks it may submit.
    pub max_turns: u32,
    /// Sessions kept at the same time; beyond it the oldest is forgotten.
    pub max_sessions: usize,
    /// How long after its last first token a session still asks for the pool that streamed it, in milliseconds; `None`
    /// while it lasts.
    pub affinity_ttl_ms: Option<u64>,
    /// Tokens it may generate; `None` without limit.
    pub tokens_budget: Option<u64>,
    /// Time it may decode, in milliseconds; `None` without limit.
    pub time_budget_ms: Option<u64>,
    /// What it may cost, in the operator's own unit, to the billionth; `None` without limit.
    pub cost_budget: Option<f64>,
    /// What a thousand generated tokens cost, in the same unit, to the millionth; `None` is nothing.
    pub cost_per_1k_tokens: Option<f64>,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            ttl_ms: 600_000,
            max_turns: 8,
            max_sessions: 65_536,
            affinity_ttl_ms: None,
            tokens_budget: None,
            time_budget_ms: None,
            cost_budget: None,
            cost_per_1k_tokens: None,
        }
    }
}

/// What a task may use at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Tokens that it may generate; 0 for one that generates nothing, such as an embedding.
    pub max_tokens: u32,
    /// Time it is predicted to decode, in milliseconds; `None` when nobody can tell.
    pub decode_ms: Option<u64>,
}

/// A turn that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its number, from 1.
    pub turn_no: u32,
    /// Whether the session came to exist with it.
    pub created: bool,
    /// Time reserved for decoding, in milliseconds, after which the task needs [`Sessions::extend_time`]; `None` when
    /// decode time has no budget.
    pub decode_ms: Option<u64>,
}

/// What a task has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Tokens it generated.
    pub tokens_out: u32,
    /// Time it decoded, in milliseconds.
    pub decode_ms: u64,
}

/// What a task was charged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settled {
    /// The session that was charged.
    pub session_id: SessionId,
    /// What the task cost.
    pub cost: f64,
    /// What it used beyond its reservation. It is charged all the same, so budgets may be overspent by that much. Time
    /// counts only where it has a budget.
    pub overrun: Used,
    /// What the session has left.
    pub budgets: Budgets,
}

/// What a session has used and has left, reservations of running tasks taken off. `None` is no such budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budgets {
    /// Tokens that its settled tasks generated.
    pub tokens_used: u64,
    /// Tokens it may still generate.
    pub tokens_remaining: Option<u64>,
    /// Time it may still decode, in milliseconds.
    pub time_remaining_ms: Option<u64>,
    /// What it may still cost.
    pub cost_remaining: Option<f64>,
}

/// Where a session was served last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The pool.
    pub pool_id: PoolId,
    /// Its replica.
    pub replica_id: ReplicaId,
}

/// A session as a client may see it.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionView {
    /// Time until it ends, in milliseconds.
    pub ttl_ms_remaining: u64,
    /// Turns used.
    pub turns: u32,
    /// Tasks of it that wait or run.
    pub running: u32,
    /// Whether the pool below still holds its prefix, as far as we know (LO-SES-03).
    pub kv_warmth: bool,
    /// Where it was served last, unless that was too long ago.
    pub home: Option<Home>,
    /// What it has used and has left.
    pub budgets: Budgets,
}

/// All sessions. Sessions that have expired are dropped before anything else is looked at (LO-SES-01).
///
/// A session that is dropped or deleted while tasks of it run lets them run on; they are charged to nobody, also when a
/// new session has taken its id.
#[derive(Clone, Debug)]
pub struct Sessions {
    limits: SessionLimits,
    allowance: Allowance,
    sessions: HashMap<SessionId, Session>,
    /// When each session expires, soonest first; equal times in the order of ids, so that replays agree.
    expiries: BTreeSet<(u64, SessionId)>,
    /// What tasks have reserved, until they are settled or undone (LO-SES-06).
    reservations: HashMap<TaskId, Reservation>,
    /// Sessions that ever began.
    begun: u64,
}

#[derive(Clone, Debug)]
struct Session {
    /// Tells it from another session of the same id.
    serial: u64,
    expires_ms: u64,
    turns: u32,
    running: u32,
    account: Account,
    warmth: Option<Warmth>,
    /// The warmth that it had when its engine ended, which may have put away what it held.
    cooled: Option<Warmth>,
}

/// Where a session's prefix is.
#[derive(Clone, Debug)]
struct Warmth {
    home: Home,
    /// When it last streamed a first token.
    since_ms: u64,
    /// What the engine holds of it, once its task has ended and the engine has told.
    tail: Option<Tail>,
}

#[derive(Clone, Copy, Debug)]
struct Reservation {
    session_id: SessionId,
    serial: u64,
    amount: Amount,
}

impl Sessions {
    /// No sessions yet.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        Self {
            limits,
            allowance: Allowance::new(&limits),
            sessions: HashMap::new(),
            expiries: BTreeSet::new(),
            reservations: HashMap::new(),
            begun: 0,
        }
    }

    /// Grants a turn and reserves what the task may use: its tokens, their cost, and its decode time as predicted, or a
    /// first second of it when nobody can tell. A session lasts from its first turn on; further turns do not prolong it.
    ///
    /// # Errors
    /// `ADMISSION_REJECT` labelled `session-turns` when the turns are used up; the session is forgotten (LO-SES-02).
    /// `ADMISSION_REJECT` labelled `session-budget` when a budget does not cover the task, `CONFLICT` when the task has
    /// been admitted already; nothing has changed then.
    pub fn admit(&mut self, id: SessionId, task: TaskId, ask: Ask, now_ms: u64) -> Result<Turn, Refusal> {
        self.prune(now_ms);
        if self.reservations.contains_key(&task) {
            let message = format!("task {task} is queued or running already; choose a new task_id");
            return Err(Refusal::new(ErrorKind::Conflict, message));
        }
        let (turns, account) =
            self.sessions.get(&id).map_or((0, Account::default()), |session| (session.turns, session.account));
        if turns >= self.limits.max_turns {
            self.delete(id);
            return Err(self.turns_spent());
        }
        let amount = self.allowance.cover(&account, ask)?;
        let created = !self.sessions.contains_key(&id);
        let session = self.get_or_begin(id, now_ms);
        session.turns += 1;
        session.running += 1;
        session.account.reserve(amount);
        let (turn_no, serial) = (session.turns, session.serial);
        self.reservations.insert(task, Reservation { session_id: id, serial, amount });
        Ok(Turn { turn_no, created, decode_ms: self.limits.time_budget_ms.map(|_| amount.decode_ms) })
    }

    /// Takes an admission back whose task was refused after all: its turn and its reservation. A session without any turn
    /// left is forgotten.
    pub fn undo(&mut self, task: TaskId) {
        let Some((id, session, _)) = self.release(task) else {
            return;
        };
        session.turns -= 1;
        if session.turns == 0 {
            self.delete(id);
        }
    }

    /// Reserves more decode time for a task and says how much it got, in milliseconds: all of it or what is left. At 0
    /// the budget is used up and the task has to stop. Everything is granted where time has no budget or the session is
    /// gone.
    pub fn extend_time(&mut self, task: TaskId, more_ms: u64) -> u64 {
        let Some(reservation) = self.reservations.get_mut(&task) else {
            return more_ms;
        };
        let Some(session) = alive(&mut self.sessions, reservation) else {
            return more_ms;
        };
        let Some(left_ms) = self.allowance.budgets(&session.account).time_remaining_ms else {
            return more_ms;
        };
        let granted = Amount { tokens: 0, decode_ms: more_ms.min(left_ms) };
        session.account.reserve(granted);
        reservation.amount.decode_ms += granted.decode_ms;
        granted.decode_ms
    }

    /// Ends a task's reservation and charges what it used in full, also what it used beyond its reservation
    /// ([`Settled::overrun`]). Expired sessions are dropped first. `None` when the task has no reservation or its session
    /// is gone; the task is forgotten in any case.
    pub fn settle(&mut self, task: TaskId, used: Used, now_ms: u64) -> Option<Settled> {
        self.prune(now_ms);
        let (session_id, session, reserved) = self.release(task)?;
        let used_amount = Amount { tokens: u64::from(used.tokens_out), decode_ms: used.decode_ms };
        session.account.charge(used_amount);
        let account = session.account;
        Some(Settled {
            session_id,
            cost: self.allowance.cost(used_amount.tokens),
            overrun: self.allowance.overrun(used, reserved),
            budgets: self.allowance.budgets(&account),
        })
    }

    /// Notes that a replica has streamed a task's first token, so that its session's prefix is there. `false` when the
    /// session is gone.
    pub fn mark_warm(&mut self, task: TaskId, home: Home, now_ms: u64) -> bool {
        let session = self.reservations.get(&task).and_then(|reservation| alive(&mut self.sessions, reservation));
        let warmth = Warmth { home, since_ms: now_ms, tail: None };
        session.map(|session| (session.warmth, session.cooled) = (Some(warmth), None)).is_some()
    }

    /// Notes that the session's prefix is lost. `false` when there is no such session.
    pub fn mark_cold(&mut self, id: SessionId) -> bool {
        self.sessions.get_mut(&id).map(|session| (session.warmth, session.cooled) = (None, None)).is_some()
    }

    /// Notes that a worker was lost under the session. KV never moves between workers, so its prefix is lost, and its
    /// budgets begin anew; what running tasks have reserved stays reserved (ORCH-3023). `false` when there is no such
    /// session.
    pub fn fail_over(&mut self, id: SessionId) -> bool {
        let reset = |session: &mut Session| {
            (session.warmth, session.cooled) = (None, None);
            session.account.forgive();
        };
        self.sessions.get_mut(&id).map(reset).is_some()
    }

    /// A session, after expired ones were dropped.
    pub fn get(&mut self, id: SessionId, now_ms: u64) -> Option<SessionView> {
        let home = self.affinity(id, now_ms);
        self.sessions.get(&id).map(|session| SessionView {
            ttl_ms_remaining: session.expires_ms.saturating_sub(now_ms),
            turns: session.turns,
            running: session.running,
            kv_warmth: home.is_some(),
            home,
            budgets: self.allowance.budgets(&session.account),
        })
    }

    /// What a session has used and has left.
    #[must_use]
    pub fn budgets(&self, id: SessionId) -> Option<Budgets> {
        self.sessions.get(&id).map(|session| self.allowance.budgets(&session.account))
    }

    /// Where the session's next task had best go to, after expired sessions were dropped; forgotten when its
    /// last first token is too long ago (ORCH-3480).
    pub fn affinity(&mut self, id: SessionId, now_ms: u64) -> Option<Home> {
        self.prune(now_ms);
        let ttl_ms = self.affinity_ttl_ms();
        let session = self.sessions.get_mut(&id)?;
        session.warmth.take_if(|warmth| warmth.since_ms.saturating_add(ttl_ms) <= now_ms);
        session.warmth.as_ref().map(|warmth| warmth.home.clone())
    }

    /// Forgets a session. `false` when there was none, which is no error (ORCH-2005).
    pub fn delete(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.remove(&id) else {
            return false;
        };
        self.expiries.remove(&(session.expires_ms, id))
    }

    /// Drops every session that has expired and says how many.
    pub fn prune(&mut self, now_ms: u64) -> usize {
        let before = self.sessions.len();
        while let Some((_, id)) = self.expiries.first().copied().filter(|(expires_ms, _)| *expires_ms <= now_ms) {
            self.delete(id);
        }
        before - self.sessions.len()
    }

    /// Sessions kept, expired ones not yet dropped among them (LO-SES-05).
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    fn get_or_begin(&mut self, id: SessionId, now_ms: u64) -> &mut Session {
        let expires_ms = now_ms.saturating_add(self.limits.ttl_ms);
        if !self.sessions.contains_key(&id) {
            self.make_room();
            self.begun += 1;
            self.expiries.insert((expires_ms, id));
        }
        let serial = self.begun;
        let new = || Session {
            serial,
            expires_ms,
            turns: 0,
            running: 0,
            account: Account::default(),
            warmth: None,
            cooled: None,
        };
        self.sessions.entry(id).or_insert_with(new)
    }

    fn make_room(&mut self) {
        while self.sessions.len() >= self.limits.max_sessions.max(1) {
            let Some((_, id)) = self.expiries.first().copied() else {
                return;
            };
            self.delete(id);
        }
    }

    /// Ends a task's reservation; what it had reserved and its session, if that still lives.
    fn release(&mut self, task: TaskId) -> Option<(SessionId, &mut Session, Amount)> {
        let reservation = self.reservations.remove(&task)?;
        let session = alive(&mut self.sessions, &reservation)?;
        session.running -= 1;
        session.account.release(reservation.amount);
        Some((reservation.session_id, session, reservation.amount))
    }

    fn turns_spent(&self) -> Refusal {
        let message = format!(
            "the session has used its {} turns and was closed; start a new session_id to go on",
            self.limits.max_turns
        );
        Refusal::backpressure(ErrorKind::AdmissionReject, PolicyLabel::SessionTurns, 0, message).with_retriable(false)
    }
}

/// The session that a reservation was made in, and not another one of the same id.
fn alive<'sessions>(
    sessions: &'sessions mut HashMap<SessionId, Session>,
    reservation: &Reservation,
) -> Option<&'sessions mut Session> {
    sessions.get_mut(&reservation.session_id).filter(|session| session.serial == reservation.serial)
}
