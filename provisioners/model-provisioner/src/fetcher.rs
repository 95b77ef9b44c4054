//! Brings models: picks the source, lists, fetches files side by side, and lets equal requests share one transfer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use catalog_core::{CatalogEntry, Digest, FetchContext, FetchError, Fetched, ModelFetcher, ModelRef, StoredFile};
use futures_util::StreamExt;
use http_util::retry::RetryPolicy;
use tokio::time::Instant;

use crate::disk::{Disk, LocalDisk};
use crate::download::{Download, Staged, blocking};
use crate::flight::Flights;
use crate::outbound::Errand;
use crate::part::{Paths, Tools};
use crate::record::Records;
use crate::source::{Listing, RemoteFile, Source};
use crate::web::{Gate, Web};

/// Age of a listing after which refused credentials may just have expired with it.
const STALE: Duration = Duration::from_secs(60);

/// How models are fetched.
#[derive(Clone)]
pub struct FetchSettings {
    /// Where model files are kept.
    pub models_dir: PathBuf,
    /// Files of one model that are fetched at once.
    pub parallel_files: usize,
    /// How often, and how long apart, a transfer is begun again that gets nowhere.
    pub retry: RetryPolicy,
    /// What is written to.
    pub disk: Arc<dyn Disk>,
}

impl FetchSettings {
    /// The defaults, below `models_dir`, with `[catalog].parallel_files`.
    #[must_use]
    pub fn new(models_dir: PathBuf, parallel_files: usize) -> Self {
        let retry = RetryPolicy { retries: 8, base: Duration::from_millis(500), cap: Duration::from_secs(30) };
        Self { models_dir, parallel_files: parallel_files.max(1), retry, disk: Arc::new(LocalDisk) }
    }
}

/// The sources, by scheme.
#[derive(Clone)]
pub struct Sources {
    /// `hf:`.
    pub hf: Arc<dyn Source>,
    /// `https:` and `http:`.
    pub https: Arc<dyn Source>,
    /// `s3:`.
    pub s3: Option<Arc<dyn Source>>,
    /// `oci:`.
    pub oci: Option<Arc<dyn Source>>,
}

impl Sources {
    fn of(&self, model: &ModelRef) -> Result<&Arc<dyn Source>, FetchError> {
        let found = match model {
            ModelRef::Hf { .. } => Some(&self.hf),
            ModelRef::Url { .. } => Some(&self.https),
            ModelRef::S3 { .. } => self.s3.as_ref(),
            ModelRef::Oci { .. } => self.oci.as_ref(),
            ModelRef::File { .. } => None,
        };
        found.ok_or_else(|| FetchError::Unsupported(format!("{model} is not fetched from anywhere")))
    }
}

/// Brings models to this machine. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    web: Arc<Web>,
    sources: Sources,
    settings: FetchSettings,
    records: Records,
    local: Arc<dyn ModelFetcher>,
    flights: Arc<Flights>,
}

impl Fetcher {
    /// A fetcher that lets `local` look for references to files of this machine.
    #[must_use]
    pub fn new(web: Arc<Web>, sources: Sources, settings: FetchSettings, local: Arc<dyn ModelFetcher>) -> Self {
        let records = Records::new(&settings.models_dir);
        Self { web, sources, settings, records, local, flights: Arc::default() }
    }

    /// The gate for a model, and its source.
    pub(crate) fn gate(
        &self,
        model: &ModelRef,
        configured: bool,
        pinned: bool,
    ) -> Result<(Gate, &dyn Source), FetchError> {
        let source = self.sources.of(model)?;
        let errand = Errand::new(model, source.home(model)?, configured, pinned);
        Ok((self.web.gate(errand)?, source.as_ref()))
    }

    async fn bring(
        &self,
        model: &ModelRef,
        expected: Option<&Digest>,
        context: &FetchContext,
    ) -> Result<Fetched, FetchError> {
        let (gate, source) = self.gate(model, context.configured, expected.is_some())?;
        let listing = tokio::select! {
            biased;
            () = context.cancel.cancelled() => return Err(FetchError::Canceled),
            listing = self.list(source, model, &gate) => listing?,
        };
        let Some(path) = model.cache_path() else {
            return Err(FetchError::Unsupported(format!("{model} has no place below the models' folder")));
        };
        let local_path = std::path::absolute(self.settings.models_dir.join(path))
            .map_err(crate::part::failed_to("find", &self.settings.models_dir))?;
        let folder = match listing.single {
            true => local_path.parent().unwrap_or(&self.settings.models_dir).to_owned(),
            false => local_path.clone(),
        };
        let errand =
            Bring { fetcher: self, model, gate, source, expected, context, folder, listing, listed: Instant::now() };
        let (files, transferred_bytes) = errand.run().await?;
        Ok(Fetched { local_path, files, source_url: Some(errand.listing.source_url), transferred_bytes })
    }

    /// Lists, and tries again what may pass.
    async fn list(&self, source: &dyn Source, model: &ModelRef, gate: &Gate) -> Result<Listing, FetchError> {
        let mut tries = 0;
        loop {
            match source.list(model, gate).await {
                Err(FetchError::Source(text)) if tries < self.settings.retry.retries.min(3) => {
                    tracing::debug!(error = %text, tries, "listing is asked for again");
                    let wait = self.settings.retry.ceiling(tries).mul_f64(rand::random::<f64>());
                    tries += 1;
                    tokio::time::sleep(wait).await;
                }
                done => return done,
            }
        }
    }
}

#[async_trait]
impl ModelFetcher for Fetcher {
    async fn fetch(
        &self,
        model: &ModelRef,
        expected: Option<&Digest>,
        context: &FetchContext,
    ) -> Result<Fetched, FetchError> {
        if model.is_local() {
            return self.local.fetch(model, expected, context).await;
        }
        let key = (model.id(), expected.cloned(), context.configured);
        let fly = |shared: FetchContext| async move { self.bring(model, expected, &shared).await };
        self.flights.share(key, context, fly).await
    }
}

