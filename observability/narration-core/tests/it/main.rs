//! The log of a whole process. One test, since a process has one log.

use narration_core::{Actor, Format, InitError, LogConfig, Narration, Output, init, narrate};
use serde_json::Value;
use tracing::{Level, debug, info};

/// A value that logs while it is being logged.
struct Chatty;

impl std::fmt::Display for Chatty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        info!("inner");
        f.write_str("chatty")
    }
}

/// HME-030, ORCH-3303: events of all threads reach the file, above the filter's level, before the guard is gone.
#[test]
fn the_log_of_a_process() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let config = LogConfig { format: Format::Auto, output: Output::File(path.clone()), ..LogConfig::default() };
    let guard = init(&config).expect("the first log");
    assert!(matches!(init(&config), Err(InitError::Already(_))));

    debug!("too fine");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..250 {
                    narrate(Level::INFO, &Narration::new(Actor::Cli, "say", format_args!("says a line")));
                }
            });
        }
    });
    guard.flush();
    let read = || -> Vec<Value> {
        let text = std::fs::read_to_string(&path).expect("the log");
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    };
    assert_eq!(read().len(), 1000);

    info!(who = %Chatty, "outer");
    drop(guard);
    let last: Vec<Value> = read().split_off(1000);
    let said: Vec<&Value> = last.iter().map(|line| &line["message"]).collect();
    assert_eq!(said, ["inner", "outer"]);
    assert_eq!(last[1]["who"], "chatty");
}
