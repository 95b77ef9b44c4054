//! Fetching models and verifying them.

use std::sync::Arc;

use api_types::{
    Accepted, Engine, ErrorEnvelope, ErrorKind, ModelFacts, ModelId, ModelJobKind, PullRequest, TrustMode,
    Verification, VerificationOutcome,
};
use catalog_core::{
    CatalogEntry, CatalogError, CatalogStore, Digest, FetchError, FilesVerdict, ModelRef, Verdict, VerifyError,
    checked_signatures, files, judge, verify_files,
};
use model_provisioner::{ProvisionError, UNVERIFIED};

use super::jobs::{Busy, Job};
use super::records::unusable;
use crate::app::App;
use crate::narrate;

impl App {
    /// Begins to fetch a model, unless it is here or being fetched.
    ///
    /// # Errors
    /// `INVALID_PARAMS`; `UNTRUSTED_ARTIFACT` when the outbound policy does not let it be fetched; `CONFLICT` with a digest that the
    /// configuration or the catalog contradicts, or while it is being verified.
    pub async fn pull_model(
        self: &Arc<Self>,
        reference: &str,
        request: &PullRequest,
    ) -> Result<Accepted, ErrorEnvelope> {
        let model: ModelRef = reference
            .parse()
            .map_err(|error| ErrorEnvelope::new(ErrorKind::InvalidParams, format!("model reference: {error}")))?;
        let expected = self.expected_digest(&model, request.digest.as_deref()).await?;
        self.models.may_read(&model, &self.config)?;
        let configured = self.models.is_configured(&model.id());
        if !model.is_local() {
            self.models.fetcher.permits(&model, configured, expected.is_some()).map_err(|error| failed(&error))?;
        }
        let job = self.open_job(&model.id(), ModelJobKind::Pull)?;
        let Some(job) = job else { return Ok(Accepted::Started) };
        narrate::pull_started(&model.id());
        let (app, context) = (Arc::clone(self), job.fetch_context(configured));
        self.run_job(&job, async move {
            let id = model.id();
            app.give_up_failed(&id).await?;
            let done = app.models.provisioner.ensure_present(&model, expected, &context).await;
            let provisioned = done.map_err(|error| not_provided(&error))?;
            narrate::pulled(&id, &provisioned);
            app.judge_again(&id).await
        });
        Ok(Accepted::Started)
    }

    /// Files that have failed their verification are not what a pull is content with.
    async fn give_up_failed(&self, id: &ModelId) -> Result<(), ErrorEnvelope> {
        let failed = |entry: &CatalogEntry| {
            entry.verification.as_ref().is_some_and(|last| last.outcome == VerificationOutcome::Fail)
        };
        let changed = id.clone();
        let update = move |store: &dyn CatalogStore| {
            store.update(&changed, &mut |entry| {
                entry.map(|entry| match failed(&entry) {
                    true => CatalogEntry { local_path: None, files: Vec::new(), ..entry },
                    false => entry,
                })
            })
        };
        self.models.with_store(update).await.map(drop)
    }

    /// What a model must be, by the request, the configuration and the catalog.
    async fn expected_digest(&self, model: &ModelRef, asked: Option<&str>) -> Result<Option<Digest>, ErrorEnvelope> {
        let asked: Option<Digest> = asked
            .map(str::parse)
            .transpose()
            .map_err(|error| ErrorEnvelope::new(ErrorKind::InvalidParams, format!("digest: {error}")))?;
        let id = model.id();
        let of_entry = id.clone();
        let entry = self.models.with_store(move |store| store.get(&of_entry)).await?;
        let known = [self.models.configured_digest(&id), entry.and_then(|entry| entry.digest), asked];
        let mut known = known.into_iter().flatten();
        let first = known.next();
        match (&first, known.find(|digest| Some(digest) != first.as_ref())) {
            (Some(first), Some(other)) => Err(ErrorEnvelope::new(
                ErrorKind::Conflict,
                format!(
                    "{id} must be {first} by the configuration or the catalog, and {other} was asked for; correct one of them"
                ),
            )),
            _ => Ok(first),
        }
    }

