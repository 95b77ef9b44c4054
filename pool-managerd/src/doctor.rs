//! A look at this host before anything is started: what would keep which engine from starting, and what to do about it.
//!
//! Needs no daemon, starts nothing and writes nothing. The checks of a pool's engine are those that a start makes
//! (`workshop::examine`); the rest is what the daemon would meet before and after it.

mod catalog;
mod external;
mod folders;
mod gpus;
mod models;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api_types::{DoctorCheck, DoctorOutcome, DoctorReport, Engine, PoolFault, PoolId};
use config_schema::Config;
use engine_provisioner::{Host, Setup};
use model_provisioner::{OutboundPolicy, Web, WebSettings};

use crate::devices::discover;
use crate::failure::Failure;
use crate::workshop::{self, Presence};

/// Looks at everything that the configuration needs of this host. `up` are the pools whose engines run just now: what those hold
/// is theirs.
pub async fn examine(config: &Config, up: &BTreeSet<PoolId>) -> DoctorReport {
    let library = config.engines.nvml_library.clone();
    let reading = tokio::task::spawn_blocking(move || Arc::new(discover(library.as_deref()))).await;
    let reading = reading.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    let mut checks = gpus::examine(config, &reading);
    checks.extend(folders::examine(config));
    match setup(config) {
        Ok(setup) => {
            for pool in &config.pools {
                if !pool.has_adapter() {
                    checks.push(failed("adapter", Some(&pool.id), &no_adapter(pool.engine)));
                    continue;
                }
                if let Some(worker) = &pool.worker {
                    let detail = format!("worker {worker} runs it; `llama-orch workers` shows whether it is there");
                    checks.push(passed("worker", Some(&pool.id), detail));
                    continue;
                }
                if !pool.is_managed() {
                    checks.extend(external::examine(pool).await);
                    continue;
                }
                let presence = if up.contains(&pool.id) { Presence::Up } else { Presence::Down };
                checks.extend(workshop::examine(pool, &setup, &reading, presence).await);
                checks.push(models::examine(pool, config, &setup.web, &reading, presence).await);
            }
        }
        Err(failure) => checks.push(failed("network", None, &failure)),
    }
    report(checks)
}

/// What a pool comes to whose engine nobody here can talk to.
#[must_use]
pub fn no_adapter(engine: Engine) -> Failure {
    Failure::new(PoolFault::Unsupported, format!("this version has no adapter for {engine} engines yet"))
        .with_fix("use engine = \"llamacpp\"")
}

/// Findings as a report.
#[must_use]
pub fn report(checks: Vec<DoctorCheck>) -> DoctorReport {
    DoctorReport { ok: checks.iter().all(|check| check.outcome != DoctorOutcome::Fail), checks }
}

/// What engines are prepared with, as the daemon has it, but for the catalog: nothing is looked up or entered.
fn setup(config: &Config) -> Result<Setup, Failure> {
    let settings = WebSettings::new(Duration::from_millis(config.catalog.stall_timeout_ms.get()));
    let web = Web::new(OutboundPolicy::new(&config.policy.outbound), &settings)
        .map_err(|error| Failure::new(PoolFault::FetchFailed, error.to_string()))?;
    Ok(Setup::new(config, Arc::new(web), Arc::new(catalog::NoCatalog), Host::of_process()))
}

/// A check that found all as it must be.
#[must_use]
pub fn passed(name: &str, pool: Option<&PoolId>, detail: impl Into<String>) -> DoctorCheck {
    DoctorCheck {
        name: name.to_owned(),
        pool_id: pool.map(ToString::to_string),
        outcome: DoctorOutcome::Pass,
        detail: detail.into(),
        fault: None,
        fix: None,
    }
}

/// A check that found something that keeps an engine from starting.
#[must_use]
pub fn failed(name: &str, pool: Option<&PoolId>, failure: &Failure) -> DoctorCheck {
    DoctorCheck {
        outcome: DoctorOutcome::Fail,
        fault: Some(failure.fault),
        fix: failure.fix.clone(),
        ..passed(name, pool, failure.message.clone())
    }
}

/// A check that found something that could be better.
#[must_use]
pub fn warned(name: &str, pool: Option<&PoolId>, failure: &Failure) -> DoctorCheck {
    DoctorCheck { outcome: DoctorOutcome::Warn, ..failed(name, pool, failure) }
}
