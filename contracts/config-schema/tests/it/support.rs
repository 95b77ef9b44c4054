//! A directory with a configuration, and an environment that is not the process's.

use std::collections::BTreeMap;
use std::path::Path;

use config_schema::{Config, ConfigError, Loaded, Sources};

/// Variables of a test.
pub(crate) type Variables = BTreeMap<&'static str, &'static str>;

/// Loads a file under this environment.
pub(crate) fn load_file(path: &Path, variables: &Variables) -> Result<Loaded, ConfigError> {
    Config::load(&Sources { file: Some(path.to_owned()), ..Sources::new(variables) })
}

/// Loads a text as TOML with a home directory and nothing else set.
pub(crate) fn load_text(text: &str) -> Result<Loaded, ConfigError> {
    load_named("config.toml", text, &home())
}

/// Loads a text under a file name, which decides the notation.
pub(crate) fn load_named(name: &str, text: &str, variables: &Variables) -> Result<Loaded, ConfigError> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join(name);
    std::fs::write(&path, text).expect("a file in it");
    load_file(&path, variables)
}

/// An environment with a home directory only.
pub(crate) fn home() -> Variables {
    Variables::from([("HOME", "/home/someone")])
}

/// A pool that needs nothing else.
pub(crate) const POOL: &str = r#"
[[pools]]
id = "gpu0"
engine = "llamacpp"
model = "m"
provisioning.mode = "external"
provisioning.external.url = "http://127.0.0.1:18080"
"#;
