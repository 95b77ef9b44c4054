//! Trying again, for calls that may be repeated (ADAPT-3005).
//!
//! Full jitter: each wait is drawn evenly from zero to the current ceiling, so that clients that failed together do not
//! come back together. Token streams never pass through here once a token has been seen.

use std::time::Duration;

/// How often and how long apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first one.
    pub retries: u32,
    /// Ceiling of the first wait; doubled each time.
    pub base: Duration,
    /// Ceiling of every wait.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { retries: 3, base: Duration::from_millis(100), cap: Duration::from_secs(2) }
    }
}

impl RetryPolicy {
    /// Longest wait before retry number `retry`, counted from 0.
    #[must_use]
    pub fn ceiling(&self, retry: u32) -> Duration {
        self.base.saturating_mul(2_u32.saturating_pow(retry)).min(self.cap)
    }
}

/// Whether repeating a call changes nothing but time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// It may be sent again.
    Idempotent,
    /// It is sent once.
    Once,
}

/// Calls `attempt` until it succeeds, fails for good, or the policy is used up; waits on tokio's clock in between.
///
/// # Errors
/// The last attempt's error.
pub async fn with_retries<T, E, F: Future<Output = Result<T, E>>>(
    policy: &RetryPolicy,
    idempotency: Idempotency,
    is_transient: impl Fn(&E) -> bool,
    attempt: impl FnMut() -> F,
) -> Result<T, E> {
    with_jitter(policy, idempotency, is_transient, rand::random::<f64>, attempt).await
}

/// [`with_retries`] with randomness given: `random` returns values from 0 to 1.
///
/// # Errors
/// The last attempt's error.
pub async fn with_jitter<T, E, F: Future<Output = Result<T, E>>>(
    policy: &RetryPolicy,
    idempotency: Idempotency,
    is_transient: impl Fn(&E) -> bool,
    mut random: impl FnMut() -> f64,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E> {
    let mut retry = 0;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if idempotency == Idempotency::Once || retry >= policy.retries || !is_transient(&error) {
            return Err(error);
        }
        let wait = policy.ceiling(retry).mul_f64(random().clamp(0.0, 1.0));
        retry += 1;
        tracing::debug!(retry, wait_ms = wait.as_secs_f64() * 1000.0, "engine call failed, trying again");
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::*;

    /// Calls made, time waited, and the outcome of a call that fails `failures` times.
    async fn run(
        policy: RetryPolicy,
        idempotency: Idempotency,
        failures: u32,
        random: f64,
    ) -> (u32, Duration, Result<u32, &'static str>) {
        let calls = Cell::new(0);
        let begun = Instant::now();
        let attempt = || {
            calls.set(calls.get() + 1);
            let call = calls.get();
            async move { if call > failures { Ok(call) } else { Err("transient") } }
        };
        let outcome = with_jitter(&policy, idempotency, |_| true, || random, attempt).await;
        (calls.get(), begun.elapsed(), outcome)
    }

    /// ADAPT-3005, ORCH-3611: doubling, the cap, the number of attempts, jitter from nothing to the ceiling.
    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_the_cap() {
        use Idempotency::Idempotent;
        let policy = RetryPolicy::default();
        let ms = Duration::from_millis;
        let wide = RetryPolicy { retries: 7, ..policy };
        for (policy, failures, random, calls, waited, ok) in [
            (policy, 0, 1.0, 1, 0, true),
            (policy, 2, 1.0, 3, 100 + 200, true),
            (policy, 2, 0.5, 3, 50 + 100, true),
            (policy, 2, 0.0, 3, 0, true),
            (policy, 9, 1.0, 4, 100 + 200 + 400, false),
            (wide, 7, 1.0, 8, 100 + 200 + 400 + 800 + 1600 + 2000 + 2000, true),
        ] {
            let (made, took, outcome) = run(policy, Idempotent, failures, random).await;
            assert_eq!((made, outcome.is_ok()), (calls, ok));
            // Tokio's timer rounds each wait up to a millisecond.
            assert!(took >= ms(waited) && took <= ms(waited + 8), "{took:?} for {waited} ms");
        }
    }

    /// ADAPT-3005: only idempotent calls, and only errors that may pass.
    #[tokio::test(start_paused = true)]
    async fn what_is_never_retried() {
        assert_eq!(run(RetryPolicy::default(), Idempotency::Once, 1, 1.0).await.0, 1);
        let calls = Cell::new(0);
        let attempt = || {
            calls.set(calls.get() + 1);
            async { Err::<(), _>("for good") }
        };
        let outcome = with_retries(&RetryPolicy::default(), Idempotency::Idempotent, |_| false, attempt).await;
        assert_eq!((outcome, calls.get()), (Err("for good"), 1));
    }
}
