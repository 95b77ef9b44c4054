use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use api_types::sse::{Channel, EndFrame, EventName, MetricsFrame};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert_eq, prop_oneof, proptest};

use super::{Behind, Forgotten, Reader, Transcript};

fn unlimited() -> Arc<Transcript> {
    Arc::new(Transcript::new(usize::MAX, 0))
}

fn read_available(reader: &mut Reader) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match reader.poll_read(&mut cx) {
            Poll::Ready(Some(bytes)) => all.extend_from_slice(&bytes.expect("it keeps up")),
            Poll::Ready(None) => return (all, true),
            Poll::Pending => return (all, false),
        }
    }
}

fn whole(transcript: &Arc<Transcript>) -> Vec<u8> {
    read_available(&mut transcript.reader(None).expect("all is kept")).0
}

/// The ids of complete frames in a piece of a stream, in order.
fn ids(stream: &[u8]) -> Vec<u32> {
    let text = std::str::from_utf8(stream).expect("frames are text");
    assert!(text.is_empty() || (text.starts_with("id: ") && text.ends_with("\n\n")), "frames come whole: {text:?}");
    text.split("\n\n")
        .filter(|frame| !frame.is_empty())
        .map(|frame| frame.lines().next().expect("a line")["id: ".len()..].parse().expect("a number"))
        .collect()
}

#[derive(Debug, Clone)]
enum Step {
    Token(String),
    Metrics,
    ReadLive,
    Resume(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => any::<String>().prop_map(Step::Token),
        1 => "x{2000,9000}".prop_map(Step::Token),
        1 => any::<bool>().prop_map(|_| Step::Metrics),
        2 => any::<bool>().prop_map(|_| Step::ReadLive),
        2 => (0..300_u32).prop_map(Step::Resume),
    ]
}

proptest! {
    /// SSE-1001, SSE-1002, OC-CTRL-2022: whatever the interleaving, a live reader, a late reader and one that resumes see the
    /// same bytes, whole frames only, ids without gaps.
    #[test]
    fn every_reader_sees_the_same_stream(steps in vec(step(), 1..120)) {
        let transcript = unlimited();
        let mut live = transcript.reader(None).expect("all is kept");
        let mut seen = Vec::new();
        for step in steps {
            match step {
                Step::Token(text) => prop_assert_eq!(transcript.write().token(&text, Channel::Content), true),
                Step::Metrics => {
                    transcript.write().event(EventName::Metrics, &MetricsFrame::default());
                }
                Step::ReadLive => {
                    let (bytes, ended) = read_available(&mut live);
                    ids(&bytes);
                    prop_assert_eq!(ended, false);
                    seen.extend(bytes);
                }
                Step::Resume(after) => {
                    let resumed = read_available(&mut transcript.reader(Some(after)).expect("all is kept")).0;
                    prop_assert_eq!(&transcript.kept().after(Some(after)).expect("all is kept"), &resumed);
                    let resumed = ids(&resumed);
                    let all = ids(&whole(&transcript));
                    let expected: Vec<u32> = all.into_iter().filter(|id| *id > after).collect();
                    prop_assert_eq!(resumed, expected);
                }
            }
        }
        prop_assert_eq!(transcript.write().seal(None, EventName::End, &EndFrame::default()), true);
        let (rest, ended) = read_available(&mut live);
        seen.extend(rest);
        let all = whole(&transcript);
        prop_assert_eq!((ended, &seen), (true, &all));
        let ids = ids(&all);
        prop_assert_eq!(&ids, &(0..u32::try_from(ids.len()).expect("few")).collect::<Vec<_>>());
        prop_assert_eq!(transcript.size(), all.len());
    }
}

/// ORCH-3026, SSE-1002: nothing follows the seal, and only one seal counts.
#[test]
fn a_sealed_transcript_takes_nothing() {
    let transcript = unlimited();
    transcript.write().token("a", Channel::Content);
    let end = EndFrame { canceled: Some(true), ..EndFrame::default() };
    assert!(transcript.write().seal(None, EventName::End, &end));
    let sealed = whole(&transcript);
    assert!(!transcript.write().token("b", Channel::Content));
    assert!(!transcript.write().event(EventName::Metrics, &MetricsFrame::default()));
    assert!(!transcript.write().seal(None, EventName::Error, &end));
    assert_eq!(whole(&transcript), sealed);
    assert!(transcript.is_sealed());
}

/// SSE-1004: under pressure metrics are left out and tokens never.
#[test]
fn only_droppable_events_are_dropped_for_a_lagging_reader() {
    let transcript = unlimited();
    let mut reader = transcript.reader(None).expect("all is kept");
    let metrics = MetricsFrame::default();
    for _ in 0..4 {
        assert!(transcript.write().token("a", Channel::Content));
    }
    assert!(transcript.write().droppable(EventName::Metrics, &metrics, 4), "four behind is within the limit");
    assert!(!transcript.write().droppable(EventName::Metrics, &metrics, 4), "five behind is not");
    assert!(transcript.write().token("b", Channel::Content));
    read_available(&mut reader);
    assert!(transcript.write().droppable(EventName::Metrics, &metrics, 4), "the reader has caught up");
    assert_eq!(ids(&whole(&transcript)), [0, 1, 2, 3, 4, 5, 6]);
}

