//! What clients are told, and what is made of what they say.

use std::time::Duration;

use container_runtime::{
    Backend, ClientError, ContainerError, ContainerSpec, GpuAccess, GpuDevice, ImageRef, Mount, Network, PortMap,
    PulledImage, RunAs, RunError, Runtime, Status, Stopped, Ulimit,
};
use narration_core::capture;
use tempfile::TempDir;

use crate::scripted::{Script, fails, hangs, info, runtime, says};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const ID: &str = "0976569ca2c2971e293837348f55ff7975ef9ca9e912bc6aab7ac00621c04bf2";

fn image() -> PulledImage {
    let image: ImageRef = format!("vllm/vllm-openai:v0.11@{DIGEST}").parse().expect("a name");
    let digest = image.digest.clone().expect("it has one");
    let reference = image.reference();
    PulledImage { image, digest, reference, id: ID.to_owned(), unpinned: false, fetched: false }
}

fn gpu() -> GpuAccess {
    GpuAccess::devices([
        GpuDevice { uuid: "GPU-one".to_owned(), index: Some(0) },
        GpuDevice { uuid: "GPU-two".to_owned(), index: Some(1) },
    ])
    .expect("two devices")
}

fn spec() -> ContainerSpec {
    let network = Network::Loopback(vec![PortMap { host: 8101, container: 8000 }]);
    let mut spec = ContainerSpec::new("gpu0", 3, "home", image(), gpu(), network);
    spec.entrypoint = Some(vec!["python3".to_owned(), "-m".to_owned(), "vllm".to_owned()]);
    spec.command = vec!["--port".to_owned(), "8000".to_owned()];
    spec.env = [("HF_TOKEN", "hunter2hunter2"), ("PATH", "/opt/bin")]
        .map(|(name, value)| (name.to_owned(), value.into()))
        .into();
    spec.mounts = vec![Mount::read_only("/srv/models", "/models"), Mount::read_write("/srv/cache", "/cache")];
    spec.workdir = Some("/cache".into());
    spec.read_only_root = true;
    spec.shm_bytes = Some(1 << 30);
    spec.memory_bytes = Some(1 << 34);
    spec.ulimits = vec![Ulimit { name: "memlock", soft: -1, hard: -1 }];
    spec.stop_grace = Duration::from_millis(1500);
    spec.labels.insert("port".to_owned(), "8101".to_owned());
    spec
}

/// A runtime that knows both GPUs by CDI.
async fn with_cdi(folder: &TempDir, backend: Backend) -> (Runtime, Script) {
    let cdi = folder.path().join("cdi");
    std::fs::create_dir(&cdi).expect("a folder of ours");
    let text = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: GPU-one\n- name: \"1\"\n- name: all\n";
    std::fs::write(cdi.join("nvidia.yaml"), text).expect("a folder of ours");
    let said = match backend {
        Backend::Podman => info(backend, "", ""),
        Backend::Docker => info(backend, "\"CDISpecDirs\": null", &format!("\"CDISpecDirs\": [{cdi:?}]")),
    };
    runtime(folder.path(), backend, &said).await
}

/// The arguments of a start, without the label that differs each time.
async fn arguments(runtime: &Runtime, script: &Script, spec: &ContainerSpec) -> Vec<String> {
    let reply = match runtime.info().backend {
        Backend::Podman => says("podman run", ID),
        Backend::Docker => says("docker run", ID),
    };
    script.add([reply]);
    runtime.run(spec).await.expect("it starts");
    let call = script.calls().pop().expect("a call");
    assert_eq!(call.env, [("HF_TOKEN".to_owned(), "hunter2hunter2".to_owned())]);
    call.args.into_iter().filter(|arg| !arg.starts_with("--label=llama-orch.run=")).collect()
}

