//! What one look finds.

use config_schema::DeviceRef;
use fake_nvml::{Driver, FakeNvml, Gpu, Mig, Process, State};
use pool_managerd::devices::{DeviceMask, DeviceProcess, Devices, MaskError, NoDevices, discover};
use tempfile::TempDir;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

fn fake(state: &State) -> (TempDir, FakeNvml) {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = FakeNvml::with(folder.path(), state).expect("fake GPUs");
    (folder, fake)
}

fn look(fake: &FakeNvml) -> Devices {
    discover(Some(&fake.library_path())).expect("GPUs")
}

/// LO-POOL-10, ORCH-3506: every figure is the driver's.
#[test]
fn the_reference_box() {
    let (_folder, fake) = fake(&State::reference_box());
    let found = look(&fake);
    assert_eq!((found.driver.as_str(), found.cuda, found.failed.len()), ("575.64.05 simulated", Some((12, 9)), 0));
    assert!(found.is_simulated(), "containers must not be given device nodes that are not there");
    let [large, small] = &found.devices[..] else { panic!("two GPUs: {found:?}") };
    assert_eq!((large.index, large.name.as_str()), (0, "NVIDIA GeForce RTX 3090"));
    assert_eq!((small.index, small.name.as_str()), (1, "NVIDIA GeForce RTX 3060"));
    assert_eq!(large.uuid, fake.state().expect("a state").devices[0].uuid);
    assert_eq!((large.vram_total_bytes, large.vram_free_bytes), (24 * GIB, 24 * GIB - 612 * MIB));
    assert_eq!((small.vram_total_bytes, small.vram_free_bytes), (12 * GIB, 12 * GIB));
    assert_eq!((large.utilization_percent, large.temperature_c, large.power_mw), (Some(3), Some(41), Some(28_500)));
    assert_eq!((large.compute_capability, large.ecc_uncorrected, large.mig_enabled), ((8, 6), None, false));
    assert_eq!((&large.processes[..], &small.processes[..]), (&[][..], &[][..]));
}

/// LO-POOL-10: what a card does not tell is absent, and nothing else is missing because of it.
#[test]
fn what_cannot_be_read_is_absent() {
    let silent = Gpu::new("Silent", "GPU-silent", (6, 1), 4 * GIB);
    let secretive = Gpu { processes: vec![Process { pid: 77, bytes: None }], ..silent.clone() };
    let (_folder, fake) = fake(&State::of(vec![secretive]));
    let device = look(&fake).devices.remove(0);
    assert_eq!((device.utilization_percent, device.temperature_c, device.power_mw), (None, None, None));
    assert_eq!(device.ecc_uncorrected, None);
    assert_eq!(device.processes, [DeviceProcess { pid: 77, vram_bytes: None }]);
    assert_eq!((device.compute_capability, device.vram_free_bytes), ((6, 1), 4 * GIB));
}

/// LO-POOL-10: memory that a process takes is missing, and the process is named; also many of them.
#[test]
fn processes_eat_memory() {
    let (_folder, fake) = fake(&State::reference_box());
    let eats = |pid: u32| Process { pid, bytes: Some(u64::from(pid) * MIB) };
    fake.update(|state| state.devices[1].processes = (1..=40).map(eats).collect());
    let small = look(&fake).devices.remove(1);
    assert_eq!(small.vram_free_bytes, 12 * GIB - 820 * MIB);
    assert_eq!(small.processes.len(), 40);
    assert_eq!(small.processes[39], DeviceProcess { pid: 40, vram_bytes: Some(40 * MIB) });
}

/// LO-POOL-08: instances are found with their own memory, can be named, and the whole card cannot.
#[test]
fn a_card_that_is_split() {
    let part = |name: &str, used_bytes: u64| Mig { uuid: format!("MIG-{name}"), total_bytes: 10 * GIB, used_bytes };
    let split = Gpu {
        mig: Some(vec![part("a", 0), part("b", GIB)]),
        utilization_percent: Some(50),
        ecc_uncorrected: Some(0),
        ..Gpu::new("NVIDIA A100", "GPU-a100", (8, 0), 80 * GIB)
    };
    let (_folder, fake) = fake(&State::of(vec![split]));
    let _claim = fake.claim(&[("MIG-b".to_owned(), 2 * GIB)]).expect("it fits");
    let found = look(&fake);
    let device = &found.devices[0];
    assert_eq!((device.mig_enabled, device.utilization_percent, device.ecc_uncorrected), (true, None, Some(0)));
    let instances: Vec<_> =
        device.mig.iter().map(|mig| (mig.uuid.as_str(), mig.vram_total_bytes, mig.vram_free_bytes)).collect();
    assert_eq!(instances, [("MIG-a", 10 * GIB, 10 * GIB), ("MIG-b", 10 * GIB, 7 * GIB)]);
    assert_eq!(device.vram_free_bytes, 77 * GIB);
    assert_eq!(device.processes, [DeviceProcess { pid: std::process::id(), vram_bytes: Some(2 * GIB) }]);
    let mask = DeviceMask::resolve(&[DeviceRef::Uuid("MIG-b".to_owned())], &found).expect("it is there");
    assert_eq!((mask.cuda_visible_devices().as_str(), mask.vram_free_bytes()), ("MIG-b", 7 * GIB));
    assert!(matches!(DeviceMask::resolve(&[DeviceRef::Index(0)], &found), Err(MaskError::Split { .. })));
}

/// LO-POOL-06: a card that has failed is told from one that is not there, and the others stay.
#[test]
fn one_card_of_two_has_failed() {
    let (_folder, fake) = fake(&State::reference_box());
    fake.update(|state| state.devices[0].failed = true);
    let found = look(&fake);
    assert_eq!((found.devices.len(), found.devices[0].index, found.failed[0].index), (1, 1, 0));
    assert_eq!(found.failed[0].uuid, Some(fake.state().expect("a state").devices[0].uuid.clone()));
    let mask = |index| DeviceMask::resolve(&[DeviceRef::Index(index)], &found);
    assert!(matches!(mask(0), Err(MaskError::Failed { .. })));
    assert!(matches!(mask(2), Err(MaskError::NoSuchDevice { .. })));
    assert_eq!(mask(1).expect("it is there").label(), "1");
    fake.update(|state| state.devices[1].failed = true);
    let error = discover(Some(&fake.library_path())).expect_err("none answers");
    assert!(matches!(error, NoDevices::AllFailed { .. }), "{error:?}");
}

/// LO-POOL-06, ORCH-1102: each state of the driver is told apart, with what to do.
#[test]
fn a_driver_that_does_not_work() {
    let (_folder, fake) = fake(&State::reference_box());
    let error = |driver: Driver| {
        fake.update(|state| state.driver = driver);
        discover(Some(&fake.library_path())).expect_err("no GPUs")
    };
    assert!(matches!(error(Driver::NotLoaded), NoDevices::DriverNotLoaded));
    assert!(matches!(error(Driver::Mismatch), NoDevices::DriverMismatch));
    assert!(matches!(error(Driver::Lost), NoDevices::Failed(_)));
    fake.update(|state| state.devices.clear());
    assert!(matches!(error(Driver::Ok), NoDevices::None));
}
