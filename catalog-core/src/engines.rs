//! The index of prepared engines (ORCH-3440, LO-CAT-12).

use std::path::PathBuf;
use std::sync::Arc;

use api_types::Engine;
use serde::{Deserialize, Serialize};

use crate::json_file::{JsonFile, Record};
use crate::{CatalogError, Digest};

/// An engine that was built, pulled or found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineEntry {
    /// Its id, chosen by whoever prepared it.
    pub id: String,
    /// Which engine it is.
    pub engine: Engine,
    /// Its version, as it says itself.
    pub version: String,
    /// What it was built from: a commit or a tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_ref: Option<String>,
    /// Digest of its program or image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Flags it was built with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_flags: Vec<String>,
    /// What there is of it: paths, or references to images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// When it was prepared, in milliseconds since the Unix epoch.
    pub created_ms: i64,
}

/// An index of engines, with the promises of [`CatalogStore`](crate::CatalogStore).
pub trait EngineCatalogStore: Send + Sync {
    /// The entry with this id.
    ///
    /// # Errors
    /// [`CatalogError`], as for every call.
    fn get(&self, id: &str) -> Result<Option<EngineEntry>, CatalogError>;

    /// The entries of an engine with this version, which differ in how they were built; the newest first.
    ///
    /// # Errors
    /// [`CatalogError`], as for every call.
    fn find(&self, engine: Engine, version: &str) -> Result<Vec<EngineEntry>, CatalogError>;

    /// All entries, by id.
    ///
    /// # Errors
    /// [`CatalogError`], as for every call.
    fn list(&self) -> Result<Vec<EngineEntry>, CatalogError>;

    /// Adds an entry or replaces the one with its id.
    ///
    /// # Errors
    /// [`CatalogError`], as for every call.
    fn put(&self, entry: EngineEntry) -> Result<(), CatalogError>;

    /// Removes an entry, and nothing of the engine. `false` when there was none.
    ///
    /// # Errors
    /// [`CatalogError`], as for every call.
    fn delete(&self, id: &str) -> Result<bool, CatalogError>;
}

/// An index in `engines.json`, of the same form as `models.json` and with a `schema_version` of its own, 1.
pub struct FsEngineCatalog(JsonFile<EngineEntry>);

impl Record for EngineEntry {
    const SCHEMA_VERSION: u64 = 1;

    fn key(&self) -> &str {
        &self.id
    }
}

impl FsEngineCatalog {
    /// The index in the folder `root`, which is created with mode 0700.
    ///
    /// # Errors
    /// [`CatalogError`]; an index that is refused is left as it is.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, CatalogError> {
        JsonFile::open(&root.into(), "engines.json").map(Self)
    }
}

impl EngineCatalogStore for FsEngineCatalog {
    fn get(&self, id: &str) -> Result<Option<EngineEntry>, CatalogError> {
        Ok(self.0.read()?.records.get(id).map(|entry| EngineEntry::clone(entry)))
    }

    fn find(&self, engine: Engine, version: &str) -> Result<Vec<EngineEntry>, CatalogError> {
        let mut found = self.list()?;
        found.retain(|entry| entry.engine == engine && entry.version == version);
        found.sort_by_key(|entry| std::cmp::Reverse(entry.created_ms));
        Ok(found)
    }

    fn list(&self) -> Result<Vec<EngineEntry>, CatalogError> {
        Ok(self.0.read()?.records.values().map(|entry| EngineEntry::clone(entry)).collect())
    }

    fn put(&self, entry: EngineEntry) -> Result<(), CatalogError> {
        self.0.change(|entries| {
            let before = entries.insert(entry.key().into(), Arc::new(entry.clone()));
            Ok(((), before.as_deref() != Some(&entry)))
        })
    }

    fn delete(&self, id: &str) -> Result<bool, CatalogError> {
        self.0.change(|entries| {
            let removed = entries.remove(id).is_some();
            Ok((removed, removed))
        })
    }
}
