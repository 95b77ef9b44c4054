//! Tasks: binding, canceling, ending.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::time::Duration;

use adapter_api::{TokenEvent, WorkerError};
use adapter_host::{AdapterHost, CancelOutcome, HostConfig, HostError};
use api_types::TaskId;
use mock::{Config, FaultKind, Faults};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::{Seen, Spy, bind, host, job, nowhere, pool, replica, slow, submit};

/// ORCH-3601, LO-SSE-01: a task runs to its end, and nothing of it stays behind.
#[tokio::test(start_paused = true)]
async fn a_task_runs_to_its_end() {
    let spy = Spy::new(slow());
    let host = host(&spy);
    let mut stream = submit(&host, &job(9)).await.expect("taken");
    assert_eq!(host.running(), 1);
    let mut seen = Seen::default();
    assert_eq!(seen.rest(&mut stream).await, Ok(()));
    assert_eq!(seen.finish.expect("an end").usage.tokens_out, Some(9));
    assert_eq!(host.running(), 0, "gone with its end, before the stream is dropped");
    drop(stream);
    tokio::task::yield_now().await;
    assert_eq!(spy.canceled.load(Ordering::Relaxed), 0);
}

/// ORCH-3600, LO-HOST-01: the running task stays with its engine and gets every token once; new ones go to the new engine.
#[tokio::test(start_paused = true)]
async fn rebinding_neither_loses_nor_duplicates() {
    let (old, new) = (Spy::new(slow()), Spy::new(slow()));
    let host = host(&old);
    let (mut undisturbed, mut seen) = (Seen::default(), Seen::default());
    let task = job(20);
    let mut stream = submit(&host, &task).await.expect("taken");
    undisturbed.rest(&mut stream).await.expect("an end");

    let mut stream = submit(&host, &task).await.expect("taken");
    seen.tokens(&mut stream, 5).await;
    assert!(bind(&host, &new).is_some(), "the old adapter comes back");
    seen.tokens(&mut stream, 10).await;
    assert_eq!(old.sim().stats().running, 1);
    let mut second = submit(&host, &job(2)).await.expect("taken");
    assert_eq!(new.sim().stats().running, 1);
    assert!(host.unbind(&pool(), &replica()).is_some());
    seen.rest(&mut stream).await.expect("an end");
    Seen::default().rest(&mut second).await.expect("an end");
    assert_eq!(seen.text, undisturbed.text);
    assert_eq!((old.sim().stats().requests, new.sim().stats().requests), (2, 1));
    let unbound = submit(&host, &job(1)).await.expect_err("nothing is bound");
    assert!(matches!(unbound, HostError::Worker(WorkerError::PoolUnavailable(_))));
    assert_eq!(host.running(), 0);
}

/// ORCH-3601: a cancel ends the stream at the engine at once, whether or not anybody polls it, and the engine is told.
#[tokio::test(start_paused = true)]
async fn cancel_is_routed_to_the_task() {
    let spy = Spy::new(slow());
    let host = host(&spy);
    let task = job(20);
    let id = task.request.task_id;
    let mut stream = submit(&host, &task).await.expect("taken");
    let mut seen = Seen::default();
    seen.tokens(&mut stream, 3).await;
    assert_eq!(host.cancel(&"elsewhere".into(), id).await, CancelOutcome::NotRunning);
    assert_eq!(host.cancel(&pool(), TaskId::random()).await, CancelOutcome::NotRunning);
    assert_eq!(host.cancel(&pool(), id).await, CancelOutcome::Canceled);
    assert_eq!(spy.sim().stats().running, 0);
    assert_eq!((host.running(), spy.canceled.load(Ordering::Relaxed)), (0, 1));
    assert_eq!(host.cancel(&pool(), id).await, CancelOutcome::NotRunning);
    assert_eq!(seen.rest(&mut stream).await, Err(HostError::Canceled));
    assert_eq!(seen.tokens, 3);
    drop(stream);
    tokio::task::yield_now().await;
    assert_eq!(spy.canceled.load(Ordering::Relaxed), 1, "told once");
    submit(&host, &task).await.expect("the id is free again");
}