/// A waiting reader is woken by a write, and a batch wakes it once.
#[tokio::test]
async fn a_write_wakes_the_reader() {
    let transcript = unlimited();
    let mut reader = transcript.reader(None).expect("all is kept");
    let follower = tokio::spawn(async move { (reader.read().await, reader) });
    tokio::task::yield_now().await;
    let mut writer = transcript.write();
    writer.token("a", Channel::Content);
    writer.token("b", Channel::Reasoning);
    drop(writer);
    let (bytes, reader) = follower.await.expect("the follower ends");
    assert_eq!(ids(&bytes.expect("two frames").expect("it keeps up")), [0, 1]);
    assert!(!reader.is_at_end());
}

fn token(transcript: &Transcript, text: &str) {
    assert!(transcript.write().token(text, Channel::Content));
}

fn has_room(transcript: &Transcript) -> bool {
    transcript.poll_room(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// SSE-1001, SSE-1004: at its limit a log takes every token still, but has no room until its foremost reader has read; then
/// it drops what lies far behind that reader, who loses nothing. A reader far behind is told so.
#[test]
fn a_full_log_makes_its_producer_wait_and_loses_nothing() {
    let transcript = Arc::new(Transcript::new(64 * 1024, 0));
    let mut foremost = transcript.reader(None).expect("all is kept");
    let mut slow = transcript.reader(None).expect("all is kept");
    let text = "x".repeat(1000);
    let (mut read, mut written) = (Vec::new(), 0);
    while written < 400 {
        if has_room(&transcript) {
            token(&transcript, &text);
            written += 1;
        } else {
            assert!(transcript.size() < 66 * 1024);
            let before = read.len();
            read.extend(read_available(&mut foremost).0);
            assert!(read.len() > before, "no room although everything has been read");
        }
    }
    read.extend(read_available(&mut foremost).0);
    assert_eq!(ids(&read), (0..400).collect::<Vec<_>>());
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(slow.poll_read(&mut cx), Poll::Ready(Some(Err(Behind))));
    let Err(Forgotten { first_kept }) = transcript.reader(None) else { panic!("the beginning was dropped") };
    assert!((330..370).contains(&first_kept), "half of the limit stays behind the foremost reader: {first_kept}");
    let mut back = transcript.reader(Some(first_kept - 1)).expect("it is kept");
    transcript.write().seal(None, EventName::End, &EndFrame::default());
    let rest = read_available(&mut back).0;
    assert_eq!(ids(&rest), (first_kept..=400).collect::<Vec<_>>());
    let kept = transcript.kept();
    assert_eq!((kept.after(Some(first_kept - 1)).expect("it is kept"), kept.is_trimmed), (rest.into(), true));
    assert_eq!(kept.after(None), Err(Forgotten { first_kept }));
    assert_eq!(slow.poll_read(&mut cx), Poll::Ready(Some(Err(Behind))));
}

/// A closed log takes nothing, so nobody waits for room in it.
#[tokio::test]
async fn closing_a_full_log_lets_its_producer_go() {
    let transcript = Arc::new(Transcript::new(1024, 0));
    token(&transcript, &"x".repeat(2000));
    assert!(transcript.write().is_full());
    let waiting = Arc::clone(&transcript);
    let producer = tokio::spawn(async move { std::future::poll_fn(|cx| waiting.poll_room(cx)).await });
    tokio::task::yield_now().await;
    assert!(!producer.is_finished());
    transcript.write().close();
    producer.await.expect("it goes on");
}

/// However long a task waits, its log holds one event of that; the ids go on, and readers skip what was replaced.
#[test]
fn a_passing_event_takes_the_place_of_the_one_before() {
    let transcript = unlimited();
    let (mut quick, mut slow) = (transcript.reader(None).expect("kept"), transcript.reader(None).expect("kept"));
    let waiting = |depth| MetricsFrame { queue_depth: depth, ..MetricsFrame::default() };
    token(&transcript, "before");
    assert!(transcript.write().passing(EventName::Metrics, &waiting(1)));
    assert_eq!(ids(&read_available(&mut quick).0), [0, 1]);
    assert!(!transcript.write().passing(EventName::Metrics, &waiting(2)), "the slow reader has missed one");
    let size = transcript.size();
    assert_eq!(ids(&read_available(&mut quick).0), [2]);
    assert_eq!(ids(&read_available(&mut slow).0), [0, 2]);
    for depth in 3..9 {
        assert!(transcript.write().passing(EventName::Metrics, &waiting(depth)));
        read_available(&mut quick);
        read_available(&mut slow);
    }
    assert_eq!(transcript.size(), size);
    token(&transcript, "after");
    token(&transcript, "more");
    assert_eq!(ids(&read_available(&mut quick).0), [9, 10]);
    let resumed = |after| ids(&read_available(&mut transcript.reader(Some(after)).expect("kept")).0);
    assert_eq!(
        (resumed(0), resumed(5), resumed(8), resumed(9)),
        (vec![8, 9, 10], vec![8, 9, 10], vec![9, 10], vec![10])
    );
    transcript.write().seal(None, EventName::End, &EndFrame::default());
    assert_eq!(ids(&read_available(&mut slow).0), [9, 10, 11]);
    assert_eq!(ids(&read_available(&mut quick).0), [11]);
    assert_eq!((resumed(0), resumed(8)), (vec![9, 10, 11], vec![9, 10, 11]), "what passed is not replayed");
}
