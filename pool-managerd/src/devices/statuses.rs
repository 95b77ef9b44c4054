//! Devices for the outside.

use std::time::Instant;

use api_types::{DeviceProcess, DeviceStatus, MigStatus};
use config_schema::Pool;

use super::{Device, DeviceMask, Devices, FailedDevice, MigInstance, Taken};
use crate::failure::Failure;
use crate::pool::StagedModel;
use crate::workshop::lacking;

impl Devices {
    /// Every device, by index, with the pools that may use it and those whose engines hold its memory, as the two tell by id of the
    /// device and of the process.
    pub fn statuses(
        &self,
        pools_of: &dyn Fn(&str) -> Vec<String>,
        engine_of: &dyn Fn(u32) -> Option<String>,
    ) -> Vec<DeviceStatus> {
        let answering = self.devices.iter().map(|device| status(device, pools_of, engine_of));
        let mut devices: Vec<_> = answering.chain(self.failed.iter().map(failed)).collect();
        devices.sort_by_key(|device| device.index);
        devices
    }
}

impl Devices {
    /// The devices of another host, as it has told them; `taken` is when it had looked.
    #[must_use]
    pub fn told(statuses: &[DeviceStatus], taken: Instant) -> Self {
        let (answering, failing): (Vec<_>, Vec<_>) = statuses.iter().partition(|device| device.error.is_none());
        let failed = |device: &&DeviceStatus| FailedDevice {
            index: device.index,
            uuid: Some(device.uuid.clone()).filter(|uuid| !uuid.is_empty()),
            reason: device.error.clone().unwrap_or_default(),
        };
        Self {
            driver: String::new(),
            cuda: None,
            devices: answering.into_iter().map(device_told).collect(),
            failed: failing.iter().map(failed).collect(),
            taken: Taken(taken),
        }
    }

    /// Whether a model fits the devices that a pool names: as they are, or when nobody used them. Without a need that is known it fits.
    ///
    /// # Errors
    /// By how much it does not, and what would.
    pub fn check_fit(
        &self,
        mask: &DeviceMask,
        pool: &Pool,
        model: &StagedModel,
        when_empty: bool,
    ) -> Result<(), Failure> {
        lacking(mask, self, model, pool.tensor_split.as_deref(), pool.slots.get(), when_empty).map_or(Ok(()), Err)
    }
}

fn device_told(device: &DeviceStatus) -> Device {
    let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    let capability = device.compute_capability.split_once('.');
    let capability = capability.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    Device {
        index: device.index,
        name: device.name.clone(),
        uuid: device.uuid.clone(),
        compute_capability: capability.unwrap_or_default(),
        vram_total_bytes: bytes(device.vram_total_bytes),
        vram_free_bytes: bytes(device.vram_free_bytes),
        utilization_percent: None,
        temperature_c: None,
        power_mw: None,
        ecc_uncorrected: None,
        mig_enabled: !device.mig.is_empty(),
        mig: device
            .mig
            .iter()
            .map(|mig| MigInstance {
                uuid: mig.uuid.clone(),
                vram_total_bytes: bytes(mig.vram_total_bytes),
                vram_free_bytes: bytes(mig.vram_free_bytes),
            })
            .collect(),
        processes: Vec::new(),
    }
}

fn failed(failed: &FailedDevice) -> DeviceStatus {
    DeviceStatus {
        index: failed.index,
        uuid: failed.uuid.clone().unwrap_or_default(),
        name: String::new(),
        compute_capability: String::new(),
        vram_total_bytes: 0,
        vram_free_bytes: 0,
        utilization_percent: None,
        temperature_c: None,
        power_w: None,
        ecc_uncorrected: None,
        mig: Vec::new(),
        processes: Vec::new(),
        pools: Vec::new(),
        error: Some(failed.reason.clone()),
    }
}

fn status(
    device: &Device,
    pools_of: &dyn Fn(&str) -> Vec<String>,
    engine_of: &dyn Fn(u32) -> Option<String>,
) -> DeviceStatus {
    DeviceStatus {
        index: device.index,
        uuid: device.uuid.clone(),
        name: device.name.clone(),
        compute_capability: format!("{}.{}", device.compute_capability.0, device.compute_capability.1),
        vram_total_bytes: long(device.vram_total_bytes),
        vram_free_bytes: long(device.vram_free_bytes),
        utilization_percent: device.utilization_percent.map(f64::from),
        temperature_c: device.temperature_c.map(f64::from),
        power_w: device.power_mw.map(|milliwatts| f64::from(milliwatts) / 1000.0),
        ecc_uncorrected: device.ecc_uncorrected.map(long),
        mig: device
            .mig
            .iter()
            .map(|instance| MigStatus {
                uuid: instance.uuid.clone(),
                vram_total_bytes: long(instance.vram_total_bytes),
                vram_free_bytes: long(instance.vram_free_bytes),
            })
            .collect(),
        processes: device
            .processes
            .iter()
            .map(|process| DeviceProcess {
                pid: process.pid,
                vram_bytes: process.vram_bytes.map(long),
                pool_id: engine_of(process.pid),
            })
            .collect(),
        pools: pools_of(&device.uuid),
        error: None,
    }
}

fn long(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
