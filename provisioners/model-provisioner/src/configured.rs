//! Catalog, fetcher and trust as a configuration has them, for every daemon that serves models.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api_types::TrustPolicy;
use catalog_core::{CatalogError, CatalogStore, FetchError, FsCatalog, RootsError, SqliteCatalog, Trust};
use config_schema::{CatalogIndex, Config};

use crate::{Environment, FetchSettings, Fetcher, OutboundPolicy, Sources, Web, WebSettings};

/// What the configuration asks of models cannot be held against them.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file with certificates cannot be read.
    #[error("catalog.trust_policy.ca_roots: cannot read {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file holds no certificates.
    #[error("catalog.trust_policy.ca_roots")]
    Roots(#[from] RootsError),
}

/// Opens the index of models.
///
/// # Errors
/// [`CatalogError`] when it cannot be used.
pub fn open_store(config: &Config) -> Result<Arc<dyn CatalogStore>, CatalogError> {
    let (folder, models_dir) = (config.server.data_dir.join("catalog"), &config.catalog.models_dir);
    Ok(match config.catalog.index {
        CatalogIndex::Fs => Arc::new(FsCatalog::open(folder, models_dir)?),
        CatalogIndex::Sqlite => Arc::new(SqliteCatalog::open(folder, models_dir)?),
    })
}

/// The gate to the network, and what fetches models through it, with the credentials of the process's environment.
///
/// # Errors
/// [`FetchError`] when a client cannot be built or a credential cannot be used.
pub fn fetcher(config: &Config) -> Result<(Arc<Web>, Fetcher), FetchError> {
    let catalog = &config.catalog;
    let policy = OutboundPolicy::new(&config.policy.outbound);
    let stall_timeout = Duration::from_millis(catalog.stall_timeout_ms.get());
    let web = Arc::new(Web::new(policy, &WebSettings::new(stall_timeout))?);
    let sources = Sources::new(&Environment::of_process())?;
    let parallel_files = usize::try_from(catalog.parallel_files.get()).unwrap_or(usize::MAX);
    let settings = FetchSettings::new(catalog.models_dir.clone(), parallel_files);
    Ok((Arc::clone(&web), Fetcher::new(web, sources, settings)))
}

/// What the configuration asks of models before tasks may use them.
///
/// # Errors
/// [`TrustError`].
pub fn trust(config: &Config) -> Result<Trust, TrustError> {
    let policy = &config.catalog.trust_policy;
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|source| TrustError::Unreadable { path: path.clone(), source })
    };
    Ok(Trust::configured(&TrustPolicy {
        mode: config.catalog.trust_mode(),
        allowed_registries: policy.allowed_registries.clone(),
        require_signature: policy.require_signature,
        require_sbom: policy.require_sbom,
        ca_roots: policy.ca_roots.iter().map(read).collect::<Result<_, _>>()?,
    })?)
}
