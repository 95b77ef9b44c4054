//! What engines hold of sessions, and what becomes of it when an engine is unloaded (LO-SWP-07).
//!
//! An engine that ends forgets everything: its sessions cool. One that has put a prefix away before, and has taken it up again in
//! its next life, warms the session that it belongs to, unless that has gone on elsewhere meanwhile.

use api_types::{PoolId, SessionId, TaskId};

use super::{Home, Sessions, Warmth, alive};

/// What an engine was left with when a session's last task had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The slot that the task ran in, when the engine has told.
    pub slot: Option<u32>,
    /// Tokens that it read and wrote, by the engine's count.
    pub tokens: u64,
}

/// A prefix that an engine holds, or held when it ended. It names one state of one session: after another turn it is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The session.
    pub session_id: SessionId,
    /// Tells it from another session of the same id.
    serial: u64,
    /// Where it was served.
    pub home: Home,
    /// When it last streamed a first token there, in milliseconds.
    pub since_ms: u64,
    /// What the engine holds of it, if that is known.
    pub tail: Option<Tail>,
}

impl Sessions {
    /// Notes what the engine holds when a task has ended as meant. `false` when the session is gone or has moved on.
    pub fn hold(&mut self, task: TaskId, tail: Tail) -> bool {
        let session = self.reservations.get(&task).and_then(|reservation| alive(&mut self.sessions, reservation));
        let warmth = session.and_then(|session| session.warmth.as_mut());
        warmth.map(|warmth| warmth.tail = Some(tail)).is_some()
    }

    /// The prefixes that a pool holds, the latest first, after expired sessions were dropped.
    pub fn warm_on(&mut self, pool: &PoolId, now_ms: u64) -> Vec<Prefix> {
        self.prune(now_ms);
        let ttl_ms = self.affinity_ttl_ms();
        let warm = self.sessions.iter().filter_map(|(id, session)| {
            let warmth = session.warmth.as_ref().filter(|warmth| &warmth.home.pool_id == pool)?;
            let Warmth { home, since_ms, tail } = warmth.clone();
            let lasts = since_ms.saturating_add(ttl_ms) > now_ms;
            lasts.then_some(Prefix { session_id: *id, serial: session.serial, home, since_ms, tail })
        });
        let mut warm: Vec<_> = warm.collect();
        warm.sort_by_key(|prefix| (std::cmp::Reverse(prefix.since_ms), prefix.session_id));
        warm
    }

    /// Notes that a pool's engine has ended, and with it every prefix that it held; says of how many sessions.
    pub fn cool(&mut self, pool: &PoolId) -> usize {
        let mut cooled = 0;
        for session in self.sessions.values_mut() {
            if let Some(warmth) = session.warmth.take_if(|warmth| &warmth.home.pool_id == pool) {
                session.cooled = Some(warmth);
                cooled += 1;
            }
        }
        cooled
    }

    /// Whether a prefix is still its session's latest, so that an engine had better keep it, after expired sessions were dropped.
    pub fn is_wanted(&mut self, prefix: &Prefix, now_ms: u64) -> bool {
        self.prune(now_ms);
        let lasts = prefix.since_ms.saturating_add(self.affinity_ttl_ms()) > now_ms;
        let session = self.sessions.get(&prefix.session_id).filter(|session| session.serial == prefix.serial);
        let latest = session.and_then(|session| session.warmth.as_ref().or(session.cooled.as_ref()));
        lasts && latest.is_some_and(|latest| latest.home == prefix.home && latest.since_ms == prefix.since_ms)
    }

    /// Notes that an engine holds a prefix again. `false` when it is not its session's latest any more, and nothing is changed.
    pub fn rewarm(&mut self, prefix: &Prefix, now_ms: u64) -> bool {
        if !self.is_wanted(prefix, now_ms) {
            return false;
        }
        let Some(session) = self.sessions.get_mut(&prefix.session_id) else { return false };
        session.warmth = session.warmth.take().or(session.cooled.take());
        true
    }

    pub(super) fn affinity_ttl_ms(&self) -> u64 {
        self.limits.affinity_ttl_ms.unwrap_or(self.limits.ttl_ms)
    }
}
