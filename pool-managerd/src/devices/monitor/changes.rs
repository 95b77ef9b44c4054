//! What one look finds that the one before did not.

use std::collections::BTreeMap;

use super::DeviceEvent;
use crate::devices::{Devices, FailedDevice, NoDevices};

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Whether the last look found any GPU; `None` before the first.
    found: Option<bool>,
    /// Whether every GPU answered then that was ever found.
    all_there: bool,
    /// Every GPU that was ever found, by id.
    known: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    index: u32,
    answers: bool,
    ecc_uncorrected: Option<u64>,
}

impl Changes {
    /// Takes what a look found, completes it by what is known, and tells what has changed.
    pub(super) fn take(
        &mut self,
        reading: Result<Devices, NoDevices>,
    ) -> (Result<Devices, NoDevices>, Vec<DeviceEvent>) {
        let mut events = Vec::new();
        let before = self.found.replace(reading.is_ok());
        let mut devices = match reading {
            Ok(devices) => devices,
            Err(absent) => {
                if before == Some(true) {
                    events.push(DeviceEvent::Lost { reason: with_cause(&absent) });
                }
                return (Err(absent), events);
            }
        };
        if before == Some(false) {
            events.push(DeviceEvent::Back);
        }
        self.remember(&mut devices);
        self.all_there = devices.failed.is_empty();
        self.look_for_missing(&devices, &mut events);
        for device in &devices.devices {
            let now = Known { index: device.index, answers: true, ecc_uncorrected: device.ecc_uncorrected };
            let Some(before) = self.known.insert(device.uuid.clone(), now) else { continue };
            if !before.answers {
                events.push(DeviceEvent::DeviceBack { uuid: device.uuid.clone() });
            }
            // A driver that was loaded again counts from zero.
            let more = device.ecc_uncorrected.zip(before.ecc_uncorrected).and_then(|(now, then)| now.checked_sub(then));
            if let Some(count @ 1..) = more {
                events.push(DeviceEvent::EccUncorrected { uuid: device.uuid.clone(), count });
            }
        }
        (Ok(devices), events)
    }

    /// Whether the last look found every GPU that was ever found, and each answered.
    pub(super) const fn all_there(&self) -> bool {
        self.all_there
    }

    /// A GPU that does not even tell its id has the one that its place had; one that is not even counted has failed, too.
    fn remember(&self, devices: &mut Devices) {
        for failed in &mut devices.failed {
            let of_place = || self.known.iter().find(|(_, known)| known.index == failed.index);
            failed.uuid = failed.uuid.take().or_else(|| of_place().map(|(uuid, _)| uuid.clone()));
        }
        for (uuid, known) in &self.known {
            let counted = devices.by_uuid(uuid).is_some()
                || devices.failed.iter().any(|failed| failed.uuid.as_ref() == Some(uuid));
            if !counted {
                let reason = "the driver does not list it any more".to_owned();
                devices.failed.push(FailedDevice { index: known.index, uuid: Some(uuid.clone()), reason });
            }
        }
    }

    fn look_for_missing(&mut self, devices: &Devices, events: &mut Vec<DeviceEvent>) {
        for failed in &devices.failed {
            let known = failed.uuid.as_ref().and_then(|uuid| self.known.get_mut(uuid));
            if let (Some(known @ Known { answers: true, .. }), Some(uuid)) = (known, &failed.uuid) {
                known.answers = false;
                events.push(DeviceEvent::DeviceFailed { uuid: uuid.clone(), reason: failed.reason.clone() });
            }
        }
    }
}

fn with_cause(absent: &NoDevices) -> String {
    match std::error::Error::source(absent) {
        Some(cause) => format!("{absent}: {cause}"),
        None => absent.to_string(),
    }
}
