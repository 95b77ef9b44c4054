//! Sessions: how long they live, how many turns they have, and which pool holds their prefix (ORCH-3021).

use std::collections::{BTreeSet, HashMap};

use api_types::{ErrorKind, PolicyLabel, PoolId, SessionId};

use crate::Refusal;

/// What a session may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// How long a session lasts from its first task on, used or not, in milliseconds.
    pub ttl_ms: u64,
    /// Tasks it may submit.
    pub max_turns: u32,
    /// Sessions kept at the same time; beyond it the oldest is forgotten.
    pub max_sessions: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { ttl_ms: 600_000, max_turns: 8, max_sessions: 65_536 }
    }
}

/// A turn that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its number, from 1.
    pub turn_no: u32,
    /// Whether the session came to exist with it.
    pub created: bool,
}

/// A session as a client may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Time until it ends, in milliseconds.
    pub ttl_ms_remaining: u64,
    /// Turns used.
    pub turns: u32,
    /// Whether the pool below still holds its prefix, as far as we know (LO-SES-03).
    pub kv_warmth: bool,
    /// The pool that served it last.
    pub affinity_pool: Option<PoolId>,
}

/// All sessions. Sessions that have expired are dropped before anything else is looked at (LO-SES-01).
#[derive(Clone, Debug)]
pub struct Sessions {
    limits: SessionLimits,
    sessions: HashMap<SessionId, Session>,
    /// When each session expires, soonest first; equal times in the order of ids, so that replays agree.
    expiries: BTreeSet<(u64, SessionId)>,
}

#[derive(Clone, Debug)]
struct Session {
    expires_ms: u64,
    turns: u32,
    kv_warmth: bool,
    affinity_pool: Option<PoolId>,
}

impl Sessions {
    /// No sessions yet.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        Self { limits, sessions: HashMap::new(), expiries: BTreeSet::new() }
    }

    /// Grants a turn. A session lasts from its first turn on; further turns do not prolong it.
    ///
    /// # Errors
    /// `ADMISSION_REJECT` labelled `session-turns` when the turns are used up; the session is forgotten (LO-SES-02).
    pub fn begin_turn(&mut self, id: SessionId, now_ms: u64) -> Result<Turn, Refusal> {
        self.prune(now_ms);
        let used = self.sessions.get(&id).map_or(0, |session| session.turns);
        if used >= self.limits.max_turns {
            self.delete(id);
            return Err(self.turns_spent());
        }
        let created = !self.sessions.contains_key(&id);
        if created {
            self.make_room();
            let expires_ms = now_ms.saturating_add(self.limits.ttl_ms);
            self.expiries.insert((expires_ms, id));
            self.sessions.insert(id, Session { expires_ms, turns: 0, kv_warmth: false, affinity_pool: None });
        }
        let turn_no = self.update(id, |session| {
            session.turns += 1;
            session.turns
        });
        Ok(Turn { turn_no: turn_no.unwrap_or(1), created })
    }

    /// Gives a turn back whose task was refused after all. A session that came to exist with it is forgotten.
    pub fn undo_turn(&mut self, id: SessionId, turn: Turn) {
        let left = self.update(id, |session| {
            session.turns = session.turns.saturating_sub(1);
            session.turns
        });
        if turn.created && left == Some(0) {
            self.delete(id);
        }
    }

    /// Notes that a pool has streamed the session's first token, so that its prefix is there. `false` when there is no
    /// such session.
    pub fn mark_warm(&mut self, id: SessionId, pool: &PoolId) -> bool {
        let note = |session: &mut Session| {
            session.kv_warmth = true;
            session.affinity_pool = Some(pool.clone());
        };
        self.update(id, note).is_some()
    }

    /// Notes that the session's prefix is lost; KV never moves between workers (ORCH-3023). `false` when there is no such
    /// session.
    pub fn mark_cold(&mut self, id: SessionId) -> bool {
        let note = |session: &mut Session| {
            session.kv_warmth = false;
            session.affinity_pool = None;
        };
        self.update(id, note).is_some()
    }

    /// A session, after expired ones were dropped.
    pub fn get(&mut self, id: SessionId, now_ms: u64) -> Option<SessionView> {
        self.prune(now_ms);
        self.sessions.get(&id).map(|session| SessionView {
            ttl_ms_remaining: session.expires_ms.saturating_sub(now_ms),
            turns: session.turns,
            kv_warmth: session.kv_warmth,
            affinity_pool: session.affinity_pool.clone(),
        })
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

    /// Sessions kept, expired ones not yet dropped among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    fn make_room(&mut self) {
        while self.sessions.len() >= self.limits.max_sessions.max(1) {
            let Some((_, id)) = self.expiries.first().copied() else {
                return;
            };
            self.delete(id);
        }
    }

    fn update<R>(&mut self, id: SessionId, change: impl FnOnce(&mut Session) -> R) -> Option<R> {
        self.sessions.get_mut(&id).map(change)
    }

    fn turns_spent(&self) -> Refusal {
        let message = format!(
            "the session has used its {} turns and was closed; start a new session_id to go on",
            self.limits.max_turns
        );
        Refusal::backpressure(ErrorKind::AdmissionReject, PolicyLabel::SessionTurns, 0, message).with_retriable(false)
    }
}

#[cfg(test)]
mod tests {
    use api_types::PoolId;
    use proptest::prelude::*;

