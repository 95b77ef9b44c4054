//! `doctor`: what would keep an engine from starting on this machine, and how to mend it.

mod server;
mod text;

use std::collections::BTreeSet;

use api_types::{DoctorCheck, DoctorOutcome, DoctorReport, PoolId, PoolStatus};
use config_schema::Loaded;
use pool_managerd::doctor;

use super::local::{self, Answer};
use super::up::starter;
use crate::args::{ConfigArgs, Connection};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

pub(super) use text::{failures, problems};

/// Looks, and says what it found.
pub(crate) async fn doctor(connection: &Connection, args: &ConfigArgs, json: bool) -> Result<Exit, Failure> {
    let loaded = local::load(args)?;
    let answer = local::ask(&loaded, connection).await?;
    let report = examine(&loaded, &answer).await;
    if json {
        output::json(&report)?;
    } else {
        let mut text = text::of(&loaded, &report);
        if loaded.config.pools.is_empty() {
            text.push_str(&format!("\nA first configuration could look like this:\n\n{}", starter::example()));
        }
        output::write(&text)?;
    }
    Ok(if report.ok { Exit::Ok } else { Exit::Unfit })
}

/// Everything that is looked at.
pub(super) async fn examine(loaded: &Loaded, answer: &Answer) -> DoctorReport {
    let pools = match answer {
        Answer::Orchestrator(_, pools) => pools.as_slice(),
        _ => &[],
    };
    let up: BTreeSet<PoolId> = pools
        .iter()
        .filter(|pool| pool.health.pid.is_some() || pool.health.live)
        .map(|pool| PoolId::from(pool.id.as_str()))
        .collect();
    let mut checks = configuration(loaded);
    checks.push(server::check(&loaded.config, answer));
    checks.extend(doctor::examine(&loaded.config, &up).await.checks);
    checks.extend(pools.iter().filter_map(running));
    doctor::report(checks)
}

fn configuration(loaded: &Loaded) -> Vec<DoctorCheck> {
    let warned = |detail: String, fix: Option<&str>| DoctorCheck {
        outcome: DoctorOutcome::Warn,
        fix: fix.map(str::to_owned),
        ..doctor::passed("configuration", None, detail)
    };
    let mut checks = match loaded.config.pools.len() {
        0 => vec![warned(
            format!("{}: no pools", loaded.origin),
            Some("write one with `llama-orch up --model hf:org/repo/file.gguf`, or see the example below"),
        )],
        count => vec![doctor::passed("configuration", None, format!("{}: {}", loaded.origin, text::pools_of(count)))],
    };
    checks.extend(loaded.warnings.iter().map(|warning| warned(warning.clone(), None)));
    checks
}

/// What the daemon that runs says of a pool that does not serve.
fn running(pool: &PoolStatus) -> Option<DoctorCheck> {
    let error = pool.health.last_error.as_ref().filter(|_| !pool.health.ready)?;
    let id = PoolId::from(pool.id.as_str());
    let detail = format!("{} in the orchestratord that runs: {error}", super::pools::board::state_of(pool));
    Some(DoctorCheck {
        outcome: DoctorOutcome::Fail,
        fault: pool.health.fault,
        fix: Some(format!("then start it again: llama-orch pools start {id}")),
        ..doctor::passed("running", Some(&id), detail)
    })
}