/// One model on its way.
struct Bring<'a> {
    fetcher: &'a Fetcher,
    model: &'a ModelRef,
    gate: Gate,
    source: &'a dyn Source,
    expected: Option<&'a Digest>,
    context: &'a FetchContext,
    folder: PathBuf,
    listing: Listing,
    listed: Instant,
}

impl Bring<'_> {
    async fn run(&self) -> Result<(Vec<StoredFile>, u64), FetchError> {
        let files = &self.listing.files;
        if files.is_empty() {
            return Err(FetchError::NotFound(format!("{} has no files", self.model)));
        }
        let sizes: Option<u64> = files.iter().map(|file| file.size).sum();
        self.context.progress.planned(files.len(), sizes);
        self.check_room().await?;
        let mut running = futures_util::stream::iter(0..files.len())
            .map(|place| self.file(&files[place]))
            .buffer_unordered(self.fetcher.settings.parallel_files);
        let mut done = Vec::new();
        while let Some(staged) = running.next().await {
            let mut staged = staged?;
            // With a digest of all files together none gets its name before all of them are there.
            if !self.holds_back() {
                self.publish(&mut staged).await?;
            }
            done.push(staged);
        }
        drop(running);
        self.compare(&mut done).await?;
        for staged in &mut done {
            self.publish(staged).await?;
        }
        let transferred = done.iter().map(|staged| staged.transferred).sum();
        let mut stored: Vec<_> = done.into_iter().map(|staged| staged.file).collect();
        stored.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((stored, transferred))
    }

    fn holds_back(&self) -> bool {
        self.expected.is_some() && self.listing.files.len() > 1
    }

    /// Compares several files with the one digest that is expected of them.
    async fn compare(&self, done: &mut [Staged]) -> Result<(), FetchError> {
        let Some(expected) = self.expected.filter(|_| self.holds_back()) else { return Ok(()) };
        let files: Vec<_> = done.iter().map(|staged| staged.file.clone()).collect();
        let found = CatalogEntry::manifest_digest(&files).unwrap_or_else(|| Digest::of(&[]));
        if found == *expected {
            return Ok(());
        }
        for whole in done.iter_mut().filter_map(|staged| staged.fresh.take()) {
            blocking(move || whole.into_part().remove()).await??;
        }
        Err(FetchError::Digest { file: self.model.to_string(), expected: expected.clone(), found })
    }

    /// Gives a file its name, if it has none, and remembers it.
    async fn publish(&self, staged: &mut Staged) -> Result<(), FetchError> {
        let Some(whole) = staged.fresh.take() else { return Ok(()) };
        let version = self.listing.files.iter().find(|listed| listed.name == staged.file.name);
        let version = version.and_then(|listed| listed.version.clone());
        let (records, digest) = (self.fetcher.records.clone(), staged.file.digest.clone());
        blocking(move || whole.publish(|dest| records.put(dest, &digest, version.as_deref()))).await??;
        self.context.progress.file_done(&staged.file.name);
        Ok(())
    }

    async fn check_room(&self) -> Result<(), FetchError> {
        let (folder, disk) = (self.folder.clone(), Arc::clone(&self.fetcher.settings.disk));
        let wanted: Vec<_> = self.listing.files.iter().map(|file| (self.paths(file), file.size)).collect();
        blocking(move || {
            let missing = |(paths, size): &(Paths, Option<u64>)| {
                let size = size.unwrap_or(0);
                let is_here = std::fs::metadata(&paths.dest).is_ok_and(|found| found.len() == size);
                if is_here { 0 } else { size.saturating_sub(paths.kept_bytes()) }
            };
            let needed_bytes: u64 = wanted.iter().map(missing).sum();
            // A disk that does not say how full it is will say when it is.
            match disk.free_bytes(&folder) {
                Ok(free_bytes) if needed_bytes > free_bytes => {
                    Err(FetchError::NoSpace { path: folder, needed_bytes, free_bytes })
                }
                _ => Ok(()),
            }
        })
        .await?
    }

    fn paths(&self, file: &RemoteFile) -> Paths {
        Paths::new(self.folder.join(Path::new(&file.name)))
    }

    async fn file(&self, file: &RemoteFile) -> Result<Staged, FetchError> {
        let staged = match self.stage(file).await {
            Err(FetchError::Unauthorized(text)) if self.listed.elapsed() > STALE => {
                tracing::debug!(error = %text, "credentials may have expired, listing again");
                let listing = self.fetcher.list(self.source, self.model, &self.gate).await?;
                let same = listing.files.into_iter().find(|new| new.name == file.name);
                let same =
                    same.ok_or_else(|| FetchError::NotFound(format!("{} is gone from {}", file.name, self.model)))?;
                self.stage(&same).await?
            }
            done => done?,
        };
        if staged.fresh.is_none() {
            self.context.progress.file_done(&file.name);
        }
        Ok(staged)
    }

    async fn stage(&self, file: &RemoteFile) -> Result<Staged, FetchError> {
        let digest = self.expected.filter(|_| !self.holds_back()).or(file.digest.as_ref());
        let tools = Tools {
            disk: Arc::clone(&self.fetcher.settings.disk),
            progress: Arc::clone(&self.context.progress),
            cancel: self.context.cancel.clone(),
        };
        let download = Download {
            gate: &self.gate,
            file,
            paths: &self.paths(file),
            digest,
            advice: self.source.advice(),
            records: &self.fetcher.records,
            tools: &tools,
            retry: self.fetcher.settings.retry,
        };
        download.stage().await
    }
}
