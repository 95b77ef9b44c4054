//! What `podman info` says. Source: podman-info(1), and podman 4.3's answer in `tests/it/answers/`.

use serde::Deserialize;

use super::HostPaths;
use crate::backend::Backend;
use crate::error::WhyUnusable;
use crate::runtime::{CdiSupport, CgroupVersion, RuntimeInfo};

#[derive(Deserialize)]
struct Info {
    host: Host,
    store: Store,
    version: Version,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Host {
    cgroup_version: String,
    security: Security,
}

#[derive(Deserialize)]
struct Security {
    rootless: bool,
    #[serde(rename = "selinuxEnabled", default)]
    selinux: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Store {
    graph_root: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
}

pub(super) fn read(answer: &str, paths: &HostPaths) -> Result<RuntimeInfo, WhyUnusable> {
    let Info { host, store, version } = serde_json::from_str(answer).map_err(WhyUnusable::Unreadable)?;
    Ok(RuntimeInfo {
        backend: Backend::Podman,
        version: version.version,
        rootless: host.security.rootless,
        cgroups: if host.cgroup_version == "v2" { CgroupVersion::V2 } else { CgroupVersion::V1 },
        selinux: host.security.selinux,
        init: paths.inits.iter().any(|path| path.exists()),
        storage: Some(store.graph_root.into()),
        cdi: CdiSupport::Folders(paths.cdi.clone()),
        nvidia_runtime: false,
    })
}
