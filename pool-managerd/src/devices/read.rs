//! What NVML says, as facts.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Nvml, cuda_driver_version_major, cuda_driver_version_minor};

use super::{Device, DeviceProcess, Devices, FailedDevice, MigInstance, NoDevices, Taken};

/// The library's name where the driver puts it; the name without a version comes with development packages only.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// A MIG-capable GPU says 1 when it is split.
const MIG_ENABLED: u32 = 1;

/// Where NVML is.
#[derive(Clone, Debug)]
pub(super) struct Library(OsString);

impl Library {
    /// At `path`, or where the system finds it.
    pub(super) fn at(path: Option<&Path>) -> Self {
        Self(path.map_or_else(|| LIBRARY.into(), |path| path.as_os_str().to_owned()))
    }

    /// Loads and initialises it.
    pub(super) fn load(&self) -> Result<Nvml, NoDevices> {
        Nvml::builder().lib_path(&self.0).init().map_err(|error| self.no_devices(error))
    }

    /// Reads everything about every GPU.
    pub(super) fn read(&self, nvml: &Nvml) -> Result<Devices, NoDevices> {
        let taken = Taken::default();
        let failed = |error| self.no_devices(error);
        let count = nvml.device_count().map_err(failed)?;
        if count == 0 {
            return Err(NoDevices::None);
        }
        let mut found = Devices {
            driver: nvml.sys_driver_version().map_err(failed)?,
            cuda: nvml.sys_cuda_driver_version().ok().map(cuda_version),
            devices: Vec::new(),
            failed: Vec::new(),
            taken,
        };
        for index in 0..count {
            match device(nvml, index) {
                Ok(device) => found.devices.push(device),
                Err(error) => found.failed.push(failure(nvml, index, &error)),
            }
        }
        match found.failed.first() {
            Some(first) if found.devices.is_empty() => Err(NoDevices::AllFailed { reason: first.reason.clone() }),
            _ => Ok(found),
        }
    }

    fn no_devices(&self, error: NvmlError) -> NoDevices {
        match error {
            NvmlError::LibloadingError(_) | NvmlError::FailedToLoadSymbol(_) | NvmlError::LibraryNotFound => {
                NoDevices::NoLibrary { library: self.0.to_string_lossy().into_owned(), source: Arc::new(error) }
            }
            NvmlError::LibRmVersionMismatch => NoDevices::DriverMismatch,
            NvmlError::DriverNotLoaded => NoDevices::DriverNotLoaded,
            NvmlError::NoPermission => NoDevices::NoPermission,
            error => NoDevices::Failed(Arc::new(error)),
        }
    }
}

fn cuda_version(version: i32) -> (i32, i32) {
    (cuda_driver_version_major(version), cuda_driver_version_minor(version))
}

/// Without its name, id, capability and memory a device is of no use; everything else may be missing.
fn device(nvml: &Nvml, index: u32) -> Result<Device, NvmlError> {
    let device = nvml.device_by_index(index)?;
    let memory = device.memory_info()?;
    let capability = device.cuda_compute_capability()?;
    let mig_enabled = device.mig_mode().is_ok_and(|mode| mode.current == MIG_ENABLED);
    Ok(Device {
        index,
        name: device.name()?,
        uuid: device.uuid()?,
        compute_capability: (capability.major, capability.minor),
        vram_total_bytes: memory.total,
        vram_free_bytes: memory.free,
        utilization_percent: device.utilization_rates().ok().map(|rates| rates.gpu),
        temperature_c: device.temperature(TemperatureSensor::Gpu).ok(),
        power_mw: device.power_usage().ok(),
        ecc_uncorrected: device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).ok(),
        mig_enabled,
        mig: if mig_enabled { mig(&device) } else { Vec::new() },
        processes: processes(&device),
    })
}

/// The places for instances may have gaps, and an instance may go while it is asked.
fn mig(device: &nvml_wrapper::Device<'_>) -> Vec<MigInstance> {
    let places = device.mig_device_count().unwrap_or(0);
    let instance = |place| {
        let instance = device.mig_device_by_index(place).ok()?;
        let memory = instance.memory_info().ok()?;
        let uuid = instance.uuid().ok()?;
        Some(MigInstance { uuid, vram_total_bytes: memory.total, vram_free_bytes: memory.free })
    };
    (0..places).filter_map(instance).collect()
}

fn processes(device: &nvml_wrapper::Device<'_>) -> Vec<DeviceProcess> {
    let processes = device.running_compute_processes().unwrap_or_default();
    let process = |process: nvml_wrapper::struct_wrappers::device::ProcessInfo| DeviceProcess {
        pid: process.pid,
        vram_bytes: match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        },
    };
    processes.into_iter().map(process).collect()
}

fn failure(nvml: &Nvml, index: u32, error: &NvmlError) -> FailedDevice {
    let uuid = nvml.device_by_index(index).and_then(|device| device.uuid()).ok();
    FailedDevice { index, uuid, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nvml_wrapper::error::NvmlError;

    use super::{Library, NoDevices, cuda_version};
    use crate::devices::discover;

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
        let state = |error| Library::at(None).no_devices(error);
        assert!(matches!(state(NvmlError::LibRmVersionMismatch), NoDevices::DriverMismatch));
        assert!(matches!(state(NvmlError::DriverNotLoaded), NoDevices::DriverNotLoaded));
        assert!(matches!(state(NvmlError::NoPermission), NoDevices::NoPermission));
        assert!(matches!(state(NvmlError::Unknown), NoDevices::Failed(_)));
    }

    #[test]
    fn versions_of_cuda_are_read_as_nvml_writes_them() {
        assert_eq!((cuda_version(12090), cuda_version(13000)), ((12, 9), (13, 0)));
    }
}
