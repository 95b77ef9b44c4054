//! Nothing outlives the daemon, whoever is killed.

use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pool_managerd::orphans::{How, Reaped, reap};
use pool_managerd::process::{Exit, spawn};
use rustix::process::Signal;

use super::support::{Folders, exists, guard, lives, ready, signal, wait_for, wait_for_end};

/// An engine with a child, and a grandchild that has left its group, its session and its parent.
const FAMILY: &str = "env | cut -d= -f1; sleep 1000 & echo child $!;
    (setsid sh -c 'trap \"\" TERM; echo grandchild $$; echo ready; sleep 1000; sleep 1000' &); wait";

/// Where the daemon's folders are, and that this process is to be one.
const DAEMON: &str = "TEST_DAEMON_FOLDERS";

/// A daemon in a process of its own, and what runs below it.
struct Daemon {
    process: Child,
    engine: i32,
    child: i32,
    grandchild: i32,
}

impl Daemon {
    /// Runs `is_a_daemon` of this program.
    fn start(folders: &Folders) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "nothing_left::is_a_daemon", "--ignored", "--nocapture"]);
        command.env(DAEMON, &folders.root).env("AUTH_TOKEN", "secret").env("HF_HOME", "/models");
        let mut process = command.stdout(Stdio::piped()).spawn().expect("a daemon");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut lines = output.lines().map_while(Result::ok);
        // The test harness may have begun the line.
        let pids = lines.find_map(|line| Some(line.split_once("PIDS ")?.1.to_owned())).expect("it runs");
        let pids: Vec<i32> = pids.split(' ').map(|pid| pid.parse().expect("a number")).collect();
        Self { process, engine: pids[0], child: pids[1], grandchild: pids[2] }
    }

    fn kill(mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it has ended");
    }
}

/// Runs an engine until it is killed itself.
#[tokio::test]
#[ignore = "the process that other tests start and kill"]
async fn is_a_daemon() {
    let folders = Folders::at(std::env::var_os(DAEMON).expect("started by a test").as_ref());
    let mut engine = ready(&folders, FAMILY).await;
    let (child, grandchild) = (engine.number("child").await, engine.number("grandchild").await);
    println!("PIDS {} {child} {grandchild}", engine.process.pid());
    let ended = engine.process.exited().await;
    panic!("it was to run: {ended:?}");
}

/// LO-POOL-05: the daemon is killed, and its engines end with all that they have started, also what has hidden from them and does
/// not end politely. ORCH-3508: nor did they know its secrets.
#[test]
fn the_daemon_is_killed() {
    let folders = Folders::new();
    let daemon = Daemon::start(&folders);
    let (engine, child, grandchild, guard) = (daemon.engine, daemon.child, daemon.grandchild, folders.guard_pid());
    let log = std::fs::read_to_string(folders.root.join("logs/gpu0.log")).expect("a log");
    assert!(log.contains(" out HF_HOME\n") && !log.contains("AUTH_TOKEN"), "{log}");
    daemon.kill();
    for pid in [engine, child, grandchild, guard] {
        wait_for_end(pid);
    }
    // Nobody was there to remove the file.
    let reaped = reap(&folders.run_dir(), Duration::ZERO).expect("a folder");
    assert_eq!(reaped, [Reaped { pool_id: "gpu0".to_owned(), pid: Some(engine), how: How::Gone }]);
    assert!(!folders.has_run_file());
}

/// LO-POOL-05: the guard is killed, and the daemon ends what is left.
#[tokio::test]
async fn the_guard_is_killed() {
    let folders = Folders::new();
    let mut engine = ready(&folders, FAMILY).await;
    let (child, grandchild) = (engine.number("child").await, engine.number("grandchild").await);
    signal(folders.guard_pid(), Signal::KILL);
    let ended = engine.process.exited().await;
    assert_eq!(ended.exit, Exit::Lost);
    assert!(!lives(engine.process.pid()) && !lives(child) && !lives(grandchild));
    assert!(!folders.has_run_file());
}

/// LO-POOL-05: daemon and guard are killed at once: the kernel ends the engine, and the next daemon the rest.
#[test]
fn both_are_killed() {
    let folders = Folders::new();
    let daemon = Daemon::start(&folders);
    let (engine, child, grandchild, guard) = (daemon.engine, daemon.child, daemon.grandchild, folders.guard_pid());
    // Stopped, the daemon does not see to what its guard leaves.
    signal(daemon.process.id().cast_signed(), Signal::STOP);
    signal(guard, Signal::KILL);
    daemon.kill();
    wait_for_end(engine);
    assert!(lives(child) && lives(grandchild), "nobody has looked after them yet");
    let reaped = reap(&folders.run_dir(), Duration::ZERO).expect("a folder");
    assert_eq!(reaped, [Reaped { pool_id: "gpu0".to_owned(), pid: Some(engine), how: How::Killed }]);
    assert!(!lives(child) && !lives(grandchild));
    assert!(!folders.has_run_file());
}

/// LO-POOL-05: a spawn that nobody waits for any more leaves no engine.
#[tokio::test]
async fn a_spawn_is_given_up() {
    let folders = Folders::new();
    let log = folders.log();
    let mut said = log.follow(0);
    let guard = guard();
    let mut spawning =
        Box::pin(spawn(&guard, folders.script("trap '' TERM; echo pid $$; sleep 1000; sleep 1000", &log)));
    assert!(futures_util::poll!(&mut spawning).is_pending());
    drop(spawning);
    let started = wait_for(&mut said, "started sh").await;
    let pid = started.rsplit_once(' ').expect("its pid").1.parse().expect("a number");
    wait_for_end(pid);
}

/// LO-POOL-05: the daemon is gone, its engine does not end when asked, and is killed after the grace.
#[test]
fn a_deaf_engine_of_a_dead_daemon() {
    let (ours, theirs) = UnixStream::pair().expect("a socket");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pool-managerd"));
    let script = "trap 'echo asked' TERM; echo ready; while :; do sleep 1000 & wait $!; done";
    command.args(["guard", "--grace-ms", "100", "--", "sh", "-c", script]);
    let mut guard = command.stdin(OwnedFd::from(theirs)).stdout(Stdio::piped()).spawn().expect("a guard");
    drop(command);
    let mut said = BufReader::new(guard.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    assert_eq!(said.next().as_deref(), Some("ready"));
    let mut started = String::new();
    let mut ours = BufReader::new(ours);
    ours.read_line(&mut started).expect("the guard's words");
    let started: serde_json::Value = serde_json::from_str(&started).expect("JSON");
    let pid = started["pid"].as_i64().expect("a number") as i32;
    assert!(lives(pid));
    drop(ours);
    assert_eq!(said.next().as_deref(), Some("asked"));
    assert!(guard.wait().expect("it has ended").success());
    assert!(!exists(pid));
}