fn common(spec: &ContainerSpec) -> Vec<String> {
    let digest = spec.digest();
    [
        "run",
        "--detach",
        "--pull=never",
        "--restart=no",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--name=llama-orch-gpu0-3",
        "--label=port=8101",
        "--label=llama-orch.pool=gpu0",
        "--label=llama-orch.instance=home",
        &format!("--label=llama-orch.spec={digest}"),
        "--stop-signal=SIGTERM",
        "--stop-timeout=2",
        "--pids-limit=4096",
        "--memory=17179869184",
        "--shm-size=1073741824",
        "--ulimit=memlock=-1:-1",
        "--publish=127.0.0.1:8101:8000",
        "--mount=type=bind,source=/srv/models,target=/models,readonly",
        "--mount=type=bind,source=/srv/cache,target=/cache",
        "--read-only",
        "--tmpfs=/tmp",
        "--workdir=/cache",
        "--init",
        "--entrypoint=python3",
        "--env=HF_TOKEN",
        "--env=PATH=/opt/bin",
        &format!("docker.io/vllm/vllm-openai@{DIGEST}"),
        "-m",
        "vllm",
        "--port",
        "8000",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// What stands in `args` and not in `common`; everything of `common` must be there, in its order.
fn beside(args: Vec<String>, common: &[String]) -> Vec<String> {
    let mut expected = common.iter().peekable();
    let more = args.into_iter().filter(|arg| expected.next_if_eq(&arg).is_none()).collect();
    assert_eq!(expected.next(), None, "is missing beside {more:?}");
    more
}

/// LO-CTR-05, LO-CTR-08, LO-CTR-10, ORCH-3508: podman is told image, command, mask, ports, mounts and limits; only the GPUs of
/// the mask are given, by whichever name they have; no secret stands in the arguments.
#[tokio::test]
async fn what_podman_is_told() {
    let folder = TempDir::new().expect("a folder");
    let (runtime, script) = with_cdi(&folder, Backend::Podman).await;
    let spec = spec();
    let args = arguments(&runtime, &script, &spec).await;
    assert!(!args.iter().any(|arg| arg.contains("hunter2")), "{args:?}");
    let more = beside(args, &common(&spec));
    assert_eq!(
        more,
        [
            "--log-driver=k8s-file",
            "--log-opt=max-size=64mb",
            "--http-proxy=false",
            "--device=nvidia.com/gpu=GPU-one",
            "--device=nvidia.com/gpu=1",
            "--env=NVIDIA_VISIBLE_DEVICES=void",
        ]
    );
}

/// ORCH-3801, LO-CTR-05: docker is told the same; GPUs go by CDI where it has that and by `--gpus` where it has not.
#[tokio::test]
async fn what_docker_is_told() {
    let folder = TempDir::new().expect("a folder");
    let (cdi, script) = with_cdi(&folder, Backend::Docker).await;
    let spec = spec();
    let more = beside(arguments(&cdi, &script, &spec).await, &common(&spec));
    let log = ["--log-driver=json-file", "--log-opt=max-size=64m"];
    let by_cdi = ["--device=nvidia.com/gpu=GPU-one", "--device=nvidia.com/gpu=1", "--env=NVIDIA_VISIBLE_DEVICES=void"];
    assert_eq!(more, [&log[..], &by_cdi[..]].concat());

    let registered = info(Backend::Docker, "\"Runtimes\": {", "\"Runtimes\": {\"nvidia\": {},");
    let (nvidia, script) = runtime(folder.path(), Backend::Docker, &registered).await;
    let more = beside(arguments(&nvidia, &script, &spec).await, &common(&spec));
    assert_eq!(more, [&log[..], &["--gpus=\"device=GPU-one,GPU-two\""][..]].concat());
}

/// LO-CTR-10: rootless podman under cgroups v1 cannot limit, and is not asked to; the user is kept in a namespace.
#[tokio::test]
async fn what_depends_on_the_machine() {
    let folder = TempDir::new().expect("a folder");
    let rootless = info(Backend::Podman, "\"rootless\": false", "\"rootless\": true");
    let rootless = rootless.replace("\"selinuxEnabled\": false", "\"selinuxEnabled\": true");
    let (runtime, script) = runtime(folder.path(), Backend::Podman, &rootless).await;
    let mut spec = spec();
    spec.run_as = RunAs::Caller;
    spec.gpus = GpuAccess::simulated_devices(vec![Mount::read_only("/fake/libnvidia-ml.so.1", "/fake/nvml.so")]);
    let args = arguments(&runtime, &script, &spec).await;
    assert!(args.contains(&"--userns=keep-id".to_owned()), "{args:?}");
    assert!(
        args.contains(&"--mount=type=bind,source=/fake/libnvidia-ml.so.1,target=/fake/nvml.so,readonly".to_owned())
    );
    for unwanted in ["--pids-limit", "--memory=", "--device", "--gpus", "NVIDIA", "label=disable"] {
        assert!(!args.iter().any(|arg| arg.contains(unwanted)), "{unwanted} in {args:?}");
    }
}

/// LO-CTR-03, ORCH-3803: without a way to give GPUs nothing is started, and what to do is said.
#[tokio::test]
async fn no_gpus_no_container() {
    let folder = TempDir::new().expect("a folder");
    for (backend, fix) in
        [(Backend::Podman, "nvidia-ctk cdi generate"), (Backend::Docker, "nvidia-ctk runtime configure")]
    {
        let (runtime, script) = runtime(folder.path(), backend, &info(backend, "", "")).await;
        let refused = runtime.run(&spec()).await;
        let Err(RunError::NoGpuSupport(missing)) = refused else { panic!("{refused:?}") };
        assert!(missing.fix.contains(fix), "{missing}");
        assert_eq!(script.calls(), []);
    }
    assert_eq!(GpuAccess::devices([]), None);
}

/// LO-CTR-01: what a spec says that cannot be told, or would give more than it should, is refused before a client is asked.
#[tokio::test]
async fn refused_specs() {
    type Change = fn(&mut ContainerSpec);
    let folder = TempDir::new().expect("a folder");
    let (runtime, script) = with_cdi(&folder, Backend::Podman).await;
    let changes: [Change; 9] = [
        |spec| spec.pool = "a b".to_owned(),
        |spec| spec.command = vec!["a\0b".to_owned()],
        |spec| spec.entrypoint = Some(Vec::new()),
        |spec| drop(spec.env.insert("A=B".to_owned(), "x".into())),
        |spec| drop(spec.env.insert("NVIDIA_VISIBLE_DEVICES".to_owned(), "all".into())),
        |spec| drop(spec.labels.insert("llama-orch.pool".to_owned(), "other".to_owned())),
        |spec| spec.mounts = vec![Mount::read_only("relative", "/models")],
        |spec| spec.mounts = vec![Mount::read_only("/models,readwrite", "/models")],
        |spec| spec.workdir = Some("here".into()),
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut spec = spec();
        change(&mut spec);
        let refused = runtime.run(&spec).await;
        assert!(matches!(refused, Err(RunError::Spec(_))), "{number}: {refused:?}");
    }
    assert_eq!(script.calls(), []);
}

/// LO-CTR-01: specs that run the same have the same digest, others have not; values of variables count and do not show.
#[test]
fn digests_of_specs() {
    type Change = fn(&mut ContainerSpec);
    let same: [Change; 3] = [|spec| spec.generation += 1, |spec| spec.labels.clear(), |spec| spec.stop_grace *= 2];
    let other: [Change; 5] = [
        |spec| drop(spec.env.insert("HF_TOKEN".to_owned(), "other".into())),
        |spec| spec.command.push("--more".to_owned()),
        |spec| spec.network = Network::Host,
        |spec| spec.memory_bytes = None,
        |spec| spec.gpus = GpuAccess::simulated_devices(Vec::new()),
    ];
    let changed = |change: &Change| {
        let mut spec = spec();
        change(&mut spec);
        spec.digest()
    };
    assert!(same.iter().all(|change| changed(change) == spec().digest()));
    assert!(other.iter().all(|change| changed(change) != spec().digest()));
    assert!(!format!("{:?}", spec()).contains("hunter2"));
}

/// LO-CTR-01: what clients complain about is told apart. The sentences are those of podman 4.3 and docker 20.10 and 28.
#[tokio::test]
async fn failed_starts() {
    type IsIt = fn(&RunError) -> bool;
    let folder = TempDir::new().expect("a folder");
    let (podman, script) = with_cdi(&folder, Backend::Podman).await;
    let cases: [(&str, IsIt); 17] = [
        (
            "Error: creating container storage: the container name \"b\" is already in use by 9835. You have to remove that container to be able to reuse that name: that name is already in use",
            |e| matches!(e, RunError::NameTaken { .. }),
        ),
        (
            "docker: Error response from daemon: Conflict. The container name \"/bb\" is already in use by container \"a5bc\". You have to remove (or rename) that container to be able to reuse that name.",
            |e| matches!(e, RunError::NameTaken { .. }),
        ),
        ("Error: cannot listen on the TCP port: listen tcp4 127.0.0.1:18080: bind: address already in use", |e| {
            matches!(e, RunError::PortTaken { .. })
        }),
        (
            "docker: Error response from daemon: driver failed programming external connectivity on endpoint b: Bind for 127.0.0.1:18080 failed: port is already allocated",
            |e| matches!(e, RunError::PortTaken { .. }),
        ),
        ("Error: localhost/nothere:1: image not known", |e| matches!(e, RunError::ImageMissing { .. })),
        ("docker: Error response from daemon: No such image: localhost/hello:1", |e| {
            matches!(e, RunError::ImageMissing { .. })
        }),
        ("Error: setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=GPU-1", |e| {
            matches!(e, RunError::NoGpuSupport(_))
        }),
        ("docker: Error response from daemon: could not select device driver \"\" with capabilities: [[gpu]]", |e| {
            matches!(e, RunError::NoGpuSupport(_))
        }),
        ("nvidia-container-cli: initialization error: nvml error: driver not loaded", |e| {
            matches!(e, RunError::NoGpuSupport(_))
        }),
        ("Error: mounting storage for container: write /x: no space left on device", |e| {
            matches!(e, RunError::NoSpace { .. })
        }),
        ("Error: statfs /nosuch: no such file or directory", |e| matches!(e, RunError::MountMissing { .. })),
        (
            "docker: Error response from daemon: invalid mount config for type \"bind\": bind source path does not exist: /nosuch",
            |e| matches!(e, RunError::MountMissing { .. }),
        ),
        (
            "Error: runc: runc create failed: unable to start container process: exec: \"/nosuch\": stat /nosuch: no such file or directory: OCI runtime attempted to invoke a command that was not found",
            |e| matches!(e, RunError::NoProgram { .. }),
        ),
        (
            "Error: runc: runc create failed: unable to start container process: error during container init: error setting rlimits for ready process: error setting rlimit type 6: operation not permitted: OCI permission denied",
            |e| matches!(e, RunError::Denied { .. }),
        ),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", |e| {
            matches!(e, RunError::Client { source: ClientError::NoDaemon, .. })
        }),
        ("Error: unknown flag: --nosuchflag", |e| {
            matches!(e, RunError::Client { source: ClientError::Failed { .. }, .. })
        }),
        ("Error: something with Bearer hunter2hunter2", |e| {
            matches!(e, RunError::Client { .. }) && !format!("{e:?}").contains("hunter2")
        }),
    ];
    for (stderr, is_it) in cases {
        script.add([
            fails("podman run", 125, stderr),
            says("podman ps --all --no-trunc --quiet --filter label=llama-orch.run=", ""),
        ]);
        let error = podman.run(&spec()).await.expect_err("it fails");
        assert!(is_it(&error), "{stderr} became {error:?}");
    }
    assert!(script.is_over());
}

