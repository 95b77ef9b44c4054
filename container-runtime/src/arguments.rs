//! A spec in the words of a client.

use std::path::Path;

use crate::backend::Backend;
use crate::executor::Call;
use crate::gpu::Way;
use crate::runtime::{CgroupVersion, RuntimeInfo};
use crate::spec::{Access, ContainerSpec, Mount, Network, RunAs};

/// Labels by which we know our containers.
pub(crate) mod label {
    pub(crate) const POOL: &str = "llama-orch.pool";
    pub(crate) const INSTANCE: &str = "llama-orch.instance";
    pub(crate) const SPEC: &str = "llama-orch.spec";
    /// One call of `run`, so that it can clean up after itself and nobody else.
    pub(crate) const RUN: &str = "llama-orch.run";
}

/// Most that a container's log takes on disk; what is older is lost unless it was read.
const LOG_SIZE: &str = "64m";

/// Variables that would change the client itself, whose values are paths and settings, and so may be read in the list of
/// processes. All others go through the client's environment.
const FOR_CLIENTS: &[&str] = &["PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "REGISTRY_AUTH_FILE", "SSH_AUTH_SOCK"];
const FOR_CLIENTS_BY_PREFIX: &[&str] = &[
    "LD_",
    "XDG_",
    "DBUS_",
    "CONTAINERS_",
    "CONTAINER_",
    "_CONTAINERS_",
    "DOCKER_",
    "PODMAN_",
    "BUILDAH_",
    "STORAGE_",
    "GO",
    "SSL_CERT_",
    "LISTEN_",
    "NOTIFY_",
];

/// The call that starts a container in the background and prints its id.
pub(crate) fn run(info: &RuntimeInfo, spec: &ContainerSpec, way: &Way, run_id: &str) -> Call {
    let mut call = Call { program: info.backend.program().to_owned(), ..Call::default() };
    let mut say = |text: String| call.args.push(text);
    for fixed in
        ["run", "--detach", "--pull=never", "--restart=no", "--cap-drop=all", "--security-opt=no-new-privileges"]
    {
        say(fixed.to_owned());
    }
    say(format!("--name={}", spec.name()));
    let ours = [
        (label::POOL, &*spec.pool),
        (label::INSTANCE, &*spec.instance),
        (label::SPEC, &*spec.digest()),
        (label::RUN, run_id),
    ];
    let theirs = spec.labels.iter().map(|(name, value)| (&**name, &**value));
    theirs.chain(ours).for_each(|(name, value)| say(format!("--label={name}={value}")));
    say("--stop-signal=SIGTERM".to_owned());
    say(format!("--stop-timeout={}", whole_seconds(spec.stop_grace)));
    backend(info).into_iter().for_each(&mut say);
    limits(info, spec).into_iter().for_each(&mut say);
    network(&spec.network).into_iter().for_each(&mut say);
    spec.mounts.iter().chain(spec.gpus.mounts()).for_each(|bind| say(mount(bind)));
    way.arguments().into_iter().for_each(&mut say);
    if info.selinux && matches!(way, Way::Cdi(_) | Way::Gpus(_)) {
        say("--security-opt=label=disable".to_owned());
    }
    if spec.read_only_root {
        say("--read-only".to_owned());
        say("--tmpfs=/tmp".to_owned());
    }
    if let Some(folder) = &spec.workdir {
        say(format!("--workdir={}", text(folder)));
    }
    if spec.run_as == RunAs::Caller {
        user(info).into_iter().for_each(&mut say);
    }
    if spec.init && info.init {
        say("--init".to_owned());
    }
    let (program, words) = match spec.entrypoint.as_deref() {
        Some([program, words @ ..]) => (Some(program), words),
        _ => (None, &[][..]),
    };
    program.into_iter().for_each(|program| say(format!("--entrypoint={program}")));
    environment(&mut call, spec, way);
    call.args.push(spec.image.reference.clone());
    call.args.extend(words.iter().chain(&spec.command).cloned());
    call
}

/// What only one of the clients must be told.
fn backend(info: &RuntimeInfo) -> Vec<String> {
    match info.backend {
        // The log must be one that `logs` can read whatever the machine's default is. Proxies of ours are not the engine's.
        Backend::Podman => vec![
            "--log-driver=k8s-file".to_owned(),
            format!("--log-opt=max-size={LOG_SIZE}b"),
            "--http-proxy=false".to_owned(),
        ],
        Backend::Docker => vec!["--log-driver=json-file".to_owned(), format!("--log-opt=max-size={LOG_SIZE}")],
    }
}

fn limits(info: &RuntimeInfo, spec: &ContainerSpec) -> Vec<String> {
    let mut said = Vec::new();
    if info.limits_resources() {
        said.push(format!("--pids-limit={}", spec.pids_limit));
        said.extend(spec.memory_bytes.map(|bytes| format!("--memory={bytes}")));
    }
    said.extend(spec.shm_bytes.map(|bytes| format!("--shm-size={bytes}")));
    said.extend(spec.ulimits.iter().map(|limit| format!("--ulimit={}={}:{}", limit.name, limit.soft, limit.hard)));
    said
}

fn network(network: &Network) -> Vec<String> {
    match network {
        Network::Host => vec!["--network=host".to_owned()],
        Network::Loopback(ports) => {
            ports.iter().map(|port| format!("--publish=127.0.0.1:{}:{}", port.host, port.container)).collect()
        }
    }
}

fn mount(mount: &Mount) -> String {
    let access = match mount.access {
        Access::ReadOnly => ",readonly",
        Access::ReadWrite => "",
    };
    format!("--mount=type=bind,source={},target={}{access}", text(&mount.source), text(&mount.target))
}

/// The user who runs us: in a namespace of its own where podman is rootless, by number otherwise.
fn user(info: &RuntimeInfo) -> Vec<String> {
    if info.rootless {
        return match info.backend {
            Backend::Podman => vec!["--userns=keep-id".to_owned()],
            // Root in a rootless daemon's containers is the user outside.
            Backend::Docker => Vec::new(),
        };
    }
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    vec![format!("--user={}:{}", user.as_raw(), group.as_raw())]
}

/// Variables: names on the command line, values in the client's environment.
fn environment(call: &mut Call, spec: &ContainerSpec, way: &Way) {
    call.args.extend(way.variable().map(|variable| format!("--env={variable}")));
    for (name, value) in &spec.env {
        if is_for_clients(name) {
            call.args.push(format!("--env={name}={}", value.text()));
        } else {
            call.args.push(format!("--env={name}"));
            call.env.push((name.clone(), value.text().to_owned()));
        }
    }
}

fn is_for_clients(name: &str) -> bool {
    FOR_CLIENTS.contains(&name) || FOR_CLIENTS_BY_PREFIX.iter().any(|prefix| name.starts_with(prefix))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the spec was checked")
}

/// Clients count in whole seconds; less than one is not none.
fn whole_seconds(time: std::time::Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

impl RuntimeInfo {
    /// Whether containers can be limited in memory and processes: without root only under cgroups v2.
    #[must_use]
    pub fn limits_resources(&self) -> bool {
        !self.rootless || self.cgroups == CgroupVersion::V2
    }
}
