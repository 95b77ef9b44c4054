//! The folders that the daemon writes to.

use std::path::Path;

use api_types::{DoctorCheck, PoolFault};
use config_schema::Config;
use model_provisioner::{Disk as _, LocalDisk};

use super::{failed, passed, warned};
use crate::failure::Failure;

/// Room below which something will soon fail: logs, journal, the next model.
const LITTLE_ROOM: u64 = 1 << 30;

/// Whether each folder can be written to, and how much room it has.
pub(super) fn examine(config: &Config) -> Vec<DoctorCheck> {
    let folders = [
        ("data_dir", "server.data_dir", &config.server.data_dir),
        ("models_dir", "catalog.models_dir", &config.catalog.models_dir),
        ("cache_dir", "engines.cache_dir", &config.engines.cache_dir),
    ];
    folders.into_iter().map(|(name, key, path)| examine_one(name, key, path)).collect()
}

fn examine_one(name: &str, key: &str, path: &Path) -> DoctorCheck {
    // It is created when it is wanted, in the nearest folder that there is.
    let there = path.ancestors().find(|place| place.exists()).unwrap_or(Path::new("/"));
    let shown = path.display();
    if !there.is_dir() {
        let failure = Failure::new(PoolFault::SpawnFailed, format!("{shown}: {} is no folder", there.display()));
        return failed(name, None, &failure.with_fix(format!("set {key} to a folder")));
    }
    if let Err(error) = rustix::fs::access(there, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        let what = format!("{shown} cannot be written to: {}", std::io::Error::from(error));
        let fix = format!("sudo chown -R \"$USER\" {}; or set {key} to a folder of yours", there.display());
        return failed(name, None, &Failure::new(PoolFault::SpawnFailed, what).with_fix(fix));
    }
    match LocalDisk.free_bytes(there) {
        Ok(0) => failed(name, None, &cramped(path, key, 0)),
        Ok(free) if free < LITTLE_ROOM => warned(name, None, &cramped(path, key, free)),
        Ok(free) => passed(name, None, format!("{shown}, {} GiB free", free >> 30)),
        Err(error) => passed(name, None, format!("{shown}; its free room cannot be told: {error}")),
    }
}

fn cramped(path: &Path, key: &str, free: u64) -> Failure {
    let what = format!("{} has {} MiB free", path.display(), free >> 20);
    let fix = format!("see what takes the room: du -xhd1 {}; or set {key} to a larger disk", path.display());
    Failure::new(PoolFault::DiskFull, what).with_fix(fix)
}
