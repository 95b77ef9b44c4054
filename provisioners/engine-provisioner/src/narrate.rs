//! What is said about preparing engines, in sentences (ORCH-3490).

use std::time::Instant;

use api_types::{Engine, PoolId};
use narration_core::{Actor, Narration, narrate};
use tracing::Level;

use crate::error::EngineError;
use crate::plan::StepKind;
use crate::prepared::PreparedEngine;

pub(crate) fn begins(pool: &PoolId, engine: Engine, step: StepKind, detail: &str) {
    let does = match step {
        StepKind::Check => "looks whether everything is there for",
        StepKind::Install => "installs packages for",
        StepKind::Clone | StepKind::Download | StepKind::Pull => "fetches",
        StepKind::Verify => "verifies",
        StepKind::Unpack => "unpacks",
        StepKind::Configure => "configures the build of",
        StepKind::Build => "builds, which takes a while,",
        StepKind::Version => "asks for its version",
        StepKind::Register => "enters into the catalog",
        StepKind::Attach => "attaches to",
    };
    let human = format_args!("{does} {engine}: {detail}");
    let said = Narration::new(Actor::EngineProvisioner, step.as_str(), human);
    narrate(Level::INFO, &Narration { pool_id: Some(pool), engine: Some(engine.as_str()), ..said });
}

pub(crate) fn ready(pool: &PoolId, engine: &PreparedEngine, since: Instant) {
    let human = format_args!("{} {} is prepared for pool {pool}", engine.engine, engine.engine_version);
    narrate(
        Level::INFO,
        &Narration {
            pool_id: Some(pool),
            engine: Some(engine.engine.as_str()),
            engine_version: Some(&engine.engine_version),
            duration_ms: i64::try_from(since.elapsed().as_millis()).ok(),
            ..Narration::new(Actor::EngineProvisioner, "prepared", human)
        },
    );
}

pub(crate) fn failed(pool: &PoolId, engine: Engine, error: &EngineError) {
    let fault = error.fault();
    let fix = error.fix().map_or_else(String::new, |fix| format!("; what to do: {fix}"));
    let human = format_args!("cannot prepare {engine} for pool {pool}: {error}{fix}");
    let said = Narration::new(Actor::EngineProvisioner, "prepare_failed", human);
    let said = Narration { pool_id: Some(pool), engine: Some(engine.as_str()), error_kind: Some(&fault), ..said };
    match error {
        EngineError::Canceled => narrate(Level::INFO, &said),
        _ => narrate(Level::ERROR, &said),
    }
}
