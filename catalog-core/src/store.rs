//! Where entries are kept (LO-CAT-01).

use std::path::PathBuf;

use api_types::{ModelId, ModelLifecycle};

use crate::{CatalogEntry, ModelRef, ResolvedModel};

/// An index of models. Every change is on disk, whole, when the call returns; several processes may use one index at once.
/// Calls block: they read and write files.
pub trait CatalogStore: Send + Sync {
    /// The entry with this id.
    ///
    /// # Errors
    /// [`CatalogError`], as for every call.
    fn get(&self, id: &ModelId) -> Result<Option<CatalogEntry>, CatalogError>;

    /// Adds an entry or replaces the one with its id.
    ///
    /// # Errors
    /// [`CatalogError`], as for every call.
    fn put(&self, entry: CatalogEntry) -> Result<(), CatalogError>;

    /// Changes an entry, or adds one where `change` makes it from `None`, while nobody else can. What `change` leaves `None`
    /// is removed. Returns what there is afterwards.
    ///
    /// # Errors
    /// [`CatalogError`], as for every call.
    fn update(
        &self,
        id: &ModelId,
        change: &mut dyn FnMut(Option<CatalogEntry>) -> Option<CatalogEntry>,
    ) -> Result<Option<CatalogEntry>, CatalogError>;

    /// Entries by id.
    ///
    /// # Errors
    /// [`CatalogError`], as for every call.
    fn list(&self, filter: &ListFilter) -> Result<Page, CatalogError>;

    /// Removes an entry and tries to remove its files, those below the models' folder. `false` when there was none.
    ///
    /// # Errors
    /// [`CatalogError::Files`] when the entry is gone and its files are not; else as for every call.
    fn delete(&self, id: &ModelId) -> Result<bool, CatalogError>;

    /// A text that is another one after every change.
    ///
    /// # Errors
    /// [`CatalogError`], as for every call.
    fn version(&self) -> Result<String, CatalogError>;

    /// Makes a model active, or retires it. `false` when there is none.
    ///
    /// # Errors
    /// [`CatalogError`], as for every call.
    fn set_state(
        &self,
        id: &ModelId,
        lifecycle: ModelLifecycle,
        retire_at_ms: Option<i64>,
    ) -> Result<bool, CatalogError> {
        let changed =
            self.update(id, &mut |entry| entry.map(|entry| CatalogEntry { lifecycle, retire_at_ms, ..entry }))?;
        Ok(changed.is_some())
    }

    /// Where a model is; `None` when it is not here, whatever the index says (LO-CAT-08).
    ///
    /// # Errors
    /// [`CatalogError`], as for every call.
    fn locate(&self, model: &ModelRef) -> Result<Option<ResolvedModel>, CatalogError>;

    /// Whether a model is here (LO-CAT-08).
    ///
    /// # Errors
    /// [`CatalogError`], as for every call.
    fn exists(&self, model: &ModelRef) -> Result<bool, CatalogError> {
        self.locate(model).map(|found| found.is_some())
    }
}

/// Which entries to list. Filters add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFilter {
    /// Only models in this state.
    pub state: Option<ModelLifecycle>,
    /// Only models with this tag.
    pub tag: Option<String>,
    /// Only ids that come after this one.
    pub after: Option<ModelId>,
    /// Most entries.
    pub limit: usize,
}

impl ListFilter {
    /// Whether state and tag are what is asked for.
    pub(crate) fn passes(&self, entry: &CatalogEntry) -> bool {
        self.state.is_none_or(|state| entry.lifecycle == state)
            && self.tag.as_ref().is_none_or(|tag| entry.tags.contains(tag))
    }
}

/// Some entries, by id.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<CatalogEntry>,
    /// Whether others come after the last of them.
    pub more: bool,
}

/// Why an index could not be read or changed. It is then as it was.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `lock`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The index was written by a later version, which is refused and left as it is (LO-CAT-03).
    #[error("{} has schema version {found}, and this version of llama-orch reads {known}; use the newer one, or move the file away", path.display())]
    UnknownVersion {
        /// The index.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The version that is understood.
        known: u64,
    },
    /// The index is not what was written; it is left as it is.
    #[error("{} is damaged: {problem}; restore it from a backup, or move it away to begin anew", path.display())]
    Damaged {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// An entry names a path that leads out of where it belongs; nothing was changed (LO-CAT-10).
    #[error("{id}: {} is no plain path; write it without `..`", path.display())]
    UnsafePath {
        /// The entry.
        id: ModelId,
        /// The path.
        path: PathBuf,
    },
    /// The entry is gone and its files could not be removed.
    #[error("the entry is removed, and {} could not be; remove it by hand", path.display())]
    Files {
        /// What is left.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
