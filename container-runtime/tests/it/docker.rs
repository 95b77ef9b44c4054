//! A real docker, with a daemon of the test's own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use container_runtime::test_support::{is_installed, write_context};
use container_runtime::{
    Backend, ContainerError, Detector, GpuAccess, GpuDevice, ImageRef, NoRuntime, Preference, RunError, Runtime,
    SystemExecutor,
};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::images::registry;
use crate::real::{INSTANCE, PATIENCE, output, spec};
use crate::resident;

/// The daemon. Dropping it ends it, after its containers.
struct Docker {
    daemon: Child,
    folder: TempDir,
}

impl Docker {
    /// Starts one; without docker, or without the rights to, says so.
    async fn start() -> Option<Self> {
        let install = "apt-get install docker.io";
        if !is_installed("docker", install) || !is_installed("dockerd", install) {
            return None;
        }
        if !geteuid().is_root() {
            eprintln!("skipped: a docker daemon of the test's own needs root");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("docker-").tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        let mut command = Command::new("dockerd");
        command.arg("--data-root").arg(path("data")).arg("--exec-root").arg(path("exec"));
        command.arg("--pidfile").arg(path("pid")).arg("--host").arg(host(&folder));
        // Neither the machine's network nor its firewall is touched.
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        let log = std::fs::File::create(path("log")).expect("a folder of ours");
        let daemon = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
        let docker = Self { daemon, folder };
        let answers = async {
            while docker.detect().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if timeout(PATIENCE, answers).await.is_err() {
            panic!("dockerd does not answer: {}", std::fs::read_to_string(docker.path("log")).unwrap_or_default());
        }
        Some(docker)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn detect(&self) -> Result<Runtime, NoRuntime> {
        let executor = SystemExecutor::new().with_env("DOCKER_HOST", &host(&self.folder));
        Detector::with_executor(Arc::new(executor)).detect(Preference::Only(Backend::Docker)).await
    }

    async fn runtime(&self) -> Runtime {
        self.detect().await.expect("it answered before")
    }

    fn run(&self, args: &[&str]) -> String {
        let mut command = Command::new("docker");
        // The builder that is part of the daemon; the other one is a plugin.
        let output = command.args(args).env("DOCKER_HOST", host(&self.folder)).env("DOCKER_BUILDKIT", "0").output();
        let output = output.expect("docker starts");
        assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = i32::try_from(self.daemon.id()).ok().and_then(Pid::from_raw).expect("it was started");
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.daemon.wait();
        // It leaves the host's network namespace mounted.
        let _ = Command::new("umount").arg(self.path("exec/netns/default")).stderr(Stdio::null()).status();
    }
}

fn host(folder: &TempDir) -> String {
    format!("unix://{}/socket", folder.path().display())
}

/// ORCH-3801, ORCH-3802, LO-CTR-01, LO-CTR-04, LO-CTR-06, LO-CTR-07: everything that is promised of podman holds of a real docker. One test,
/// because its daemon takes seconds to start.
#[tokio::test]
async fn the_same_under_docker() {
    let Some(docker) = Docker::start().await else { return };
    let context = docker.path("context");
    write_context(&context, &resident::program());
    docker.run(&["build", "--quiet", "--tag=localhost/resident:test", context.to_str().expect("plain")]);
    let runtime = docker.runtime().await;
    let cancel = CancellationToken::new();
    let name = "localhost/resident:test".parse().expect("a name");
    let image = runtime.pull(&name, &mut |_| {}, &cancel).await.expect("it was just built");
    assert_eq!((image.unpinned, image.fetched), (true, false));

    let mut told = spec(&image, "told", &["env", "SECRET"]);
    told.env.insert("SECRET".to_owned(), "correct horse".into());
    let container = runtime.run(&told).await.expect("it starts");
    assert_eq!(output(&container).await, ["SECRET is [redacted]"]);
    let again = runtime.run(&told).await;
    assert!(matches!(again, Err(RunError::NameTaken { .. })), "{again:?}");
    container.remove().await.expect("it is removed");
    assert!(matches!(container.inspect().await, Err(ContainerError::Gone { .. })));

    let status = output(&runtime.run(&spec(&image, "status", &["status"])).await.expect("it starts")).await.join("\n");
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }

    let mut hungry = spec(&image, "hungry", &["eat"]);
    hungry.memory_bytes = Some(64 << 20);
    let hungry = runtime.run(&hungry).await.expect("it starts");
    let state = timeout(PATIENCE, hungry.wait()).await.expect("it ends").expect("it is there");
    assert_eq!((state.exit_code, state.oom_killed), (Some(137), true));

    let polite = runtime.run(&spec(&image, "polite", &["wait"])).await.expect("it starts");
    let stopped = polite.stop(PATIENCE).await.expect("it stops");
    assert_eq!((stopped.forced, stopped.state.exit_code), (false, Some(143)));
    let mut deaf = spec(&image, "deaf", &["wait"]);
    deaf.init = false;
    let deaf = runtime.run(&deaf).await.expect("it starts");
    let stopped = deaf.stop(Duration::from_millis(300)).await.expect("it stops");
    assert_eq!((stopped.forced, stopped.state.exit_code), (true, Some(137)));

    let mut lost = spec(&image, "lost", &[]);
    (lost.init, lost.entrypoint) = (false, Some(vec!["/nowhere".to_owned()]));
    let lost = runtime.run(&lost).await;
    assert!(matches!(lost, Err(RunError::NoProgram { .. })), "{lost:?}");
    let mut managed = spec(&image, "managed", &["wait"]);
    managed.gpus = GpuAccess::devices([GpuDevice { uuid: "GPU-one".to_owned(), index: None }]).expect("one");
    let managed = runtime.run(&managed).await;
    assert!(matches!(managed, Err(RunError::NoGpuSupport(_))), "{managed:?}");

    let found = docker.runtime().await.find(INSTANCE).await.expect("it answers");
    let mut names: Vec<_> = found.iter().map(|container| container.pool().expect("a label").to_owned()).collect();
    names.sort();
    assert_eq!(names, ["deaf", "hungry", "polite", "status"]);
    for container in found {
        container.remove().await.expect("it is removed");
    }
    assert_eq!(docker.run(&["ps", "--all", "--quiet"]), "");

    let Some(registry) = registry(&docker.folder).await else { return };
    let pushed: ImageRef = format!("127.0.0.1:{}/engine:v1", registry.port).parse().expect("a name");
    docker.run(&["tag", "localhost/resident:test", &pushed.reference()]);
    docker.run(&["push", &pushed.reference()]);
    docker.run(&["rmi", "--force", &image.id]);
    let by_tag = runtime.pull(&pushed, &mut |_| {}, &cancel).await.expect("it comes");
    docker.run(&["rmi", "--force", &by_tag.id]);
    let by_digest = runtime.pull(&by_tag.image, &mut |_| {}, &cancel).await.expect("it comes");
    assert_eq!((by_digest.fetched, by_digest.unpinned, &by_digest.digest), (true, false, &by_tag.digest));
    let container = runtime.run(&spec(&by_digest, "pinned", &["exit", "5"])).await.expect("it starts");
    let state = timeout(PATIENCE, container.wait()).await.expect("it ends").expect("it is there");
    assert_eq!(state.exit_code, Some(5));
    container.remove().await.expect("it is removed");
}
