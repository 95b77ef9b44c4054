//! Which runtime is found.

use container_runtime::{Backend, CdiSupport, CgroupVersion, NoRuntime, Preference, RuntimeInfo};
use tempfile::TempDir;

use crate::scripted::{Reply, Script, fails, info, paths, says};

const NO_DAEMON: &str =
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?";

async fn detect(replies: impl IntoIterator<Item = Reply>, preference: Preference) -> Result<RuntimeInfo, NoRuntime> {
    let folder = TempDir::new().expect("a folder");
    let script = Script::new(replies);
    let found = script.detector(paths(folder.path(), "arch")).detect(preference).await;
    assert!(script.is_over(), "a client was not asked");
    found.map(|runtime| runtime.info().clone())
}

fn podman(from: &str, to: &str) -> Reply {
    says("podman info --format=json", &info(Backend::Podman, from, to))
}

fn docker(from: &str, to: &str) -> Reply {
    says("docker info --format=json", &info(Backend::Docker, from, to))
}

/// LO-CTR-02, ORCH-3801: podman is taken when it works, docker when podman does not, and what they say is understood.
#[tokio::test]
async fn podman_then_docker() {
    let found = detect([podman("\"rootless\": false", "\"rootless\": true")], Preference::Auto).await.expect("podman");
    assert_eq!((found.backend, &*found.version, found.rootless), (Backend::Podman, "4.3.1", true));
    assert_eq!((found.cgroups, found.selinux, found.init), (CgroupVersion::V1, false, true));
    assert!(matches!(found.cdi, CdiSupport::Folders(_)));

    // Podman is not installed.
    let found = detect([docker("", "")], Preference::Auto).await.expect("docker");
    assert_eq!((found.backend, &*found.version, found.rootless), (Backend::Docker, "20.10.24+dfsg1", false));
    assert!(matches!(found.cdi, CdiSupport::Unsupported { .. }) && !found.nvidia_runtime && found.init);

    // Podman is there and does not work, or is too old to give GPUs.
    let broken = fails("podman info", 125, "Error: cannot re-exec process");
    assert_eq!(detect([broken, docker("", "")], Preference::Auto).await.expect("docker").backend, Backend::Docker);
    let old = podman("\"Version\": \"4.3.1\"", "\"Version\": \"3.4.4\"");
    assert_eq!(detect([old, docker("", "")], Preference::Auto).await.expect("docker").backend, Backend::Docker);
}

/// ORCH-3801: docker's ways to give GPUs are known.
#[tokio::test]
async fn dockers_ways_to_gpus() {
    let registered = docker("\"Runtimes\": {", "\"Runtimes\": {\"nvidia\": {\"path\": \"nvidia-container-runtime\"},");
    assert!(detect([registered], Preference::Auto).await.expect("docker").nvidia_runtime);
    let with_cdi = docker("\"CDISpecDirs\": null", "\"CDISpecDirs\": [\"/etc/cdi\", \"/var/run/cdi\"]");
    let cdi = detect([with_cdi], Preference::Auto).await.expect("docker").cdi;
    assert_eq!(cdi, CdiSupport::Folders(vec!["/etc/cdi".into(), "/var/run/cdi".into()]));
    let rootless = docker("\"name=seccomp,profile=default\"", "\"name=seccomp,profile=builtin\", \"name=rootless\"");
    assert!(detect([rootless], Preference::Auto).await.expect("docker").rootless);
}

/// LO-CTR-02: without any there is an error that says what is the matter with each and what to type here.
#[tokio::test]
async fn none() {
    let error = detect([], Preference::Auto).await.expect_err("nothing is there");
    assert_eq!(
        error.to_string(),
        "no container runtime can be used; podman: not installed; sudo pacman -S podman; docker: not installed; sudo pacman -S docker"
    );
    let error = detect([fails("docker info", 1, NO_DAEMON)], Preference::Auto).await.expect_err("no daemon");
    assert!(error.to_string().ends_with("sudo systemctl enable --now docker"), "{error}");
    let error = detect(
        [fails(
            "docker info",
            1,
            "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
        )],
        Preference::Auto,
    )
    .await;
    assert!(error.as_ref().expect_err("not for us").to_string().contains("usermod -aG docker"), "{error:?}");
    // The operator wants podman and nothing else; docker is not even asked.
    let error = detect([], Preference::Only(Backend::Podman)).await.expect_err("not installed");
    assert_eq!(error.tried.len(), 1);
    let error = detect([says("podman info", "{}")], Preference::Only(Backend::Podman)).await.expect_err("no answer");
    assert!(error.to_string().contains("missing field"), "{error}");
}
