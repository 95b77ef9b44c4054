//! Which GPUs a container sees, and how a client is told.

use serde::Serialize;

use crate::advice::{CONFIGURE_DOCKER, Distribution, GENERATE_CDI};
use crate::backend::Backend;
use crate::cdi::{Cdi, KIND};
use crate::runtime::{CdiSupport, RuntimeInfo};
use crate::spec::{Mount, VISIBLE_DEVICES};

/// One GPU or MIG instance of a mask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GpuDevice {
    /// As NVML says it: `GPU-…` or `MIG-…`.
    pub uuid: String,
    /// NVML's index, for CDI specifications that name devices by it. MIG instances have none.
    pub index: Option<u32>,
}

/// The GPUs of a container. There is no way to have none: an engine that we start runs on GPUs (ORCH-3803).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GpuAccess(Kind);

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
enum Kind {
    Devices { first: GpuDevice, others: Vec<GpuDevice> },
    Fake { mounts: Vec<Mount> },
}

impl GpuAccess {
    /// These GPUs and no others; nothing when there are none.
    #[must_use]
    pub fn devices(devices: impl IntoIterator<Item = GpuDevice>) -> Option<Self> {
        let mut devices = devices.into_iter();
        let first = devices.next()?;
        Some(Self(Kind::Devices { first, others: devices.collect() }))
    }

    /// For machines whose GPUs are a simulation (`fake-nvml`): no flag for GPUs is given, and what stands for the driver is
    /// mounted. Only code that knows it has loaded the simulation may ask for this; no configuration leads here.
    #[must_use]
    pub fn simulated_devices(mounts: Vec<Mount>) -> Self {
        Self(Kind::Fake { mounts })
    }

    pub(crate) fn real(&self) -> impl Iterator<Item = &GpuDevice> {
        let (first, others) = match &self.0 {
            Kind::Devices { first, others } => (Some(first), &others[..]),
            Kind::Fake { .. } => (None, &[][..]),
        };
        first.into_iter().chain(others)
    }

    pub(crate) fn mounts(&self) -> &[Mount] {
        match &self.0 {
            Kind::Devices { .. } => &[],
            Kind::Fake { mounts } => mounts,
        }
    }
}

/// How a client gives GPUs to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Names of devices in CDI specifications.
    Cdi(Vec<String>),
    /// Docker with NVIDIA's runtime; UUIDs.
    Gpus(Vec<String>),
    /// Nothing to give.
    Simulated,
}

impl Way {
    pub(crate) fn arguments(&self) -> Vec<String> {
        match self {
            Self::Cdi(names) => names.iter().map(|name| format!("--device={KIND}={name}")).collect(),
            // The value is comma-separated itself, so its list of devices stands in quotes that are part of it.
            Self::Gpus(uuids) => vec![format!("--gpus=\"device={}\"", uuids.join(","))],
            Self::Simulated => Vec::new(),
        }
    }

    /// The variable that takes back what an image may ask for. An image of CUDA's says `NVIDIA_VISIBLE_DEVICES=all`, and where
    /// NVIDIA's runtime is docker's default, that would be obeyed.
    pub(crate) fn variable(&self) -> Option<String> {
        // Docker itself sets it for `--gpus`.
        matches!(self, Self::Cdi(_)).then(|| format!("{VISIBLE_DEVICES}=void"))
    }
}

/// Why a container cannot have the GPUs it needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {fix}")]
pub struct NoGpuSupport {
    /// What is the matter.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

/// How this runtime gives these GPUs: by CDI where it knows all of them, else by docker's `--gpus`.
pub(crate) fn way(
    info: &RuntimeInfo,
    distribution: Distribution,
    gpus: &GpuAccess,
    cdi: &Cdi,
) -> Result<Way, NoGpuSupport> {
    if gpus.real().next().is_none() {
        return Ok(Way::Simulated);
    }
    let by_cdi = by_cdi(info, distribution, gpus, cdi);
    match by_cdi {
        Err(_) if info.nvidia_runtime => Ok(Way::Gpus(gpus.real().map(|device| device.uuid.clone()).collect())),
        found => found,
    }
}

fn by_cdi(info: &RuntimeInfo, distribution: Distribution, gpus: &GpuAccess, cdi: &Cdi) -> Result<Way, NoGpuSupport> {
    if let CdiSupport::Unsupported { why } = &info.cdi {
        let (backend, version) = (info.backend, &info.version);
        let fix = match backend {
            Backend::Docker => {
                format!(
                    "install the NVIDIA container toolkit: {}; then {CONFIGURE_DOCKER}",
                    distribution.install_toolkit()
                )
            }
            Backend::Podman => "install podman 4.1 or newer".to_owned(),
        };
        return Err(NoGpuSupport { problem: format!("{backend} {version} gives no GPUs to containers: {why}"), fix });
    }
    if cdi.is_empty() {
        let (folders, install) = (cdi.folders(), distribution.install_toolkit());
        return Err(NoGpuSupport {
            problem: format!("no CDI specification in {folders} names an NVIDIA GPU"),
            fix: format!("install the NVIDIA container toolkit: {install}; then {GENERATE_CDI}"),
        });
    }
    let names = gpus.real().map(|device| cdi.name_of(device).ok_or(device)).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(|missing| NoGpuSupport {
        problem: format!("the CDI specifications name {}, but not {}", cdi.names(), missing.uuid),
        fix: format!("write them again: {GENERATE_CDI}"),
    })?;
    match names.iter().find_map(|name| cdi.missing_file(name)) {
        Some(file) => Err(NoGpuSupport {
            problem: format!(
                "the CDI specifications mean {}, which is not there (was the driver updated?)",
                file.display()
            ),
            fix: format!("write them again: {GENERATE_CDI}"),
        }),
        None => Ok(Way::Cdi(names)),
    }
}
