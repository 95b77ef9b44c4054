//! Engines as processes, and their memory as the driver shows it.

use fake_nvml::FakeNvml;
use mock::process::MockEngineProcess;
use pool_managerd::devices::{Device, DeviceProcess, discover};

const GIB: u64 = 1 << 30;

fn small(fake: &FakeNvml) -> Device {
    discover(Some(&fake.library_path())).expect("GPUs").devices.remove(1)
}

fn engine(fake: &FakeNvml, mib: u64) -> std::io::Result<MockEngineProcess> {
    let env = fake.env().into_iter().chain([("CUDA_VISIBLE_DEVICES", "1".into())]);
    MockEngineProcess::start_with_env(["--vram-mb", &mib.to_string()], env)
}

fn held(device: &Device) -> u64 {
    device.processes.iter().filter_map(|process| process.vram_bytes).sum()
}

/// LO-POOL-10: an engine's memory is seen with its process, and is free again when it was killed.
#[test]
fn an_engine_is_seen_by_its_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = FakeNvml::new(folder.path()).expect("fake GPUs");
    let mut first = engine(&fake, 4096).expect("it starts");
    let _second = engine(&fake, 2048).expect("it starts");
    let seen = small(&fake);
    assert_eq!(seen.vram_free_bytes, 6 * GIB);
    assert!(seen.processes.contains(&DeviceProcess { pid: first.pid(), vram_bytes: Some(4 * GIB) }), "{seen:?}");
    first.kill().expect("it is killed");
    let seen = small(&fake);
    assert_eq!((seen.vram_free_bytes, seen.processes.len()), (10 * GIB, 1));
}

/// ORCH-3058: engines that start at the same time never have more memory than there is, at no moment, and those that get none end.
#[test]
fn engines_that_start_at_once_share_what_there_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = FakeNvml::new(folder.path()).expect("fake GPUs");
    let running: Vec<MockEngineProcess> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..10).map(|_| scope.spawn(|| engine(&fake, 3072))).collect();
        while starts.iter().any(|start| !start.is_finished()) {
            assert!(held(&small(&fake)) <= 12 * GIB);
        }
        starts.into_iter().filter_map(|start| start.join().expect("no panic").ok()).collect()
    });
    // Some may have kept each other from what one of them alone would have got.
    assert!(running.len() <= 4, "{}", running.len());
    let seen = small(&fake);
    assert_eq!((seen.processes.len(), held(&seen)), (running.len(), running.len() as u64 * 3 * GIB));
    drop(running);
    assert_eq!(small(&fake).vram_free_bytes, 12 * GIB);
    let alone = engine(&fake, 12 * 1024).expect("it fits");
    assert_eq!(held(&small(&fake)), 12 * GIB);
    drop(alone);
}
