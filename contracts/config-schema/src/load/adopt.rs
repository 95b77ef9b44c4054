//! Pools that an orchestrator gives to this host.

use serde_json::Value;

use super::{Findings, paths};
use crate::error::ConfigError;
use crate::validate::validate_pools;
use crate::{Config, Environment, Pool};

impl Config {
    /// This configuration with pools that another host's file declares. What they may have fetched and installed is for this file to
    /// say, not for the other; their paths are this host's.
    ///
    /// # Errors
    /// [`ConfigError::Adopted`] for what this version does not know, [`ConfigError::Invalid`] for what this host does not allow.
    pub fn adopt(&self, pools: &[Value], environment: &dyn Environment) -> Result<Self, ConfigError> {
        let mut findings = Findings::default();
        let mut config = Self { pools: pools.iter().map(adopted).collect::<Result<_, _>>()?, ..self.clone() };
        paths::expand(&mut config, environment, &mut findings);
        validate_pools(&config, &mut findings);
        if findings.problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(findings.problems)) }
    }
}

fn adopted(pool: &Value) -> Result<Pool, ConfigError> {
    let mut pool: Pool = serde_path_to_error::deserialize(pool)
        .map_err(|error| ConfigError::Adopted { path: error.path().to_string(), what: error.inner().to_string() })?;
    pool.worker = None;
    (pool.provisioning.allow_package_installs, pool.provisioning.allow_binary_downloads) = (None, None);
    Ok(pool)
}
