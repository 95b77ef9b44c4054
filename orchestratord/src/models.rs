//! The catalog in the daemon: what admission must know of models, and the work on them.
//!
//! The index is on disk; what every admission needs of it is a small map in memory, empty as long as all models may be used.
//! Work on models runs on a thread of its own, so that hashing and writing never hold up a token.

mod fit;
mod gc;
mod jobs;
mod records;
mod retire;
mod work;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use anyhow::{Context, bail};
use api_types::{ErrorEnvelope, ErrorKind, ModelId, ModelLifecycle, TrustMode, VerificationOutcome};
use catalog_core::{CatalogEntry, CatalogError, CatalogStore, Digest, ListFilter, ModelRef, Trust, judge};
use config_schema::{Config, OutboundMode};
use model_provisioner::{Fetcher, ModelProvisioner, Web};
use tokio::sync::Notify;

use self::jobs::{Job, Jobs};
pub use self::retire::watch as retirements;
use crate::app::App;
use crate::pools::{Pool, Replica};

/// Entries read at once when the whole index is read.
const PAGE: usize = 1000;

/// What the daemon knows of models.
pub struct Models {
    store: Arc<dyn CatalogStore>,
    trust: Trust,
    is_strict: bool,
    /// By id, for every model that may not be used, and for those of pools.
    standings: RwLock<HashMap<ModelId, Standing>>,
    /// Whether admission can skip looking: no model is barred, and trust is permissive.
    all_fine: AtomicBool,
    /// When the catalog last changed, as far as this daemon knows.
    changed_at: Mutex<SystemTime>,
    /// A deadline of a retirement may have changed.
    retirements: Notify,
    /// Models that the configuration names, with what they must be.
    configured: HashMap<ModelId, Option<Digest>>,
    web: Arc<Web>,
    fetcher: Arc<Fetcher>,
    provisioner: ModelProvisioner<dyn CatalogStore, Fetcher>,
    jobs: Jobs,
}

/// What admission and records need of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// What it is, by the catalog.
    pub digest: Option<Digest>,
    /// What its last verification found.
    pub verification: Option<VerificationOutcome>,
    /// Why tasks may not use it.
    pub barred: Option<Barred>,
}

/// Why tasks may not use a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Barred {
    /// It is retired; pools that serve it stop at the time given.
    Retired {
        /// In milliseconds since the Unix epoch; `None` lets what was admitted run on.
        until_ms: Option<i64>,
    },
    /// It is not what it must be, or trust asks for more than is known of it.
    Untrusted {
        /// Why.
        reason: String,
    },
}

/// The id under which the catalog knows a name that a client or the configuration gives a model. What is no reference is its
/// own id: an engine may serve any name.
pub fn model_id(name: &str) -> ModelId {
    name.parse::<ModelRef>().map_or_else(|_| ModelId::from(name.trim()), |model| model.id())
}

