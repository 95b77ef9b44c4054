//! The limits on a running task.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::clock::after;

/// Decode time that is added to a reservation when it is used up, in milliseconds.
pub(super) const MORE_DECODE_MS: u64 = 1_000;

/// An idle limit beyond this is none; sums with it stay within what the system's clock can tell.
const LONGEST_IDLE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    Deadline,
    Wall,
    Idle,
    Budget,
}

/// All limits behind one timer that is set anew only when it goes off: a token costs it one store and one comparison.
pub(super) struct Watch {
    timer: Pin<Box<Sleep>>,
    /// The deadline or the wall limit, whichever comes first.
    end: (Instant, Late),
    /// When the decode time reserved for the task is used up; `None` without a time budget or before the first token.
    budget: Option<Instant>,
    idle: Duration,
    last_sign: Instant,
}

impl Watch {
    /// The limits of a task that is given to an engine now.
    pub(super) fn new(deadline: Instant, wall: Duration, idle: Duration) -> Self {
        let now = Instant::now();
        let wall = Instant::from_std(after(now.into_std(), wall));
        let end = if deadline <= wall { (deadline, Late::Deadline) } else { (wall, Late::Wall) };
        let idle = idle.min(LONGEST_IDLE);
        let timer = Box::pin(sleep_until(end.0.min(now + idle)));
        Self { timer, end, budget: None, idle, last_sign: now }
    }

    /// The engine gave a sign of life. Tells which limit has been reached all the same: an engine that always has more to read
    /// leaves the timer no turn.
    pub(super) fn touch(&mut self, now: Instant) -> Option<Late> {
        self.last_sign = now;
        let (at, late) = self.firm();
        (at <= now).then_some(late)
    }

    /// The task may decode for so long from now on. This can be sooner than the timer is set to.
    pub(super) fn limit_decoding(&mut self, time: Duration) {
        self.budget = Some(Instant::from_std(after(Instant::now().into_std(), time)));
        self.set_timer();
    }

    /// The task may decode for so much longer.
    pub(super) fn allow(&mut self, more: Duration) {
        self.budget = self.budget.map(|at| at + more);
        self.set_timer();
    }

    /// Waits for the first limit to be reached.
    pub(super) async fn expired(&mut self) -> Late {
        loop {
            self.timer.as_mut().await;
            let (at, late) = self.next();
            if at <= Instant::now() {
                return late;
            }
            self.timer.as_mut().reset(at);
        }
    }

    fn set_timer(&mut self) {
        let (at, _) = self.next();
        self.timer.as_mut().reset(at);
    }

    /// The first of the limits that no sign of life moves.
    fn firm(&self) -> (Instant, Late) {
        match self.budget {
            Some(at) if at < self.end.0 => (at, Late::Budget),
            _ => self.end,
        }
    }

    fn next(&self) -> (Instant, Late) {
        let (firm, silence) = (self.firm(), self.last_sign + self.idle);
        if silence < firm.0 { (silence, Late::Idle) } else { firm }
    }
}
