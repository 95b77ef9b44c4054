//! Secrets: from the environment, or from files named there.

use std::collections::BTreeMap;
use std::path::Path;

use api_types::PoolId;
use auth_min::BearerToken;

use super::{Findings, paths};
use crate::{Config, Environment};

/// `AUTH_TOKEN`, else the content of `AUTH_TOKEN_FILE`.
pub(super) fn token(environment: &dyn Environment, findings: &mut Findings) -> Option<BearerToken> {
    let (name, text) = match (environment.var("AUTH_TOKEN"), environment.var("AUTH_TOKEN_FILE")) {
        (Some(text), file) => {
            if file.is_some() {
                findings.warning("AUTH_TOKEN_FILE", "is ignored: AUTH_TOKEN is set too");
            }
            ("AUTH_TOKEN", text)
        }
        (None, Some(file)) => ("AUTH_TOKEN_FILE", read(&file, environment, findings)?),
        (None, None) => return None,
    };
    let token = accept(name, &text, findings)?;
    if token.is_short() {
        findings.warning(name, "is short enough to be guessed; `openssl rand -hex 32` makes a good one");
    }
    Some(token)
}

/// A file's content without the line break that editors put at its end.
fn read(file: &str, environment: &dyn Environment, findings: &mut Findings) -> Option<String> {
    let file = Path::new(file);
    let path = paths::expanded(file, paths::home(environment).as_deref()).unwrap_or_else(|| file.to_owned());
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => {
            findings.problem("AUTH_TOKEN_FILE", format!("could not read {}: {error}", path.display()));
            None
        }
    }
}

/// The variables that `api_key_env` names.
pub(super) fn engine_keys(
    config: &Config,
    environment: &dyn Environment,
    findings: &mut Findings,
) -> BTreeMap<PoolId, BearerToken> {
    let mut keys = BTreeMap::new();
    for (i, pool) in config.pools.iter().enumerate().filter(|(_, pool)| !pool.is_managed()) {
        let Some(name) = pool.provisioning.external.as_ref().and_then(|external| external.api_key_env.as_ref()) else {
            continue;
        };
        match environment.var(name) {
            Some(text) => keys.extend(accept(name, &text, findings).map(|key| (pool.id.clone(), key))),
            None => findings.warning(
                format!("pools[{i}].provisioning.external.api_key_env"),
                format!("the environment variable {name} is not set, so the engine is called without a key"),
            ),
        }
    }
    keys
}

fn accept(name: &str, text: &str, findings: &mut Findings) -> Option<BearerToken> {
    BearerToken::parse(text)
        .map_err(|error| findings.problem(name, format!("{error}; unset it, or give it a proper value")))
        .ok()
}
