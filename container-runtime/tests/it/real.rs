//! Real containers.

use std::time::Duration;

use container_runtime::test_support::Podman;
use container_runtime::{ContainerSpec, GpuAccess, LogOptions, Network, PulledImage, Runtime};
use tokio_util::sync::CancellationToken;

use crate::resident;

/// Longest a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Who starts the containers of tests.
pub(crate) const INSTANCE: &str = "tests";

/// A runtime with the image that tests run.
pub(crate) struct Real {
    pub(crate) podman: Podman,
    pub(crate) runtime: Runtime,
    pub(crate) image: PulledImage,
}

/// A podman of this test's own, or a sentence and nothing.
pub(crate) async fn real() -> Option<Real> {
    let podman = Podman::start()?;
    let name = podman.build("resident", &resident::program());
    let runtime = podman.runtime().await;
    let image = runtime.pull(&name, &mut |_| {}, &CancellationToken::new()).await.expect("it was just built");
    Some(Real { podman, runtime, image })
}

/// A container that does what `command` says, in the host's network and without GPUs.
pub(crate) fn spec(image: &PulledImage, pool: &str, command: &[&str]) -> ContainerSpec {
    let gpus = GpuAccess::simulated_devices(Vec::new());
    let mut spec = ContainerSpec::new(pool, 1, INSTANCE, image.clone(), gpus, Network::Host);
    spec.command = command.iter().map(|word| (*word).to_owned()).collect();
    spec
}

/// Everything that a container has said, when it has ended.
pub(crate) async fn output(container: &container_runtime::ContainerHandle) -> Vec<String> {
    let mut log = container.logs(LogOptions { follow: true, ..LogOptions::default() }).expect("a client");
    let mut lines = Vec::new();
    while let Some(line) = tokio::time::timeout(PATIENCE, log.next()).await.expect("the log ends") {
        lines.push(line.text);
    }
    lines
}
