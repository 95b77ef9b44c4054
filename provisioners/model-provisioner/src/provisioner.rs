//! Makes a model present, verified and registered (ORCH-3700).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api_types::{ModelId, Verification, VerificationOutcome};
use catalog_core::{
    CatalogEntry, CatalogError, CatalogStore, Digest, FetchContext, FetchError, Fetched, FileFetcher, FsCatalog,
    ModelFetcher, ModelRef, RefError, ResolvedModel, Verdict,
};

use crate::download::blocking;

/// The finding about a model that was fetched without a digest to compare it with.
pub const UNVERIFIED: &str = "unverified: no digest was given for it; give the model a checksum";

/// Makes models present: looks for them in a catalog, has them fetched, and registers them there.
pub struct ModelProvisioner<C: ?Sized, F: ?Sized> {
    catalog: Arc<C>,
    fetcher: Arc<F>,
}

impl<C: ?Sized, F: ?Sized> Clone for ModelProvisioner<C, F> {
    fn clone(&self) -> Self {
        Self { catalog: Arc::clone(&self.catalog), fetcher: Arc::clone(&self.fetcher) }
    }
}

/// A model that is here and registered.
#[derive(Clone, Debug, PartialEq)]
pub struct Provisioned {
    /// Where it is.
    pub model: ResolvedModel,
    /// The digest of its files, see [`CatalogEntry::manifest_digest`].
    pub digest: Option<Digest>,
    /// What a comparison with the given digest found: now, or when it came.
    pub verification: Option<Verification>,
    /// Bytes that came over the network.
    pub transferred_bytes: u64,
    /// Time it took.
    pub took: Duration,
}

/// Why a model is not present. The catalog is then as it was.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The text is no reference.
    #[error("{0}")]
    Reference(#[from] RefError),
    /// The catalog could not be read or written.
    #[error("the catalog cannot be used")]
    Catalog(#[from] CatalogError),
    /// The model could not be fetched.
    #[error("{id} cannot be fetched")]
    Fetch {
        /// The model.
        id: ModelId,
        /// Why not.
        #[source]
        source: FetchError,
    },
    /// The catalog has the model with another digest than the one that was asked for.
    #[error(
        "the catalog has {id} with the digest {found}, and {expected} was asked for; correct the checksum, or delete the model from the catalog to fetch it anew"
    )]
    OtherDigest {
        /// The model.
        id: ModelId,
        /// What was asked for.
        expected: Digest,
        /// What the catalog has.
        found: Digest,
    },
}

impl ModelProvisioner<FsCatalog, FileFetcher> {
    /// Models that are on this machine, with relative references and the index `models.json` in `cache_dir`. Never goes online
    /// (ORCH-3701).
    ///
    /// # Errors
    /// [`CatalogError`] when the index cannot be used.
    pub fn file_only(cache_dir: impl Into<PathBuf>) -> Result<Self, CatalogError> {
        let cache_dir = cache_dir.into();
        let catalog = FsCatalog::open(&cache_dir, &cache_dir)?;
        Ok(Self::new(Arc::new(catalog), Arc::new(FileFetcher::new(cache_dir))))
    }
}

