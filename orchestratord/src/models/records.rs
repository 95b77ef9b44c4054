//! Registering, looking at, changing and forgetting models.

use std::sync::Arc;

use api_types::{
    CatalogList, CatalogModel, CatalogQuery, CatalogRecord, CatalogStateChange, ErrorEnvelope, ErrorKind, FeedEvent,
    ModelChange, ModelId, ModelLifecycle, ModelManifest, TrustMode,
};
use catalog_core::{CatalogEntry, CatalogError, CatalogStore, Digest, ListFilter, ModelRef};

use super::Models;
use crate::app::App;
use crate::narrate;
use crate::page;
use crate::wire::long;

impl Models {
    /// Does something with the index, away from the threads that serve.
    ///
    /// # Errors
    /// `INTERNAL` for an index that cannot be used.
    pub(crate) async fn with_store<Answer: Send + 'static>(
        &self,
        act: impl FnOnce(&dyn CatalogStore) -> Result<Answer, CatalogError> + Send + 'static,
    ) -> Result<Answer, ErrorEnvelope> {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || act(store.as_ref())).await {
            Ok(done) => done.map_err(|error| unusable(&error)),
            Err(_) => Err(ErrorEnvelope::new(ErrorKind::Internal, "reading the catalog panicked; the log says where")),
        }
    }

    fn record(&self, entry: CatalogEntry) -> CatalogRecord {
        let size_bytes = entry.size_bytes().map(long);
        let manifest = |file: &catalog_core::StoredFile| ModelManifest {
            digest: file.digest.to_string(),
            size_bytes: long(file.size_bytes),
        };
        CatalogRecord {
            job: self.jobs.get(&entry.id).map(|job| job.view()),
            state: entry.lifecycle,
            retire_at_ms: entry.retire_at_ms,
            local_path: entry.local_path.as_ref().map(|path| path.display().to_string()),
            size_bytes,
            created_ms: entry.created_ms,
            last_verified_ms: entry.last_verified_ms,
            verification: entry.verification,
            facts: entry.facts,
            model: CatalogModel {
                id: entry.id.to_string(),
                digest: entry.digest.map_or_else(String::new, String::from),
                source_url: entry.source_url,
                tags: entry.tags,
                manifests: entry.files.iter().map(manifest).collect(),
                signatures: entry.signatures,
                sbom: entry.sbom,
                trust_policy: entry.trust_policy,
            },
        }
    }
}

impl App {
    /// Registers a model. Files that are here already are verified at once.
    ///
    /// # Errors
    /// `INVALID_PARAMS`, `UNTRUSTED_ARTIFACT` under strict trust, `CONFLICT` with another digest.
    pub async fn register_model(
        self: &Arc<Self>,
        model: CatalogModel,
        asked: Option<TrustMode>,
    ) -> Result<CatalogRecord, ErrorEnvelope> {
        let reference: ModelRef = model.id.parse().map_err(|error| invalid("id", &error))?;
        let digest: Digest = model.digest.parse().map_err(|error| invalid("digest", &error))?;
        let now_ms = self.unix_now_ms();
        let entry = registered(&reference, digest.clone(), model, now_ms);
        self.check_trust(&entry, asked)?;
        let found = match self.models.may_read(&reference, &self.config) {
            Ok(()) => self.models.with_store(move |store| store.locate(&reference)).await?,
            Err(_) => None,
        };
        let (id, expected) = (entry.id.clone(), digest);
        let put = move |store: &dyn CatalogStore| {
            let mut contradicts = false;
            let entry = store.update(&id, &mut |known| match known {
                Some(known) if known.digest.as_ref().is_some_and(|digest| *digest != expected) => {
                    contradicts = true;
                    Some(known)
                }
                known => Some(merged(known, entry.clone(), found.as_ref().map(|found| found.local_path.clone()))),
            })?;
            Ok((entry, contradicts))
        };
        let (entry, contradicts) = self.models.with_store(put).await?;
        let entry = entry.expect("it was put there");
        if contradicts {
            let message = format!("{} is registered with another digest; delete it first", entry.id);
            return Err(ErrorEnvelope::new(ErrorKind::Conflict, message));
        }
        let is_here = entry.local_path.is_some();
        let id = entry.id.clone();
        narrate::model_registered(&id);
        self.model_changed(&id, Some(&entry));
        if is_here {
            self.verify_model(&id).await?;
        }
        Ok(self.models.record(entry))
    }

