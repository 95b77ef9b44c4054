//! The driver, and the GPUs that it finds.

use std::path::Path;

use api_types::{DoctorCheck, DoctorOutcome, PoolFault};
use config_schema::Config;

use super::{failed, passed, warned};
use crate::devices::{Device, Reading};
use crate::failure::Failure;
use crate::workshop::no_devices;

/// Where Linux lists what is plugged in.
const PCI_DEVICES: &str = "/sys/bus/pci/devices";
/// NVIDIA's number there.
const NVIDIA: &str = "0x10de";

/// The driver and its GPUs. Where every engine is run by somebody else, having none is no trouble.
pub(super) fn examine(config: &Config, reading: &Reading) -> Vec<DoctorCheck> {
    let all_external = !config.pools.is_empty() && config.pools.iter().all(|pool| !pool.is_managed_here());
    let found = match reading.as_ref() {
        Ok(found) => found,
        Err(absent) => {
            let mut checks = Vec::new();
            if count_plugged_in(Path::new(PCI_DEVICES)) == Some(0) {
                let none = Failure::new(PoolFault::NoDevice, "no NVIDIA GPU is plugged into this host").with_fix(
                    "engines run on NVIDIA GPUs and on nothing else: run llama-orch on a host with one, or attach an \
                     engine that runs elsewhere with provisioning.mode = \"external\"",
                );
                checks.push(failed("hardware", None, &none));
            }
            checks.push(failed("driver", None, &no_devices(absent)));
            if all_external {
                checks.iter_mut().for_each(|check| check.outcome = DoctorOutcome::Warn);
            }
            return checks;
        }
    };
    let cuda = found.cuda.map_or_else(String::new, |(major, minor)| format!(", CUDA up to {major}.{minor}"));
    let mut checks = vec![passed("driver", None, format!("NVIDIA {}{cuda}", found.driver))];
    checks.extend(found.devices.iter().map(|device| passed("gpu", None, described(device))));
    checks.extend(found.failed.iter().map(|gone| {
        let message = format!("GPU {} does not answer: {}", gone.index, gone.reason);
        let failure = Failure::new(PoolFault::DeviceError, message)
            .with_fix("see `dmesg` for Xid errors; reset it: `nvidia-smi --gpu-reset`, or restart the host");
        // Whether a pool needs it is said with the pool.
        warned("gpu", None, &failure)
    }));
    checks
}

fn described(device: &Device) -> String {
    let (major, minor) = device.compute_capability;
    let gib = |bytes: u64| format!("{:.1}", f64::from(u32::try_from(bytes >> 20).unwrap_or(u32::MAX)) / 1024.0);
    format!(
        "{} {}, {} of {} GiB free, compute capability {major}.{minor}",
        device.index,
        device.name,
        gib(device.vram_free_bytes),
        gib(device.vram_total_bytes)
    )
}

/// NVIDIA's devices among those that are plugged in; `None` where that cannot be seen.
fn count_plugged_in(devices: &Path) -> Option<usize> {
    let is_nvidia = |path: &Path| std::fs::read_to_string(path.join("vendor")).is_ok_and(|id| id.trim() == NVIDIA);
    Some(std::fs::read_dir(devices).ok()?.flatten().filter(|entry| is_nvidia(&entry.path())).count())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::count_plugged_in;

    /// LO-ENG-15: a card without a driver is told from no card.
    #[test]
    fn cards_are_counted_by_their_vendor() {
        let bus = tempfile::tempdir().expect("a folder");
        for (place, vendor) in
            [("0000:01:00.0", "0x10de\n"), ("0000:02:00.0", "0x8086\n"), ("0000:03:00.0", "0x10de\n")]
        {
            fs::create_dir(bus.path().join(place)).expect("a folder");
            fs::write(bus.path().join(place).join("vendor"), vendor).expect("a file");
        }
        assert_eq!(count_plugged_in(bus.path()), Some(2));
        assert_eq!(count_plugged_in(&bus.path().join("none")), None);
    }
}
