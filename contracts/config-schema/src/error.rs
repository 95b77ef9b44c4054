//! Why a configuration cannot be used.

use std::fmt;
use std::path::PathBuf;

use api_types::strict::StrictError;

use crate::position::Position;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read the configuration {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not well-formed, or does not fit the schema.
    #[error("{} does not fit the schema:{}", .path.display(), lines(.misfits))]
    Parse {
        /// The file.
        path: PathBuf,
        /// What does not fit, at least one.
        misfits: Vec<Misfit>,
    },
    /// A pool that another host's file declares is none for this version.
    #[error(
        "the orchestrator gives this host a pool that it cannot read ({path}: {what}); run the same version on both"
    )]
    Adopted {
        /// Where in the pool.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// It is well-formed, but its values do not fit each other or this system.
    #[error("the configuration cannot be used:{}", lines(.0))]
    Invalid(Vec<Problem>),
}

/// Something in the file that does not fit the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Where it stands, as far as that is known.
    pub position: Option<Position>,
    /// What is wrong, with its dotted path and the nearest valid name.
    pub error: StrictError,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(position) => write!(f, "line {position}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

/// One value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: a dotted path in the file, or the name of an environment variable.
    pub path: String,
    /// What is wrong and what to do about it.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

fn lines(items: &[impl fmt::Display]) -> String {
    items.iter().map(|item| format!("\n  {item}")).collect()
}