    /// Begins to verify a model, unless that is under way.
    ///
    /// # Errors
    /// `NOT_FOUND`; `CONFLICT` while it is being fetched.
    pub async fn verify_model(self: &Arc<Self>, id: &ModelId) -> Result<(), ErrorEnvelope> {
        let entry = self.entry(id).await?;
        let Some(job) = self.open_job(id, ModelJobKind::Verify)? else { return Ok(()) };
        let (app, working) = (Arc::clone(self), Arc::clone(&job));
        self.run_job(&job, async move { app.verify(entry, working).await });
        Ok(())
    }

    async fn verify(self: &Arc<Self>, entry: CatalogEntry, job: Arc<Job>) -> Result<(), ErrorEnvelope> {
        let id = entry.id.clone();
        let looked = tokio::task::spawn_blocking(move || verify_files(&entry, job.as_ref(), &job.cancel)).await;
        let looked = match looked.map_err(|_| panicked())? {
            // Nothing to read is a finding, and no failure of the verification.
            Err(VerifyError::NotHere) => None,
            Err(error) => return Err(ErrorEnvelope::new(ErrorKind::Internal, narrate::with_causes(&error))),
            Ok(looked) => Some(looked),
        };
        let (app, changed) = (Arc::clone(self), id.clone());
        let update = move |store: &dyn CatalogStore| {
            store.update(&changed, &mut |entry| entry.map(|entry| app.verified(entry, looked.as_ref())))
        };
        self.remember(&id, update).await
    }

    /// An entry after its files were looked at.
    fn verified(&self, entry: CatalogEntry, looked: Option<&FilesVerdict>) -> CatalogEntry {
        let now_ms = self.unix_now_ms();
        let files = looked.map_or_else(
            || Verdict::warn("its files are not on this machine; pull it to verify them"),
            |looked| looked.verdict.clone(),
        );
        // What it is by its files, where nobody has said what it must be.
        let is_new = entry.files.is_empty() && files.outcome != VerificationOutcome::Fail;
        let found = looked.filter(|_| is_new);
        let entry = CatalogEntry {
            files: found.map_or_else(|| entry.files.clone(), |looked| looked.files.clone()),
            signatures: checked_signatures(&entry, &self.models.trust, now_ms),
            facts: read_facts(&entry).or(entry.facts.clone()),
            ..entry
        };
        let verdict = files.and(judge(&entry, &self.models.trust, now_ms));
        CatalogEntry {
            last_verified_ms: looked.map(|_| now_ms).or(entry.last_verified_ms),
            verification: Some(verdict.at(now_ms)),
            ..entry
        }
    }

    /// Takes in what trust says of a model whose files were verified as they came, and what they say about it.
    async fn judge_again(self: &Arc<Self>, id: &ModelId) -> Result<(), ErrorEnvelope> {
        let (app, changed) = (Arc::clone(self), id.clone());
        let update =
            move |store: &dyn CatalogStore| store.update(&changed, &mut |entry| entry.map(|entry| app.judged(entry)));
        self.remember(id, update).await
    }

    fn judged(&self, entry: CatalogEntry) -> CatalogEntry {
        let now_ms = self.unix_now_ms();
        // What was judged before is judged anew; only what was found when the files came stays.
        let unverified = |last: &Verification| last.findings.iter().any(|finding| finding == UNVERIFIED);
        let came = match &entry.verification {
            Some(last) if unverified(last) => Verdict::warn(UNVERIFIED),
            _ => Verdict::pass(),
        };
        let verdict = came.and(judge(&entry, &self.models.trust, now_ms));
        CatalogEntry {
            signatures: checked_signatures(&entry, &self.models.trust, now_ms),
            facts: read_facts(&entry).or(entry.facts.clone()),
            verification: Some(verdict.at(now_ms)),
            ..entry
        }
    }

