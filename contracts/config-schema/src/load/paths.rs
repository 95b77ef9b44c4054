//! Finding the file, and `~`.

use std::path::{Path, PathBuf};

use super::{Findings, Origin, Sources};
use crate::{Config, Environment};

/// The first that is named, else the first that exists. A file that is named and does not exist is an error when read.
pub(super) fn find(sources: &Sources<'_>) -> Origin {
    if let Some(path) = &sources.file {
        return Origin::Flag(path.clone());
    }
    let home = home(sources.environment);
    if let Some(path) = sources.environment.var("LLAMA_ORCH_CONFIG").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return Origin::Environment(expanded(&path, home.as_deref()).unwrap_or(path));
    }
    let here = sources.directory.join("llama-orch.toml");
    if here.exists() {
        return Origin::WorkingDirectory(here);
    }
    match home.map(|home| home.join(".config/llama-orch/config.toml")) {
        Some(path) if path.exists() => Origin::Home(path),
        _ => Origin::Defaults,
    }
}

pub(super) fn home(environment: &dyn Environment) -> Option<PathBuf> {
    environment.var("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// The path with a leading `~` replaced; `None` when that needs a home directory and there is none.
pub(super) fn expanded(path: &Path, home: Option<&Path>) -> Option<PathBuf> {
    match path.strip_prefix("~") {
        Ok(rest) => home.map(|home| home.join(rest)),
        Err(_) => Some(path.to_owned()),
    }
}

/// Expands `~` in every path of the configuration.
pub(super) fn expand(config: &mut Config, environment: &dyn Environment, findings: &mut Findings) {
    let home = home(environment);
    let mut expand = |key: &dyn Fn() -> String, path: &mut PathBuf| match expanded(path, home.as_deref()) {
        Some(expanded) => *path = expanded,
        None => findings.problem(key(), "starts with `~`, but HOME is not set; write the path in full"),
    };
    let fixed = |key: &'static str| move || key.to_owned();
    expand(&fixed("server.data_dir"), &mut config.server.data_dir);
    expand(&fixed("catalog.models_dir"), &mut config.catalog.models_dir);
    expand(&fixed("engines.cache_dir"), &mut config.engines.cache_dir);
    for (key, path) in [
        ("server.tls_cert", &mut config.server.tls_cert),
        ("server.tls_key", &mut config.server.tls_key),
        ("artifacts.dir", &mut config.artifacts.dir),
        ("engines.nvml_library", &mut config.engines.nvml_library),
    ] {
        path.iter_mut().for_each(|path| expand(&fixed(key), path));
    }
    for (i, path) in config.catalog.trust_policy.ca_roots.iter_mut().enumerate() {
        expand(&|| format!("catalog.trust_policy.ca_roots[{i}]"), path);
    }
    // The paths of a pool elsewhere are those of its host.
    for (i, pool) in config.pools.iter_mut().enumerate().filter(|(_, pool)| pool.worker.is_none()) {
        let provisioning = &mut pool.provisioning;
        let optional = [
            ("source.build.cache_dir", provisioning.source.as_mut().and_then(|source| source.build.cache_dir.as_mut())),
            ("binary.install_dir", provisioning.binary.as_mut().and_then(|binary| binary.install_dir.as_mut())),
            ("model.cache_dir", provisioning.model.cache_dir.as_mut()),
        ];
        for (key, path) in optional {
            path.into_iter().for_each(|path| expand(&|| format!("pools[{i}].provisioning.{key}"), path));
        }
    }
}
