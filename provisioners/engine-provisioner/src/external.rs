//! Mode `external`: somebody else runs the engine.

use std::sync::Arc;

use api_types::{DoctorCheck, EnginePlan, PoolId};
use async_trait::async_trait;
use config_schema::{EngineSource, Pool};
use tokio_util::sync::CancellationToken;

use crate::error::EngineError;
use crate::gpus::Gpus;
use crate::plan::{StepKind, Steps};
use crate::prepared::PreparedEngine;
use crate::progress::EngineProgress;
use crate::provisioner::EngineProvisioner;

pub(crate) struct ExternalProvisioner {
    pool: PoolId,
    what: Vec<String>,
}

impl ExternalProvisioner {
    pub(crate) fn new(pool: &Pool) -> Self {
        let what = match pool.engine_source() {
            Ok(EngineSource::External(external)) => {
                external.urls().map(|url| format!("{} at {url}, which somebody else runs", pool.engine)).collect()
            }
            _ => vec!["the simulated engine inside the daemon".to_owned()],
        };
        Self { pool: pool.id.clone(), what }
    }
}

#[async_trait]
impl EngineProvisioner for ExternalProvisioner {
    fn plan(&self) -> EnginePlan {
        let steps = Steps::of(&self.pool);
        self.what.iter().fold(steps, |steps, what| steps.then(StepKind::Attach, what.as_str())).done()
    }

    async fn preflight(&self, _: Option<&Gpus>) -> Vec<DoctorCheck> {
        Vec::new()
    }

    async fn ensure(
        &self,
        _: &Gpus,
        _: &Arc<dyn EngineProgress>,
        _: &CancellationToken,
    ) -> Result<PreparedEngine, EngineError> {
        Err(EngineError::Unsupported {
            what: format!("the engine of pool {} is attached, and nothing of it is prepared here", self.pool),
            fix: "start it yourself, or choose another mode".to_owned(),
        })
    }
}
