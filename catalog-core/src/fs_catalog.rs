//! The index in a JSON file (LO-CAT-01, LO-CAT-03).

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use api_types::ModelId;

use crate::json_file::{JsonFile, Record};
use crate::models_dir::ModelsDir;
use crate::{CatalogEntry, CatalogError, CatalogStore, ListFilter, ModelRef, Page, ResolvedModel};

/// An index in `models.json`: `schema_version` 1, a `revision` that rises with every change, and `entries` by id, one a line.
/// Each entry is a [`CatalogEntry`].
///
/// All of it is held in memory and all of it is written for each change, which is good for some thousands of models.
pub struct FsCatalog {
    index: JsonFile<CatalogEntry>,
    models_dir: ModelsDir,
}

impl Record for CatalogEntry {
    const SCHEMA_VERSION: u64 = 1;

    fn key(&self) -> &str {
        self.id.as_str()
    }
}

impl FsCatalog {
    /// The index in the folder `root`, which is created with mode 0700. Files are only ever removed below `models_dir`.
    ///
    /// # Errors
    /// [`CatalogError`]; an index that is refused is left as it is.
    pub fn open(root: impl Into<PathBuf>, models_dir: impl Into<PathBuf>) -> Result<Self, CatalogError> {
        let index = JsonFile::open(&root.into(), "models.json")?;
        Ok(Self { index, models_dir: ModelsDir::new(&models_dir.into())? })
    }
}

impl CatalogStore for FsCatalog {
    fn get(&self, id: &ModelId) -> Result<Option<CatalogEntry>, CatalogError> {
        Ok(self.index.read()?.records.get(id.as_str()).map(|entry| CatalogEntry::clone(entry)))
    }

    fn put(&self, entry: CatalogEntry) -> Result<(), CatalogError> {
        let entry = self.models_dir.checked(entry)?;
        self.index.change(|entries| {
            let before = entries.insert(entry.key().into(), Arc::new(entry.clone()));
            Ok(((), before.as_deref() != Some(&entry)))
        })
    }

    fn update(
        &self,
        id: &ModelId,
        change: &mut dyn FnMut(Option<CatalogEntry>) -> Option<CatalogEntry>,
    ) -> Result<Option<CatalogEntry>, CatalogError> {
        self.index.change(|entries| {
            let before = entries.remove(id.as_str());
            let after = change(before.as_deref().cloned()).map(|after| CatalogEntry { id: id.clone(), ..after });
            let after = after.map(|after| self.models_dir.checked(after)).transpose()?;
            let changed = before.as_deref() != after.as_ref();
            if let Some(after) = &after {
                entries.insert(after.key().into(), Arc::new(after.clone()));
            }
            Ok((after, changed))
        })
    }

    fn list(&self, filter: &ListFilter) -> Result<Page, CatalogError> {
        let snapshot = self.index.read()?;
        let after = filter.after.as_ref().map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_str()));
        let found = snapshot.records.range::<str, _>((after, Bound::Unbounded)).map(|(_, entry)| entry);
        let mut found = found.filter(|entry| filter.passes(entry));
        let entries = found.by_ref().take(filter.limit).map(|entry| CatalogEntry::clone(entry)).collect();
        Ok(Page { entries, more: found.next().is_some() })
    }

    fn delete(&self, id: &ModelId) -> Result<bool, CatalogError> {
        let removed = self.index.change(|entries| {
            let Some(removed) = entries.remove(id.as_str()) else { return Ok((None, false)) };
            let scope = ModelsDir::scope(&removed);
            let overlaps = |other: &CatalogEntry| {
                let paths = scope.as_ref().zip(other.local_path.as_ref());
                paths.is_some_and(|(scope, path)| path.starts_with(scope) || scope.starts_with(path))
            };
            let others = entries.values().filter(|other| overlaps(other)).map(|other| CatalogEntry::clone(other));
            Ok((Some((removed, others.collect::<Vec<_>>())), true))
        })?;
        let Some((entry, others)) = removed else { return Ok(false) };
        self.models_dir.remove(&entry, &others).map(|()| true)
    }

    fn version(&self) -> Result<String, CatalogError> {
        Ok(self.index.read()?.version.clone())
    }

    fn locate(&self, model: &ModelRef) -> Result<Option<ResolvedModel>, CatalogError> {
        let snapshot = self.index.read()?;
        Ok(self.models_dir.locate(model, snapshot.records.get(model.id().as_str()).map(Arc::as_ref)))
    }
}
