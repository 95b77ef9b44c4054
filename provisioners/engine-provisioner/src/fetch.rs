//! Files that engines are made from: on this machine, or behind `model-provisioner`'s gate.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use catalog_core::{Digest, FetchContext, FetchError, ModelFetcher, ModelRef, Progress};
use model_provisioner::{Environment, FetchSettings, Fetcher, Gate, Home, HttpsSource, Listing, Source, Sources, Web};
use tokio_util::sync::CancellationToken;

use crate::error::EngineError;
use crate::progress::EngineProgress;

/// A file that is here.
pub(crate) struct Fetched {
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
    /// Whether it was fetched only to be unpacked.
    pub(crate) is_ours: bool,
}

impl Fetched {
    /// Removes it, if it was fetched only to be unpacked.
    pub(crate) fn discard(&self) {
        if self.is_ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Where things come from that hand out their files from elsewhere: the origin, and its domains of delivery.
const DELIVERY: &[(&str, &[&str])] = &[("github.com", &["githubusercontent.com", "codeload.github.com"])];

/// Makes a file present: `file:///…` where it lies, all else below `folder`. It has the digest, when one is given.
pub(crate) async fn file(
    url: &str,
    digest: Option<&Digest>,
    folder: &Path,
    web: &Arc<Web>,
    progress: &Arc<dyn EngineProgress>,
    cancel: &CancellationToken,
) -> Result<Fetched, EngineError> {
    let failed = |source| match source {
        FetchError::Canceled => EngineError::Canceled,
        source => EngineError::Fetch { what: shown(url), source },
    };
    if let Some(path) = url.strip_prefix("file://") {
        let path = PathBuf::from(path);
        let digest = local(path.clone(), digest.cloned(), cancel.clone()).await.map_err(failed)?;
        return Ok(Fetched { path, digest, is_ours: false });
    }
    let model: ModelRef =
        url.parse().map_err(|error: catalog_core::RefError| failed(FetchError::Unsupported(error.to_string())))?;
    let sources = Sources::new(&Environment::default()).map_err(failed)?.with_https(Arc::new(Releases));
    let fetcher = Fetcher::new(Arc::clone(web), sources, FetchSettings::new(folder.to_owned(), 1));
    let told = Arc::new(Told::new(progress));
    let context = FetchContext { progress: told, cancel: cancel.clone(), configured: true };
    let fetched = fetcher.fetch(&model, digest, &context).await.map_err(failed)?;
    let file = fetched.files.first().ok_or_else(|| failed(FetchError::NotFound(shown(url))))?;
    Ok(Fetched { path: fetched.local_path, digest: file.digest.clone(), is_ours: true })
}

/// A URL without what may be secret in it.
pub(crate) fn shown(url: &str) -> String {
    url.parse().map_or_else(|_| url.to_owned(), |url| model_provisioner::shown(&url))
}

async fn local(path: PathBuf, wanted: Option<Digest>, cancel: CancellationToken) -> Result<Digest, FetchError> {
    let work = move || {
        let failed = |action: &'static str| {
            let path = path.clone();
            move |source| FetchError::Io { action, path, source }
        };
        let file = match std::fs::File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(FetchError::NotFound(format!("{} does not exist", path.display())));
            }
            opened => opened.map_err(failed("open"))?,
        };
        let found = Digest::read(file, |_| match cancel.is_cancelled() {
            true => Err(std::io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        });
        let found = match found {
            Err(_) if cancel.is_cancelled() => return Err(FetchError::Canceled),
            found => found.map_err(failed("read"))?,
        };
        match wanted {
            Some(expected) if expected != found => {
                Err(FetchError::Digest { file: path.display().to_string(), expected, found })
            }
            _ => Ok(found),
        }
    };
    crate::blocking(work).await
}

/// `https:` with what is known of where its files are delivered from.
struct Releases;

#[async_trait]
impl Source for Releases {
    fn home(&self, model: &ModelRef) -> Result<Home, FetchError> {
        let home = HttpsSource.home(model)?;
        let host = home.origin.host_str().unwrap_or_default();
        let delivery = DELIVERY.iter().find(|(origin, _)| *origin == host).map_or(&[][..], |(_, domains)| *domains);
        Ok(Home { delivery: delivery.iter().map(|domain| (*domain).to_owned()).collect(), ..home })
    }

    async fn list(&self, model: &ModelRef, gate: &Gate) -> Result<Listing, FetchError> {
        HttpsSource.list(model, gate).await
    }

    fn advice(&self) -> &'static str {
        "engines are fetched without credentials; use a URL that needs none, or a file:/// of this machine"
    }
}

/// Turns bytes into a share.
struct Told {
    progress: Arc<dyn EngineProgress>,
    all: AtomicU64,
    here: AtomicU64,
}

impl Told {
    fn new(progress: &Arc<dyn EngineProgress>) -> Self {
        Self { progress: Arc::clone(progress), all: AtomicU64::new(0), here: AtomicU64::new(0) }
    }

    fn tell(&self, here: u64) {
        let all = self.all.load(Ordering::Relaxed);
        if all > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a share is shown, not counted with")]
            self.progress.share((here as f64 / all as f64).min(1.0));
        }
    }
}

impl Progress for Told {
    fn waiting(&self) {
        self.progress.waiting();
    }

    fn planned(&self, _: usize, bytes: Option<u64>) {
        self.all.store(bytes.unwrap_or(0), Ordering::Relaxed);
    }

    fn advanced(&self, bytes: u64) {
        self.tell(self.here.fetch_add(bytes, Ordering::Relaxed) + bytes);
    }

    fn lost(&self, bytes: u64) {
        self.here.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn file_done(&self, _: &str) {}
}
