//! The seam between pools and the ways to prepare an engine (LO-ENG-01).

use std::sync::Arc;

use api_types::{DoctorCheck, Engine, EnginePlan};
use async_trait::async_trait;
use config_schema::{EngineSource, Pool};
use tokio_util::sync::CancellationToken;

use crate::binary::BinaryProvisioner;
use crate::container::ContainerProvisioner;
use crate::error::EngineError;
use crate::external::ExternalProvisioner;
use crate::gpus::Gpus;
use crate::identity::Wanted;
use crate::package::PackageProvisioner;
use crate::prepared::PreparedEngine;
use crate::progress::EngineProgress;
use crate::setup::Setup;
use crate::source::SourceProvisioner;

/// Prepares the engine of one pool.
#[async_trait]
pub trait EngineProvisioner: Send + Sync {
    /// What it takes, in order; nothing is done or looked at, and equal pools have equal plans.
    fn plan(&self) -> EnginePlan;

    /// What would keep it from being prepared, and what could be better; nothing is changed. Without GPUs what depends on them
    /// is left out.
    async fn preflight(&self, gpus: Option<&Gpus>) -> Vec<DoctorCheck>;

    /// Prepares it for these GPUs. What is there already is not done again; when nothing is to be done the network is left alone.
    /// Whatever this has started ends when it is canceled or dropped, and the next call goes on from there.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn ensure(
        &self,
        gpus: &Gpus,
        progress: &Arc<dyn EngineProgress>,
        cancel: &CancellationToken,
    ) -> Result<PreparedEngine, EngineError>;
}

/// How the engine of a pool is prepared.
///
/// # Errors
/// [`EngineError`] for an engine that this program does not prepare, or in that way, and for flags and variables that a pool
/// must not give it.
pub fn provider_for(pool: &Pool, setup: &Setup) -> Result<Box<dyn EngineProvisioner>, EngineError> {
    let source = pool.engine_source().map_err(|missing| EngineError::Unsupported {
        what: format!("pool {}: {missing}", pool.id),
        fix: format!("add [pools.provisioning.{}]", missing.0),
    })?;
    if let EngineSource::External(_) | EngineSource::Simulated = source {
        return Ok(Box::new(ExternalProvisioner::new(pool)));
    }
    if !is_provided(pool.engine) {
        return Err(EngineError::Unsupported {
            what: format!("this build of llama-orch does not prepare {}", pool.engine),
            fix: format!("build it with the feature provider-{}, or attach with mode = \"external\"", pool.engine),
        });
    }
    let wanted = Wanted::by(pool)?;
    match source {
        EngineSource::Source(source) => Ok(Box::new(SourceProvisioner::new(pool, wanted, source, setup)?)),
        EngineSource::Binary(binary) => Ok(Box::new(BinaryProvisioner::new(pool, wanted, binary, setup)?)),
        EngineSource::Package(package) => Ok(Box::new(PackageProvisioner::new(pool, wanted, package, setup)?)),
        EngineSource::Container(container) => Ok(Box::new(ContainerProvisioner::new(wanted, container, setup)?)),
        EngineSource::External(_) | EngineSource::Simulated => Ok(Box::new(ExternalProvisioner::new(pool))),
    }
}

/// Which engines this program prepares: those of its features (ORCH-3430). The simulated one costs nothing.
const fn is_provided(engine: Engine) -> bool {
    match engine {
        Engine::Llamacpp => cfg!(feature = "provider-llamacpp"),
        Engine::Vllm => cfg!(feature = "provider-vllm"),
        Engine::Tgi => cfg!(feature = "provider-tgi"),
        Engine::Triton => cfg!(feature = "provider-triton"),
        Engine::Mock => true,
        Engine::Openai => false,
    }
}
