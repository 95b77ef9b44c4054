//! A fetcher for tests of one source, which looks for secrets wherever they must not be.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, Once};
use std::time::Duration;

use catalog_core::{Digest, FetchContext, FetchError, Fetched, ModelFetcher, ModelRef, Progress};
use config_schema::{Outbound, OutboundMode};
use http_util::retry::RetryPolicy;
use model_provisioner::{Disk, Environment, FetchSettings, Fetcher, OutboundPolicy, Sources, Web, WebSettings};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tracing::Level;

use crate::servers::cutter::Cutter;
use crate::servers::{PATIENCE, registry, s3};

/// A fetcher with a models' folder of its own.
pub(crate) struct Fetching {
    /// The models' folder.
    pub(crate) models: TempDir,
    /// What its sources take from the environment.
    pub(crate) environment: Environment,
    /// `[policy.outbound]`.
    pub(crate) outbound: Outbound,
    /// Whether the operator names the models.
    pub(crate) configured: bool,
    /// How often a file is begun again.
    pub(crate) retries: u32,
    /// Bytes free.
    pub(crate) free_bytes: u64,
}

impl Fetching {
    /// One that may fetch what the configuration names.
    pub(crate) fn new(environment: Environment) -> Self {
        let models = tempfile::tempdir().expect("a folder");
        let outbound = Outbound::default();
        Self { models, environment, outbound, configured: true, retries: 5, free_bytes: 1 << 40 }
    }

    /// A path below the models' folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.models.path().join(name)
    }

    /// The models' folder's files, without hidden ones.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(self.models.path(), &mut |path| {
            let name = path.strip_prefix(self.models.path()).expect("it is below").to_string_lossy().into_owned();
            found.push(name);
        });
        found.retain(|name| !name.split('/').any(|part| part.starts_with('.')));
        found.sort();
        found
    }

    pub(crate) async fn fetch(&self, reference: &str) -> Result<Fetched, FetchError> {
        self.fetch_as(reference, None).await
    }

    /// Fetches, and compares with `expected`.
    pub(crate) async fn fetch_as(&self, reference: &str, expected: Option<&Digest>) -> Result<Fetched, FetchError> {
        listen();
        let model: ModelRef = reference.parse().expect("a reference");
        let context =
            FetchContext { progress: Arc::new(Nobody), cancel: CancellationToken::new(), configured: self.configured };
        let fetched = self.fetcher().fetch(&model, expected, &context).await;
        self.check_secrets(&format!("{fetched:?}"));
        if let Err(error) = &fetched {
            self.check_secrets(&error.to_string());
        }
        fetched
    }

    fn fetcher(&self) -> Fetcher {
        // Reading the system's certificates takes longer than all the rest.
        static CERTIFICATE: LazyLock<Arc<[u8]>> = LazyLock::new(|| {
            let made = rcgen::generate_simple_self_signed(["unused".to_owned()]).expect("a certificate");
            made.cert.pem().into_bytes().into()
        });
        let settings = WebSettings { ca_pem: Some(Arc::clone(&CERTIFICATE)), ..WebSettings::new(PATIENCE) };
        let web = Web::new(OutboundPolicy::new(&self.outbound), &settings).expect("a client");
        let mut settings = FetchSettings::new(self.models.path().to_owned(), 4);
        let (base, cap) = (Duration::from_millis(1), Duration::from_millis(5));
        settings.retry = RetryPolicy { retries: self.retries, base, cap };
        settings.disk = Arc::new(Room(self.free_bytes));
        let sources = Sources::new(&self.environment).expect("URLs");
        Fetcher::new(Arc::new(web), sources, settings)
    }

    /// No secret is in a text, in the log, or in a file.
    fn check_secrets(&self, text: &str) {
        let check = |text: &str, place: &str| {
            for secret in s3::SECRETS.iter().chain(&registry::SECRETS) {
                assert!(!text.contains(secret), "{secret} is in {place}: {text}");
            }
        };
        check(text, "what came back");
        let log = std::mem::take(&mut *LOG.lock().expect("no holder panics"));
        check(&String::from_utf8_lossy(&log), "the log");
        walk(self.models.path(), &mut |path| {
            let content = std::fs::read(path).expect("a file");
            // What is longer is a model.
            if content.len() < 4096 {
                check(&String::from_utf8_lossy(&content), &path.display().to_string());
            }
        });
    }
}

/// A policy.
pub(crate) fn outbound(mode: OutboundMode, allow: &[&str]) -> Outbound {
    Outbound { mode, allow: allow.iter().map(|host| (*host).to_owned()).collect(), ..Outbound::default() }
}

/// Random bytes.
pub(crate) fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes
}

/// Asks again after each cut; returns the model's path.
pub(crate) async fn until_it_is_there(fetching: &Fetching, reference: &str, line: &Cutter) -> PathBuf {
    loop {
        let cuts = line.left();
        match fetching.fetch(reference).await {
            Ok(fetched) => return fetched.local_path,
            Err(FetchError::Source(_)) if line.left() < cuts => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn walk(folder: &Path, see: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { walk(&path, see) } else { see(&path) }
    }
}

/// A disk with so many bytes free.
struct Room(u64);

impl Disk for Room {
    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        Ok(self.0)
    }
}

/// Takes no notice, and has nothing.
struct Nobody;

impl Progress for Nobody {
    fn planned(&self, _files: usize, _bytes: Option<u64>) {}
    fn advanced(&self, _bytes: u64) {}
    fn lost(&self, _bytes: u64) {}
    fn file_done(&self, _name: &str) {}
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