impl<C: CatalogStore + ?Sized + 'static, F: ModelFetcher + ?Sized> ModelProvisioner<C, F> {
    /// Models of `catalog`, brought by `fetcher`.
    #[must_use]
    pub fn new(catalog: Arc<C>, fetcher: Arc<F>) -> Self {
        Self { catalog, fetcher }
    }

    /// [`ensure_present`](Self::ensure_present) for a reference as it is written.
    ///
    /// # Errors
    /// [`ProvisionError`].
    pub async fn ensure_present_str(
        &self,
        model: &str,
        digest: Option<Digest>,
        context: &FetchContext,
    ) -> Result<Provisioned, ProvisionError> {
        self.ensure_present(&model.parse()?, digest, context).await
    }

    /// Makes a model present. What the catalog has is not fetched again; what is fetched is compared with `digest`, else with
    /// the digest that the catalog has for it, and registered when all of it is here. Dropping the future stops it, and what
    /// was fetched until then is kept for the next time.
    ///
    /// # Errors
    /// [`ProvisionError`].
    pub async fn ensure_present(
        &self,
        model: &ModelRef,
        digest: Option<Digest>,
        context: &FetchContext,
    ) -> Result<Provisioned, ProvisionError> {
        let begun = Instant::now();
        let id = model.id();
        let failed = |source| ProvisionError::Fetch { id: id.clone(), source };
        let (located, entry) = self.look(model, &id).await?;
        let known = entry.and_then(|entry| Some((entry.digest.clone()?, entry)));
        if let (Some(expected), Some((found, _))) = (&digest, &known)
            && expected != found
        {
            return Err(ProvisionError::OtherDigest { id, expected: expected.clone(), found: found.clone() });
        }
        if let (Some(model), Some((found, entry))) = (located, &known) {
            tracing::debug!(model = %id, path = %model.local_path.display(), "model is here already");
            let verification = match &digest {
                Some(_) => self.confirm(&id, entry).await?,
                None => entry.verification.clone(),
            };
            let digest = Some(found.clone());
            return Ok(Provisioned { model, digest, verification, transferred_bytes: 0, took: begun.elapsed() });
        }
        let expected = digest.or(known.map(|(digest, _)| digest));
        let fetched = self.fetcher.fetch(model, expected.as_ref(), context).await.map_err(failed)?;
        let provisioned = self.register(id, expected.is_some(), fetched, begun).await?;
        Ok(provisioned)
    }

    async fn look(
        &self,
        model: &ModelRef,
        id: &ModelId,
    ) -> Result<(Option<ResolvedModel>, Option<CatalogEntry>), ProvisionError> {
        let (catalog, model, id) = (Arc::clone(&self.catalog), model.clone(), id.clone());
        Ok(blocking(move || Ok::<_, CatalogError>((catalog.locate(&model)?, catalog.get(&id)?))).await?)
    }

    /// What was found about a model whose digest is now confirmed: nobody needs to be warned any more that there was none.
    async fn confirm(&self, id: &ModelId, entry: &CatalogEntry) -> Result<Option<Verification>, ProvisionError> {
        let is_unverified = |found: &Verification| found.findings == [UNVERIFIED];
        let Some(found) = entry.verification.clone().filter(is_unverified) else {
            return Ok(entry.verification.clone());
        };
        let passed = Verdict::pass().at(found.verified_at_ms);
        let (catalog, id, confirmed) = (Arc::clone(&self.catalog), id.clone(), passed.clone());
        blocking(move || {
            catalog.update(&id, &mut |entry| {
                let mut entry = entry?;
                if entry.verification.as_ref().is_some_and(is_unverified) {
                    entry.verification = Some(confirmed.clone());
                }
                Some(entry)
            })
        })
        .await?;
        Ok(Some(passed))
    }

    async fn register(
        &self,
        id: ModelId,
        verified: bool,
        fetched: Fetched,
        begun: Instant,
    ) -> Result<Provisioned, ProvisionError> {
        let now = now_ms();
        let digest = CatalogEntry::manifest_digest(&fetched.files);
        let verdict = match verified {
            true => Verdict::pass(),
            false => Verdict { outcome: VerificationOutcome::Warn, findings: vec![UNVERIFIED.to_owned()] },
        };
        let verification = verdict.at(now);
        let provisioned = Provisioned {
            model: ResolvedModel { id: id.clone(), local_path: fetched.local_path.clone() },
            digest: digest.clone(),
            verification: Some(verification.clone()),
            transferred_bytes: fetched.transferred_bytes,
            took: begun.elapsed(),
        };
        let catalog = Arc::clone(&self.catalog);
        blocking(move || {
            let mut change = |entry: Option<CatalogEntry>| {
                let entry = entry.unwrap_or_else(|| CatalogEntry::new(id.clone(), now));
                Some(CatalogEntry {
                    local_path: Some(fetched.local_path.clone()),
                    files: fetched.files.clone(),
                    source_url: fetched.source_url.clone().or(entry.source_url),
                    digest: digest.clone(),
                    last_verified_ms: Some(now),
                    verification: Some(verification.clone()),
                    ..entry
                })
            };
            catalog.update(&id, &mut change)
        })
        .await?;
        tracing::info!(
            model = %provisioned.model.id,
            bytes = provisioned.transferred_bytes,
            duration_ms = provisioned.took.as_secs_f64() * 1000.0,
            digest = provisioned.digest.as_ref().map(tracing::field::display),
            verified,
            "model is present"
        );
        Ok(provisioned)
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
