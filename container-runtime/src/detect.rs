//! Finds the runtime to use (LO-CTR-02, ORCH-3801).

#[cfg(feature = "backend-docker")]
mod docker;
#[cfg(feature = "backend-podman")]
mod podman;

use std::path::PathBuf;
use std::sync::Arc;

use crate::advice::Distribution;
use crate::backend::{Backend, Preference};
use crate::error::{ClientError, NoRuntime, Unusable, WhyUnusable};
use crate::executor::{Call, Executor, SystemExecutor};
use crate::runtime::{Inner, Limits, Runtime, RuntimeInfo};
use crate::{client, narrate};

/// The first runtime that works: podman, then docker.
///
/// # Errors
/// When there is none, with what is the matter with each and what to do.
pub async fn detect(preference: Preference) -> Result<Runtime, NoRuntime> {
    Detector::default().detect(preference).await
}

/// Files of this machine that matter.
#[derive(Clone, Debug)]
pub struct HostPaths {
    /// Says which distribution this is.
    pub os_release: PathBuf,
    /// Where podman looks for CDI specifications. Docker says itself where it does.
    pub cdi: Vec<PathBuf>,
    /// Where podman's `--init` may be. Source: containers.conf(5), `init_path` and `helper_binaries_dir`.
    pub inits: Vec<PathBuf>,
    /// What docker's `--gpus` calls where NVIDIA's runtime is not registered.
    pub nvidia_hook: PathBuf,
}

impl Default for HostPaths {
    fn default() -> Self {
        let all = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        Self {
            os_release: "/etc/os-release".into(),
            cdi: all(&["/etc/cdi", "/var/run/cdi"]),
            inits: all(&[
                "/usr/libexec/podman/catatonit",
                "/usr/local/libexec/podman/catatonit",
                "/usr/local/lib/podman/catatonit",
                "/usr/lib/podman/catatonit",
            ]),
            nvidia_hook: "/usr/bin/nvidia-container-runtime-hook".into(),
        }
    }
}

/// Finds runtimes. For tests, and for callers with deadlines of their own.
#[derive(Clone, Debug)]
pub struct Detector {
    /// Starts the clients.
    pub executor: Arc<dyn Executor>,
    /// Where to look.
    pub paths: HostPaths,
    /// The deadlines of the runtime that is found.
    pub limits: Limits,
}

impl Default for Detector {
    fn default() -> Self {
        Self { executor: Arc::new(SystemExecutor::new()), paths: HostPaths::default(), limits: Limits::default() }
    }
}

impl Detector {
    /// A detector with another way to start clients.
    #[must_use]
    pub fn with_executor(executor: Arc<dyn Executor>) -> Self {
        Self { executor, ..Self::default() }
    }

    /// The first runtime that works: podman, then docker.
    ///
    /// # Errors
    /// When there is none, with what is the matter with each and what to do.
    pub async fn detect(&self, preference: Preference) -> Result<Runtime, NoRuntime> {
        let os_release = std::fs::read_to_string(&self.paths.os_release).unwrap_or_default();
        let distribution = Distribution::of_os_release(&os_release);
        let mut tried = Vec::new();
        for backend in preference.candidates() {
            match self.probe(*backend).await {
                Ok(info) => {
                    narrate::detected(&info);
                    let (executor, limits) = (Arc::clone(&self.executor), self.limits);
                    return Ok(Runtime(Arc::new(Inner { info, distribution, executor, limits })));
                }
                Err(why) => tried.push(Unusable::new(*backend, why, distribution)),
            }
        }
        let error = NoRuntime { tried };
        narrate::not_detected(&error);
        Err(error)
    }

    async fn probe(&self, backend: Backend) -> Result<RuntimeInfo, WhyUnusable> {
        if !Backend::COMPILED.contains(&backend) {
            return Err(WhyUnusable::NotCompiled);
        }
        let args = ["info", "--format=json"].map(str::to_owned).to_vec();
        let call = Call { program: backend.program().to_owned(), args, env: Vec::new() };
        let answer = client::answer(&*self.executor, backend, &call, self.limits.detect).await?.success(backend)?;
        let info = self.read(backend, &answer)?;
        let (major, minor) = backend.oldest();
        if version(&info.version).is_some_and(|found| found < (major, minor)) {
            return Err(WhyUnusable::TooOld { version: info.version, oldest: format!("{major}.{minor}") });
        }
        Ok(info)
    }

    fn read(&self, backend: Backend, answer: &str) -> Result<RuntimeInfo, WhyUnusable> {
        match backend {
            #[cfg(feature = "backend-podman")]
            Backend::Podman => podman::read(answer, &self.paths),
            #[cfg(feature = "backend-docker")]
            Backend::Docker => docker::read(answer, &self.paths),
            #[cfg(not(all(feature = "backend-podman", feature = "backend-docker")))]
            _ => Err(WhyUnusable::NotCompiled),
        }
    }
}

/// Major and minor of `28.2.2` or `20.10.24+dfsg1`.
fn version(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split('.').map(|part| part.chars().take_while(char::is_ascii_digit).collect::<String>());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

impl From<ClientError> for WhyUnusable {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NotInstalled { .. } => Self::NotInstalled,
            other => Self::NotAnswering(other),
        }
    }
}
