//! Starting, ending and what is told about it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use pool_managerd::process::{Ended, Exit, OomCounters, SpawnError, spawn};
use rustix::process::Signal;

use super::support::{Folders, exists, failed, guard, ready, signal, wait_for, wait_for_end};

const ENDED: Ended = Ended { exit: Exit::Code(0), oom_killed: false, complete: true };

/// LO-POOL-05, LO-ENG-08: an engine's end is told with its code and its last words; the run file lives as long as the engine,
/// names its process and is for its owner only; no zombie stays.
#[tokio::test]
async fn an_engine_comes_and_goes() {
    let folders = Folders::new();
    let script = "trap 'echo last words >&2; exit 3' USR1; sleep 1000 & echo ready; wait";
    let mut engine = ready(&folders, script).await;
    let guard = folders.guard_pid();
    signal(engine.process.pid(), Signal::USR1);
    let ended = engine.process.exited().await;
    assert_eq!(ended, Ended { exit: Exit::Code(3), ..ENDED });
    assert_eq!(engine.process.ended(), Some(ended));
    let tail: Vec<String> = engine.log.tail().iter().map(|line| line.text.clone()).collect();
    assert_eq!(tail.last().map(String::as_str), Some("last words"));
    assert!(tail[0].starts_with("started sh, pid "), "{tail:?}");
    assert!(!folders.has_run_file());
    assert!(!exists(guard) && !exists(engine.process.pid()));
}

/// LO-ENG-08: the run file names what runs.
#[tokio::test]
async fn the_run_file_names_the_engine() {
    let folders = Folders::new();
    let mut engine = ready(&folders, "echo ready; exec sleep 1000").await;
    let run_file = folders.run_file();
    assert_eq!(run_file["schema_version"], 1);
    assert_eq!(run_file["pool_id"], "gpu0");
    assert_eq!(run_file["pid"], engine.process.pid());
    assert_eq!(run_file["port"], 18080);
    let mode = folders.run_dir().join("gpu0.json").metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    engine.process.terminate();
    assert_eq!(engine.process.exited().await.exit, Exit::Signal(15));
    assert!(!folders.has_run_file());
}

/// LO-POOL-05: what does not end politely is ended firmly, with all that it has started.
#[tokio::test]
async fn a_deaf_engine_is_killed() {
    let folders = Folders::new();
    let script = "trap '' TERM; trap 'echo heard' USR1; sleep 1000 & echo child $!; echo ready; while :; do wait; done";
    let mut engine = ready(&folders, script).await;
    let child = engine.number("child").await;
    engine.process.terminate();
    // It answers after that, so the first signal has left it alone.
    signal(engine.process.pid(), Signal::USR1);
    wait_for(&mut engine.said, "heard").await;
    assert_eq!(engine.process.ended(), None);
    engine.process.kill();
    assert_eq!(engine.process.exited().await.exit, Exit::Signal(9));
    assert!(!exists(child));
}

/// LO-POOL-05: an engine goes with its handle.
#[tokio::test]
async fn dropping_kills() {
    let folders = Folders::new();
    let engine = ready(&folders, "trap '' TERM; echo ready; sleep 1000; sleep 1000").await;
    let (pid, guard) = (engine.process.pid(), folders.guard_pid());
    drop(engine.process);
    wait_for_end(pid);
    wait_for_end(guard);
}

/// LO-POOL-05: a stopped engine is killed all the same, and so is one whose guard is stopped.
#[tokio::test]
async fn stopped_processes_are_killed() {
    let folders = Folders::new();
    let mut engine = ready(&folders, "(setsid sleep 1000 & echo other $!); echo ready; sleep 1000").await;
    let other = engine.number("other").await;
    signal(engine.process.pid(), Signal::STOP);
    signal(folders.guard_pid(), Signal::STOP);
    engine.process.kill();
    assert_eq!(engine.process.exited().await.exit, Exit::Lost);
    wait_for_end(other);
    assert!(!folders.has_run_file());
}

