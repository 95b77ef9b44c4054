//! What preparing an engine takes, in words (LO-ENG-02).

use api_types::{EnginePlan, EnginePlanStep, PoolId, words};
use serde::{Deserialize, Serialize};

words! {
    /// What a step does.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    StepKind {
        /// Attaches to an engine that somebody else runs.
        Attach = "attach",
        /// Looks whether everything is there that the next steps need.
        Check = "check",
        /// Installs packages.
        Install = "install",
        /// Fetches a repository.
        Clone = "clone",
        /// Fetches a file.
        Download = "download",
        /// Compares a file with its digest.
        Verify = "verify",
        /// Unpacks an archive.
        Unpack = "unpack",
        /// Runs CMake.
        Configure = "configure",
        /// Compiles.
        Build = "build",
        /// Fetches an image.
        Pull = "pull",
        /// Asks the program for its version.
        Version = "version",
        /// Writes the catalog of engines.
        Register = "register",
    }
}

/// A plan that grows.
pub(crate) struct Steps(EnginePlan);

impl Steps {
    pub(crate) fn of(pool: &PoolId) -> Self {
        Self(EnginePlan { pool_id: pool.to_string(), steps: Vec::new() })
    }

    pub(crate) fn then(mut self, kind: StepKind, detail: impl Into<String>) -> Self {
        self.0.steps.push(EnginePlanStep { kind: kind.as_str().to_owned(), detail: detail.into() });
        self
    }

    pub(crate) fn then_if(self, condition: bool, kind: StepKind, detail: impl FnOnce() -> String) -> Self {
        if condition { self.then(kind, detail()) } else { self }
    }

    pub(crate) fn done(self) -> EnginePlan {
        self.0
    }
}
