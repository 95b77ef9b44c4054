//! What looking again and again finds.

use std::time::Duration;

use fake_nvml::{Driver, FakeNvml, State};
use pool_managerd::devices::{DeviceEvent, Devices, Monitor, NoDevices, Reading, Xid};
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;

const GIB: u64 = 1 << 30;
const INTERVAL: Duration = Duration::from_millis(10);

fn watched(state: &State) -> (TempDir, FakeNvml, Monitor) {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = FakeNvml::with(folder.path(), state).expect("fake GPUs");
    let monitor = Monitor::start(Some(&fake.library_path()), INTERVAL).expect("a thread");
    (folder, fake, monitor)
}

/// Waits until a look finds what is wanted.
async fn until(monitor: &Monitor, wanted: impl Fn(&Result<Devices, NoDevices>) -> bool) -> Reading {
    monitor.state().wait_for(|reading| wanted(reading)).await.expect("it goes on").clone()
}

async fn free(monitor: &Monitor, index: usize, bytes: u64) {
    until(monitor, |reading| reading.as_ref().is_ok_and(|found| found.devices[index].vram_free_bytes == bytes)).await;
}

async fn next(events: &mut Receiver<DeviceEvent>) -> DeviceEvent {
    events.recv().await.expect("it goes on")
}

fn uuid(index: usize) -> String {
    State::reference_box().devices[index].uuid.clone()
}

/// ORCH-3053: a driver that is lost and comes back is found again, by a library that is loaded anew each time.
#[tokio::test]
async fn a_driver_is_lost_and_comes_back() {
    let (_folder, fake, monitor) = watched(&State::reference_box());
    let mut events = monitor.events();
    for driver in [Driver::Lost, Driver::NotLoaded] {
        fake.update(|state| state.driver = driver);
        let DeviceEvent::Lost { reason } = next(&mut events).await else { panic!("it is lost") };
        assert!(!reason.is_empty());
        assert!(monitor.now().is_err(), "the state is published first");
        fake.update(|state| state.driver = Driver::Ok);
        assert_eq!(next(&mut events).await, DeviceEvent::Back);
        assert_eq!(monitor.now().as_ref().as_ref().expect("GPUs").devices.len(), 2);
    }
    fake.update(|state| state.driver = Driver::NotLoaded);
    until(&monitor, |reading| matches!(reading, Err(NoDevices::DriverNotLoaded))).await;
}

/// ORCH-3053: a host without a driver is watched, too, and its first driver is found.
#[tokio::test]
async fn a_driver_may_come_later() {
    let (_folder, fake, monitor) = watched(&State { driver: Driver::NotLoaded, ..State::reference_box() });
    let mut events = monitor.events();
    assert!(matches!(&*monitor.now(), Err(NoDevices::DriverNotLoaded)));
    fake.update(|state| state.driver = Driver::Ok);
    assert_eq!(next(&mut events).await, DeviceEvent::Back);
    assert!(monitor.now().is_ok());
}

/// ORCH-3053: an error that the driver reports comes once, with its number and card, and is explained.
#[tokio::test]
async fn errors_of_the_driver_are_events() {
    let (_folder, fake, monitor) = watched(&State::reference_box());
    let mut events = monitor.events();
    fake.update(|state| {
        state.report_xid(0, 31);
        state.report_xid(1, 79);
    });
    assert_eq!(next(&mut events).await, DeviceEvent::Xid { uuid: Some(uuid(0)), code: 31 });
    assert_eq!(next(&mut events).await, DeviceEvent::Xid { uuid: Some(uuid(1)), code: 79 });
    assert!(!Xid::explain(79).expect("known").remedy.gpu_usable());
    fake.update(|state| state.report_xid(0, 13));
    assert_eq!(next(&mut events).await, DeviceEvent::Xid { uuid: Some(uuid(0)), code: 13 });
}

/// ORCH-3053: memory errors are events when their count rises, and not when a driver counts anew.
#[tokio::test]
async fn memory_errors_are_events() {
    let mut state = State::reference_box();
    state.devices[0].ecc_uncorrected = Some(5);
    let (_folder, fake, monitor) = watched(&state);
    let mut events = monitor.events();
    let counted = async |count: u64| {
        fake.update(|state| state.devices[0].ecc_uncorrected = Some(count));
        until(&monitor, |reading| reading.as_ref().is_ok_and(|found| found.devices[0].ecc_uncorrected == Some(count)))
            .await;
    };
    counted(7).await;
    assert_eq!(next(&mut events).await, DeviceEvent::EccUncorrected { uuid: uuid(0), count: 2 });
    counted(0).await;
    counted(1).await;
    assert_eq!(next(&mut events).await, DeviceEvent::EccUncorrected { uuid: uuid(0), count: 1 });
}

/// ORCH-3053: a card that falls off the bus is told from the others, which stay; it is found again when it comes back.
#[tokio::test]
async fn one_card_fails_and_comes_back() {
    let (_folder, fake, monitor) = watched(&State::reference_box());
    let mut events = monitor.events();
    fake.update(|state| state.devices[1].failed = true);
    let DeviceEvent::DeviceFailed { uuid: failed, .. } = next(&mut events).await else { panic!("it has failed") };
    assert_eq!(failed, uuid(1));
    let found = monitor.now();
    let found = found.as_ref().as_ref().expect("the other one");
    assert_eq!((found.devices.len(), found.failed[0].uuid.as_deref()), (1, Some(uuid(1).as_str())));
    fake.update(|state| state.devices[1].failed = false);
    assert_eq!(next(&mut events).await, DeviceEvent::DeviceBack { uuid: uuid(1) });
    let gone = State::reference_box().devices.remove(1);
    fake.update(|state| state.devices.truncate(1));
    let DeviceEvent::DeviceFailed { uuid: failed, reason } = next(&mut events).await else { panic!("it is gone") };
    assert_eq!((failed, reason.as_str()), (uuid(1), "the driver does not list it any more"));
    fake.update(|state| state.devices.push(gone));
    assert_eq!(next(&mut events).await, DeviceEvent::DeviceBack { uuid: uuid(1) });
}

/// LO-POOL-10: memory that is claimed is missing, and it comes back when the driver gives it back, not when its process says so.
#[tokio::test]
async fn memory_comes_back_when_it_does() {
    let (_folder, fake, monitor) = watched(&State { release_ms: 86_400_000, ..State::reference_box() });
    let claim = fake.claim(&[(uuid(1), 5 * GIB)]).expect("it fits");
    free(&monitor, 1, 7 * GIB).await;
    let process = |reading: &Result<Devices, NoDevices>| {
        reading.as_ref().is_ok_and(|found| found.devices[1].processes.iter().any(|one| one.pid == std::process::id()))
    };
    until(&monitor, process).await;
    drop(claim);
    let gone = until(&monitor, |reading| !process(reading)).await;
    assert_eq!(gone.as_ref().as_ref().expect("GPUs").devices[1].vram_free_bytes, 7 * GIB);
    fake.update(|state| state.release_ms = 0);
    free(&monitor, 1, 12 * GIB).await;
}

/// A monitor that is dropped ends its thread, and with it what it publishes.
#[tokio::test]
async fn a_monitor_ends_when_it_is_dropped() {
    let (_folder, _fake, monitor) = watched(&State::reference_box());
    let mut state = monitor.state();
    let mut events = monitor.events();
    drop(monitor);
    while state.changed().await.is_ok() {}
    assert!(events.recv().await.is_err());
    let (_folder, _fake, monitor) = watched(&State::reference_box());
    let state = monitor.state();
    monitor.stop();
    assert!(state.has_changed().is_err(), "the thread has ended");
}