/// LO-POOL-05: each reason for which a program does not start is told apart, and leaves nothing.
#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let folders = Folders::new();
    let log = folders.log();
    let file = |name: &str, content: &[u8], mode: u32| -> PathBuf {
        let path = folders.root.join(name);
        std::fs::write(&path, content).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its mode");
        path
    };
    let missing = folders.root.join("missing");
    let error = failed(folders.spec(&missing, &[], &log)).await;
    assert!(matches!(&error, SpawnError::NotFound { program, .. } if *program == missing), "{error:?}");
    let error = failed(folders.spec("no-such-engine", &[], &log)).await;
    assert!(matches!(error, SpawnError::NotFound { .. }), "{error:?}");
    let error = failed(folders.spec(file("plain", b"#!/bin/sh\n", 0o644), &[], &log)).await;
    assert!(matches!(error, SpawnError::NotPermitted { .. }), "{error:?}");
    // A shell must not be asked to make sense of it.
    let error = failed(folders.spec(file("damaged", b"echo no\n", 0o755), &[], &log)).await;
    assert!(matches!(error, SpawnError::NotExecutable { .. }), "{error:?}");
    let mut foreign = b"\x7fELF\x02\x01\x01".to_vec();
    foreign.resize(18, 0);
    foreign.extend([0xf3, 0xff]);
    let error = failed(folders.spec(file("foreign", &foreign, 0o755), &[], &log)).await;
    assert!(matches!(error, SpawnError::NotExecutable { .. }), "{error:?}");
    let error = failed(folders.spec("sh", &["x".repeat(1 << 18).as_str()], &log)).await;
    assert!(matches!(error, SpawnError::TooLong { .. }), "{error:?}");
    let mut spec = folders.script("exit", &log);
    spec.work_dir = Some(missing);
    let error = failed(spec).await;
    assert!(matches!(error, SpawnError::WorkDir { .. }), "{error:?}");
    assert!(!folders.has_run_file());
    // Without a run file an engine could be left behind, so it does not stay.
    let mut spec = folders.script("trap '' TERM; sleep 1000", &log);
    spec.run_dir = file("no-folder", b"", 0o600);
    let error = failed(spec).await;
    assert!(matches!(error, SpawnError::RunFile { .. }), "{error:?}");
}

/// ORCH-3508: an engine has an empty stdin, its own working directory and the variables of its pool, and dies before others
/// when memory is short.
#[tokio::test]
async fn an_engines_surroundings() {
    let folders = Folders::new();
    let log = folders.log();
    let mut spec = folders.script("cat; pwd; echo $CUDA_VISIBLE_DEVICES; cat /proc/self/oom_score_adj", &log);
    spec.work_dir = Some(folders.root.clone());
    spec.environment = vec![("CUDA_VISIBLE_DEVICES".into(), "GPU-1".into())];
    let mut process = spawn(&guard(), spec).await.expect("an engine");
    assert_eq!(process.exited().await, ENDED);
    let said: Vec<String> = log.tail().iter().skip(1).map(|line| line.text.clone()).collect();
    let root = folders.root.canonicalize().expect("a path");
    assert_eq!(said[..2], [root.display().to_string(), "GPU-1".to_owned()]);
    assert!(said[2].parse::<i32>().expect("a number") >= 500, "{said:?}");
}

/// ORCH-3039: a kill for want of memory is told from any other.
#[tokio::test]
async fn the_hosts_killer_is_noticed() {
    for (after, expected) in [("oom_kill 5", true), ("oom_kill 4", false)] {
        let folders = Folders::new();
        let counters = folders.root.join("vmstat");
        std::fs::write(&counters, "nr 1\noom_kill 4\n").expect("a file");
        let log = folders.log();
        let mut said = log.follow(0);
        let mut spec = folders.script("echo ready; sleep 1000", &log);
        spec.oom = OomCounters::at([counters.clone()]);
        let mut process = spawn(&guard(), spec).await.expect("an engine");
        wait_for(&mut said, "ready").await;
        std::fs::write(&counters, format!("nr 1\n{after}\n")).expect("a file");
        signal(process.pid(), Signal::KILL);
        let ended = process.exited().await;
        assert_eq!(ended, Ended { exit: Exit::Signal(9), oom_killed: expected, complete: true });
    }
}

/// LO-POOL-05: an engine that ends takes along what it has left running.
#[tokio::test]
async fn leftovers_go_with_the_engine() {
    let folders = Folders::new();
    let script =
        "(setsid sh -c 'trap \"\" TERM; echo other $$; echo ready; sleep 1000; sleep 1000' &); exec sleep 1000";
    let mut engine = ready(&folders, script).await;
    let other = engine.number("other").await;
    signal(engine.process.pid(), Signal::TERM);
    assert_eq!(engine.process.exited().await.exit, Exit::Signal(15));
    assert!(!exists(other), "it was the guard's to wait for");
}
