//! Engines that keep failing (ORCH-3602).

use std::time::Duration;

use adapter_api::WorkerError;
use adapter_host::{AdapterHost, BreakerState, HostConfig, HostError};
use mock::{Config, FaultKind, Faults};
use tokio::time::advance;

use crate::support::{Seen, Spy, bind, calls, host, job, pool, slow, submit};

fn faults(fault: FaultKind) -> Faults {
    Faults::always(fault)
}

async fn run(host: &AdapterHost) -> Result<(), HostError> {
    let mut stream = submit(host, &job(3)).await?;
    Seen::default().rest(&mut stream).await
}

async fn trip(host: &AdapterHost) {
    for _ in 0..5 {
        assert_eq!(calls(host).breaker, BreakerState::Closed);
        run(host).await.expect_err("a fault");
    }
    assert!(matches!(calls(host).breaker, BreakerState::Open { .. }));
}

fn is_open(result: Result<(), HostError>) -> bool {
    matches!(result, Err(HostError::Worker(WorkerError::PoolUnavailable(why))) if why.contains("breaker"))
}

/// ORCH-3602, LO-HOST-02: five failed tasks open it, whatever way they fail; nothing reaches the engine then; after the
/// cool-down one task does, and closes it.
#[tokio::test(start_paused = true)]
async fn it_opens_and_closes() {
    for fault in [
        FaultKind::Refuse { status: 500, body: None },
        FaultKind::Refuse { status: 503, body: None },
        FaultKind::Reset { after_tokens: 0 },
        FaultKind::ErrorEvent { after_tokens: 0 },
        FaultKind::Hang,
    ] {
        let spy = Spy::new(Config { faults: faults(fault.clone()), ..Config::default() });
        let host = AdapterHost::new(HostConfig { establish: Duration::from_secs(1), ..HostConfig::default() });
        bind(&host, &spy);
        trip(&host).await;
        let report = calls(&host);
        assert_eq!((report.trips, report.tripped_by.is_some()), (1, true), "{fault:?}");
        let requests = spy.sim().stats().requests;
        assert!(is_open(run(&host).await), "{fault:?}");
        assert_eq!(spy.sim().stats().requests, requests, "{fault:?}");
        advance(Duration::from_secs(5)).await;
        assert_eq!(calls(&host).breaker, BreakerState::HalfOpen { tried: false });
        run(&host).await.expect_err("the trial fails");
        assert!(is_open(run(&host).await), "{fault:?}");
        assert_eq!(calls(&host).trips, 2);
        spy.sim().set_faults(Faults::default());
        advance(Duration::from_secs(5)).await;
        run(&host).await.expect("it works again");
        let report = calls(&host);
        assert_eq!((report.breaker, report.trips, report.tripped_by), (BreakerState::Closed, 2, None));
    }
}

/// ORCH-3602: failures in the middle of a stream count too.
#[tokio::test(start_paused = true)]
async fn failures_while_decoding_open_it() {
    trip(&host(&Spy::new(Config { faults: faults(FaultKind::Reset { after_tokens: 2 }), ..Config::default() }))).await;
}

/// ORCH-3602: one task at a time tries a half-open breaker, and its first token is enough.
#[tokio::test(start_paused = true)]
async fn one_task_tries() {
    let spy = Spy::new(Config { faults: Faults::next(5, FaultKind::Reset { after_tokens: 0 }), ..slow() });
    let host = host(&spy);
    trip(&host).await;
    advance(Duration::from_secs(5)).await;
    let abandoned = submit(&host, &job(20)).await.expect("the trial");
    assert_eq!(calls(&host).breaker, BreakerState::HalfOpen { tried: true });
    assert!(is_open(run(&host).await));
    drop(abandoned);
    assert_eq!(calls(&host).breaker, BreakerState::HalfOpen { tried: false }, "a cancel says nothing");
    let mut stream = submit(&host, &job(20)).await.expect("another trial");
    let mut seen = Seen::default();
    seen.tokens(&mut stream, 1).await;
    assert_eq!(calls(&host).breaker, BreakerState::Closed, "while it still runs");
    seen.rest(&mut stream).await.expect("an end");
}

/// ORCH-3602: the client's mistakes, a lack of room and cancels do not open it.
#[tokio::test(start_paused = true)]
async fn what_does_not_count() {
    for status in [400, 429] {
        let refuse = FaultKind::Refuse { status, body: None };
        let host = host(&Spy::new(Config { faults: faults(refuse), ..Config::default() }));
        for _ in 0..6 {
            run(&host).await.expect_err("refused");
        }
        assert_eq!(calls(&host).breaker, BreakerState::Closed, "{status}");
    }
    let host = host(&Spy::new(slow()));
    for _ in 0..6 {
        drop(submit(&host, &job(9)).await.expect("taken"));
    }
    assert_eq!(calls(&host).breaker, BreakerState::Closed);
}

/// ORCH-3602: silence is seen by the driver, who says so before it gives up.
#[tokio::test(start_paused = true)]
async fn silence_counts() {
    let host = host(&Spy::new(Config { faults: faults(FaultKind::Stall { after_tokens: 1 }), ..Config::default() }));
    for _ in 0..5 {
        let task = job(9);
        let _stream = submit(&host, &task).await.expect("taken");
        host.blame(&pool(), task.request.task_id, &WorkerError::DecodeTimeout("silent".to_owned()));
    }
    assert!(matches!(calls(&host).breaker, BreakerState::Open { .. }));
}

/// LO-HOST-01, LO-HOST-02: another engine begins with a closed breaker, whatever tasks of the old one still say; the counts go on.
#[tokio::test(start_paused = true)]
async fn a_rebind_begins_anew() {
    let old = Spy::new(Config { faults: Faults::next(5, FaultKind::Reset { after_tokens: 0 }), ..slow() });
    let host = host(&old);
    let mut survivor = {
        old.sim().set_faults(Faults::default());
        submit(&host, &job(9)).await.expect("taken")
    };
    let mut seen = Seen::default();
    seen.tokens(&mut survivor, 2).await;
    // The survivor holds the old engine's only slot.
    old.sim().set_faults(faults(FaultKind::Refuse { status: 500, body: None }));
    trip(&host).await;
    let new = Spy::new(slow());
    bind(&host, &new);
    let report = calls(&host);
    assert_eq!((report.breaker, report.trips, report.tripped_by), (BreakerState::Closed, 1, None));
    run(&host).await.expect("the new engine works");
    seen.rest(&mut survivor).await.expect("an end");
    assert_eq!((seen.tokens, host.running(), calls(&host).breaker), (9, 0, BreakerState::Closed));
}
