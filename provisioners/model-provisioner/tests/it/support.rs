//! What the tests share: fetchers that may reach this machine, progress that is counted, contents.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use catalog_core::{Digest, FetchContext, FetchError, Fetched, ModelFetcher, Progress};
use config_schema::{Outbound, OutboundMode};
use http_util::retry::RetryPolicy;
use model_provisioner::{Disk, Environment, FetchSettings, Fetcher, OutboundPolicy, Sources, Web, WebSettings};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Counts what it is told.
#[derive(Default)]
pub(crate) struct Counted {
    pub(crate) waits: AtomicUsize,
    pub(crate) planned: Mutex<Option<(usize, Option<u64>)>>,
    pub(crate) advanced: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) done: Mutex<Vec<String>>,
}

impl Progress for Counted {
    fn waiting(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }
    fn planned(&self, files: usize, bytes: Option<u64>) {
        *self.planned.lock().expect("nobody panicked") = Some((files, bytes));
    }
    fn advanced(&self, bytes: u64) {
        self.advanced.fetch_add(bytes, Ordering::Relaxed);
    }
    fn lost(&self, bytes: u64) {
        self.lost.fetch_add(bytes, Ordering::Relaxed);
    }
    fn file_done(&self, name: &str) {
        self.done.lock().expect("nobody panicked").push(name.to_owned());
    }
}

impl Counted {
    /// Bytes that are here by all accounts.
    pub(crate) fn net(&self) -> u64 {
        self.advanced.load(Ordering::Relaxed) - self.lost.load(Ordering::Relaxed)
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// A fetch that somebody waits for.
pub(crate) struct Asker {
    pub(crate) progress: Arc<Counted>,
    pub(crate) context: FetchContext,
}

impl Asker {
    /// The operator.
    pub(crate) fn operator() -> Self {
        Self::new(true)
    }

    /// A client of the daemon.
    pub(crate) fn client() -> Self {
        Self::new(false)
    }

    fn new(configured: bool) -> Self {
        let progress = Arc::new(Counted::default());
        let context = FetchContext { progress: progress.clone(), cancel: CancellationToken::new(), configured };
        Self { progress, context }
    }
}

/// A fetcher and its folder.
pub(crate) struct Setup {
    pub(crate) outbound: Outbound,
    pub(crate) environment: Vec<(&'static str, String)>,
    pub(crate) ca_pem: Option<Arc<[u8]>>,
    pub(crate) stall: Duration,
    pub(crate) retries: u32,
    pub(crate) disk: Option<Arc<dyn Disk>>,
    pub(crate) folder: Arc<TempDir>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self {
            outbound: Outbound::default(),
            environment: Vec::new(),
            ca_pem: Some(Arc::new([])),
            stall: Duration::from_secs(20),
            retries: 3,
            disk: None,
            folder: Arc::new(tempfile::tempdir().expect("a folder")),
        }
    }

    pub(crate) fn outbound(mut self, mode: OutboundMode, allow: &[&str]) -> Self {
        self.outbound =
            Outbound { mode, allow: allow.iter().map(|host| (*host).to_owned()).collect(), ..self.outbound };
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    pub(crate) fn fetcher(&self) -> Fetcher {
        let settings = WebSettings { ca_pem: self.ca_pem.clone(), ..WebSettings::new(self.stall) };
        let web = Arc::new(Web::new(OutboundPolicy::new(&self.outbound), &settings).expect("usable certificates"));
        let lookup = |name: &str| self.environment.iter().find(|(known, _)| *known == name).map(|(_, v)| v.clone());
        let sources = Sources::new(&Environment::from_fn(lookup)).expect("usable endpoints");
        let ms = Duration::from_millis;
        let retry = RetryPolicy { retries: self.retries, base: ms(1), cap: ms(5) };
        let mut fetching = FetchSettings { retry, ..FetchSettings::new(self.dir().to_owned(), 3) };
        fetching.disk = self.disk.clone().unwrap_or(fetching.disk);
        Fetcher::new(web, sources, fetching)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Files below the models' folder, but for the records.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.dir().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().expect("a folder") {
                let path: PathBuf = entry.expect("an entry").path();
                match path.is_dir() {
                    true if path.ends_with(".fetched") => {}
                    true => folders.push(path),
                    false => found.push(
                        path.strip_prefix(self.dir()).expect("below it").to_str().expect("plain text").to_owned(),
                    ),
                }
            }
        }
        found.sort();
        found
    }

    pub(crate) async fn fetch(&self, model: &str) -> Result<Fetched, FetchError> {
        self.fetch_as(model, None, &Asker::operator()).await
    }

    pub(crate) async fn fetch_as(
        &self,
        model: &str,
        digest: Option<&Digest>,
        asker: &Asker,
    ) -> Result<Fetched, FetchError> {
        self.fetcher().fetch(&model.parse().expect("a reference"), digest, &asker.context).await
    }
}

/// A disk with so many bytes free, whatever it says about it.
pub(crate) struct SmallDisk {
    pub(crate) says: u64,
    pub(crate) left: Mutex<u64>,
}

impl SmallDisk {
    /// One that says how much it has.
    pub(crate) fn shared(bytes: u64) -> Arc<dyn Disk> {
        Arc::new(Self { says: bytes, left: Mutex::new(bytes) })
    }
}

impl Disk for SmallDisk {
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.says)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let mut left = self.left.lock().expect("nobody panicked");
        let fits = bytes.len().min(usize::try_from(*left).expect("a small disk"));
        file.write_all(&bytes[..fits])?;
        *left -= fits as u64;
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

/// Bytes that look like weights.
pub(crate) fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Polls until a condition holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let polls = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), polls).await.unwrap_or_else(|_| panic!("never: {what}"));
}
