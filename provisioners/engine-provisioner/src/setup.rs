//! What all pools of a daemon share when their engines are prepared.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api_types::Engine;
use catalog_core::{CatalogError, EngineCatalogStore, EngineEntry};
use config_schema::{Config, ContainerRuntime, Outbound, Pool};
use container_runtime::{Detector, Mount};
use model_provisioner::Web;

use crate::error::EngineError;
use crate::host::Host;

/// Room that a build of llama.cpp with CUDA for a few kinds of GPUs takes, with some to spare.
const BUILD_BYTES: u64 = 4 << 30;

/// What preparing engines works with. Cheap to clone.
#[derive(Clone)]
pub struct Setup {
    /// Where sources, builds and programs are kept, below a folder for each kind of engine.
    pub cache_dir: PathBuf,
    /// Further folders that pools keep theirs in.
    pub other_dirs: Vec<PathBuf>,
    /// The gate to the network.
    pub web: Arc<Web>,
    /// The catalog of engines.
    pub catalog: Arc<dyn EngineCatalogStore>,
    /// Which program runs containers.
    pub container_runtime: ContainerRuntime,
    /// How it is found.
    pub containers: Detector,
    /// What stands for the GPUs in containers where GPUs are a simulation. Only who has loaded the simulation knows.
    pub simulated_gpus: Option<Vec<Mount>>,
    /// Compilers that run at once; one for each core when unset.
    pub build_jobs: Option<NonZeroU32>,
    /// What may be installed and downloaded.
    pub outbound: Outbound,
    /// This host.
    pub host: Host,
    /// Bytes that must be free before a build begins.
    pub build_bytes: u64,
}

impl Setup {
    /// As the configuration says.
    #[must_use]
    pub fn new(config: &Config, web: Arc<Web>, catalog: Arc<dyn EngineCatalogStore>, host: Host) -> Self {
        let own = |pool: &Pool| {
            let source = pool.provisioning.source.as_ref().and_then(|source| source.build.cache_dir.clone());
            let binary = pool.provisioning.binary.as_ref().and_then(|binary| binary.install_dir.clone());
            [source, binary].into_iter().flatten()
        };
        Self {
            cache_dir: absolute(&config.engines.cache_dir),
            other_dirs: config.pools.iter().flat_map(own).map(|dir| absolute(&dir)).collect(),
            web,
            catalog,
            container_runtime: config.engines.container_runtime,
            containers: Detector::default(),
            simulated_gpus: None,
            build_jobs: config.engines.build_jobs,
            outbound: config.policy.outbound.clone(),
            host,
            build_bytes: BUILD_BYTES,
        }
    }

    pub(crate) fn folder(&self, engine: Engine) -> PathBuf {
        self.cache_dir.join(engine.as_str())
    }

    /// Folders below which things are ours.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.cache_dir).chain(&self.other_dirs).map(PathBuf::as_path)
    }

    /// Enters an engine into the catalog, unless it is there. Whether it was not.
    pub(crate) async fn enter(&self, entry: EngineEntry) -> Result<bool, EngineError> {
        let catalog = Arc::clone(&self.catalog);
        let is_new = crate::blocking(move || match catalog.get(&entry.id)? {
            Some(_) => Ok::<_, CatalogError>(false),
            None => catalog.put(entry).map(|()| true),
        });
        Ok(is_new.await?)
    }

    pub(crate) fn may_install(&self, pool: &Pool) -> bool {
        pool.provisioning.allow_package_installs.unwrap_or(self.outbound.allow_package_installs)
    }

    pub(crate) fn may_download(&self, pool: &Pool) -> bool {
        pool.provisioning.allow_binary_downloads.unwrap_or(self.outbound.allow_binary_downloads)
    }
}

/// The path as seen from any folder: engines are started in one of their own.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
