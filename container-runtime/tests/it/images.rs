//! Images: by digest, by tag, from a registry, from nowhere.

use std::process::{Child, Command, Stdio};

use container_runtime::test_support::is_installed;
use container_runtime::{Backend, ImageRef, PullError, PullProgress, PulledImage, Runtime};
use narration_core::capture;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::real::{PATIENCE, Real, output, real, spec};
use crate::scripted::{Script, fails, hangs, info, runtime, says};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

async fn pull(runtime: &Runtime, image: &ImageRef) -> Result<PulledImage, PullError> {
    runtime.pull(image, &mut |_| {}, &CancellationToken::new()).await
}

async fn podman(folder: &TempDir) -> (Runtime, Script) {
    runtime(folder.path(), Backend::Podman, &info(Backend::Podman, "", "")).await
}

/// What podman says of an image that it has under these digests.
fn present(repository: &str, digests: &[&str]) -> String {
    let entries: Vec<_> = digests.iter().map(|digest| format!("{repository}@{digest}")).collect();
    let id = "0976569ca2c2971e293837348f55ff7975ef9ca9e912bc6aab7ac00621c04bf2";
    serde_json::json!([{ "Id": id, "Digest": digests.first(), "RepoDigests": entries }]).to_string()
}

/// LO-CTR-04, ORCH-3802: with a digest it is that image or an error; a tag alone warns, and its digest is reported.
#[tokio::test]
async fn digests_are_verified() {
    let other = DIGEST.replace('0', "f");
    let folder = TempDir::new().expect("a folder");
    let (podman, script) = podman(&folder).await;
    let pinned: ImageRef = format!("ghcr.io/a/b:v1@{DIGEST}").parse().expect("a name");
    let absent = || fails("podman image inspect", 125, "Error: inspecting object: ghcr.io/a/b: image not known");

    // An image of several platforms is known by its list's digest and by its own.
    script.add([says("podman image inspect ghcr.io/a/b@sha256:0123", &present("ghcr.io/a/b", &[&other, DIGEST]))]);
    let here = pull(&podman, &pinned).await.expect("it is here");
    assert_eq!((here.digest.as_str(), here.fetched, here.unpinned), (DIGEST, false, false));
    assert_eq!((here.reference, here.image), (format!("ghcr.io/a/b@{DIGEST}"), pinned.clone()));

    script.add([
        absent(),
        says("podman pull ghcr.io/a/b@sha256:0123", "id"),
        says("podman image inspect", &present("ghcr.io/a/b", &[&other])),
    ]);
    let swapped = pull(&podman, &pinned).await;
    assert!(matches!(&swapped, Err(PullError::DigestMismatch { found, .. }) if found.as_str() == other), "{swapped:?}");

    let said = capture();
    let tagged: ImageRef = "ghcr.io/a/b:v1".parse().expect("a name");
    script.add([
        absent(),
        says("podman pull ghcr.io/a/b:v1", "id"),
        says("podman image inspect", &present("ghcr.io/a/b", &[DIGEST])),
    ]);
    let resolved = pull(&podman, &tagged).await.expect("it comes");
    assert_eq!((resolved.unpinned, resolved.fetched, &resolved.image), (true, true, &pinned));
    let warned = said.events().iter().any(|event| event.human().contains(&format!("to pin this one, write {pinned}")));
    assert!(warned, "{:?}", said.events());
    assert!(script.is_over());
}

/// ORCH-3802: an image that docker has built has no digest of a manifest; it goes by its own.
#[tokio::test]
async fn dockers_own_images() {
    let folder = TempDir::new().expect("a folder");
    let (docker, script) = runtime(folder.path(), Backend::Docker, &info(Backend::Docker, "", "")).await;
    script.add([says("docker image inspect localhost/hello:1", include_str!("answers/docker-image.json"))]);
    let image = pull(&docker, &"localhost/hello:1".parse().expect("a name")).await.expect("it is here");
    assert_eq!(image.reference, image.id);
    assert_eq!(image.digest.as_str(), format!("sha256:{}", image.id));
    // What was recorded can be asked for again.
    script.add([says("docker image inspect localhost/hello@sha256:", include_str!("answers/docker-image.json"))]);
    assert_eq!(pull(&docker, &image.image).await.expect("it is here").digest, image.digest);
}

