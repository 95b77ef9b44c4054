//! Models of this host: fetched as this host's own file allows, and used as its trust allows.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use api_types::{PoolFault, TrustMode, VerificationOutcome};
use catalog_core::{CatalogEntry, CatalogStore, Digest, FetchContext, FetchError, ModelRef, Progress, Trust, judge};
use config_schema::{Config, OutboundMode, Pool};
use model_provisioner::configured::{fetcher, open_store, trust};
use model_provisioner::{Fetcher, ModelProvisioner, ProvisionError, Web};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::pool::{Activity, StagedModel};
use crate::staging;

/// Makes models present.
pub(super) struct Models {
    store: Arc<dyn CatalogStore>,
    provisioner: ModelProvisioner<dyn CatalogStore, Fetcher>,
    trust: Trust,
    is_strict: bool,
    outbound: OutboundMode,
    models_dir: PathBuf,
}

impl Models {
    /// Opens the catalog; the gate to the network comes with it.
    ///
    /// # Errors
    /// An index that cannot be read, credentials that cannot be used.
    pub(super) fn open(config: &Config) -> anyhow::Result<(Self, Arc<Web>)> {
        let store = open_store(config).context("cannot open the catalog (server.data_dir, catalog.index)")?;
        let (web, fetcher) = fetcher(config).context("cannot prepare to fetch models")?;
        let models = Self {
            provisioner: ModelProvisioner::new(Arc::clone(&store), Arc::new(fetcher)),
            store,
            trust: trust(config)?,
            is_strict: config.catalog.trust_mode() == TrustMode::Strict,
            outbound: config.policy.outbound.mode,
            models_dir: config.catalog.models_dir.clone(),
        };
        Ok((models, web))
    }

    /// Makes a model present for a pool: its file or folder.
    ///
    /// # Errors
    /// Why it is not here or must not be used.
    pub(super) async fn present(
        &self,
        pool: &Pool,
        model: &str,
        activity: &Activity,
        cancel: &CancellationToken,
    ) -> Result<PathBuf, Failure> {
        let reference = staging::reference(pool, model)?;
        let configured = model == pool.model;
        self.may_read(&reference, configured)?;
        let checksum = pool.provisioning.model.checksum.as_ref().filter(|_| configured);
        let digest: Option<Digest> =
            checksum.map(|checksum| checksum.as_str().parse()).transpose().map_err(|error| {
                Failure::new(PoolFault::ModelUnavailable, format!("provisioning.model.checksum: {error}"))
            })?;
        let verb = if reference.is_local() { "checking" } else { "fetching" };
        let progress = Arc::new(Shown {
            activity: activity.clone(),
            what: format!("{verb} the model {}", reference.id()),
            total: AtomicU64::new(0),
            done: AtomicU64::new(0),
        });
        activity.set(progress.what.clone(), None);
        let context = FetchContext { progress, cancel: cancel.clone(), configured };
        let provisioned = self.provisioner.ensure_present(&reference, digest, &context).await;
        let provisioned = provisioned.map_err(|error| unavailable(&error))?;
        self.trusted(&reference).await?;
        Ok(provisioned.model.local_path)
    }

    /// What is known of a pool's model without fetching anything; `None` when it is not here. What is wrong with it is said when it is
    /// loaded.
    pub(super) async fn survey(&self, pool: &Pool) -> Option<StagedModel> {
        let reference = staging::reference(pool, &pool.model).ok()?;
        let store = Arc::clone(&self.store);
        let located = tokio::task::spawn_blocking(move || store.locate(&reference)).await.ok()?.ok()??;
        staging::inspect(pool, &pool.model, located.local_path).await.ok()
    }

    /// Only the configuration of the orchestrator's operator may name files outside the models' folder; a reload is anybody's.
    fn may_read(&self, model: &ModelRef, configured: bool) -> Result<(), Failure> {
        let ModelRef::File { path } = model else { return Ok(()) };
        let open = configured || self.outbound == OutboundMode::Allow;
        if open || path.is_relative() || path.starts_with(&self.models_dir) {
            return Ok(());
        }
        let message = format!("{model} lies outside catalog.models_dir of its host and no pool is configured with it");
        Err(Failure::new(PoolFault::NotAllowed, message).with_fix("put it below catalog.models_dir of that host"))
    }

    async fn trusted(&self, model: &ModelRef) -> Result<(), Failure> {
        let (store, id) = (Arc::clone(&self.store), model.id());
        let read = tokio::task::spawn_blocking(move || store.get(&id)).await;
        let unusable = |what: String| Failure::new(PoolFault::ModelUnavailable, what);
        let entry = read
            .map_err(|_| unusable("reading the catalog panicked; the log says where".to_owned()))?
            .map_err(|error| unusable(format!("the catalog of the pool's host cannot be used: {error}")))?
            .ok_or_else(|| unusable(format!("the catalog of the pool's host does not know {model}")))?;
        match self.mistrust(&entry) {
            Some(why) => Err(Failure::new(PoolFault::NotAllowed, format!("the model {model} may not be used: {why}"))),
            None => Ok(()),
        }
    }

    fn mistrust(&self, entry: &CatalogEntry) -> Option<String> {
        let last = entry.verification.as_ref();
        if let Some(failed) = last.filter(|last| last.outcome == VerificationOutcome::Fail) {
            return Some(failed.findings.join("; "));
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let judged = judge(entry, &self.trust, i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        if judged.outcome == VerificationOutcome::Fail {
            return Some(judged.findings.join("; "));
        }
        let unproven = self.is_strict && last.is_none_or(|last| last.outcome != VerificationOutcome::Pass);
        unproven
            .then(|| "trust is strict there and its files have not been verified; give the model a checksum".to_owned())
    }
}

fn unavailable(error: &ProvisionError) -> Failure {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    let fault = match error {
        ProvisionError::Fetch { source: FetchError::Denied(_), .. } => PoolFault::NotAllowed,
        _ if text.contains("No space left") || text.contains("not enough space") => PoolFault::DiskFull,
        _ => PoolFault::ModelUnavailable,
    };
    Failure::new(fault, text)
}

/// Shows how far a fetch is.
struct Shown {
    activity: Activity,
    what: String,
    total: AtomicU64,
    done: AtomicU64,
}

impl Shown {
    fn show(&self) {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        #[expect(clippy::cast_precision_loss, reason = "a share is shown, not counted with")]
        let share = (total > 0).then(|| (done as f64 / total as f64).clamp(0.0, 1.0));
        self.activity.set(self.what.clone(), share);
    }
}

impl Progress for Shown {
    fn planned(&self, _: usize, bytes: Option<u64>) {
        self.total.store(bytes.unwrap_or(0), Ordering::Relaxed);
    }

    fn advanced(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.show();
    }

    fn lost(&self, bytes: u64) {
        let fewer = |done: u64| Some(done.saturating_sub(bytes));
        let _ = self.done.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }

    fn file_done(&self, _: &str) {}
}
