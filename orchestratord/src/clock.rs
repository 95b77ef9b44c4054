//! Time, read in one place: monotonic for waiting and measuring, wall time for records.

use crate::wire::long;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The daemon's clock. Core code gets its values, never the clock itself.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    started_unix_ms: i64,
}

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { started: Instant::now(), started_unix_ms: long(unix.as_millis()) }
    }

    /// Milliseconds since the daemon started; never goes back.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// An instant in milliseconds since the daemon started; 0 for one before.
    pub fn ms_of(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// A monotonic value as milliseconds since the Unix epoch. It follows the wall clock as it stood at start, so that the
    /// times of one task always add up even when the wall clock is set.
    pub fn unix_ms(&self, monotonic_ms: u64) -> i64 {
        self.started_unix_ms.saturating_add_unsigned(monotonic_ms)
    }

    /// A monotonic value as a tokio instant, for timers. What lies too far ahead for the system's clock is decades away.
    pub fn instant(&self, monotonic_ms: u64) -> tokio::time::Instant {
        tokio::time::Instant::from_std(after(self.started, Duration::from_millis(monotonic_ms)))
    }
}

/// `start + time`, or decades later where that cannot be told: a client may ask for any deadline and an operator for any limit.
pub fn after(start: Instant, time: Duration) -> Instant {
    const DECADES: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    start.checked_add(time).unwrap_or_else(|| start + DECADES)
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[test]
    fn no_deadline_is_too_far_away() {
        let clock = Clock::start();
        assert!(clock.instant(u64::MAX) > clock.instant(1_000_000));
    }
}
