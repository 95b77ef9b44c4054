//! From flags, environment and file to one configuration.

mod adopt;
mod overlay;
mod paths;
mod secrets;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use api_types::PoolId;
use auth_min::BearerToken;

use crate::error::{ConfigError, Problem};
use crate::parse::parse;
use crate::server::LogFormat;
use crate::validate::validate;
use crate::{Config, Environment};

/// Where a configuration is looked for.
pub struct Sources<'a> {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: &'a dyn Environment,
    /// The directory in which `llama-orch.toml` is looked for.
    pub directory: PathBuf,
    /// Flags that win over everything else.
    pub overrides: Overrides,
    /// What happens to unknown keys.
    pub unknown_keys: UnknownKeys,
}

impl<'a> Sources<'a> {
    /// The given environment, the working directory, and no flags.
    #[must_use]
    pub fn new(environment: &'a dyn Environment) -> Self {
        Self {
            file: None,
            environment,
            directory: PathBuf::from("."),
            overrides: Overrides::default(),
            unknown_keys: UnknownKeys::Refuse,
        }
    }
}

/// Values of flags; those that were given win over environment and file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--bind`.
    pub bind: Option<SocketAddr>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--log-format`.
    pub log_format: Option<LogFormat>,
    /// `--log-level`.
    pub log_level: Option<String>,
    /// `--threads`.
    pub threads: Option<NonZeroUsize>,
}

/// What happens to keys this version does not know (OC-CONFIG-6001).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownKeys {
    /// They are errors.
    #[default]
    Refuse,
    /// They are warned about and ignored.
    Warn,
}

/// A configuration that is ready to use.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings, validated, with `~` expanded.
    pub config: Config,
    /// The bearer token of this server; it never comes from the file.
    pub token: Option<BearerToken>,
    /// The keys of external engines that want one, from the variables their `api_key_env` names.
    pub engine_keys: BTreeMap<PoolId, BearerToken>,
    /// Where the file came from.
    pub origin: Origin,
    /// What the operator should know; log each.
    pub warnings: Vec<String>,
}

/// Which file was read, and why that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `--config`.
    Flag(PathBuf),
    /// `LLAMA_ORCH_CONFIG`.
    Environment(PathBuf),
    /// `llama-orch.toml` in the working directory.
    WorkingDirectory(PathBuf),
    /// `~/.config/llama-orch/config.toml`.
    Home(PathBuf),
    /// No file: defaults, and no pools.
    Defaults,
}

impl Origin {
    /// The file that was read.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Flag(path) | Self::Environment(path) | Self::WorkingDirectory(path) | Self::Home(path) => Some(path),
            Self::Defaults => None,
        }
    }
}

impl Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(path) => write!(f, "{} (--config)", path.display()),
            Self::Environment(path) => write!(f, "{} (LLAMA_ORCH_CONFIG)", path.display()),
            Self::WorkingDirectory(path) => write!(f, "{} (working directory)", path.display()),
            Self::Home(path) => write!(f, "{} (home directory)", path.display()),
            Self::Defaults => f.write_str("defaults without pools (no configuration file found)"),
        }
    }
}

/// What was found out on the way.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Findings {
    pub(crate) fn problem(&mut self, path: impl Into<String>, what: impl Display) {
        self.problems.push(Problem { path: path.into(), what: what.to_string() });
    }

    pub(crate) fn warning(&mut self, path: impl Display, what: impl Display) {
        self.warnings.push(format!("{path}: {what}"));
    }
}

impl Config {
    /// Finds, reads and checks the configuration: flags, then environment, then file, then defaults (LO-CFG-01).
    ///
    /// # Errors
    /// [`ConfigError`] with every problem that was found.
    pub fn load(sources: &Sources<'_>) -> Result<Loaded, ConfigError> {
        let mut findings = Findings::default();
        let origin = paths::find(sources);
        let mut config = match origin.path() {
            Some(path) => read(path, sources.unknown_keys, &mut findings)?,
            None => Self::default(),
        };
        overlay::environment(&mut config, sources.environment, &mut findings);
        overlay::flags(&mut config, &sources.overrides);
        paths::expand(&mut config, sources.environment, &mut findings);
        let token = secrets::token(sources.environment, &mut findings);
        let engine_keys = secrets::engine_keys(&config, sources.environment, &mut findings);
        validate(&config, token.is_some(), &mut findings);
        if !findings.problems.is_empty() {
            return Err(ConfigError::Invalid(findings.problems));
        }
        Ok(Loaded { config, token, engine_keys, origin, warnings: findings.warnings })
    }
}

fn read(path: &Path, unknown_keys: UnknownKeys, findings: &mut Findings) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let parsed = parse(path, &text, unknown_keys)?;
    for ignored in &parsed.ignored {
        findings.warning(path.display(), format!("{ignored}; ignored"));
    }
    Ok(parsed.config)
}
