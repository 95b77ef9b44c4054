//! Mode `container`, with podman where it is installed.

use std::sync::Arc;

use api_types::{DoctorOutcome, PoolFault};
use config_schema::{ContainerRuntime, Pool};
use container_runtime::Detector;
use container_runtime::test_support::Podman;
use engine_provisioner::StepKind;

use crate::support::{Place, denied, pool};

fn container_pool(image: &str, more: &str) -> Pool {
    pool("mock", &format!("mode = \"container\"\n[provisioning.container]\nimage = \"{image}\"\n{more}"))
}

fn with_podman(mut place: Place, podman: &Podman) -> Place {
    place.setup.containers = Detector::with_executor(Arc::new(podman.executor()));
    place.setup.container_runtime = ContainerRuntime::Podman;
    place.setup.simulated_gpus = Some(Vec::new());
    place
}

/// ORCH-3441, ORCH-3801, ORCH-3802, LO-CTR-04: an image that is here is taken under its digest, by which it is known from then on; one that
/// would have to be fetched is asked of the policy first. Without GPUs for containers there is no engine.
#[tokio::test]
async fn an_image_is_prepared() {
    let Some(podman) = Podman::start() else { return };
    let place = with_podman(Place::with_outbound(&denied()), &podman);
    let image = podman.build("engine", std::path::Path::new("/bin/true"));
    let by_tag = container_pool(&image.image, "tag = \"test\"");
    let (engine, kept) = place.ensure(&by_tag).await;
    let engine = engine.expect("it is here");
    assert_eq!(kept.steps(), [StepKind::Check, StepKind::Register]);
    let found = engine.image_ref().expect("an image").clone();
    assert_eq!((found.image.as_str(), found.tag.as_deref()), (image.image.as_str(), Some("test")));
    assert!(!engine.env.contains_key("CUDA_VISIBLE_DEVICES"));
    let entry = place.entries().pop().expect("an entry");
    assert_eq!(entry.artifacts, [format!("{}@{}", found.image, found.digest)]);
    let checks = place.provisioner(&by_tag).preflight(None).await;
    assert!(checks.iter().any(|check| check.name == "image" && check.outcome == DoctorOutcome::Warn));

    let by_digest = container_pool(&image.image, &format!("digest = \"{}\"", found.digest));
    let (engine, _) = place.ensure(&by_digest).await;
    assert_eq!(engine.expect("it is here").engine_digest, Some(found.digest));
    let (error, kept) = place.ensure(&container_pool("example.org/engine", "tag = \"1\"")).await;
    assert_eq!(error.expect_err("nothing may be fetched").fault(), PoolFault::NotAllowed);
    assert_eq!(kept.steps(), [StepKind::Check]);

    let mut real = with_podman(Place::without_cuda(), &podman);
    real.setup.simulated_gpus = None;
    let (error, _) = real.ensure(&by_tag).await;
    if let Err(error) = error {
        assert_eq!(error.fault(), PoolFault::NoDevice, "{error}");
        assert!(error.fix().is_some(), "{error}");
    }
}

/// ORCH-3804, LO-CTR-02: without a program that runs containers the failure names it and the command that installs it.
#[tokio::test]
async fn without_a_runtime() {
    let mut place = Place::without_cuda();
    let executor = container_runtime::SystemExecutor::new().with_env("PATH", "/nowhere");
    place.setup.containers = Detector::with_executor(Arc::new(executor));
    let (error, _) = place.ensure(&container_pool("vllm/vllm-openai", "tag = \"v0.11.0\"")).await;
    let error = error.expect_err("there is none");
    assert_eq!(error.fault(), PoolFault::MissingTool);
    assert!(error.fix().is_some_and(|fix| fix.contains("podman")), "{:?}", error.fix());
}
