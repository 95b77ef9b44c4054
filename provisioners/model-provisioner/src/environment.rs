//! What the sources take from the environment, read once.

use std::collections::BTreeMap;
use std::fmt;

use http_util::Secret;

/// Names and values of the environment that sources know: credentials, and where services are. Its `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<&'static str, Secret>);

impl Environment {
    /// All names that are read.
    pub const NAMES: [&'static str; 12] = [
        "HF_TOKEN",
        "HF_ENDPOINT",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
        "OCI_REGISTRY",
        "OCI_USERNAME",
        "OCI_PASSWORD",
    ];

    /// What a lookup has, such as the process's environment. What is empty or blank is not there.
    #[must_use]
    pub fn from_fn(mut lookup: impl FnMut(&str) -> Option<String>) -> Self {
        let value = |name| {
            let value = lookup(name)?;
            let value = value.trim();
            (!value.is_empty()).then(|| (name, Secret::from(value)))
        };
        Self(Self::NAMES.into_iter().filter_map(value).collect())
    }

    /// What the process's environment has.
    #[must_use]
    pub fn of_process() -> Self {
        Self::from_fn(|name| std::env::var(name).ok())
    }

    /// A value, which may be one that must not be shown.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Secret::expose)
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LO-MOD-03: what is read is what sources know, and a debug line does not tell it.
    #[test]
    fn holds_what_sources_know_and_shows_names_only() {
        let environment = Environment::from_fn(|name| match name {
            "AWS_SECRET_ACCESS_KEY" => Some(" hunter2\n".to_owned()),
            "AWS_SESSION_TOKEN" => Some(" ".to_owned()),
            _ => None,
        });
        assert_eq!(environment.text("AWS_SECRET_ACCESS_KEY"), Some("hunter2"));
        assert_eq!(environment.text("AWS_SESSION_TOKEN"), None);
        assert_eq!(format!("{environment:?}"), r#"{"AWS_SECRET_ACCESS_KEY"}"#);
    }
}
