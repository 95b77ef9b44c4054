//! Output of engines in files, in memory, and to followers.

use std::path::Path;

use futures_util::StreamExt as _;
use pool_managerd::logs::{EngineLog, Followed, LogLine, Source};
use pool_managerd::process::{Exit, spawn};

use super::support::{Folders, guard, wait_for};

const MAX_BYTES: u64 = 256 * 1024;

fn open(dir: &Path, files: usize) -> EngineLog {
    EngineLog::open(dir, "gpu0", MAX_BYTES, files).expect("a log")
}

async fn numbers(log: &EngineLog, count: usize) -> Vec<u32> {
    let lines = log.lines(count).await;
    lines.iter().filter(|line| line.source == Source::Stdout).map(|line| line.text.parse().expect("a number")).collect()
}

/// LO-POOL-05: 100,000 lines as fast as an engine can say them are all there, in order, over files none of which grows beyond
/// its bound.
#[tokio::test]
async fn a_talkative_engine_loses_nothing() {
    let folders = Folders::new();
    let log = open(&folders.root, 100);
    let mut process = spawn(&guard(), folders.spec("seq", &["100000"], &log)).await.expect("an engine");
    assert_eq!(process.exited().await.exit, Exit::Code(0));
    assert!(numbers(&log, 200_000).await.into_iter().eq(1..=100_000));
    assert_eq!(numbers(&log, 1000).await, (99_001..=100_000).collect::<Vec<u32>>());
    assert_eq!(log.activity().lines, 100_000);
    let tail = log.tail();
    assert_eq!((tail.len(), tail[199].text.as_str()), (200, "100000"));
    for entry in std::fs::read_dir(&folders.root).expect("a folder") {
        let entry = entry.expect("a file");
        assert!(entry.metadata().expect("a file").len() <= MAX_BYTES, "{entry:?}");
    }
}

/// LO-POOL-05: of the files only so many are kept, the last ones.
#[tokio::test]
async fn old_files_go() {
    let folders = Folders::new();
    let log = open(&folders.root.join("logs"), 2);
    let mut process = spawn(&guard(), folders.spec("seq", &["50000"], &log)).await.expect("an engine");
    process.exited().await;
    let kept = numbers(&log, 200_000).await;
    assert!(kept.len() > 3000 && kept.iter().copied().eq(50_001 - kept.len() as u32..=50_000));
    let mut names: Vec<_> = std::fs::read_dir(folders.root.join("logs"))
        .expect("a folder")
        .map(|entry| entry.expect("a file").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["gpu0.log", "gpu0.log.1"]);
}

/// LO-POOL-05: a follower gets old lines and new ones without a gap, also when the log was opened anew in between.
#[tokio::test]
async fn followers_see_old_and_new() {
    let folders = Folders::new();
    let log = folders.log();
    for number in 0..10 {
        log.line(Source::Stdout, &number.to_string());
    }
    drop(log);
    let log = folders.log();
    log.line(Source::Stdout, "10");
    let follower = log.follow(4);
    log.line(Source::Stderr, "11");
    let seen: Vec<Followed> = follower.into_stream().take(5).collect().await;
    let texts: Vec<&str> = seen.iter().map(text).collect();
    assert_eq!(texts, ["7", "8", "9", "10", "11"]);
}

/// LO-POOL-05: a slow follower is told how many lines it has missed, and goes on from there.
#[tokio::test]
async fn a_slow_follower_is_told() {
    let folders = Folders::new();
    let log = folders.log();
    let mut follower = log.follow(0);
    for number in 0..3000 {
        log.line(Source::Stdout, &number.to_string());
    }
    let Some(Followed::Missed(missed)) = follower.next().await else { panic!("lines were missed") };
    assert!((1..3000).contains(&missed));
    assert_eq!(follower.next().await.as_ref().map(text), Some(missed.to_string().as_str()));
    assert_eq!(wait_for(&mut follower, "2999").await, "2999");
    drop(log);
    assert_eq!(follower.next().await, None);
}

/// LO-POOL-05: a disk that takes nothing does not stop an engine, whose last lines can be seen all the same.
#[tokio::test]
async fn a_full_disk_stops_no_engine() {
    let folders = Folders::new();
    std::os::unix::fs::symlink("/dev/full", folders.root.join("gpu0.log")).expect("a link");
    let log = open(&folders.root, 2);
    let mut process = spawn(&guard(), folders.spec("seq", &["50000"], &log)).await.expect("an engine");
    assert_eq!(process.exited().await.exit, Exit::Code(0));
    assert_eq!(log.tail().last().map(|line| line.text.as_str()), Some("50000"));
}

/// ORCH-3038.2: a CUDA error is noticed while the engine lives, and forgotten when the next is started.
#[tokio::test]
async fn an_alarm_is_raised_while_the_engine_lives() {
    let folders = Folders::new();
    let log = folders.log();
    let mut alarm = log.alarm();
    let script = "echo 'CUDA error: an illegal memory access was encountered' >&2; sleep 1000";
    let process = spawn(&guard(), folders.script(script, &log)).await.expect("an engine");
    let raised = alarm.wait_for(Option::is_some).await.expect("the log is open").clone().expect("an alarm");
    assert!(raised.lost);
    assert_eq!(raised.diagnosis.fault, api_types::PoolFault::CudaError);
    assert_eq!(process.ended(), None);
    log.begin("the next");
    assert_eq!(*log.alarm().borrow(), None);
}

/// ORCH-3039: the cause of a failure is kept, however much is said after it.
#[tokio::test]
async fn the_cause_is_kept() {
    let folders = Folders::new();
    let log = folders.log();
    log.begin("started");
    log.line(Source::Stderr, "torch.OutOfMemoryError: CUDA out of memory.");
    for number in 0..500 {
        log.line(Source::Stderr, &format!("  frame {number}"));
    }
    let tail = log.tail();
    assert_eq!(tail.len(), 201);
    assert!(tail[0].text.contains("CUDA out of memory"));
}

fn text(item: &Followed) -> &str {
    match item {
        Followed::Line(line) => {
            let line: &LogLine = line;
            &line.text
        }
        Followed::Missed(count) => panic!("{count} lines missed"),
    }
}
