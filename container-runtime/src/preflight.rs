//! Finds what would stop an engine before it is started (LO-CTR-03, ORCH-3804).

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use rustix::fs::{Access as Right, access, statvfs};

use crate::backend::Backend;
use crate::gpu::{GpuAccess, Way};
use crate::narrate;
use crate::runtime::Runtime;
use crate::spec::{Access, Mount};

/// Room for what a container writes, and for the runtime itself.
const ROOM: u64 = 1 << 30;

/// What a pool is going to need.
#[derive(Clone, Debug)]
pub struct PreflightRequest {
    /// Its GPUs.
    pub gpus: GpuAccess,
    /// Ports of 127.0.0.1 that its engine is to be reached at.
    pub ports: Vec<u16>,
    /// Files it is to see: models, caches.
    pub mounts: Vec<Mount>,
    /// What its image takes on disk, if that is known and it is not here yet.
    pub image_bytes: Option<u64>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreflightReport {
    /// One for each check, in a fixed order.
    pub findings: Vec<Finding>,
}

impl PreflightReport {
    /// Whether the engine cannot run.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.findings.iter().any(|finding| finding.outcome == Outcome::Fail)
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// Whether it is well.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// Whether something is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is.
    Pass,
    /// The engine runs, but not as well or as safely as it could.
    Warn,
    /// The engine cannot run.
    Fail,
}

impl Outcome {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// NVIDIA's container toolkit, and each GPU of the mask.
    Gpus,
    /// A port of this machine.
    Port,
    /// A file or folder to mount.
    Mount,
    /// Room for images.
    Disk,
    /// Whose rights containers have.
    Privileges,
    /// Limits of memory and processes.
    Resources,
    /// An init in containers.
    Init,
}

impl Check {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gpus => "gpus",
            Self::Port => "port",
            Self::Mount => "mount",
            Self::Disk => "disk",
            Self::Privileges => "privileges",
            Self::Resources => "resources",
            Self::Init => "init",
        }
    }
}

impl Finding {
    fn pass(check: Check, detail: String) -> Self {
        Self { check, outcome: Outcome::Pass, detail, fix: None }
    }

    fn warn(check: Check, detail: String, fix: String) -> Self {
        Self { check, outcome: Outcome::Warn, detail, fix: Some(fix) }
    }

    fn fail(check: Check, detail: String, fix: String) -> Self {
        Self { check, outcome: Outcome::Fail, detail, fix: Some(fix) }
    }
}

impl Runtime {
    /// Looks at everything that an engine in a container needs, starts nothing, and changes nothing. All of it is looked at
    /// also when something fails, so that a person can mend it in one go.
    #[must_use]
    pub fn preflight(&self, request: &PreflightRequest) -> PreflightReport {
        let mut findings = vec![self.check_gpus(&request.gpus)];
        findings.extend(request.ports.iter().map(|port| check_port(*port)));
        findings.extend(request.mounts.iter().chain(request.gpus.mounts()).map(check_mount));
        findings.extend(self.check_disk(request.image_bytes));
        findings.push(self.check_privileges());
        findings.push(self.check_resources());
        findings.push(self.check_init());
        let report = PreflightReport { findings };
        narrate::preflight(self.backend(), &report);
        report
    }

    fn check_gpus(&self, gpus: &GpuAccess) -> Finding {
        let backend = self.backend();
        match self.gpus(gpus) {
            Ok(Way::Cdi(names)) => {
                Finding::pass(Check::Gpus, format!("{backend} gives these GPUs by CDI: {}", names.join(", ")))
            }
            Ok(Way::Gpus(uuids)) => Finding::pass(
                Check::Gpus,
                format!("{backend} gives these GPUs by NVIDIA's runtime: {}", uuids.join(", ")),
            ),
            Ok(Way::Simulated) => Finding::pass(Check::Gpus, "the GPUs are a simulation".to_owned()),
            Err(missing) => Finding::fail(Check::Gpus, missing.problem, missing.fix),
        }
    }

    fn check_disk(&self, image_bytes: Option<u64>) -> Option<Finding> {
        let storage = self.info().storage.as_deref()?;
        let shown = storage.display();
        // A daemon's folder may be closed to us, and then there is nothing to say about it.
        let filesystem = statvfs(storage).ok()?;
        let free = filesystem.f_bavail.saturating_mul(filesystem.f_frsize);
        let needed = image_bytes.unwrap_or(0).saturating_add(ROOM);
        let (free_mb, needed_mb) = (free >> 20, needed >> 20);
        let fix = || {
            format!("free some space (`{} system prune` removes unused images), or move the storage", self.backend())
        };
        Some(if free >= needed {
            Finding::pass(Check::Disk, format!("{shown} has {free_mb} MiB free"))
        } else {
            Finding::fail(Check::Disk, format!("{shown} has {free_mb} MiB free, and {needed_mb} MiB are needed"), fix())
        })
    }

    fn check_privileges(&self) -> Finding {
        let (backend, check) = (self.backend(), Check::Privileges);
        if self.info().rootless {
            return Finding::pass(check, format!("{backend} is rootless"));
        }
        let fix = match backend {
            Backend::Podman => "run llama-orch as an ordinary user",
            Backend::Docker => "use rootless podman, rootless docker, or docker's `userns-remap`",
        };
        Finding::warn(check, format!("{backend} runs containers as root, without capabilities"), fix.to_owned())
    }

    fn check_resources(&self) -> Finding {
        if self.info().limits_resources() {
            return Finding::pass(Check::Resources, "memory and processes can be limited".to_owned());
        }
        Finding::warn(
            Check::Resources,
            "memory and processes of containers are not limited: this kernel runs cgroups v1".to_owned(),
            "boot with `systemd.unified_cgroup_hierarchy=1`".to_owned(),
        )
    }

    fn check_init(&self) -> Finding {
        if self.info().init {
            return Finding::pass(Check::Init, "containers have an init".to_owned());
        }
        let install = self.0.distribution.install("catatonit");
        Finding::warn(Check::Init, format!("{} has no init for containers", self.backend()), install)
    }
}

fn check_port(port: u16) -> Finding {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Finding::pass(Check::Port, format!("port {port} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Finding::fail(
            Check::Port,
            format!("port {port} is taken"),
            format!("`ss -ltnp 'sport = :{port}'` shows by whom; end it, or give the pool another port"),
        ),
        Err(error) => Finding::fail(
            Check::Port,
            format!("port {port} cannot be used: {error}"),
            "give the pool another port".to_owned(),
        ),
    }
}

fn check_mount(mount: &Mount) -> Finding {
    let source = mount.source.display();
    match usable(&mount.source, mount.access) {
        Ok(()) => Finding::pass(Check::Mount, format!("{source} is there")),
        Err(error) => {
            let fix = match error.kind() {
                io::ErrorKind::NotFound => format!("create it: mkdir -p {source}"),
                io::ErrorKind::PermissionDenied => format!("let the user who runs llama-orch use it: ls -ld {source}"),
                _ => format!("see what `ls -l {source}` says"),
            };
            Finding::fail(Check::Mount, format!("{source} cannot be mounted: {error}"), fix)
        }
    }
}

/// Tries what the container is going to do.
fn usable(path: &Path, wanted: Access) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        fs::read_dir(path).map(drop)?;
    } else {
        File::open(path).map(drop)?;
    }
    match wanted {
        Access::ReadOnly => Ok(()),
        Access::ReadWrite => Ok(access(path, Right::WRITE_OK)?),
    }
}