/// LO-CTR-01: what a failed start has left is removed, and only that.
#[tokio::test]
async fn nothing_is_left_of_a_failed_start() {
    let folder = TempDir::new().expect("a folder");
    let (podman, script) = with_cdi(&folder, Backend::Podman).await;
    let container = include_str!("answers/podman-container.json");
    script.add([
        fails("podman run", 126, "Error: exec: \"/nosuch\""),
        says("podman ps --all --no-trunc --quiet --filter label=llama-orch.run=", ID),
        says("podman container inspect", container),
        fails(
            "podman kill --signal KILL",
            125,
            "Error: can only kill running containers. x is in state created: container state improper",
        ),
        says("podman container inspect", container),
        says("podman rm --force --volumes", ""),
    ]);
    podman.run(&spec()).await.expect_err("it fails");
    assert!(script.is_over());
}

/// LO-CTR-01: both clients' words for states are understood.
#[tokio::test]
async fn states() {
    let folder = TempDir::new().expect("a folder");
    for (backend, container, oom_killed) in [
        (Backend::Podman, include_str!("answers/podman-container.json"), false),
        (Backend::Docker, include_str!("answers/docker-container.json"), false),
    ] {
        let (runtime, script) = runtime(folder.path(), backend, &info(backend, "", "")).await;
        let to = |podman, docker| if backend == Backend::Podman { podman } else { docker };
        script.add([
            says(to("podman ps", "docker ps"), ID),
            says(to("podman container inspect", "docker container inspect"), container),
            says(to("podman container inspect", "docker container inspect"), container),
        ]);
        let found = runtime.find("i").await.expect("an answer").pop().expect("one");
        assert_eq!((found.name(), found.label("llama-orch.instance")), ("aa", Some("i")));
        let state = found.inspect().await.expect("a state");
        assert_eq!((state.status, state.running, state.pid, state.exit_code), (Status::Exited, false, None, Some(3)));
        assert_eq!((state.oom_killed, state.memory_limit_bytes), (oom_killed, Some(64 << 20)));
        assert!(state.finished_at.is_some() && state.error.is_none());
        let gone =
            to("Error: inspecting object: no such container aa", "Error response from daemon: No such container: aa");
        script.add([fails(to("podman container inspect", "docker container inspect"), 1, gone)]);
        assert!(matches!(found.inspect().await, Err(ContainerError::Gone { .. })));
    }
}

