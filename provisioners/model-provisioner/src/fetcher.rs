//! Brings models: picks the source, lists, fetches files side by side, and lets equal requests share one transfer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use catalog_core::{
    CatalogEntry, Digest, FetchContext, FetchError, Fetched, FileFetcher, ModelFetcher, ModelRef, StoredFile,
};
use futures_util::StreamExt;
use http_util::Secret;
use http_util::retry::RetryPolicy;

use crate::Environment;
use crate::disk::{Disk, LocalDisk};
use crate::download::{Download, Staged, blocking};
use crate::flight::Flights;
use crate::hf::HfSource;
use crate::https::HttpsSource;
use crate::oci::Oci;
use crate::outbound::Errand;
use crate::part::{Paths, Tools, failed_to};
use crate::record::Records;
use crate::s3::S3;
use crate::source::{Listing, RemoteFile, Source};
use crate::web::{Gate, Web};

/// Times that a list is asked for again.
const LIST_RETRIES: u32 = 3;

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
    hf: Arc<dyn Source>,
    https: Arc<dyn Source>,
    s3: Arc<dyn Source>,
    oci: Arc<dyn Source>,
}

impl Sources {
    /// All sources, with what the environment has for them.
    ///
    /// # Errors
    /// [`FetchError::Unsupported`] when an endpoint is no URL.
    pub fn new(environment: &Environment) -> Result<Self, FetchError> {
        let token = environment.text("HF_TOKEN").map(Secret::from);
        Ok(Self {
            hf: Arc::new(HfSource::new(environment.text("HF_ENDPOINT"), token)?),
            https: Arc::new(HttpsSource),
            s3: Arc::new(S3::new(environment.clone())),
            oci: Arc::new(Oci::new(environment.clone())),
        })
    }

    /// The same with another source of plain URLs, such as one that knows where a publisher delivers from.
    #[must_use]
    pub fn with_https(self, https: Arc<dyn Source>) -> Self {
        Self { https, ..self }
    }

    fn of(&self, model: &ModelRef) -> Result<&dyn Source, FetchError> {
        match model {
            ModelRef::Hf { .. } => Ok(self.hf.as_ref()),
            ModelRef::Url { .. } => Ok(self.https.as_ref()),
            ModelRef::S3 { .. } => Ok(self.s3.as_ref()),
            ModelRef::Oci { .. } => Ok(self.oci.as_ref()),
            ModelRef::File { .. } => Err(FetchError::Unsupported(format!("{model} is not fetched from anywhere"))),
        }
    }
}

/// Brings models to this machine. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    web: Arc<Web>,
    sources: Sources,
    settings: FetchSettings,
    records: Records,
    local: FileFetcher,
    flights: Arc<Flights>,
}

impl Fetcher {
    /// A fetcher that has fetched nothing yet. References to files of this machine are looked for there and nowhere else.
    #[must_use]
    pub fn new(web: Arc<Web>, sources: Sources, settings: FetchSettings) -> Self {
        let records = Records::new(&settings.models_dir);
        let local = FileFetcher::new(&settings.models_dir);
        Self { web, sources, settings, records, local, flights: Arc::default() }
    }

    /// Whether the outbound policy lets anything be asked for on behalf of a model; `pinned` says that its digest is known.
    ///
    /// # Errors
    /// [`FetchError::Denied`] with the key to change; [`FetchError::Unsupported`] for a reference that is not fetched.
    pub fn permits(&self, model: &ModelRef, configured: bool, pinned: bool) -> Result<(), FetchError> {
        self.gate(model, configured, pinned).map(drop)
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
        Ok((self.web.gate(errand)?, source))
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
        let place = std::path::absolute(self.settings.models_dir.join(path))
            .map_err(failed_to("find", &self.settings.models_dir))?;
        let (folder, local_path) = layout(&place, &listing);
        // Threads at work on it stop when nobody waits for them any more.
        let cancel = context.cancel.child_token();
        let _stop = cancel.clone().drop_guard();
        let context = &FetchContext { cancel, ..context.clone() };
        let errand = Bring { fetcher: self, model, gate, source, expected, context, folder, listing };
        let (files, transferred_bytes) = errand.run().await?;
        Ok(Fetched { local_path, files, source_url: Some(errand.listing.source_url), transferred_bytes })
    }

    /// Lists, and tries again what may pass.
    pub(crate) async fn list(&self, source: &dyn Source, model: &ModelRef, gate: &Gate) -> Result<Listing, FetchError> {
        let mut tries = 0;
        loop {
            match source.list(model, gate).await {
                Err(FetchError::Source(text)) if tries < self.settings.retry.retries.min(LIST_RETRIES) => {
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

/// The folder that the files' names are relative to, and what the model is afterwards. A file whose name the reference has lies
/// where the reference says, any other one below.
fn layout(place: &Path, listing: &Listing) -> (PathBuf, PathBuf) {
    let Some(first) = listing.files.first().filter(|_| listing.single) else {
        return (place.to_owned(), place.to_owned());
    };
    let is_named = |file: &RemoteFile| place.file_name().is_some_and(|name| name == file.name.as_str());
    let parent = place.parent().filter(|_| listing.files.iter().any(is_named));
    let folder = parent.unwrap_or(place);
    (folder.to_owned(), folder.join(&first.name))
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
            blocking(move || whole.into_part().remove()).await?;
        }
        Err(FetchError::Digest { file: self.model.to_string(), expected: expected.clone(), found })
    }

    /// Gives a file its name, if it has none, and remembers it.
    async fn publish(&self, staged: &mut Staged) -> Result<(), FetchError> {
        let Some(whole) = staged.fresh.take() else { return Ok(()) };
        let version = self.listing.files.iter().find(|listed| listed.name == staged.file.name);
        let version = version.and_then(|listed| listed.version.clone());
        let (records, digest) = (self.fetcher.records.clone(), staged.file.digest.clone());
        blocking(move || whole.publish(|dest| records.put(dest, &digest, version.as_deref()))).await?;
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
        .await
    }

    fn paths(&self, file: &RemoteFile) -> Paths {
        Paths::new(self.folder.join(Path::new(&file.name)))
    }

    async fn file(&self, file: &RemoteFile) -> Result<Staged, FetchError> {
        let digest = self.expected.filter(|_| !self.holds_back()).or(file.digest.as_ref());
        let tools = Tools {
            disk: Arc::clone(&self.fetcher.settings.disk),
            progress: Arc::clone(&self.context.progress),
            cancel: self.context.cancel.clone(),
        };
        let download = Download {
            model: self.model,
            source: self.source,
            gate: &self.gate,
            file,
            paths: &self.paths(file),
            digest,
            records: &self.fetcher.records,
            tools: &tools,
            retry: self.fetcher.settings.retry,
        };
        let staged = download.stage().await?;
        if staged.fresh.is_none() {
            self.context.progress.file_done(&file.name);
        }
        Ok(staged)
    }
}
