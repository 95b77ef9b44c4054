//! Whether a model fits the memory of a pool's devices.

use std::num::NonZeroU32;
use std::sync::Arc;

use api_types::PoolFault;

use catalog_core::files::fit::{self, Outputs};
use catalog_core::files::{ModelInfo, ModelShape};
use config_schema::Pool;

use crate::devices::{DeviceMask, Devices};
use crate::failure::Failure;
use crate::pool::StagedModel;

/// What is known of a model's need is at most so much above what the engine takes, in percent; only what lacks more than that
/// surely does not fit.
const NEED_TOLERANCE_PERCENT: u64 = 15;

/// Memory that a model takes at a pool's context and slots on all its devices together, and what that comes from; `None` where
/// its files do not say enough.
#[must_use]
pub fn need_of(info: ModelInfo, pool: &Pool) -> Option<(u64, Arc<ModelShape>)> {
    let longest = info.facts.ctx_max.and_then(|longest| u32::try_from(longest).ok());
    let ctx = pool.ctx.map(NonZeroU32::get).or(longest)?;
    let shape = info.shape?;
    let tag = pool.provisioning.source.as_ref().map_or("", |source| &source.reference);
    let need = fit::need_with(&shape, ctx, pool.slots.get(), Outputs::of_tag(tag));
    Some((need.total_on(pool.devices.len().max(1) as u64), Arc::new(shape)))
}

/// By how much a model does not fit; `None` when it does, as far as that is known.
pub(crate) fn lacking(
    mask: &DeviceMask,
    found: &Devices,
    model: &StagedModel,
    split: Option<&[f32]>,
    slots: u32,
    when_empty: bool,
) -> Option<Failure> {
    let need = model.need_bytes?;
    let surely = need.saturating_mul(100 - NEED_TOLERANCE_PERCENT) / 100;
    let total = mask.vram_total_bytes();
    let never = when_empty || surely > total;
    let room = if never { total } else { mask.free_now(found)?.iter().sum() };
    if let Some(failure) = split.and_then(|split| lacking_share(mask, split, need, model)) {
        return Some(failure);
    }
    if surely <= room {
        return None;
    }
    let names: Vec<_> = mask.devices().iter().map(|device| format!("{} {}", device.index, device.name)).collect();
    let state = if never { "in all" } else { "free" };
    let message = format!(
        "{} needs about {} of GPU memory, and GPU {} has {} {state}",
        model.reference,
        mib(need),
        names.join(" and "),
        mib(room)
    );
    let holders: Vec<String> = found
        .devices
        .iter()
        .filter(|device| mask.uses_gpu(&device.uuid))
        .flat_map(|device| &device.processes)
        .map(|process| format!("{} ({})", process.pid, process.vram_bytes.map_or_else(|| "?".to_owned(), mib)))
        .collect();
    let less = match model.shape.as_ref().and_then(|shape| fit::ctx_max(shape, slots, room)) {
        Some(ctx) => format!("take a smaller ctx ({ctx} would fit), fewer slots or a smaller quantisation"),
        None => "take a smaller ctx, fewer slots or a smaller quantisation".to_owned(),
    };
    let less = format!("{less}; `llama-orch models fit` says what fits");
    let fix = match holders.is_empty() || never {
        true => less,
        false => format!("end what holds memory there (process {}), or {less}", holders.join(", ")),
    };
    let fault = if never { PoolFault::TooLarge } else { PoolFault::VramExhausted };
    Some(Failure::new(fault, message).with_fix(fix))
}

