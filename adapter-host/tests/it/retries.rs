//! Submissions that fail for a passing reason (ORCH-3602, ADAPT-3005).

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use adapter_api::WorkerError;
use adapter_host::HostError;
use mock::{Config, FaultKind, Faults};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Seen, Spy, calls, host, job, pool, replica, submit};

fn refusing(times: u32, status: u16) -> Config {
    Config { faults: Faults::next(times, FaultKind::Refuse { status, body: None }), ..Config::default() }
}

/// ORCH-3602, LO-HOST-02: three repetitions, for a lack of room as for an engine that is not there.
#[tokio::test(start_paused = true)]
async fn a_passing_failure_is_not_seen() {
    for (status, times, taken) in [(503, 2, true), (429, 3, true), (503, 4, false)] {
        let spy = Spy::new(refusing(times, status));
        let host = host(&spy);
        let begun = Instant::now();
        let submitted = submit(&host, &job(3)).await;
        assert_eq!(submitted.is_ok(), taken, "{times} times {status}");
        // Doubling from 100 ms, jittered downwards.
        assert!(begun.elapsed() <= Duration::from_millis(100 + 200 + 400 + 10));
        assert_eq!(calls(&host).retries, u64::from(times.min(3)));
        if let Ok(mut stream) = submitted {
            let mut seen = Seen::default();
            seen.rest(&mut stream).await.expect("an end");
            assert_eq!(seen.tokens, 3);
        }
    }
}

/// ADAPT-3005: what cannot pass is not repeated, and a stream never.
#[tokio::test(start_paused = true)]
async fn nothing_else_is_repeated() {
    let hang = FaultKind::Hang;
    let refuse = |status| FaultKind::Refuse { status, body: None };
    let resets = [0, 2].map(|after_tokens| FaultKind::Reset { after_tokens });
    for fault in [refuse(400), refuse(500), hang].into_iter().chain(resets) {
        let spy = Spy::new(Config { faults: Faults::next(1, fault.clone()), ..Config::default() });
        let host = host(&spy);
        let end = match submit(&host, &job(3)).await {
            Ok(mut stream) => Seen::default().rest(&mut stream).await,
            Err(error) => Err(error),
        };
        assert!(end.is_err(), "{fault:?}");
        assert_eq!((spy.sim().stats().requests, calls(&host).retries), (1, 0), "{fault:?}");
    }
}

/// ORCH-3602: not where another engine could take the task at once.
#[tokio::test(start_paused = true)]
async fn another_engine_comes_first() {
    let spy = Spy::new(refusing(1, 503));
    let host = host(&spy);
    let refused = host.submit(&pool(), &replica(), &job(3), CancellationToken::new(), &|| true).await;
    assert!(matches!(refused, Err(HostError::Worker(WorkerError::PoolUnavailable(_)))));
    assert_eq!((spy.sim().stats().requests, calls(&host).retries), (1, 0));
}

/// ORCH-3602: an engine that is given up during the pause is not asked again: another may listen in its place.
#[tokio::test(start_paused = true)]
async fn a_pause_may_be_the_end() {
    let spy = Spy::new(refusing(1, 503));
    let host = host(&spy);
    let asked = AtomicU32::new(0);
    let give_up = || asked.fetch_add(1, Ordering::Relaxed) > 0;
    let refused = host.submit(&pool(), &replica(), &job(3), CancellationToken::new(), &give_up).await;
    assert!(matches!(refused, Err(HostError::Worker(WorkerError::PoolUnavailable(_)))));
    assert_eq!((spy.sim().stats().requests, calls(&host).retries), (1, 1));
}

/// ORCH-3601: a cancel ends the wait between two attempts.
#[tokio::test(start_paused = true)]
async fn a_cancel_ends_the_repetitions() {
    let spy = Spy::new(refusing(9, 503));
    let host = host(&spy);
    let token = CancellationToken::new();
    let (task, pool, replica) = (job(3), pool(), replica());
    let cancels = || {
        token.cancel();
        false
    };
    let submission = host.submit(&pool, &replica, &task, token.clone(), &cancels);
    let end = timeout(Duration::from_millis(1), submission).await.expect("at once");
    assert_eq!((end.expect_err("no stream"), spy.sim().stats().requests), (HostError::Canceled, 1));
}
