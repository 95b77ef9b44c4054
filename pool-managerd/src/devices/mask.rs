//! The devices that a pool may use.

use config_schema::DeviceRef;

use super::{Device, Devices, MigInstance};

/// Devices that were named and are there, in the order in which they were named; at least one, and none twice.
///
/// Holds what was true when it was resolved. What is free changes: see [`DeviceMask::free_now`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceMask {
    label: String,
    devices: Vec<MaskedDevice>,
}

/// A GPU, or a MIG instance of one, of a [`DeviceMask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskedDevice {
    /// Its id as CUDA takes it: `GPU-…` or `MIG-…`.
    pub uuid: String,
    /// Index of the GPU.
    pub index: u32,
    /// Id of the GPU; the same as `uuid` unless this is an instance.
    pub gpu_uuid: String,
    /// Name of the GPU.
    pub name: String,
    /// CUDA compute capability, major and minor.
    pub compute_capability: (i32, i32),
    /// Memory in bytes.
    pub vram_total_bytes: u64,
    /// Memory that nobody used, in bytes.
    pub vram_free_bytes: u64,
}

/// The devices that were named cannot be used. Each message says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// No device was named.
    #[error("no device is named; name one of {}", listed(.found))]
    Empty {
        /// What there is.
        found: Vec<String>,
    },
    /// There is no such device.
    #[error("there is no device {wanted}; there {}", listed_all(.found))]
    NoSuchDevice {
        /// As it was named.
        wanted: DeviceRef,
        /// What there is, each as index, name and id.
        found: Vec<String>,
    },
    /// It is there and does not answer.
    #[error(
        "device {wanted} does not answer ({reason}); see `dmesg` for Xid errors, and reset the GPU or restart the host"
    )]
    Failed {
        /// As it was named.
        wanted: DeviceRef,
        /// What NVML says.
        reason: String,
    },
    /// Two names, one device.
    #[error("devices {first} and {second} are the same one; name it once")]
    Twice {
        /// A name.
        first: DeviceRef,
        /// The other.
        second: DeviceRef,
    },
    /// A GPU that is split cannot be used whole.
    #[error("device {wanted} is split by MIG and cannot be used whole; {}", instances_or_off(.instances))]
    Split {
        /// As it was named.
        wanted: DeviceRef,
        /// Ids of its instances.
        instances: Vec<String>,
    },
    /// CUDA lets a process use one MIG instance and nothing beside it.
    #[error("CUDA lets a process use {wanted} alone; name no other device beside a MIG instance")]
    NotAlone {
        /// The instance.
        wanted: DeviceRef,
    },
}

fn listed(found: &[String]) -> String {
    found.join("; ")
}

fn listed_all(found: &[String]) -> String {
    if found.len() == 1 { format!("is {}", found[0]) } else { format!("are {}", listed(found)) }
}

fn instances_or_off(instances: &[String]) -> String {
    if instances.is_empty() {
        "create instances with `nvidia-smi mig`, or switch it off with `nvidia-smi -mig 0`".to_owned()
    } else {
        format!("name one of its instances: {}", instances.join(", "))
    }
}

impl DeviceMask {
    /// Finds the devices that a configuration names.
    ///
    /// # Errors
    /// [`MaskError`].
    pub fn resolve(wanted: &[DeviceRef], found: &Devices) -> Result<Self, MaskError> {
        let mut devices: Vec<MaskedDevice> = Vec::new();
        for reference in wanted {
            let device = find(reference, found)?;
            if let Some(earlier) = devices.iter().position(|earlier| earlier.uuid == device.uuid) {
                return Err(MaskError::Twice { first: wanted[earlier].clone(), second: reference.clone() });
            }
            devices.push(device);
        }
        let instance = devices.iter().position(|device| device.uuid != device.gpu_uuid);
        match instance {
            _ if devices.is_empty() => Err(MaskError::Empty { found: names(found) }),
            Some(at) if devices.len() > 1 => Err(MaskError::NotAlone { wanted: wanted[at].clone() }),
            _ => Ok(Self { label: label(wanted), devices }),
        }
    }