/// Whether a device is given a larger share of the model than it has memory (ORCH-3052.2).
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of an estimate is one, too"
)]
fn lacking_share(mask: &DeviceMask, split: &[f32], need: u64, model: &StagedModel) -> Option<Failure> {
    let whole: f32 = split.iter().sum();
    mask.devices().iter().zip(split).find_map(|(device, ratio)| {
        let total = device.vram_total_bytes;
        let share = (need as f64 * f64::from(ratio / whole)) as u64;
        let surely = share.saturating_mul(100 - NEED_TOLERANCE_PERCENT) / 100;
        (surely > total).then(|| {
            let message = format!(
                "tensor_split gives GPU {} {} a share of about {} of {}, and it has {} in all",
                device.index,
                device.name,
                mib(share),
                model.reference,
                mib(total)
            );
            Failure::new(PoolFault::TooLarge, message)
                .with_fix("make its ratio in tensor_split smaller, or leave tensor_split out")
        })
    })
}

pub(super) fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use api_types::PoolFault;
    use config_schema::DeviceRef;

    use super::lacking;
    use crate::devices::{Device, DeviceMask, DeviceProcess, Devices, Taken};
    use crate::pool::StagedModel;

    const GIB: u64 = 1 << 30;

    fn device(index: u32, total: u64, free: u64, held_by: Option<u32>) -> Device {
        Device {
            index,
            name: format!("card {index}"),
            uuid: format!("GPU-{index}"),
            compute_capability: (8, 6),
            vram_total_bytes: total * GIB,
            vram_free_bytes: free * GIB,
            utilization_percent: None,
            temperature_c: None,
            power_mw: None,
            ecc_uncorrected: None,
            mig_enabled: false,
            mig: Vec::new(),
            processes: held_by
                .map(|pid| DeviceProcess { pid, vram_bytes: Some((total - free) * GIB) })
                .into_iter()
                .collect(),
        }
    }

    fn box_of(devices: Vec<Device>) -> (DeviceMask, Devices) {
        let wanted: Vec<_> = devices.iter().map(|device| DeviceRef::Index(device.index)).collect();
        let found =
            Devices { driver: "1".to_owned(), cuda: None, devices, failed: Vec::new(), taken: Taken::default() };
        (DeviceMask::resolve(&wanted, &found).expect("they are there"), found)
    }

    fn model(need: Option<u64>) -> StagedModel {
        StagedModel {
            reference: "m".to_owned(),
            path: "m".into(),
            bytes: 0,
            need_bytes: need.map(|gib| gib * GIB),
            shape: None,
        }
    }

    /// ORCH-3003, OC-POOL-3002: what surely does not fit is refused with the figures, and with who holds the memory; what may fit,
    /// and what nothing is known of, is tried.
    #[test]
    fn what_does_not_fit_is_refused_by_how_much() {
        let (mask, found) = box_of(vec![device(0, 24, 4, Some(77))]);
        let refused = lacking(&mask, &found, &model(Some(12)), None, 1, false).expect("it does not fit now");
        assert_eq!(refused.fault, PoolFault::VramExhausted);
        let text = refused.to_string();
        for part in ["12288 MiB", "4096 MiB free", "process 77 (20480 MiB)"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(lacking(&mask, &found, &model(Some(12)), None, 1, true), None, "it fits when the card is empty");
        for when_empty in [false, true] {
            let never = lacking(&mask, &found, &model(Some(40)), None, 1, when_empty).expect("it never fits");
            assert_eq!(never.fault, PoolFault::TooLarge);
        }
        assert_eq!(lacking(&mask, &found, &model(Some(4)), None, 1, false), None);
        assert_eq!(lacking(&mask, &found, &model(None), None, 1, false), None);
    }

    /// ORCH-3052.2, OC-POOL-3021: the share of the smallest card must fit it, however much room the others have.
    #[test]
    fn no_card_is_given_more_than_it_has() {
        let (mask, found) = box_of(vec![device(0, 24, 24, None), device(1, 12, 12, None)]);
        let split = |ratios: [f32; 2]| lacking(&mask, &found, &model(Some(30)), Some(&ratios), 1, false);
        assert_eq!(split([2.0, 1.0]), None);
        let refused = split([1.0, 1.0]).expect("15 GiB are too much for 12");
        assert!(refused.message.contains("GPU 1 card 1"), "{refused}");
    }
}
