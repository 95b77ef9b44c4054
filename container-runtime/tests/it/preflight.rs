//! What is found before an engine is started.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use container_runtime::{
    Backend, Check, Finding, GpuAccess, GpuDevice, Mount, Outcome, PreflightReport, PreflightRequest,
};
use narration_core::capture;
use tempfile::TempDir;

use crate::scripted::{info, runtime};

fn gpus(uuids: &[&str]) -> GpuAccess {
    let device =
        |(index, uuid): (usize, &&str)| GpuDevice { uuid: (*uuid).to_owned(), index: u32::try_from(index).ok() };
    GpuAccess::devices(uuids.iter().enumerate().map(device)).expect("some")
}

fn request(gpus: GpuAccess) -> PreflightRequest {
    PreflightRequest { gpus, ports: Vec::new(), mounts: Vec::new(), image_bytes: None }
}

async fn preflight(folder: &Path, request: &PreflightRequest) -> PreflightReport {
    let said = info(Backend::Podman, "/var/lib/containers/storage", folder.to_str().expect("plain"));
    let (runtime, _) = runtime(folder, Backend::Podman, &said).await;
    runtime.preflight(request)
}

fn finding(report: &PreflightReport, check: Check) -> &Finding {
    report.findings.iter().find(|finding| finding.check == check).expect("it was looked at")
}

/// A specification as `nvidia-ctk cdi generate` writes it, shortened.
fn specification(library: &Path) -> String {
    format!(
        "---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n\
         - name: GPU-one\n  containerEdits:\n    deviceNodes:\n    - path: /dev/null\n\
         - name: GPU-two\n  containerEdits:\n    deviceNodes:\n    - path: /dev/no-such-gpu\n\
         - name: all\n  containerEdits: {{}}\n\
         containerEdits:\n  env:\n  - NVIDIA_VISIBLE_DEVICES=void\n  deviceNodes:\n  - path: /dev/zero\n  mounts:\n  \
         - hostPath: {library}\n    containerPath: {library}\n    options: [ro, bind]\n  hooks:\n  \
         - hookName: createContainer\n    path: /bin/sh\n",
        library = library.display()
    )
}

/// LO-CTR-03, ORCH-3804: specifications must be there, name every GPU of the mask, and mean files that exist.
#[tokio::test]
async fn specifications_of_devices() {
    let folder = TempDir::new().expect("a folder");
    let library = folder.path().join("libcuda.so.1");
    let of = async |uuids: &[&str]| {
        let report = preflight(folder.path(), &request(gpus(uuids))).await;
        assert_eq!(report.failed(), finding(&report, Check::Gpus).outcome == Outcome::Fail);
        finding(&report, Check::Gpus).clone()
    };
    let none = of(&["GPU-one"]).await;
    assert!(none.detail.starts_with("no CDI specification in"), "{none:?}");
    assert!(none.fix.expect("a fix").contains("sudo apt-get install nvidia-container-toolkit"));

    let cdi = folder.path().join("cdi");
    std::fs::create_dir(&cdi).expect("a folder");
    std::fs::write(cdi.join("broken.yaml"), "kind: [").expect("a file");
    std::fs::write(cdi.join("other.json"), r#"{"kind": "vendor.com/net", "devices": [{"name": "GPU-three"}]}"#)
        .expect("a file");
    std::fs::write(cdi.join("nvidia.yaml"), specification(&library)).expect("a file");
    let stale = of(&["GPU-one"]).await;
    assert_eq!((stale.outcome, stale.fix.expect("a fix").contains("nvidia-ctk cdi generate")), (Outcome::Fail, true));
    assert!(stale.detail.contains("libcuda.so.1, which is not there"), "{}", stale.detail);

    std::fs::write(&library, "").expect("a file");
    let well = of(&["GPU-one"]).await;
    assert_eq!((well.outcome, &*well.detail), (Outcome::Pass, "podman gives these GPUs by CDI: GPU-one"));
    let gone = of(&["GPU-one", "GPU-two"]).await;
    assert!(gone.detail.contains("/dev/no-such-gpu"), "{}", gone.detail);
    let unknown = of(&["GPU-one", "GPU-three"]).await;
    assert_eq!(unknown.detail, "the CDI specifications name GPU-one, GPU-two, all, but not GPU-three");

    // Later folders and files win, and indices are names as well.
    let by_index = r#"{"kind": "nvidia.com/gpu", "devices": [{"name": "GPU-two"}, {"name": "2"}]}"#;
    std::fs::write(cdi.join("zzz.json"), by_index).expect("a file");
    let all = of(&["GPU-one", "GPU-two", "MIG-by-index"]).await;
    assert_eq!(all.detail, "podman gives these GPUs by CDI: GPU-one, GPU-two, 2");
}

/// LO-CTR-03, ORCH-3804: ports and files are tried, disk and privileges looked at; every finding that is not well has a fix.
#[tokio::test]
async fn everything_else() {
    let folder = TempDir::new().expect("a folder");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let taken_port = taken.local_addr().expect("a port").port();
    let free_port =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a port").port();
    let missing = folder.path().join("missing");
    let request = PreflightRequest {
        gpus: GpuAccess::simulated_devices(vec![Mount::read_only(&missing, "/driver")]),
        ports: vec![free_port, taken_port],
        mounts: vec![Mount::read_only(folder.path(), "/models"), Mount::read_write(&missing, "/cache")],
        image_bytes: Some(u64::MAX),
    };
    let said = capture();
    let report = preflight(folder.path(), &request).await;
    let outcomes: Vec<_> = report.findings.iter().map(|finding| (finding.check, finding.outcome)).collect();
    assert_eq!(
        outcomes,
        [
            (Check::Gpus, Outcome::Pass),
            (Check::Port, Outcome::Pass),
            (Check::Port, Outcome::Fail),
            (Check::Mount, Outcome::Pass),
            (Check::Mount, Outcome::Fail),
            (Check::Mount, Outcome::Fail),
            (Check::Disk, Outcome::Fail),
            (Check::Privileges, Outcome::Warn),
            (Check::Resources, Outcome::Pass),
            (Check::Init, Outcome::Pass),
        ]
    );
    assert!(report.failed());
    assert!(report.findings.iter().all(|finding| (finding.outcome == Outcome::Pass) == finding.fix.is_none()));
    assert_eq!(report.findings[2].detail, format!("port {taken_port} is taken"));
    assert_eq!(said.actions("preflight").len(), report.findings.len());
    drop(taken);
}
