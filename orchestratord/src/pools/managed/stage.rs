//! Making a pool's model present before its engine starts.

use std::sync::Arc;
use std::time::Duration;

use api_types::{ErrorEnvelope, ErrorKind, ModelId, PoolFault, PullRequest};
use catalog_core::{CatalogEntry, ModelRef};
use pool_managerd::doctor;
use pool_managerd::failure::Failure;
use pool_managerd::pool::{Activity, StagedModel};
use pool_managerd::staging;
use tokio_util::sync::CancellationToken;

use crate::app::App;
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
        let reference = staging::reference(&pool.config, model)?;
        let id = reference.id();
        self.barred(&id)?;
        let entry = match self.present(&reference, &id).await? {
            Some(entry) => entry,
            None => self.fetch(&reference, &id, activity, cancel).await?,
        };
        self.barred(&id)?;
        let path = entry.local_path.clone().ok_or_else(|| gone(&id))?;
        activity.set("reading the model's header", None);
        staging::inspect(&pool.config, model, path).await
    }

    /// Looks at the models of pools that are loaded on demand, as far as they are here: what they need, predictions can be made from.
    pub async fn survey_models(&self) {
        let lazy = |pool: &&Arc<Pool>| {
            pool.config.is_managed_here() && pool.config.activation == config_schema::Activation::OnDemand
        };
        for pool in self.pools.iter().filter(lazy) {
            let Ok(reference) = pool.config.model_to_fetch().parse::<ModelRef>() else { continue };
            let located = self.models.with_store(move |store| store.locate(&reference)).await;
            let Ok(Some(located)) = located else { continue };
            // What is wrong with it is said when it is loaded.
            if let Ok(model) = staging::inspect(&pool.config, &pool.config.model, located.local_path).await {
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
