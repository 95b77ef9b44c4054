//! A catalog of engines for one who only looks.

use api_types::Engine;
use catalog_core::{CatalogError, EngineCatalogStore, EngineEntry};

/// Knows no engine and takes none.
pub(super) struct NoCatalog;

impl EngineCatalogStore for NoCatalog {
    fn get(&self, _: &str) -> Result<Option<EngineEntry>, CatalogError> {
        Ok(None)
    }

    fn find(&self, _: Engine, _: &str) -> Result<Vec<EngineEntry>, CatalogError> {
        Ok(Vec::new())
    }

    fn list(&self) -> Result<Vec<EngineEntry>, CatalogError> {
        Ok(Vec::new())
    }

    fn put(&self, _: EngineEntry) -> Result<(), CatalogError> {
        Ok(())
    }

    fn delete(&self, _: &str) -> Result<bool, CatalogError> {
        Ok(false)
    }
}
