use config_schema::DeviceRef;

use super::{DeviceMask, MaskError};
use crate::devices::{Device, Devices, FailedDevice, MigInstance, Taken};

const GIB: u64 = 1 << 30;

fn device(index: u32, name: &str, uuid: &str, gib: u64) -> Device {
    Device {
        index,
        name: name.to_owned(),
        uuid: uuid.to_owned(),
        compute_capability: (8, 6 + i32::from(index == 1)),
        vram_total_bytes: gib * GIB,
        vram_free_bytes: (gib - 1) * GIB,
        utilization_percent: None,
        temperature_c: None,
        power_mw: None,
        ecc_uncorrected: None,
        mig_enabled: false,
        mig: Vec::new(),
        processes: Vec::new(),
    }
}

/// A large card, a small one, one that is split, and one that does not answer.
fn found() -> Devices {
    let mut split = device(2, "A100", "GPU-split", 80);
    split.mig_enabled = true;
    let instance =
        |uuid: &str| MigInstance { uuid: uuid.to_owned(), vram_total_bytes: 10 * GIB, vram_free_bytes: 8 * GIB };
    split.mig = vec![instance("MIG-a"), instance("MIG-b")];
    Devices {
        driver: "575".to_owned(),
        cuda: Some((12, 9)),
        devices: vec![device(0, "RTX 3090", "GPU-large", 24), device(1, "RTX 3060", "GPU-small", 12), split],
        failed: vec![FailedDevice { index: 3, uuid: Some("GPU-dead".to_owned()), reason: "off the bus".to_owned() }],
        taken: Taken::default(),
    }
}

fn resolve(wanted: &[&str]) -> Result<DeviceMask, MaskError> {
    let wanted: Vec<_> = wanted.iter().map(|name| DeviceRef::parse(name).expect("a name")).collect();
    DeviceMask::resolve(&wanted, &found())
}

fn reference(name: &str) -> DeviceRef {
    DeviceRef::parse(name).expect("a name")
}

/// ORCH-3506, ORCH-3261: a mask keeps its order and its names, and its figures are those of its devices.
#[test]
fn a_mask_has_the_figures_of_its_devices() {
    let mask = resolve(&["1", "GPU-large"]).expect("both are there");
    assert_eq!(mask.label(), "1,GPU-large");
    assert_eq!(mask.cuda_visible_devices(), "GPU-small,GPU-large");
    assert_eq!((mask.vram_total_bytes(), mask.vram_free_bytes()), (36 * GIB, 34 * GIB));
    assert_eq!(mask.min_compute_capability(), (8, 6));
    assert!(mask.uses_gpu("GPU-small") && !mask.uses_gpu("GPU-split"));
    let mut later = found();
    later.devices[0].vram_free_bytes = GIB;
    assert_eq!(mask.free_now(&later), Some(vec![11 * GIB, GIB]));
    later.devices.remove(1);
    assert_eq!(mask.free_now(&later), None);
}

/// LO-POOL-08: a MIG instance is named by its UUID, has its own memory, and is alone in its mask, as CUDA wants it.
#[test]
fn a_mask_may_be_a_mig_instance() {
    let mask = resolve(&["MIG-b"]).expect("it is there");
    assert_eq!(mask.cuda_visible_devices(), "MIG-b");
    assert_eq!((mask.vram_total_bytes(), mask.vram_free_bytes()), (10 * GIB, 8 * GIB));
    assert!(mask.uses_gpu("GPU-split"));
    assert_eq!(mask.free_now(&found()), Some(vec![8 * GIB]));
    let error = resolve(&["0", "MIG-b"]).expect_err("not beside another");
    assert_eq!(error, MaskError::NotAlone { wanted: reference("MIG-b") });
    let error = resolve(&["2"]).expect_err("it is split");
    assert!(matches!(&error, MaskError::Split { instances, .. } if instances == &["MIG-a", "MIG-b"]), "{error:?}");
    assert!(error.to_string().ends_with("name one of its instances: MIG-a, MIG-b"), "{error}");
}

/// ORCH-3261, LO-POOL-06: what cannot be used is refused by name, with what could be used instead.
#[test]
fn what_is_not_there_is_named() {
    let error = resolve(&["0", "7"]).expect_err("no such device");
    let text = error.to_string();
    assert!(text.starts_with("there is no device 7; there are 0: RTX 3090 (GPU-large); 1: RTX 3060"), "{text}");
    assert!(text.contains("a part of 2: A100 (MIG-a)") && text.ends_with("3, which does not answer"), "{text}");
    assert!(matches!(resolve(&["GPU-other"]), Err(MaskError::NoSuchDevice { .. })));
    for name in ["3", "GPU-dead"] {
        let reason = "off the bus".to_owned();
        assert_eq!(resolve(&[name]), Err(MaskError::Failed { wanted: reference(name), reason }));
    }
    let twice = MaskError::Twice { first: reference("0"), second: reference("GPU-large") };
    assert_eq!(resolve(&["0", "GPU-large"]), Err(twice));
    assert!(matches!(resolve(&[]), Err(MaskError::Empty { .. })));
}