    /// Value of `CUDA_VISIBLE_DEVICES`: ids, which mean the same in whatever order CUDA counts.
    #[must_use]
    pub fn cuda_visible_devices(&self) -> String {
        let ids: Vec<&str> = self.devices.iter().map(|device| device.uuid.as_str()).collect();
        ids.join(",")
    }

    /// The devices, in the order in which they were named, which is the order in which a process with this mask counts them.
    #[must_use]
    pub fn devices(&self) -> &[MaskedDevice] {
        &self.devices
    }

    /// The names as they were configured: `0,1`.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The least compute capability among them: what code must be built for to run on each.
    #[must_use]
    pub fn min_compute_capability(&self) -> (i32, i32) {
        self.devices.iter().map(|device| device.compute_capability).min().unwrap_or_default()
    }

    /// Their memory together, in bytes.
    #[must_use]
    pub fn vram_total_bytes(&self) -> u64 {
        self.devices.iter().map(|device| device.vram_total_bytes).sum()
    }

    /// Their memory together that nobody used when they were resolved, in bytes.
    #[must_use]
    pub fn vram_free_bytes(&self) -> u64 {
        self.devices.iter().map(|device| device.vram_free_bytes).sum()
    }

    /// Free memory of each by what is known now, in bytes and in their order; `None` when one of them is not there any more.
    #[must_use]
    pub fn free_now(&self, now: &Devices) -> Option<Vec<u64>> {
        self.devices.iter().map(|device| now.free_bytes(&device.uuid)).collect()
    }

    /// Whether it holds a GPU, or an instance of it.
    #[must_use]
    pub fn uses_gpu(&self, gpu_uuid: &str) -> bool {
        self.devices.iter().any(|device| device.gpu_uuid == gpu_uuid)
    }
}

fn label(wanted: &[DeviceRef]) -> String {
    wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn find(wanted: &DeviceRef, found: &Devices) -> Result<MaskedDevice, MaskError> {
    let names_gpu = |index: u32, uuid: Option<&str>| match wanted {
        DeviceRef::Index(wanted) => *wanted == index,
        DeviceRef::Uuid(wanted) => Some(wanted.as_str()) == uuid,
    };
    for device in &found.devices {
        if names_gpu(device.index, Some(&device.uuid)) {
            return whole(wanted, device);
        }
        let named = |mig: &&MigInstance| matches!(wanted, DeviceRef::Uuid(uuid) if *uuid == mig.uuid);
        if let Some(mig) = device.mig.iter().find(named) {
            return Ok(masked(device, &mig.uuid, mig.vram_total_bytes, mig.vram_free_bytes));
        }
    }
    let failed = found.failed.iter().find(|failed| names_gpu(failed.index, failed.uuid.as_deref()));
    Err(match failed {
        Some(failed) => MaskError::Failed { wanted: wanted.clone(), reason: failed.reason.clone() },
        None => MaskError::NoSuchDevice { wanted: wanted.clone(), found: names(found) },
    })
}

fn whole(wanted: &DeviceRef, device: &Device) -> Result<MaskedDevice, MaskError> {
    if device.mig_enabled {
        let instances = device.mig.iter().map(|mig| mig.uuid.clone()).collect();
        return Err(MaskError::Split { wanted: wanted.clone(), instances });
    }
    Ok(masked(device, &device.uuid, device.vram_total_bytes, device.vram_free_bytes))
}

fn masked(device: &Device, uuid: &str, vram_total_bytes: u64, vram_free_bytes: u64) -> MaskedDevice {
    MaskedDevice {
        uuid: uuid.to_owned(),
        index: device.index,
        gpu_uuid: device.uuid.clone(),
        name: device.name.clone(),
        compute_capability: device.compute_capability,
        vram_total_bytes,
        vram_free_bytes,
    }
}

/// Everything that could be named.
fn names(found: &Devices) -> Vec<String> {
    let mut names = Vec::new();
    for device in &found.devices {
        if !device.mig_enabled {
            names.push(format!("{}: {} ({})", device.index, device.name, device.uuid));
        }
        names
            .extend(device.mig.iter().map(|mig| format!("a part of {}: {} ({})", device.index, device.name, mig.uuid)));
    }
    names.extend(found.failed.iter().map(|failed| format!("{}, which does not answer", failed.index)));
    names
}

#[cfg(test)]
mod tests;
