//! One preparation: who is told of it, and who may stop it.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::error::EngineError;
use crate::identity::Wanted;
use crate::narrate;
use crate::plan::StepKind;
use crate::prepared::PreparedEngine;
use crate::progress::EngineProgress;

pub(crate) struct Step<'a> {
    pub(crate) wanted: &'a Wanted,
    pub(crate) progress: &'a Arc<dyn EngineProgress>,
    pub(crate) cancel: &'a CancellationToken,
}

impl Step<'_> {
    /// Says that a step begins.
    pub(crate) fn begin(&self, kind: StepKind, detail: &str) {
        self.progress.step(kind, detail);
        narrate::begins(&self.wanted.pool, self.wanted.engine, kind, detail);
    }

    /// Says how it ended.
    pub(crate) fn told(
        &self,
        result: Result<PreparedEngine, EngineError>,
        begun: Instant,
    ) -> Result<PreparedEngine, EngineError> {
        match &result {
            Ok(engine) => narrate::ready(&self.wanted.pool, engine, begun),
            Err(error) => narrate::failed(&self.wanted.pool, self.wanted.engine, error),
        }
        result
    }
}
