//! Models that are on this machine already (LO-CAT-11).

use std::fs::File;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::local_files::{self, LocalFilesError};
use crate::models_dir::ModelsDir;
use crate::{CatalogEntry, Digest, FetchContext, FetchError, Fetched, ModelFetcher, ModelRef, Progress};

/// Where models are kept unless the configuration says otherwise: `~/.cache/models`. `None` for a user without a home.
#[must_use]
pub fn default_model_cache_dir() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".cache/models"))
}

/// Takes [`ModelRef::File`] and nothing else: files stay where they are and are read once. Never goes online.
#[derive(Clone, Debug)]
pub struct FileFetcher {
    models_dir: PathBuf,
}

impl FileFetcher {
    /// Relative references are below `models_dir`.
    #[must_use]
    pub fn new(models_dir: impl Into<PathBuf>) -> Self {
        Self { models_dir: models_dir.into() }
    }
}

#[async_trait]
impl ModelFetcher for FileFetcher {
    async fn fetch(
        &self,
        model: &ModelRef,
        expected: Option<&Digest>,
        context: &FetchContext,
    ) -> Result<Fetched, FetchError> {
        let ModelRef::File { path } = model else {
            return Err(FetchError::Unsupported(format!(
                "{model} is not on this machine, and only file: is read here"
            )));
        };
        let (models_dir, path, expected) = (self.models_dir.clone(), path.clone(), expected.cloned());
        let (progress, cancel) = (context.progress.clone(), context.cancel.child_token());
        // Reading stops when nobody waits for it any more.
        let _stop = cancel.clone().drop_guard();
        let reading = tokio::task::spawn_blocking(move || {
            let local_path = place(&models_dir, &path)?;
            read(local_path, expected.as_ref(), progress.as_ref(), &cancel)
        });
        reading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

fn place(models_dir: &Path, path: &Path) -> Result<PathBuf, FetchError> {
    let full = models_dir.join(path);
    let found = ModelsDir::new(models_dir).ok().and_then(|models_dir| models_dir.local(path));
    found.ok_or_else(|| match full.try_exists() {
        Ok(true) => FetchError::Unsupported(format!(
            "{} leads out of the models' folder; name the file by its absolute path",
            full.display()
        )),
        Ok(false) => FetchError::NotFound(format!("{} does not exist; put the model there", full.display())),
        Err(source) => FetchError::Io { action: "read", path: full, source },
    })
}

fn read(
    local_path: PathBuf,
    expected: Option<&Digest>,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Fetched, FetchError> {
    let found = local_files::find(&local_path)?;
    progress.planned(found.len(), Some(found.iter().map(|file| file.size_bytes).sum()));
    let mut files = Vec::new();
    for file in &found {
        let opened = File::open(&file.path);
        let opened = opened.map_err(|source| FetchError::Io { action: "read", path: file.path.clone(), source })?;
        files.push(local_files::hash(file, opened, progress, cancel)?);
        progress.file_done(&file.name);
    }
    let digest = CatalogEntry::manifest_digest(&files)
        .ok_or_else(|| FetchError::NotFound(format!("{} holds no files", local_path.display())))?;
    match expected {
        Some(expected) if *expected != digest => Err(FetchError::Digest {
            file: local_path.display().to_string(),
            expected: expected.clone(),
            found: digest,
        }),
        _ => Ok(Fetched { local_path, files, source_url: None, transferred_bytes: 0 }),
    }
}

impl From<LocalFilesError> for FetchError {
    fn from(error: LocalFilesError) -> Self {
        match error {
            LocalFilesError::Io { path, source } => Self::Io { action: "read", path, source },
            LocalFilesError::LinkOutside { path } => Self::Unsupported(format!(
                "{} leads out of the model's folder; put the file itself there",
                path.display()
            )),
            LocalFilesError::Canceled => Self::Canceled,
        }
    }
}
