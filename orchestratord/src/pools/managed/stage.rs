//! Making a pool's model present before its engine starts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api_types::{Engine, ErrorEnvelope, ErrorKind, ModelId, PoolFault, PullRequest};
use catalog_core::files::{self, FilesError};
use catalog_core::{CatalogEntry, ModelRef};
use pool_managerd::doctor;
use pool_managerd::failure::Failure;
use pool_managerd::pool::{Activity, StagedModel};
use pool_managerd::workshop::need_of;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::narrate;
use crate::pools::Pool;

/// Gap between two looks at a download.
const LOOK: Duration = Duration::from_millis(200);

impl App {
    /// Makes a model present for a pool, and looks whether its files can be what the engine wants.
    ///
    /// # Errors
    /// Why it is not here, must not be used, or is no model.
    pub(super) async fn stage_model(
        self: &Arc<Self>,
        pool: &Pool,
        model: &str,
        activity: &Activity,
        cancel: &CancellationToken,
    ) -> Result<StagedModel, Failure> {
        if !pool.config.has_adapter() {
            // Before anything is fetched for it.
            return Err(doctor::no_adapter(pool.config.engine));
        }
        activity.set(format!("looking for the model {model}"), None);
        // What the configuration fetches for the pool need not be what tasks call it.
        let wanted = if model == pool.config.model { pool.config.model_to_fetch() } else { model };
        let reference: ModelRef = wanted.parse().map_err(|error| {
            let message = format!("`{wanted}` is no reference to a model: {error}");
            Failure::new(PoolFault::ModelUnavailable, message)
                .with_fix("name a file (file:/path/model.gguf) or a repository (hf:org/repo/file.gguf)")
        })?;
        let id = reference.id();
        self.barred(&id)?;
        let entry = match self.present(&reference, &id).await? {
            Some(entry) => entry,
            None => self.fetch(&reference, &id, activity, cancel).await?,
        };
        self.barred(&id)?;
        let path = entry.local_path.clone().ok_or_else(|| gone(&id))?;
        activity.set("reading the model's header", None);
        examine(pool, model, path).await
    }

    /// Looks at the models of pools that are not loaded yet, as far as they are here: what they need, predictions can be made from.
    pub async fn survey_models(self: &Arc<Self>) {
        for pool in self.pools.iter().filter(|pool| pool.config.is_managed()) {
            let Ok(reference) = pool.config.model_to_fetch().parse::<ModelRef>() else { continue };
            let located = self.models.with_store(move |store| store.locate(&reference)).await;
            let Ok(Some(located)) = located else { continue };
            // What is wrong with it is said when it is loaded.
            if let Ok(model) = examine(pool, &pool.config.model, located.local_path).await {
                self.residency.knows(&pool.id, model);
            }
        }
    }

    fn barred(&self, id: &ModelId) -> Result<(), Failure> {
        match self.models.standing(id).barred {
            Some(why) => Err(Failure::new(PoolFault::ModelUnavailable, why.refusal(id).message)),
            None => Ok(()),
        }
    }

    /// The model's entry, if its files are here and known.
    async fn present(&self, reference: &ModelRef, id: &ModelId) -> Result<Option<CatalogEntry>, Failure> {
        let (asked, of) = (reference.clone(), id.clone());
        let found = self.models.with_store(move |store| {
            let here = store.locate(&asked)?.is_some();
            Ok(store.get(&of)?.filter(|entry| here && entry.local_path.is_some()))
        });
        found.await.map_err(|error| unavailable(&error))
    }

    async fn fetch(
        self: &Arc<Self>,
        reference: &ModelRef,
        id: &ModelId,
        activity: &Activity,
        cancel: &CancellationToken,
    ) -> Result<CatalogEntry, Failure> {
        self.pull_model(&reference.to_string(), &PullRequest::default()).await.map_err(|error| unavailable(&error))?;
        let job = self.models.job(id).ok_or_else(|| gone(id))?;
        let verb = if reference.is_local() { "checking" } else { "fetching" };
        loop {
            activity.set(format!("{verb} the model {id}"), job.share());
            tokio::select! {
                () = job.ended() => break,
                () = tokio::time::sleep(LOOK) => {}
                () = cancel.cancelled() => {
                    job.cancel.cancel();
                    return Err(Failure::new(PoolFault::ModelUnavailable, "fetching the model was called off"));
                }
            }
        }
        if let Some(error) = job.view().error {
            return Err(unavailable(&error));
        }
        self.present(reference, id).await?.ok_or_else(|| gone(id))
    }
}

/// Reads what a model's files say of the memory it needs.
async fn examine(pool: &Pool, model: &str, path: PathBuf) -> Result<StagedModel, Failure> {
    let looked = tokio::task::spawn_blocking(move || {
        let (bytes, info) = (size_of(&path), files::read_local(&path));
        (path, bytes, info)
    });
    let (path, bytes, info) = looked.await.map_err(|_| {
        Failure::new(PoolFault::ModelUnusable, "reading the model's header panicked; the log says where")
    })?;
    let info = info.map(Some).or_else(|error| unreadable(pool.config.engine, &path, &error))?;
    let (need_bytes, shape) = info.and_then(|info| need_of(info, &pool.config)).unzip();
    Ok(StagedModel { reference: model.to_owned(), path, bytes, need_bytes, shape })
}

fn gone(id: &ModelId) -> Failure {
    Failure::new(PoolFault::ModelUnavailable, format!("the files of {id} are not here"))
        .with_fix(format!("fetch it: llama-orch models pull {id}"))
}

fn unavailable(error: &ErrorEnvelope) -> Failure {
    let fault = match error.code {
        ErrorKind::UntrustedArtifact => PoolFault::NotAllowed,
        _ if error.message.contains("No space left") || error.message.contains("not enough space") => {
            PoolFault::DiskFull
        }
        _ => PoolFault::ModelUnavailable,
    };
    Failure::new(fault, error.message.clone())
}

/// Files that cannot be read are no model for an engine that wants to read them itself; others may know more formats than we do.
fn unreadable<T>(engine: Engine, path: &Path, error: &FilesError) -> Result<Option<T>, Failure> {
    if engine != Engine::Llamacpp {
        return Ok(None);
    }
    let message = format!("{} cannot be loaded: {}", path.display(), narrate::with_causes(error));
    Err(Failure::new(PoolFault::ModelUnusable, message)
        .with_fix("llama.cpp wants a whole GGUF file; fetch or convert it anew"))
}

/// Bytes of a file, or of all files of a folder.
fn size_of(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return std::fs::metadata(path).map_or(0, |file| file.len());
    };
    entries.flatten().map(|entry| size_of(&entry.path())).sum()
}
