//! Which GPUs this host has, as NVML tells (ORCH-1102: NVIDIA's, or none).
//!
//! NVML comes with the driver and is loaded at run time, so that the same program runs on hosts without one.

mod mask;
mod monitor;
mod read;
mod statuses;
mod xid;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use nvml_wrapper::error::NvmlError;

use crate::proc;

pub use self::mask::{DeviceMask, MaskError, MaskedDevice};
pub use self::monitor::{DeviceEvent, Monitor, Reading};
pub use self::xid::{Remedy, Xid};

/// The GPUs of this host; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// Version of the driver.
    pub driver: String,
    /// The newest CUDA version whose programs the driver runs, major and minor.
    pub cuda: Option<(i32, i32)>,
    /// Those that answer, by index.
    pub devices: Vec<Device>,
    /// Those that do not.
    pub failed: Vec<FailedDevice>,
    /// When they were looked at.
    pub taken: Taken,
}

/// When a look began. The same devices are the same, whenever they are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Taken(pub Instant);

impl PartialEq for Taken {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Taken {}

impl Default for Taken {
    fn default() -> Self {
        Self(Instant::now())
    }
}

/// A GPU. What it does not tell is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index in NVML's order, that of the PCI bus; CUDA's is the same with `CUDA_DEVICE_ORDER=PCI_BUS_ID`.
    pub index: u32,
    /// Its name, such as `NVIDIA GeForce RTX 4090`.
    pub name: String,
    /// Its id, `GPU-…`; stays the same when cards are added or moved.
    pub uuid: String,
    /// CUDA compute capability, major and minor.
    pub compute_capability: (i32, i32),
    /// Its memory in bytes.
    pub vram_total_bytes: u64,
    /// Its memory that nobody uses, in bytes, when it was asked.
    pub vram_free_bytes: u64,
    /// Share of the last moments in which it computed.
    pub utilization_percent: Option<u32>,
    /// Temperature of its die in degrees Celsius.
    pub temperature_c: Option<u32>,
    /// Power draw in milliwatts.
    pub power_mw: Option<u32>,
    /// Memory errors that could not be corrected since the driver was loaded; absent where ECC is off or not there.
    pub ecc_uncorrected: Option<u64>,
    /// Whether it is split into MIG instances, which are then used instead of it.
    pub mig_enabled: bool,
    /// Its MIG instances.
    pub mig: Vec<MigInstance>,
    /// Processes that compute on it.
    pub processes: Vec<DeviceProcess>,
}

/// A part of a GPU that is used like a GPU of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigInstance {
    /// Its id, `MIG-…`.
    pub uuid: String,
    /// Its memory in bytes.
    pub vram_total_bytes: u64,
    /// Its memory that nobody uses, in bytes.
    pub vram_free_bytes: u64,
}

/// A process that computes on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceProcess {
    /// Its process id on the host.
    pub pid: u32,
    /// Memory it holds, in bytes.
    pub vram_bytes: Option<u64>,
}

/// A GPU that does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedDevice {
    /// Its index.
    pub index: u32,
    /// Its id, if it tells that at least, or did before.
    pub uuid: Option<String>,
    /// What NVML says.
    pub reason: String,
}

/// There are no GPUs that could be used. Each message says what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoDevices {
    /// NVML is not there or cannot be loaded.
    #[error(
        "the NVIDIA driver's library {library} cannot be loaded; install the driver, or give its library to the container"
    )]
    NoLibrary {
        /// What was tried to load.
        library: String,
        /// Why not.
        #[source]
        source: Arc<NvmlError>,
    },
    /// The library and the kernel's module are of different versions.
    #[error("the NVIDIA driver was updated while its old module is loaded; restart the host, or reload the module")]
    DriverMismatch,
    /// The kernel's module is not loaded.
    #[error("the NVIDIA driver's module is not loaded; load it with `modprobe nvidia`, and see `dmesg` if that fails")]
    DriverNotLoaded,
    /// This user may not use the devices.
    #[error("this user may not open the NVIDIA devices; give it access to /dev/nvidia*")]
    NoPermission,
    /// There is no device.
    #[error("the NVIDIA driver finds no GPU; see `nvidia-smi` and `lspci`")]
    None,
    /// There are devices, and none of them answers.
    #[error("no GPU answers ({reason}); see `dmesg` for Xid errors, and reset the GPU or restart the host")]
    AllFailed {
        /// What NVML says of the first.
        reason: String,
    },
    /// NVML fails for another reason.
    #[error("the NVIDIA driver does not answer; see whether `nvidia-smi` does")]
    Failed(#[source] Arc<NvmlError>),
}

/// Finds out which GPUs there are, by the library at `library`, or the driver's own.
///
/// Loads and unloads the library, which takes up to a second: call it where blocking is allowed.
///
/// # Errors
/// [`NoDevices`].
pub fn discover(library: Option<&Path>) -> Result<Devices, NoDevices> {
    let library = read::Library::at(library);
    library.read(&library.load()?)
}

impl Devices {
    /// Whether they are the GPUs of `fake-nvml`, which says so in the driver's version; no driver of NVIDIA's does.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.driver.ends_with(" simulated")
    }

    /// The device with this id.
    #[must_use]
    pub fn by_uuid(&self, uuid: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.uuid == uuid)
    }

    /// Ids of all GPUs that are whole, and of all MIG instances, with their memory in bytes.
    pub fn memories(&self) -> impl Iterator<Item = (&str, u64)> {
        self.devices.iter().flat_map(|device| {
            let whole = (!device.mig_enabled).then_some((device.uuid.as_str(), device.vram_total_bytes));
            let parts = device.mig.iter().map(|mig| (mig.uuid.as_str(), mig.vram_total_bytes));
            whole.into_iter().chain(parts)
        })
    }

    /// Memory of each GPU that processes of families hold, in bytes: by the GPU's id, for each family that holds some. A family is a
    /// process and all that descend from it. Where the driver does not tell, there is nothing.
    #[must_use]
    pub fn held_by<Family: Copy + PartialEq>(&self, families: &[(Family, u32)]) -> HashMap<String, Vec<(Family, u64)>> {
        let mut held: HashMap<String, Vec<(Family, u64)>> = HashMap::new();
        for device in &self.devices {
            for process in &device.processes {
                let family =
                    proc::ancestors(process.pid).find_map(|pid| families.iter().find(|(_, root)| *root == pid));
                let (Some((family, _)), Some(bytes)) = (family, process.vram_bytes) else { continue };
                let holders = held.entry(device.uuid.clone()).or_default();
                match holders.iter_mut().find(|(of, _)| of == family) {
                    Some((_, sum)) => *sum += bytes,
                    None => holders.push((*family, bytes)),
                }
            }
        }
        held
    }

    /// Free memory of a GPU or MIG instance, in bytes.
    #[must_use]
    pub fn free_bytes(&self, uuid: &str) -> Option<u64> {
        let instance = |device: &Device| device.mig.iter().find(|mig| mig.uuid == uuid).map(|mig| mig.vram_free_bytes);
        let whole = self.by_uuid(uuid).map(|device| device.vram_free_bytes);
        whole.or_else(|| self.devices.iter().find_map(instance))
    }
}
