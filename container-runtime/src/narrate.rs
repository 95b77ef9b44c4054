//! What is said about containers (LO-CTR-08): names, digests and outcomes, never variables, commands or output.

use std::time::Duration;

use narration_core::Actor;
use tracing::{debug, error, info, warn};

use crate::backend::Backend;
use crate::error::{ContainerError, NoRuntime, PullError, RunError};
use crate::handle::{ContainerHandle, Stopped};
use crate::image::ImageRef;
use crate::preflight::{Finding, Outcome, PreflightReport};
use crate::pull::PulledImage;
use crate::runtime::RuntimeInfo;
use crate::spec::ContainerSpec;

const ACTOR: &str = Actor::ContainerRuntime.as_str();

pub(crate) fn detected(info: &RuntimeInfo) {
    let RuntimeInfo { backend, version, rootless, .. } = info;
    let how = if *rootless { "rootless" } else { "as root" };
    info!(
        actor = ACTOR, action = "detect", target = %backend, version, rootless,
        human = %format_args!("containers are run by {backend} {version}, {how}"),
    );
}

pub(crate) fn not_detected(error: &NoRuntime) {
    warn!(actor = ACTOR, action = "detect", human = %error);
}

pub(crate) fn preflight(backend: Backend, report: &PreflightReport) {
    for Finding { check, outcome, detail, fix } in &report.findings {
        let fix = fix.as_deref().unwrap_or_default();
        match outcome {
            Outcome::Pass => debug!(
                actor = ACTOR, action = "preflight", target = %backend, check = check.as_str(), human = %format_args!("{detail}")
            ),
            Outcome::Warn | Outcome::Fail => warn!(
                actor = ACTOR, action = "preflight", target = %backend, check = check.as_str(), outcome = outcome.as_str(),
                human = %format_args!("{detail}; {fix}"),
            ),
        }
    }
}

pub(crate) fn pulling(backend: Backend, image: &ImageRef) {
    info!(actor = ACTOR, action = "pull", target = %image, human = %format_args!("{backend} pulls {image}"));
}

pub(crate) fn pulled(backend: Backend, pulled: &PulledImage, took: Duration) {
    let PulledImage { image, digest, unpinned, fetched, .. } = pulled;
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if *unpinned {
        warn!(
            actor = ACTOR, action = "pull", target = %image, %digest,
            human = %format_args!("a tag may mean another image tomorrow; to pin this one, write {image}"),
        );
    }
    if *fetched {
        info!(
            actor = ACTOR, action = "pull", target = %image, %digest, took_ms, human = %format_args!("{backend} has pulled {image}")
        );
    }
}

pub(crate) fn not_pulled(backend: Backend, image: &ImageRef, error: &PullError) {
    match error {
        PullError::Canceled { .. } => {
            info!(actor = ACTOR, action = "pull", target = %image, human = %format_args!("{backend} was told not to pull {image}"));
        }
        error => warn!(actor = ACTOR, action = "pull", target = %image, human = %Chain(error)),
    }
}

pub(crate) fn started(backend: Backend, spec: &ContainerSpec) {
    let (name, pool, image) = (spec.name(), &spec.pool, &spec.image.reference);
    info!(
        actor = ACTOR, action = "run", target = %name, pool_id = %pool, image = %image,
        human = %format_args!("{backend} has started {name} for pool {pool}"),
    );
}

pub(crate) fn not_started(backend: Backend, spec: &ContainerSpec, error: &RunError) {
    let (name, pool) = (spec.name(), &spec.pool);
    warn!(
        actor = ACTOR, action = "run", target = %name, pool_id = %pool,
        human = %format_args!("{backend} did not start {name}: {}", Chain(error)),
    );
}

pub(crate) fn left_behind(container: &ContainerHandle, error: &ContainerError) {
    warn!(
        actor = ACTOR, action = "run", target = container.name(),
        human = %format_args!("{} was not started and could not be removed: {}", container.name(), Chain(error)),
    );
}

pub(crate) fn stopped(container: &ContainerHandle, Stopped { forced, state }: &Stopped) {
    let (name, pool_id, exit_code) = (container.name(), container.pool(), state.exit_code);
    if *forced {
        warn!(
            actor = ACTOR, action = "stop", target = name, pool_id, exit_code,
            human = %format_args!("{name} did not end in time and was killed"),
        );
    } else {
        info!(actor = ACTOR, action = "stop", target = name, pool_id, exit_code, human = %format_args!("{name} has ended"));
    }
}

pub(crate) fn not_stopped(container: &ContainerHandle, error: &ContainerError) {
    let (name, pool_id) = (container.name(), container.pool());
    match error {
        ContainerError::StillRunning { .. } => {
            error!(actor = ACTOR, action = "stop", target = name, pool_id, human = %error);
        }
        error => warn!(actor = ACTOR, action = "stop", target = name, pool_id, human = %Chain(error)),
    }
}

pub(crate) fn removed(container: &ContainerHandle) {
    let (name, pool_id) = (container.name(), container.pool());
    debug!(actor = ACTOR, action = "remove", target = name, pool_id, human = %format_args!("{name} was removed"));
}

/// An error with its causes.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
