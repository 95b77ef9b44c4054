//! Real servers for tests: moto as S3 and Docker's registry, and a line that breaks.
//!
//! `cargo xtask test` installs the one, finds the other, and names both in the environment.

pub(crate) mod cutter;
pub(crate) mod registry;
pub(crate) mod s3;
pub(crate) mod tokens;

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// A program that a test needs. Without it the test is skipped, aloud; with `REQUIRE_REAL_SERVERS=1` that is a failure.
pub(crate) fn program(variable: &str) -> Option<String> {
    let program = std::env::var(variable).ok().filter(|program| Path::new(program).exists());
    if program.is_none() {
        let required = std::env::var("REQUIRE_REAL_SERVERS").is_ok_and(|value| value == "1");
        assert!(!required, "REQUIRE_REAL_SERVERS=1 and no {variable}");
        eprintln!("skipped: no {variable}; `cargo xtask test` sets it where the server is installed");
    }
    program
}

/// A server's process; killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server and waits until its log says where it listens.
async fn start(command: &mut Command, log: &Path, port: impl Fn(&str) -> Option<u16>) -> (Killed, u16) {
    let file = File::create(log).expect("a log");
    let output = file.try_clone().expect("a file");
    let child = command.stdin(Stdio::piped()).stdout(output).stderr(file).spawn();
    let mut server = Killed(child.expect("the server starts"));
    let started = Instant::now();
    loop {
        let said = std::fs::read_to_string(log).expect("its log");
        // What has no line end may still be half a number.
        if let Some(port) = said.split_inclusive('\n').filter(|line| line.ends_with('\n')).find_map(&port) {
            return (server, port);
        }
        let ended = server.0.try_wait().expect("its state");
        assert!(ended.is_none() && started.elapsed() < PATIENCE, "the server does not listen ({ended:?}): {said}");
        tokio::time::sleep(POLL).await;
    }
}
