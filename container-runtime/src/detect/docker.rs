//! What `docker info` says. Source: the Engine API's `SystemInfo`, and docker 20.10's answer in `tests/it/answers/`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::HostPaths;
use crate::backend::Backend;
use crate::error::WhyUnusable;
use crate::runtime::{CdiSupport, CgroupVersion, RuntimeInfo};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    /// Of the daemon; empty when it does not answer.
    server_version: String,
    #[serde(default)]
    docker_root_dir: String,
    #[serde(default)]
    cgroup_version: String,
    #[serde(default)]
    runtimes: Option<BTreeMap<String, IgnoredAny>>,
    #[serde(default)]
    security_options: Option<Vec<String>>,
    #[serde(rename = "CDISpecDirs", default)]
    cdi_spec_dirs: Option<Vec<String>>,
    #[serde(default)]
    init_binary: String,
}

pub(super) fn read(answer: &str, paths: &HostPaths) -> Result<RuntimeInfo, WhyUnusable> {
    let info: Info = serde_json::from_str(answer).map_err(WhyUnusable::Unreadable)?;
    let options = info.security_options.unwrap_or_default();
    let has = |name: &str| options.iter().any(|option| option.split(',').any(|part| part == name));
    let folders: Vec<_> = info.cdi_spec_dirs.unwrap_or_default().into_iter().map(Into::into).collect();
    let cdi = if folders.is_empty() {
        CdiSupport::Unsupported {
            why: "CDI is off (docker before 25 has none, before 28.2 it is a feature to switch on)",
        }
    } else {
        CdiSupport::Folders(folders)
    };
    let is_registered = info.runtimes.unwrap_or_default().contains_key("nvidia");
    Ok(RuntimeInfo {
        backend: Backend::Docker,
        version: info.server_version,
        rootless: has("name=rootless"),
        cgroups: if info.cgroup_version == "2" { CgroupVersion::V2 } else { CgroupVersion::V1 },
        selinux: has("name=selinux"),
        init: !info.init_binary.is_empty(),
        storage: (!info.docker_root_dir.is_empty()).then(|| info.docker_root_dir.into()),
        cdi,
        nvidia_runtime: is_registered || paths.nvidia_hook.exists(),
    })
}