    /// Changes an entry after a verification, and tells of what was found.
    async fn remember(
        self: &Arc<Self>,
        id: &ModelId,
        update: impl FnOnce(&dyn CatalogStore) -> Result<Option<CatalogEntry>, CatalogError> + Send + 'static,
    ) -> Result<(), ErrorEnvelope> {
        // It may have been deleted meanwhile.
        let Some(entry) = self.models.with_store(update).await? else { return Ok(()) };
        if let Some(verification) = &entry.verification {
            self.metrics.verified(self.engine_of(&entry), verification.outcome);
            narrate::model_verified(id, verification, entry.digest.as_ref());
        }
        self.model_changed(id, Some(&entry));
        Ok(())
    }

    /// LO-CAT-13: refuses at once what strict trust would not let be used.
    pub(super) fn check_trust(&self, entry: &CatalogEntry, asked: Option<TrustMode>) -> Result<(), ErrorEnvelope> {
        let trust = self.models.trust.clone();
        let trust = if asked == Some(TrustMode::Strict) { trust.strict() } else { trust };
        let verdict = judge(entry, &trust, self.unix_now_ms());
        if verdict.outcome != VerificationOutcome::Fail {
            return Ok(());
        }
        let message = format!("{} is not trusted: {}", entry.id, verdict.findings.join("; "));
        Err(ErrorEnvelope::new(ErrorKind::UntrustedArtifact, message))
    }

    fn open_job(&self, id: &ModelId, kind: ModelJobKind) -> Result<Option<Arc<Job>>, ErrorEnvelope> {
        self.models.jobs.open(id, kind, self.unix_now_ms()).map_err(|Busy(other)| {
            let message = format!("a job of the kind `{other}` is under way for {id}; wait for it, or cancel it");
            ErrorEnvelope::new(ErrorKind::Conflict, message)
        })
    }

    /// Runs a job on the models' own thread and tells of its progress and its end.
    fn run_job(
        self: &Arc<Self>,
        job: &Arc<Job>,
        work: impl Future<Output = Result<(), ErrorEnvelope>> + Send + 'static,
    ) {
        let (app, job) = (Arc::clone(self), Arc::clone(job));
        self.models.jobs.runtime().spawn(async move {
            let working = tokio::spawn(work);
            let report = job.report(&app.feed);
            let (result, ()) = tokio::join!(
                async {
                    let result = working.await.unwrap_or_else(|_| Err(panicked()));
                    job.close(result.clone(), app.unix_now_ms());
                    result
                },
                report
            );
            if let Err(error) = result {
                narrate::model_job_failed(&job.view(), &error);
            }
        });
    }

    /// The kind of engine a model is for: of the pool that serves it, else by the kind of its files.
    fn engine_of(&self, entry: &CatalogEntry) -> Engine {
        let serving = self.pools.iter().find(|pool| pool.served().id == entry.id);
        let format = entry.facts.as_ref().map(|facts| facts.format.as_str());
        serving.map_or(if format == Some("safetensors") { Engine::Vllm } else { Engine::Llamacpp }, |pool| {
            pool.config.engine
        })
    }
}

/// A fetch that failed, for the outside.
pub(super) fn failed(error: &FetchError) -> ErrorEnvelope {
    ErrorEnvelope::new(error.kind(), narrate::with_causes(error))
}

/// A model that could not be made present, for the outside.
fn not_provided(error: &ProvisionError) -> ErrorEnvelope {
    match error {
        ProvisionError::Fetch { source, .. } => failed(source),
        ProvisionError::Catalog(error) => unusable(error),
        ProvisionError::Reference(_) => ErrorEnvelope::new(ErrorKind::InvalidParams, error.to_string()),
        ProvisionError::OtherDigest { .. } => ErrorEnvelope::new(ErrorKind::Conflict, error.to_string()),
    }
}

/// What a model's files say about it. Files that say nothing are no failure: an engine may know them.
fn read_facts(entry: &CatalogEntry) -> Option<ModelFacts> {
    files::read_local(entry.local_path.as_deref()?).ok().map(|info| info.facts)
}

fn panicked() -> ErrorEnvelope {
    ErrorEnvelope::new(ErrorKind::Internal, "the work panicked; the log says where")
}