    use super::{ErrorKind, PolicyLabel, SessionId, SessionLimits, Sessions, Turn};

    const LIMITS: SessionLimits = SessionLimits { ttl_ms: 1_000, max_turns: 3, max_sessions: 4 };

    fn id(number: u8) -> SessionId {
        format!("00000000-0000-4000-8000-0000000000{number:02x}").parse().expect("a UUID")
    }

    /// ORCH-3021: ten minutes and eight turns unless configured otherwise.
    #[test]
    fn defaults_are_those_of_the_contract() {
        let limits = SessionLimits::default();
        assert_eq!((limits.ttl_ms, limits.max_turns), (600_000, 8));
    }

    /// LO-SES-02, LO-ERR-08: the turn beyond the limit is refused for good, and the session is gone.
    #[test]
    fn going_past_the_turns_closes_the_session() {
        let mut sessions = Sessions::new(LIMITS);
        for turn_no in 1..=3 {
            let turn = sessions.begin_turn(id(1), 10).expect("a turn is left");
            assert_eq!(turn, Turn { turn_no, created: turn_no == 1 });
        }
        let refusal = sessions.begin_turn(id(1), 10).expect_err("none is left");
        assert_eq!(refusal.kind, ErrorKind::AdmissionReject);
        assert_eq!((refusal.policy_label, refusal.is_retriable()), (Some(PolicyLabel::SessionTurns), false));
        assert_eq!(sessions.get(id(1), 10), None);
        assert!(sessions.begin_turn(id(1), 10).expect("a new session").created);
    }

    /// ORCH-3021, LO-SES-01: a session lasts for its time, however often it is used, and is gone then, whoever looks.
    #[test]
    fn a_session_lasts_for_its_time() {
        let mut sessions = Sessions::new(LIMITS);
        sessions.begin_turn(id(1), 0).expect("a turn is left");
        sessions.begin_turn(id(2), 400).expect("a turn is left");
        sessions.begin_turn(id(1), 900).expect("a turn is left");
        assert_eq!(sessions.get(id(1), 900).map(|view| (view.ttl_ms_remaining, view.turns)), Some((100, 2)));
        assert_eq!(sessions.get(id(1), 1_000), None);
        assert_eq!((sessions.len(), sessions.get(id(2), 1_000).map(|view| view.ttl_ms_remaining)), (1, Some(400)));
        assert!(sessions.begin_turn(id(1), 1_000).expect("a new session").created);
        assert_eq!((sessions.prune(1_400), sessions.len()), (1, 1));
    }

    /// LO-SES-03, ORCH-3023: warm from the first token, cold after a failover.
    #[test]
    fn warmth_follows_the_first_token_and_the_loss() {
        let mut sessions = Sessions::new(LIMITS);
        let warmth = |sessions: &mut Sessions| {
            let view = sessions.get(id(1), 0).expect("it is alive");
            (view.kv_warmth, view.affinity_pool)
        };
        let pool = PoolId::from("a");
        assert!(!sessions.mark_warm(id(1), &pool));
        sessions.begin_turn(id(1), 0).expect("a turn is left");
        assert_eq!(warmth(&mut sessions), (false, None));
        assert!(sessions.mark_warm(id(1), &pool));
        assert_eq!(warmth(&mut sessions), (true, Some(pool)));
        assert!(sessions.mark_cold(id(1)));
        assert_eq!(warmth(&mut sessions), (false, None));
    }

    /// ORCH-2005: deleting what is not there is fine. A refused task costs no turn.
    #[test]
    fn turns_and_sessions_can_be_taken_back() {
        let mut sessions = Sessions::new(LIMITS);
        let first = sessions.begin_turn(id(1), 0).expect("a turn is left");
        let second = sessions.begin_turn(id(1), 0).expect("a turn is left");
        sessions.undo_turn(id(1), second);
        assert_eq!(sessions.get(id(1), 0).map(|view| view.turns), Some(1));
        sessions.undo_turn(id(1), first);
        assert!(sessions.is_empty());
        sessions.begin_turn(id(1), 0).expect("a turn is left");
        assert_eq!((sessions.delete(id(1)), sessions.delete(id(1))), (true, false));
    }

    proptest! {
        /// The number of sessions is bounded, none outlives its time, and turns stay within the limit.
        #[test]
        fn sessions_stay_within_their_limits(
            steps in prop::collection::vec((0_u8..8, 0_u64..400, prop::bool::ANY), 0..100),
        ) {
            let (mut sessions, mut now_ms) = (Sessions::new(LIMITS), 0);
            let mut last_used = std::collections::HashMap::new();
            for (number, passed, delete) in steps {
                now_ms += passed;
                if delete {
                    sessions.delete(id(number));
                } else if let Ok(turn) = sessions.begin_turn(id(number), now_ms) {
                    prop_assert!(turn.turn_no <= LIMITS.max_turns);
                    last_used.insert(number, now_ms);
                }
                prop_assert!(sessions.len() <= LIMITS.max_sessions);
                prop_assert_eq!(sessions.sessions.len(), sessions.expiries.len());
                for number in 0..8 {
                    let alive = sessions.get(id(number), now_ms).is_some();
                    let used = last_used.get(&number).copied();
                    prop_assert!(!alive || used.is_some_and(|used| now_ms < used + LIMITS.ttl_ms));
                }
            }
        }
    }
}
