//! Which GPUs this host has, as NVML tells (ORCH-1102: NVIDIA's, or none).
//!
//! NVML comes with the driver and is loaded at run time, so that the same program runs on hosts without one.

use std::ffi::OsStr;
use std::path::Path;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

/// The library's name where the driver puts it; the name without a version comes with development packages only.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// The GPUs of this host; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// Version of the driver.
    pub driver: String,
    /// Those that answer.
    pub devices: Vec<Device>,
    /// Those that do not.
    pub failed: Vec<FailedDevice>,
}

/// A GPU.
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
}

/// A GPU that does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedDevice {
    /// Its index.
    pub index: u32,
    /// What NVML says.
    pub reason: String,
}

/// There are no GPUs that could be used. Each message says what to do.
#[derive(Debug, thiserror::Error)]
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
        source: NvmlError,
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
    /// NVML fails for another reason.
    #[error("the NVIDIA driver does not answer; see whether `nvidia-smi` does")]
    Failed(#[source] NvmlError),
}

/// Finds out which GPUs there are, by the library at `library`, or the driver's own.
///
/// Loads and unloads the library, which takes up to a second: call it where blocking is allowed.
///
/// # Errors
/// [`NoDevices`].
pub fn discover(library: Option<&Path>) -> Result<Devices, NoDevices> {
    let library = library.map_or(OsStr::new(LIBRARY), Path::as_os_str);
    let nvml = Nvml::builder().lib_path(library).init().map_err(|error| no_devices(error, library))?;
    let failed = |error| no_devices(error, library);
    let count = nvml.device_count().map_err(failed)?;
    if count == 0 {
        return Err(NoDevices::None);
    }
    let driver = nvml.sys_driver_version().map_err(failed)?;
    let mut found = Devices { driver, devices: Vec::new(), failed: Vec::new() };
    for index in 0..count {
        match device(&nvml, index) {
            Ok(device) => found.devices.push(device),
            Err(error) => found.failed.push(FailedDevice { index, reason: error.to_string() }),
        }
    }
    Ok(found)
}

fn device(nvml: &Nvml, index: u32) -> Result<Device, NvmlError> {
    let device = nvml.device_by_index(index)?;
    let memory = device.memory_info()?;
    let capability = device.cuda_compute_capability()?;
    Ok(Device {
        index,
        name: device.name()?,
        uuid: device.uuid()?,
        compute_capability: (capability.major, capability.minor),
        vram_total_bytes: memory.total,
        vram_free_bytes: memory.free,
    })
}

fn no_devices(error: NvmlError, library: &OsStr) -> NoDevices {
    match error {
        NvmlError::LibloadingError(_) | NvmlError::FailedToLoadSymbol(_) | NvmlError::LibraryNotFound => {
            NoDevices::NoLibrary { library: library.to_string_lossy().into_owned(), source: error }
        }
        NvmlError::LibRmVersionMismatch => NoDevices::DriverMismatch,
        NvmlError::DriverNotLoaded => NoDevices::DriverNotLoaded,
        NvmlError::NoPermission => NoDevices::NoPermission,
        error => NoDevices::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::{LIBRARY, NoDevices, NvmlError, OsStr, Path, discover, no_devices};

    /// ORCH-1102: a host without NVML is told so, and what to do; whatever else is at the library's path is not taken for it.
    #[test]
    fn a_missing_library_is_a_state_and_no_crash() {
        for path in ["/nonexistent/libnvidia-ml.so.1", "/dev/null", "Cargo.toml", "libc.so.6"] {
            let error = discover(Some(Path::new(path))).expect_err("no library");
            assert!(matches!(&error, NoDevices::NoLibrary { library, .. } if library == path), "{error:?}");
            assert!(error.to_string().contains("install the driver"));
        }
    }

    /// ORCH-1102: each way in which a driver may fail is its own state.
    #[test]
    fn each_failure_is_its_own_state() {
        let state = |error| no_devices(error, OsStr::new(LIBRARY));
        assert!(matches!(state(NvmlError::LibRmVersionMismatch), NoDevices::DriverMismatch));
        assert!(matches!(state(NvmlError::DriverNotLoaded), NoDevices::DriverNotLoaded));
        assert!(matches!(state(NvmlError::NoPermission), NoDevices::NoPermission));
        assert!(matches!(state(NvmlError::Unknown), NoDevices::Failed(_)));
    }
}