impl Models {
    /// Opens the catalog, reads what admission needs of it, and starts the thread for long work.
    ///
    /// # Errors
    /// An index that cannot be read, a reference in the configuration that is none, a thread that cannot be had.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let named = configured(config)?;
        let store = model_provisioner::configured::open_store(config)
            .context("cannot open the catalog (server.data_dir, catalog.index)")?;
        let (web, fetcher) =
            model_provisioner::configured::fetcher(config).context("cannot prepare to fetch models")?;
        let fetcher = Arc::new(fetcher);
        let models = Self {
            store: Arc::clone(&store),
            trust: model_provisioner::configured::trust(config)?,
            is_strict: config.catalog.trust_mode() == TrustMode::Strict,
            standings: RwLock::default(),
            all_fine: AtomicBool::new(true),
            changed_at: Mutex::new(SystemTime::now()),
            retirements: Notify::new(),
            configured: named,
            provisioner: ModelProvisioner::new(Arc::clone(&store), Arc::clone(&fetcher)),
            web,
            fetcher,
            jobs: Jobs::start().context("cannot start the thread for work on models")?,
        };
        models.read_all().context("cannot read the catalog")?;
        Ok(models)
    }

    /// The gate to the network.
    pub fn web(&self) -> &Arc<Web> {
        &self.web
    }

    /// Cancels the work under way; what was fetched is kept.
    pub fn close(&self) {
        self.jobs.shut_down();
    }

    /// The work on a model that is under way, or the last that ended.
    pub fn job(&self, id: &ModelId) -> Option<Arc<Job>> {
        self.jobs.get(id)
    }

    /// Whether the operator's own configuration names a model.
    pub fn is_configured(&self, id: &ModelId) -> bool {
        self.configured.contains_key(id)
    }

    /// Whether a client may have a file of this machine read: one below the models' folder, or one that the configuration
    /// names. Of any other file not even its digest is a client's business.
    ///
    /// # Errors
    /// `UNTRUSTED_ARTIFACT` with the key to change.
    pub fn may_read(&self, model: &ModelRef, config: &Config) -> Result<(), ErrorEnvelope> {
        let ModelRef::File { path } = model else { return Ok(()) };
        let open = config.policy.outbound.mode == OutboundMode::Allow;
        if open || path.is_relative() || path.starts_with(&config.catalog.models_dir) || self.is_configured(&model.id())
        {
            return Ok(());
        }
        let message = format!(
            "{model} lies outside catalog.models_dir and the configuration does not name it; add it to [[catalog.models]]"
        );
        Err(ErrorEnvelope::new(ErrorKind::UntrustedArtifact, message))
    }

    fn configured_digest(&self, id: &ModelId) -> Option<Digest> {
        self.configured.get(id).cloned().flatten()
    }

    /// When the catalog last changed, as far as this daemon knows.
    pub fn changed_at(&self) -> SystemTime {
        *self.changed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads every entry's standing anew.
    fn read_all(&self) -> Result<(), CatalogError> {
        let mut standings = HashMap::new();
        let mut filter = ListFilter { state: None, tag: None, after: None, limit: PAGE };
        loop {
            let page = self.store.list(&filter)?;
            filter.after = page.entries.last().map(|entry| entry.id.clone());
            standings.extend(page.entries.iter().map(|entry| (entry.id.clone(), self.standing_of(entry))));
            if !page.more {
                break;
            }
        }
        *self.standings.write().unwrap_or_else(PoisonError::into_inner) = standings;
        self.look_for_barred();
        Ok(())
    }

    /// Takes in what an entry is now, or that it is gone.
    fn learn(&self, id: &ModelId, entry: Option<&CatalogEntry>) {
        let standing = entry.map(|entry| self.standing_of(entry));
        let mut standings = self.standings.write().unwrap_or_else(PoisonError::into_inner);
        match standing {
            Some(standing) => drop(standings.insert(id.clone(), standing)),
            None => drop(standings.remove(id)),
        }
        drop(standings);
        self.look_for_barred();
        *self.changed_at.lock().unwrap_or_else(PoisonError::into_inner) = SystemTime::now();
        self.retirements.notify_waiters();
    }

    fn look_for_barred(&self) {
        let standings = self.standings.read().unwrap_or_else(PoisonError::into_inner);
        let barred = self.is_strict || standings.values().any(|standing| standing.barred.is_some());
        self.all_fine.store(!barred, Ordering::Release);
    }

    fn standing_of(&self, entry: &CatalogEntry) -> Standing {
        let barred = match entry.lifecycle {
            ModelLifecycle::Retired => Some(Barred::Retired { until_ms: entry.retire_at_ms }),
            ModelLifecycle::Active => self.mistrust(entry).map(|reason| Barred::Untrusted { reason }),
        };
        Standing {
            digest: entry.digest.clone(),
            verification: entry.verification.as_ref().map(|verification| verification.outcome),
            barred,
        }
    }

    /// Why tasks may not use a model that is not retired.
    fn mistrust(&self, entry: &CatalogEntry) -> Option<String> {
        let last = entry.verification.as_ref();
        if let Some(failed) = last.filter(|last| last.outcome == VerificationOutcome::Fail) {
            return Some(format!("{}; `llama-orch models pull` fetches it again", failed.findings.join("; ")));
        }
        let judged = judge(entry, &self.trust, unix_now_ms());
        if judged.outcome == VerificationOutcome::Fail {
            return Some(judged.findings.join("; "));
        }
        let unproven = self.is_strict && last.is_none();
        unproven
            .then(|| "trust is strict and its files have not been verified; run `llama-orch models verify`".to_owned())
    }

    /// How a model stands; of one that the catalog does not know only whether trust lets it be used.
    pub fn standing(&self, id: &ModelId) -> Standing {
        let standings = self.standings.read().unwrap_or_else(PoisonError::into_inner);
        standings.get(id).cloned().unwrap_or_else(|| Standing {
            barred: self.is_strict.then(|| Barred::Untrusted {
                reason: "trust is strict and the model is not in the catalog; register it with a signature".to_owned(),
            }),
            ..Standing::default()
        })
    }

    /// Every model with the state it is in.
    pub fn states(&self) -> Vec<(ModelId, ModelLifecycle)> {
        let standings = self.standings.read().unwrap_or_else(PoisonError::into_inner);
        let state = |standing: &Standing| match standing.barred {
            Some(Barred::Retired { .. }) => ModelLifecycle::Retired,
            Some(Barred::Untrusted { .. }) | None => ModelLifecycle::Active,
        };
        standings.iter().map(|(id, standing)| (id.clone(), state(standing))).collect()
    }

    /// The retired models with a deadline, and the deadline in milliseconds since the Unix epoch.
    pub fn retiring(&self) -> Vec<(ModelId, i64)> {
        let standings = self.standings.read().unwrap_or_else(PoisonError::into_inner);
        let deadline = |(id, standing): (&ModelId, &Standing)| match standing.barred {
            Some(Barred::Retired { until_ms: Some(until_ms) }) => Some((id.clone(), until_ms)),
            _ => None,
        };
        standings.iter().filter_map(deadline).collect()
    }

    /// Whether tasks for a model that goes by this name are taken, as far as the catalog is concerned. `serving` are the
    /// models of the pools that answer to the name.
    ///
    /// # Errors
    /// `MODEL_DEPRECATED` or `UNTRUSTED_ARTIFACT`.
    pub fn admissible(&self, name: &str, serving: impl FnOnce() -> Vec<ModelId>) -> Result<(), ErrorEnvelope> {
        if self.all_fine.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut named = serving();
        if named.is_empty() {
            named.push(model_id(name));
        }
        let mut barred = None;
        for id in &named {
            match self.standing(id).barred {
                Some(why) => barred = Some((id, why)),
                None => return Ok(()),
            }
        }
        barred.map_or(Ok(()), |(id, why)| Err(why.refusal(id)))
    }
}