    /// One model.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn model(&self, id: &ModelId) -> Result<CatalogRecord, ErrorEnvelope> {
        self.entry(id).await.map(|entry| self.models.record(entry))
    }

    /// One entry.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub(super) async fn entry(&self, id: &ModelId) -> Result<CatalogEntry, ErrorEnvelope> {
        let asked = id.clone();
        let found = self.models.with_store(move |store| store.get(&asked)).await?;
        found.ok_or_else(|| unknown(id))
    }

    /// One page of models.
    ///
    /// # Errors
    /// `INVALID_PARAMS` for a page size that is none.
    pub async fn models_page(&self, query: CatalogQuery) -> Result<CatalogList, ErrorEnvelope> {
        let limit = page::length(query.limit)?;
        let filter = ListFilter { state: query.state, tag: query.tag, after: query.cursor.map(ModelId::from), limit };
        let page = self.models.with_store(move |store| store.list(&filter)).await?;
        let next_cursor = page.entries.last().filter(|_| page.more).map(|entry| entry.id.to_string());
        let models = page.entries.into_iter().map(|entry| self.models.record(entry)).collect();
        Ok(CatalogList { models, next_cursor })
    }

    /// Forgets a model and removes its files.
    ///
    /// # Errors
    /// `NOT_FOUND`; `CONFLICT` while a pool serves it or work on it is under way.
    pub async fn forget_model(self: &Arc<Self>, id: &ModelId) -> Result<(), ErrorEnvelope> {
        let entry = self.entry(id).await?;
        let served_by = self.pools.iter().find(|pool| pool.served().id == *id);
        if let (Some(pool), ModelLifecycle::Active) = (served_by, entry.lifecycle) {
            let message = format!("pool {} serves {id}; retire it first", pool.id);
            return Err(ErrorEnvelope::new(ErrorKind::Conflict, message));
        }
        if self.models.jobs.get(id).is_some_and(|job| job.is_under_way()) {
            let message = format!("work on {id} is under way; cancel it first");
            return Err(ErrorEnvelope::new(ErrorKind::Conflict, message));
        }
        let removed = id.clone();
        let deleted = self.models.with_store(move |store| match store.delete(&removed) {
            // The entry is gone; what is left is told, and is no failure of the request.
            Err(error @ CatalogError::Files { .. }) => {
                narrate::model_files_left(&removed, &error);
                Ok(true)
            }
            other => other,
        });
        if !deleted.await? {
            return Err(unknown(id));
        }
        narrate::model_forgotten(id);
        self.model_changed(id, None);
        Ok(())
    }

    /// Retires a model or takes it back.
    ///
    /// # Errors
    /// `INVALID_PARAMS`, `NOT_FOUND`.
    pub async fn set_model_state(
        self: &Arc<Self>,
        id: &ModelId,
        change: &CatalogStateChange,
    ) -> Result<(), ErrorEnvelope> {
        if change.deadline_ms.is_some_and(|deadline| deadline < 0) {
            return Err(ErrorEnvelope::new(
                ErrorKind::InvalidParams,
                "deadline_ms: a number of milliseconds from 0 on",
            ));
        }
        if change.state == ModelLifecycle::Active && change.deadline_ms.is_some() {
            let message = "deadline_ms: only retiring has a deadline; leave it out";
            return Err(ErrorEnvelope::new(ErrorKind::InvalidParams, message));
        }
        let retire_at_ms = change.deadline_ms.map(|deadline| self.unix_now_ms().saturating_add(deadline));
        let (state, asked) = (change.state, id.clone());
        let update = move |store: &dyn CatalogStore| {
            store.update(&asked, &mut |entry| {
                entry.map(|entry| CatalogEntry { lifecycle: state, retire_at_ms, ..entry })
            })
        };
        let entry = self.models.with_store(update).await?.ok_or_else(|| unknown(id))?;
        narrate::model_state(id, state, change.deadline_ms);
        self.model_changed(id, Some(&entry));
        Ok(())
    }

    /// A model was registered, changed or forgotten: admission, pools, metrics and watchers learn of it.
    pub(super) fn model_changed(&self, id: &ModelId, entry: Option<&CatalogEntry>) {
        self.models.learn(id, entry);
        self.metrics.model_state(id.as_str(), entry.map(|entry| entry.lifecycle));
        self.feed.tell(FeedEvent::Model, || ModelChange {
            model_id: id.to_string(),
            model: entry.cloned().map(|entry| self.models.record(entry)),
        });
        for pool in self.pools.iter().filter(|pool| pool.served().id == *id) {
            self.feed.tell(FeedEvent::Pool, || pool.status(self));
        }
    }

    /// Wall time in milliseconds since the Unix epoch.
    pub(crate) fn unix_now_ms(&self) -> i64 {
        self.clock.unix_ms(self.clock.now_ms())
    }
}

fn registered(reference: &ModelRef, digest: Digest, model: CatalogModel, now_ms: i64) -> CatalogEntry {
    CatalogEntry {
        digest: Some(digest),
        source_url: model.source_url,
        tags: model.tags,
        signatures: model.signatures,
        sbom: model.sbom,
        trust_policy: model.trust_policy,
        ..CatalogEntry::new(reference.id(), now_ms)
    }
}

/// What is registered anew beside what the daemon has found out itself.
fn merged(known: Option<CatalogEntry>, new: CatalogEntry, found: Option<std::path::PathBuf>) -> CatalogEntry {
    match known {
        None => CatalogEntry { local_path: found, ..new },
        Some(known) => CatalogEntry {
            digest: new.digest,
            source_url: new.source_url.or(known.source_url),
            tags: new.tags,
            signatures: new.signatures,
            sbom: new.sbom,
            trust_policy: new.trust_policy,
            local_path: known.local_path.or(found),
            ..known
        },
    }
}

/// There is no such model.
pub(super) fn unknown(id: &ModelId) -> ErrorEnvelope {
    ErrorEnvelope::new(
        ErrorKind::NotFound,
        format!(
            "no model {id} is registered; `llama-orch models list` shows those that are, and ids are escaped in paths"
        ),
    )
}

fn invalid(field: &str, error: &dyn std::fmt::Display) -> ErrorEnvelope {
    ErrorEnvelope::new(ErrorKind::InvalidParams, format!("{field}: {error}"))
}

/// The index cannot be used.
pub(super) fn unusable(error: &CatalogError) -> ErrorEnvelope {
    let what = narrate::with_causes(error);
    ErrorEnvelope::new(ErrorKind::Internal, format!("{what}; the operator must look at server.data_dir"))
}