/// LO-CTR-06: SIGTERM first, SIGKILL when the time is over, and an error when that does not help either.
#[tokio::test(start_paused = true)]
async fn stopping() {
    let folder = TempDir::new().expect("a folder");
    let (runtime, script) = runtime(folder.path(), Backend::Docker, &info(Backend::Docker, "", "")).await;
    let ended = include_str!("answers/docker-container.json");
    let runs = ended.replace("\"Running\": false", "\"Running\": true").replace("\"exited\"", "\"running\"");
    script.add([says("docker ps", ID), says("docker container inspect", ended)]);
    let container = runtime.find("i").await.expect("an answer").pop().expect("one");
    script.add([
        says("docker kill --signal TERM", ""),
        says("docker container inspect", &runs),
        says("docker wait", "3"),
        says("docker container inspect", ended),
    ]);
    let Stopped { forced, state } = container.stop(Duration::from_secs(10)).await.expect("it stops");
    assert_eq!((forced, state.exit_code), (false, Some(3)));
    // It does not listen.
    script.add([
        says("docker kill --signal TERM", ""),
        says("docker container inspect", &runs),
        hangs("docker wait"),
        says("docker kill --signal KILL", ""),
        says("docker container inspect", ended),
    ]);
    assert!(container.stop(Duration::from_secs(10)).await.expect("it is killed").forced);
    // It hangs in the kernel.
    script.add([
        says("docker kill --signal TERM", ""),
        says("docker container inspect", &runs),
        hangs("docker wait"),
        says("docker kill --signal KILL", ""),
        says("docker container inspect", &runs),
        hangs("docker wait"),
    ]);
    let stuck = container.stop(Duration::from_secs(10)).await;
    assert!(matches!(stuck, Err(ContainerError::StillRunning { .. })), "{stuck:?}");
    // It has ended before it was told to.
    let late = "Error response from daemon: Cannot kill container: aa: Container a5 is not running";
    script.add([fails("docker kill", 1, late), says("docker container inspect", ended)]);
    assert!(!container.stop(Duration::ZERO).await.expect("it has stopped").forced);
    // Docker does not answer.
    script.add([hangs("docker container inspect")]);
    let late = container.inspect().await;
    assert!(matches!(late, Err(ContainerError::Client { source: ClientError::TimedOut { .. }, .. })), "{late:?}");
    assert!(script.is_over());
}

/// LO-CTR-08: starts, failures and stops are told without secrets.
#[tokio::test]
async fn narration() {
    let said = capture();
    let folder = TempDir::new().expect("a folder");
    let (podman, script) = with_cdi(&folder, Backend::Podman).await;
    script.add([
        says("podman run", ID),
        fails("podman run", 125, "Error: token=hunter2hunter2"),
        says("podman ps", ""),
    ]);
    podman.run(&spec()).await.expect("it starts");
    podman.run(&spec()).await.expect_err("it fails");
    let told: Vec<_> = said.actions("run").iter().map(|event| event.human().to_owned()).collect();
    assert_eq!(told[0], "podman has started llama-orch-gpu0-3 for pool gpu0");
    assert_eq!(
        told[1],
        "podman did not start llama-orch-gpu0-3: could not start llama-orch-gpu0-3: podman failed with exit code 125: Error: token=[redacted]"
    );
    assert_eq!(said.actions("detect").len(), 1);
    assert!(!format!("{:?}", said.events()).contains("hunter2"));
}