/// LO-CTR-01: why an image does not come is told apart. The sentences are those of podman 4.3, docker 20.10 and registries.
#[tokio::test]
async fn failed_pulls() {
    type IsIt = fn(&PullError) -> bool;
    let folder = TempDir::new().expect("a folder");
    let (podman, script) = podman(&folder).await;
    let image: ImageRef = "ghcr.io/a/b:v1".parse().expect("a name");
    let cases: [(&str, IsIt); 9] = [
        (
            "Error: initializing source docker://127.0.0.1:5000/hello:2: reading manifest 2 in 127.0.0.1:5000/hello: manifest unknown: manifest unknown",
            |e| matches!(e, PullError::NotFound { .. }),
        ),
        (
            "Error response from daemon: pull access denied for nosuch, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
            |e| matches!(e, PullError::NotFound { .. }),
        ),
        (
            "Error: initializing source docker://ghcr.io/a/b:v1: unable to retrieve auth token: invalid username/password: unauthorized",
            |e| matches!(e, PullError::Unauthorized { .. }),
        ),
        ("Error response from daemon: Get \"https://ghcr.io/v2/\": dial tcp: lookup ghcr.io: no such host", |e| {
            matches!(e, PullError::Unreachable { .. })
        }),
        (
            "Error: pinging container registry localhost: Get \"https://localhost/v2/\": dial tcp 127.0.0.1:443: connect: connection refused",
            |e| matches!(e, PullError::Unreachable { .. }),
        ),
        (
            "Error: writing blob: storing blob to file \"/var/tmp/storage123/1\": write /var/tmp/storage123/1: no space left on device",
            |e| matches!(e, PullError::NoSpace { .. }),
        ),
        ("toomanyrequests: You have reached your pull rate limit.", |e| matches!(e, PullError::TooMany { .. })),
        ("Error: something with password=hunter2hunter2", |e| {
            matches!(e, PullError::Client { .. }) && !format!("{e:?}").contains("hunter2")
        }),
        ("Error: something else", |e| matches!(e, PullError::Client { .. })),
    ];
    for (stderr, is_it) in cases {
        script.add([fails("podman image inspect", 125, "Error: image not known"), fails("podman pull", 125, stderr)]);
        let error = pull(&podman, &image).await.expect_err("it fails");
        assert!(is_it(&error), "{stderr} became {error:?}");
    }
    script.add([fails("podman image inspect", 125, "Error: image not known")]);
    let local = pull(&podman, &"localhost/mine:1".parse().expect("a name")).await;
    assert!(matches!(local, Err(PullError::NotBuilt { .. })), "{local:?}");
    assert!(script.is_over());
}

/// LO-CTR-01: a pull tells how far it is, and ends when it is told to.
#[tokio::test]
async fn progress_and_cancel() {
    let folder = TempDir::new().expect("a folder");
    let (docker, script) = runtime(folder.path(), Backend::Docker, &info(Backend::Docker, "", "")).await;
    let image: ImageRef = "ghcr.io/a/b:v1".parse().expect("a name");
    let absent = || fails("docker image inspect", 1, "Error response from daemon: no such image: x: No such image: x");
    let steps = "v1: Pulling from a/b\nec4: Pulling fs layer\nfa1: Already exists\nec4: Download complete\nec4: Pull complete\n";
    let here = present("ghcr.io/a/b", &[DIGEST]);
    script.add([absent(), says("docker pull", steps), says("docker image inspect", &here)]);
    let mut told = Vec::new();
    let mut note = |step: PullProgress| told.push((step.layers_done, step.layers_begun));
    docker.pull(&image, &mut note, &CancellationToken::new()).await.expect("it comes");
    assert_eq!(told, [(0, 0), (0, 1), (1, 2), (1, 2), (2, 2)]);

    script.add([absent(), hangs("docker pull")]);
    let cancel = CancellationToken::new();
    let mut stop = |_| cancel.cancel();
    let (canceled, ()) = tokio::join!(docker.pull(&image, &mut stop, &cancel), async { cancel.cancel() });
    assert!(matches!(canceled, Err(PullError::Canceled { .. })), "{canceled:?}");
}

