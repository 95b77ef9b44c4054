//! Which clients there are.

use std::fmt::{self, Display};

/// A container runtime, by its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Backend {
    /// Podman: no daemon, and no root where it is rootless.
    Podman,
    /// Docker.
    Docker,
}

impl Backend {
    /// Those that were compiled in, in the order in which they are looked for (LO-CTR-02).
    pub const COMPILED: &[Self] = &[
        #[cfg(feature = "backend-podman")]
        Self::Podman,
        #[cfg(feature = "backend-docker")]
        Self::Docker,
    ];

    /// The client's program.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }

    /// The oldest version that can do what is needed: podman learnt CDI in 4.1, docker's client `--pull never` in 20.10.
    pub(crate) const fn oldest(self) -> (u64, u64) {
        match self {
            Self::Podman => (4, 1),
            Self::Docker => (20, 10),
        }
    }
}

impl Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

/// Which backend the operator wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preference {
    /// The first that works: podman, then docker.
    #[default]
    Auto,
    /// This one or none.
    Only(Backend),
}

impl Preference {
    pub(crate) fn candidates(self) -> &'static [Backend] {
        match self {
            Self::Auto => Backend::COMPILED,
            Self::Only(Backend::Podman) => &[Backend::Podman],
            Self::Only(Backend::Docker) => &[Backend::Docker],
        }
    }
}
