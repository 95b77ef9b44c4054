//! Fetches that look for secrets wherever they must not be.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, Once};

use catalog_core::{Digest, FetchError, Fetched};
use tracing::Level;

use crate::servers::cutter::Cutter;
use crate::servers::{registry, s3};
use crate::support::{Asker, Setup};

/// Fetches for the operator.
pub(crate) async fn fetch(setup: &Setup, reference: &str) -> Result<Fetched, FetchError> {
    fetch_as(setup, reference, None, &Asker::operator()).await
}

/// Fetches for somebody, and compares with `expected`.
pub(crate) async fn fetch_as(
    setup: &Setup,
    reference: &str,
    expected: Option<&Digest>,
    asker: &Asker,
) -> Result<Fetched, FetchError> {
    listen();
    let fetched = setup.fetch_as(reference, expected, asker).await;
    check(&format!("{fetched:?}"), "what came back");
    if let Err(error) = &fetched {
        check(&error.to_string(), "the error");
    }
    check_log();
    check_files(setup);
    fetched
}

/// Asks again after each cut; returns the model's path.
pub(crate) async fn until_it_is_there(setup: &Setup, reference: &str, line: &Cutter) -> PathBuf {
    loop {
        let cuts = line.left();
        match fetch(setup, reference).await {
            Ok(fetched) => return fetched.local_path,
            Err(FetchError::Source(_)) if line.left() < cuts => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn check(text: &str, place: &str) {
    for secret in s3::SECRETS.iter().chain(&registry::SECRETS) {
        assert!(!text.contains(secret), "{secret} is in {place}: {text}");
    }
}

fn check_log() {
    let log = std::mem::take(&mut *LOG.lock().expect("no holder panics"));
    check(&String::from_utf8_lossy(&log), "the log");
}

fn check_files(setup: &Setup) {
    let mut folders = vec![setup.dir().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let content = std::fs::read(&path).expect("a file");
            // What is longer is a model.
            if content.len() < 4096 {
                check(&String::from_utf8_lossy(&content), &path.display().to_string());
            }
        }
    }
}

/// All that was logged, before anything is masked.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().expect("no holder panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false).with_writer(|| Log).init();
    });
}