/// The task's own token does the same, and wakes whoever waits for a token of text.
#[tokio::test(start_paused = true)]
async fn the_token_ends_the_stream() {
    let spy = Spy::new(slow());
    let host = host(&spy);
    let token = CancellationToken::new();
    let mut stream = host.submit(&pool(), &replica(), &job(20), token.clone(), &nowhere).await.expect("taken");
    let mut seen = Seen::default();
    seen.tokens(&mut stream, 3).await;
    let begin = Instant::now();
    let (end, ()) = tokio::join!(seen.rest(&mut stream), async { token.cancel() });
    assert_eq!(end, Err(HostError::Canceled));
    assert_eq!((begin.elapsed(), seen.tokens), (Duration::ZERO, 3));
    spy.sim().wait_until(|stats| stats.running == 0).await;
    tokio::task::yield_now().await;
    assert_eq!((host.running(), spy.canceled.load(Ordering::Relaxed)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn dropping_a_stream_cancels_at_the_engine() {
    let spy = Spy::new(slow());
    let host = host(&spy);
    let mut stream = submit(&host, &job(20)).await.expect("taken");
    Seen::default().tokens(&mut stream, 1).await;
    drop(stream);
    tokio::task::yield_now().await;
    assert_eq!((host.running(), spy.canceled.load(Ordering::Relaxed)), (0, 1));
    assert_eq!(spy.sim().stats().cancelled, 1);
}

/// ORCH-3601: submission accepts a cancel too, by token and by id.
#[tokio::test(start_paused = true)]
async fn a_submission_can_be_canceled() {
    let spy = Spy::new(Config { faults: Faults::always(FaultKind::Hang), ..Config::default() });
    let host = host(&spy);
    let token = CancellationToken::new();
    let task = job(1);
    let (pool, replica) = (pool(), replica());
    let submission = host.submit(&pool, &replica, &task, token.clone(), &nowhere);
    let (end, ()) = tokio::join!(submission, async { token.cancel() });
    assert_eq!(end.expect_err("no stream"), HostError::Canceled);
    let cancel = host.cancel(&pool, task.request.task_id);
    let (end, outcome) = tokio::join!(submit(&host, &task), cancel);
    assert_eq!((end.expect_err("no stream"), outcome), (HostError::Canceled, CancelOutcome::Canceled));
    assert_eq!(host.running(), 0);
}

/// LO-WAD-11.
#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_answer_is_given_up() {
    let spy = Spy::new(Config { faults: Faults::always(FaultKind::Hang), ..Config::default() });
    let host = AdapterHost::new(HostConfig { establish: Duration::from_secs(3), ..HostConfig::default() });
    bind(&host, &spy);
    let begin = Instant::now();
    let error = submit(&host, &job(1)).await.expect_err("no stream");
    assert!(matches!(error, HostError::Worker(WorkerError::DecodeTimeout(_))), "{error:?}");
    assert_eq!((begin.elapsed().as_secs(), host.running()), (3, 0));
}

/// ADAPT-3002: what the engine reports arrives as it is, and the task is over.
#[tokio::test(start_paused = true)]
async fn failures_arrive_as_worker_errors() {
    let refuse = FaultKind::Refuse { status: 429, body: None };
    for (fault, tokens) in [(refuse, 0), (FaultKind::Reset { after_tokens: 4 }, 4)] {
        let spy = Spy::new(Config { faults: Faults::always(fault), ..slow() });
        let host = host(&spy);
        let mut seen = Seen::default();
        let error = match submit(&host, &job(9)).await {
            Ok(mut stream) => seen.rest(&mut stream).await.expect_err("a fault"),
            Err(error) => error,
        };
        assert!(error.worker().is_some_and(WorkerError::is_worker_lost), "{error:?}");
        tokio::task::yield_now().await;
        assert_eq!((seen.tokens, host.running(), spy.canceled.load(Ordering::Relaxed)), (tokens, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn one_task_runs_once() {
    let spy = Spy::new(slow());
    let host = host(&spy);
    let task = job(9);
    let _running = submit(&host, &task).await.expect("taken");
    let error = submit(&host, &task).await.expect_err("it runs already");
    assert!(matches!(error, HostError::Worker(WorkerError::Internal(_))));
    assert_eq!((host.running(), spy.sim().stats().requests), (1, 1));
}

/// No event once cancel has returned, with the reader and the canceller on threads of their own.
#[test]
fn nothing_is_handed_on_after_cancel_has_returned() {
    let spy = Spy::new(Config { ctx: u32::MAX, ..Config::default() });
    let host = Arc::new(host(&spy));
    for _ in 0..50 {
        let task = job(i32::MAX as u32);
        let returned = Arc::new(AtomicBool::new(false));
        let (running, seen_some) = mpsc::channel();
        let canceller = std::thread::spawn({
            let (host, returned, id) = (Arc::clone(&host), Arc::clone(&returned), task.request.task_id);
            move || {
                seen_some.recv().expect("the task runs");
                let outcome = runtime().block_on(host.cancel(&pool(), id));
                returned.store(true, Ordering::SeqCst);
                outcome
            }
        });
        let end = runtime().block_on(async {
            let mut stream = submit(&host, &task).await.expect("taken");
            let mut sink = |_: TokenEvent<'_>| {
                assert!(!returned.load(Ordering::SeqCst), "an event after cancel has returned");
                // The canceller hears of the first one only.
                let _late = running.send(());
            };
            while stream.next_events(&mut sink).await.is_ok() {}
            stream.next_events(&mut sink).await
        });
        assert_eq!(end, Err(HostError::Canceled));
        assert_eq!(canceller.join().expect("no panic"), CancelOutcome::Canceled);
    }
    assert_eq!(host.running(), 0);
    assert_eq!(spy.sim().stats().running, 0);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A future of the host may be dropped at any point without leaving anything behind.
#[tokio::test(start_paused = true)]
async fn a_dropped_submission_leaves_nothing() {
    let spy = Spy::new(Config { faults: Faults::always(FaultKind::Hang), ..Config::default() });
    let host = host(&spy);
    let task = job(1);
    {
        let mut submission = pin!(submit(&host, &task));
        let polled = std::future::poll_fn(|cx| Poll::Ready(submission.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
        assert_eq!(host.running(), 1);
    }
    assert_eq!(host.running(), 0);
}
