//! Health, properties and versions, with their age (ORCH-3603).

use std::sync::atomic::Ordering;
use std::time::Duration;

use adapter_api::WorkerError;
use adapter_host::AdapterHost;
use mock::{Config, Fault, FaultKind, Faults, Route};
use tokio::time::{advance, timeout};

use crate::support::{Spy, bind, host, pool, replica};

fn on_props(fault: FaultKind, times: u32) -> Faults {
    Faults { faults: vec![Fault { fault, times: Some(times), on: Route::Props }] }
}

async fn slots(host: &AdapterHost) -> Result<Option<u32>, WorkerError> {
    host.props(&pool(), &replica()).await.map(|props| props.value.slots_total)
}

#[tokio::test(start_paused = true)]
async fn a_fact_is_asked_again_when_it_is_old() {
    let spy = Spy::new(Config::default());
    let host = host(&spy);
    assert_eq!(host.last_props(&pool(), &replica()), None);
    for (wait, asked) in [(0, 1), (999, 1), (1, 2), (5000, 3)] {
        advance(Duration::from_millis(wait)).await;
        assert_eq!(slots(&host).await, Ok(Some(1)));
        assert_eq!(spy.props_asked.load(Ordering::Relaxed), asked);
    }
    advance(Duration::from_secs(7)).await;
    let last = host.last_props(&pool(), &replica()).expect("a last answer");
    assert_eq!((last.age.as_secs(), last.refresh_error), (7, None));
}

#[tokio::test(start_paused = true)]
async fn callers_at_the_same_time_share_one_question() {
    let faults = on_props(FaultKind::SlowHeaders { ms: 200 }, 1);
    let spy = Spy::new(Config { faults, ..Config::default() });
    let host = host(&spy);
    let answers = tokio::join!(slots(&host), slots(&host), slots(&host));
    assert_eq!(answers, (Ok(Some(1)), Ok(Some(1)), Ok(Some(1))));
    assert_eq!(spy.props_asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn callers_at_the_same_time_share_one_failure() {
    let spy =
        Spy::new(Config { faults: on_props(FaultKind::Refuse { status: 503, body: None }, 1), ..Config::default() });
    let host = host(&spy);
    let (first, second) = tokio::join!(slots(&host), slots(&host));
    assert!(matches!(first, Err(WorkerError::PoolUnavailable(_))) && first == second);
    assert_eq!(spy.props_asked.load(Ordering::Relaxed), 1);
}

/// One who asks and goes away leaves the question to the next.
#[tokio::test(start_paused = true)]
async fn a_dropped_question_is_asked_by_the_next() {
    let spy = Spy::new(Config { faults: on_props(FaultKind::Hang, 1), ..Config::default() });
    let host = host(&spy);
    let (hanging, second) = tokio::join!(timeout(Duration::from_millis(10), slots(&host)), slots(&host));
    assert!(hanging.is_err());
    assert_eq!(second, Ok(Some(1)));
    assert_eq!(spy.props_asked.load(Ordering::Relaxed), 2);
}

/// The last good answer stays, with its age and with what went wrong since.
#[tokio::test(start_paused = true)]
async fn a_failed_refresh_keeps_the_last_answer() {
    let spy = Spy::new(Config::default());
    let host = host(&spy);
    slots(&host).await.expect("an answer");
    spy.sim().set_faults(on_props(FaultKind::Refuse { status: 503, body: None }, 1));
    advance(Duration::from_secs(4)).await;
    let old = host.props(&pool(), &replica()).await.expect("the last answer");
    assert_eq!(old.age.as_secs(), 4);
    assert!(matches!(old.refresh_error, Some(WorkerError::PoolUnavailable(_))));
    advance(Duration::from_secs(1)).await;
    let new = host.props(&pool(), &replica()).await.expect("an answer");
    assert_eq!((new.age, new.refresh_error), (Duration::ZERO, None));
}

#[tokio::test(start_paused = true)]
async fn facts_belong_to_the_bound_adapter() {
    let load_time = Duration::from_secs(60);
    let (old, new) = (Spy::new(Config::default()), Spy::new(Config { load_time, ..Config::default() }));
    let host = host(&old);
    assert_eq!(host.replicas(&pool()), [replica()]);
    assert_eq!(&*host.engine_version(&pool(), &replica()).await.expect("an answer").value, "b0-mock");
    assert!(host.health(&pool(), &replica()).await.expect("an answer").value.ready);
    bind(&host, &new);
    assert!(!host.health(&pool(), &replica()).await.expect("an answer").value.ready);
    host.unbind(&pool(), &replica());
    let unbound = host.health(&pool(), &replica()).await;
    assert!(matches!(unbound, Err(WorkerError::PoolUnavailable(_))));
    assert!(host.replicas(&pool()).is_empty());
}