impl App {
    /// The digest of the model that a replica serves: by the engine, else by the catalog.
    pub fn model_digest(&self, pool: &Pool, replica: &Replica) -> Option<String> {
        replica.model_digest().or_else(|| self.models.standing(&pool.served().id).digest.map(String::from))
    }
}

impl Barred {
    /// What a task for the model is told.
    pub fn refusal(&self, id: &ModelId) -> ErrorEnvelope {
        match self {
            Self::Retired { .. } => ErrorEnvelope::new(
                ErrorKind::ModelDeprecated,
                format!(
                    "the model {id} is retired; use another, or have it taken back with `llama-orch models activate`"
                ),
            ),
            Self::Untrusted { reason } => {
                ErrorEnvelope::new(ErrorKind::UntrustedArtifact, format!("the model {id} may not be used: {reason}"))
            }
        }
    }
}

/// The models that the configuration names, with what they must be.
///
/// # Errors
/// A reference that is none, or two checksums for one model.
pub fn configured(config: &Config) -> anyhow::Result<HashMap<ModelId, Option<Digest>>> {
    let mut configured: HashMap<ModelId, Option<Digest>> = HashMap::new();
    let mut add = |path: String, id: ModelId, checksum: Option<&str>| -> anyhow::Result<()> {
        let digest = checksum.map(str::parse::<Digest>).transpose().with_context(|| path.clone())?;
        let known = configured.entry(id.clone()).or_default();
        match (&known, digest) {
            (Some(known), Some(other)) if *known != other => {
                bail!("{path}: the file gives two checksums for {id}; keep the right one")
            }
            (_, Some(digest)) => *known = Some(digest),
            (_, None) => {}
        }
        Ok(())
    };
    for (number, model) in config.catalog.models.iter().enumerate() {
        let path = format!("catalog.models[{number}].ref");
        let reference: ModelRef = model.reference.parse().with_context(|| path.clone())?;
        add(path, reference.id(), model.checksum.as_ref().map(config_schema::Checksum::as_str))?;
    }
    for pool in &config.pools {
        let wanted = &pool.provisioning.model;
        let name = wanted.reference.as_deref().unwrap_or(&pool.model);
        // An external engine may serve a name that is no reference.
        let path = format!("model of pool {}", pool.id);
        add(path, model_id(name), wanted.checksum.as_ref().map(config_schema::Checksum::as_str))?;
    }
    Ok(configured)
}

fn unix_now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    crate::wire::long(since.as_millis())
}
