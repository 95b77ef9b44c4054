//! Engines that notice a dropped stream late.

use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use adapter_host::{AdapterHost, HostConfig};
use api_types::TaskId;
use mock::{Config, Fault, FaultKind, Faults, Route};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Seen, Spy, bind, calls, host, job, nowhere, pool, replica, slow, submit};

/// Time to read a job's prompt, in one batch.
const PROMPT: Duration = Duration::from_secs(4);

/// Reads a prompt token a second, all of a prompt in one batch, and then decodes a token a second.
fn reads_slowly(slots: u32) -> Config {
    Config { prefill_tokens_per_second: 1.0, slots: NonZeroU32::new(slots).expect("not zero"), ..slow() }
}

async fn settled_after(host: &AdapterHost, task: TaskId) -> Duration {
    let begun = Instant::now();
    host.settled(task).await;
    begun.elapsed()
}

/// ORCH-3601: a task that was dropped in the middle of its prompt is settled when the engine's slot is idle and not before.
#[tokio::test(start_paused = true)]
async fn a_dropped_prompt_keeps_the_slot() {
    let spy = Spy::new(reads_slowly(1));
    let host = host(&spy);
    let task = job(9);
    let id = task.request.task_id;
    let begun = Instant::now();
    let stream = submit(&host, &task).await.expect("taken");
    drop(stream);
    assert_eq!(calls(&host).settling, 1);
    settled_after(&host, id).await;
    assert_eq!((spy.sim().stats().running, calls(&host).settling), (0, 0));
    let took = begun.elapsed();
    assert!(took >= PROMPT && took < PROMPT + Duration::from_millis(400), "{took:?}");
    assert_eq!(settled_after(&host, id).await, Duration::ZERO, "it is settled");
}

/// A stream that ended by itself asks nothing; one whose engine has noticed waits no longer than the question takes.
#[tokio::test(start_paused = true)]
async fn others_do_not_wait() {
    let spy = Spy::new(slow());
    let host = host(&spy);
    let done = job(2);
    let mut stream = submit(&host, &done).await.expect("taken");
    Seen::default().rest(&mut stream).await.expect("an end");
    drop(stream);
    assert_eq!(settled_after(&host, done.request.task_id).await, Duration::ZERO);
    assert_eq!(spy.slots_asked.load(Ordering::Relaxed), 0);
    let canceled = job(9);
    let mut stream = submit(&host, &canceled).await.expect("taken");
    Seen::default().tokens(&mut stream, 2).await;
    drop(stream);
    assert_eq!(settled_after(&host, canceled.request.task_id).await, Duration::ZERO);
    assert_eq!(spy.slots_asked.load(Ordering::Relaxed), 1);
}

/// On several slots our own running streams are no reason to wait, and each idle slot settles one task.
#[tokio::test(start_paused = true)]
async fn every_slot_by_itself() {
    let spy = Spy::new(reads_slowly(3));
    let host = host(&spy);
    let mut running = submit(&host, &job(60)).await.expect("taken");
    let mut seen = Seen::default();
    seen.tokens(&mut running, 1).await;
    let (first, second) = (job(9), job(9));
    let begun = Instant::now();
    drop(submit(&host, &first).await.expect("taken"));
    seen.tokens(&mut running, 2).await;
    drop(submit(&host, &second).await.expect("taken"));
    let token = CancellationToken::new();
    let canceled = job(9);
    let (pool, replica) = (pool(), replica());
    let submission = host.submit(&pool, &replica, &canceled, token.clone(), &nowhere);
    assert!(timeout(Duration::from_millis(1), submission).await.is_err(), "there are three slots");
    assert_eq!(calls(&host).settling, 3);
    host.settled(first.request.task_id).await;
    let early = begun.elapsed();
    host.settled(second.request.task_id).await;
    assert!(early >= PROMPT && early < begun.elapsed(), "{early:?}");
    assert!(begun.elapsed() >= PROMPT + Duration::from_secs(1));
    seen.rest(&mut running).await.expect("an end");
    host.settled(canceled.request.task_id).await;
    assert_eq!((calls(&host).settling, spy.sim().stats().running), (0, 0));
}

/// An engine that somebody else keeps busy is not waited for forever; one that cannot tell, not at all.
#[tokio::test(start_paused = true)]
async fn the_wait_is_bounded() {
    let on_slots = |fault| Faults { faults: vec![Fault { fault, times: None, on: Route::Slots }] };
    for (faults, waits) in [
        (Faults::default(), true),
        (on_slots(FaultKind::Refuse { status: 504, body: None }), true),
        (on_slots(FaultKind::Refuse { status: 501, body: None }), false),
    ] {
        let spy = Spy::new(Config { faults, slots: NonZeroU32::new(2).expect("not zero"), ..slow() });
        let other = crate::support::host(&spy);
        let _foreign = submit(&other, &job(9)).await.expect("taken");
        let host = AdapterHost::new(HostConfig { settle: Duration::from_secs(7), ..HostConfig::default() });
        bind(&host, &spy);
        let task = job(9);
        let stream = submit(&host, &task).await.expect("taken");
        drop(stream);
        let waited = settled_after(&host, task.request.task_id).await;
        assert_eq!(waited >= Duration::from_secs(7), waits, "{waited:?}");
        assert!(waited < Duration::from_secs(8));
        assert_eq!(calls(&host).settling, 0);
    }
}
