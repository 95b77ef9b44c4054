//! Run files of an earlier life.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::Duration;

use pool_managerd::orphans::{How, reap};
use serde_json::{Value, json};

use super::support::{Folders, lives, start_time};

const GRACE: Duration = Duration::from_secs(20);

/// A process that no guard watches over.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").process_group(0).spawn().expect("a process"))
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _known = self.0.wait();
    }
}

fn run_file(pid: i32, start: u64) -> Value {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("it is there");
    json!({
        "schema_version": 1, "pool_id": "gpu0", "pid": pid, "program": "/bin/engine", "boot_id": boot_id.trim(),
        "mark": "00", "guard": {"pid": i32::MAX, "start": 1}, "engine": {"pid": pid, "start": start},
    })
}

fn reap_with(file: &Value) -> (Folders, How) {
    let folders = Folders::new();
    std::fs::create_dir(folders.run_dir()).expect("a folder");
    std::fs::write(folders.run_dir().join("gpu0.json"), file.to_string()).expect("a file");
    let mut reaped = reap(&folders.run_dir(), GRACE).expect("a folder");
    assert_eq!((reaped.len(), reaped[0].pool_id.as_str()), (1, "gpu0"));
    (folders, reaped.remove(0).how)
}

/// LO-POOL-05: what still runs is ended, politely first.
#[test]
fn what_still_runs_is_ended() {
    let sleeper = Sleeper::new();
    let (folders, how) = reap_with(&run_file(sleeper.pid(), start_time(sleeper.pid())));
    assert_eq!(how, How::Terminated);
    assert!(!lives(sleeper.pid()) && !folders.has_run_file());
}

/// LO-POOL-05: a process that has been given the id of an engine is left alone, and so is one of before the host's start.
#[test]
fn a_process_with_the_same_id_is_left_alone() {
    let sleeper = Sleeper::new();
    let start = start_time(sleeper.pid());
    let mut other_boot = run_file(sleeper.pid(), start);
    other_boot["boot_id"] = json!("another");
    for file in [run_file(sleeper.pid(), start - 1), run_file(sleeper.pid(), start + 1), other_boot] {
        let (folders, how) = reap_with(&file);
        assert_eq!(how, How::Gone);
        assert!(lives(sleeper.pid()) && !folders.has_run_file());
    }
}

/// LO-POOL-05: what another version has written is left alone, with its processes.
#[test]
fn an_unknown_version_is_left_alone() {
    let sleeper = Sleeper::new();
    let mut file = run_file(sleeper.pid(), start_time(sleeper.pid()));
    file["schema_version"] = json!(2);
    let (folders, how) = reap_with(&file);
    assert_eq!(how, How::UnknownVersion(2));
    assert!(lives(sleeper.pid()) && folders.has_run_file());
    let (folders, how) = reap_with(&json!({"schema_version": 1, "pid": "?"}));
    assert!(matches!(how, How::Unreadable(_)) && folders.has_run_file());
}

#[test]
fn no_folder_is_an_empty_one() {
    let folders = Folders::new();
    assert_eq!(reap(&folders.run_dir(), GRACE).expect("nothing"), []);
}