/// A registry's process; killed when dropped.
pub(crate) struct Registry {
    process: Child,
    pub(crate) port: u16,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Docker's registry on a port of its own.
pub(crate) async fn registry(folder: &TempDir) -> Option<Registry> {
    if !is_installed("docker-registry", "apt-get install docker-registry") {
        return None;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let (data, config) = (folder.path().join("data"), folder.path().join("config.yml"));
    let text = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
        data.display()
    );
    std::fs::write(&config, text).expect("a folder of ours");
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
    let registry = Registry { process: command.spawn().expect("it starts"), port };
    let listens = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, listens).await.expect("it listens");
    Some(registry)
}

/// LO-CTR-04, ORCH-3802: from a real registry by digest and by tag; what is here is not asked for again; what ran is known.
#[tokio::test]
async fn from_a_registry() {
    let folder = TempDir::new().expect("a folder");
    let Some(Real { podman, runtime, .. }) = real().await else { return };
    let Some(registry) = registry(&folder).await else { return };
    let name = format!("127.0.0.1:{}/engine", registry.port);
    let tagged: ImageRef = format!("{name}:v1").parse().expect("a name");
    podman.run(&["push", "--quiet", "localhost/resident:test", &tagged.reference()]);
    podman.run(&["rmi", "--all", "--force"]);

    let mut lines = Vec::new();
    let mut note = |step: PullProgress| lines.push(step);
    let by_tag = runtime.pull(&tagged, &mut note, &CancellationToken::new()).await.expect("it comes");
    assert_eq!((by_tag.unpinned, by_tag.fetched), (true, true));
    let last = lines.last().expect("steps were told");
    assert_eq!((last.layers_begun, last.layers_done), (1, 1), "{lines:?}");

    podman.run(&["rmi", "--all", "--force"]);
    let by_digest = pull(&runtime, &by_tag.image).await.expect("it comes");
    assert_eq!((by_digest.unpinned, by_digest.fetched, &by_digest.digest), (false, true, &by_tag.digest));
    let container = runtime.run(&spec(&by_digest, "pinned", &["exit", "0"])).await.expect("it starts");
    assert_eq!(output(&container).await, [""; 0]);
    let ran = podman.run(&["inspect", container.name(), "--format={{.ImageDigest}}"]);
    assert_eq!(ran, by_digest.digest.as_str());

    let wrong: ImageRef = format!("{name}@{DIGEST}").parse().expect("a name");
    let missing = pull(&runtime, &wrong).await;
    assert!(matches!(missing, Err(PullError::NotFound { .. })), "{missing:?}");

    drop(registry);
    assert!(!pull(&runtime, &by_tag.image).await.expect("it is here").fetched);
    let elsewhere: ImageRef = format!("{name}:v2").parse().expect("a name");
    let unreachable = pull(&runtime, &elsewhere).await;
    assert!(matches!(unreachable, Err(PullError::Unreachable { .. })), "{unreachable:?}");
}

/// A program that is linked to libraries gets them into its image, so that tests of other crates need no static build.
#[tokio::test]
async fn images_of_linked_programs() {
    let Some(podman) = container_runtime::test_support::Podman::start() else { return };
    let name = podman.build("linked", std::path::Path::new("/bin/true"));
    let runtime = podman.runtime().await;
    let image = pull(&runtime, &name).await.expect("it was just built");
    let container = runtime.run(&spec(&image, "linked", &[])).await.expect("it starts");
    let state = tokio::time::timeout(PATIENCE, container.wait()).await.expect("it ends").expect("it is there");
    assert_eq!(state.exit_code, Some(0));
}
