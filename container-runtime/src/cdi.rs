//! What Container Device Interface specifications say about NVIDIA's GPUs.
//!
//! Source: the CDI specification (github.com/cncf-tags/container-device-interface, SPEC.md) and what `nvidia-ctk cdi
//! generate` writes. They are read again each time they matter, since a fix writes them while we run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::gpu::GpuDevice;

/// The kind of device that NVIDIA's GPUs are.
pub(crate) const KIND: &str = "nvidia.com/gpu";

/// Largest file that is read; real ones have some ten kilobytes.
const MOST_BYTES: u64 = 4 << 20;

#[derive(Debug, Deserialize)]
struct Specification {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default, rename = "containerEdits")]
    edits: Edits,
}

#[derive(Debug, Deserialize)]
struct Device {
    name: String,
    #[serde(default, rename = "containerEdits")]
    edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    device_nodes: Vec<Node>,
    mounts: Vec<Bind>,
    hooks: Vec<Hook>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    path: PathBuf,
    host_path: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bind {
    host_path: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
struct Hook {
    path: PathBuf,
}

impl Edits {
    /// Files of this machine that must be there: nodes, libraries, and the programs that set a container up.
    fn files(self) -> impl Iterator<Item = PathBuf> {
        let nodes = self.device_nodes.into_iter().map(|node| node.host_path.unwrap_or(node.path));
        nodes
            .chain(self.mounts.into_iter().map(|bind| bind.host_path))
            .chain(self.hooks.into_iter().map(|hook| hook.path))
    }
}

/// The NVIDIA GPUs that specifications name, each with the files that it needs.
#[derive(Debug, Default)]
pub(crate) struct Cdi {
    folders: Vec<PathBuf>,
    devices: BTreeMap<String, Vec<PathBuf>>,
}

impl Cdi {
    /// Reads the folders; later ones win, as the runtimes have it. What cannot be read names nothing.
    pub(crate) fn read(folders: &[PathBuf]) -> Self {
        let mut devices = BTreeMap::new();
        let files = folders.iter().flat_map(|folder| files(folder));
        for specification in files.filter_map(|file| parse(&file)).filter(|found| found.kind == KIND) {
            let common: Vec<_> = specification.edits.files().collect();
            for device in specification.devices {
                devices.insert(device.name, common.iter().cloned().chain(device.edits.files()).collect());
            }
        }
        Self { folders: folders.to_vec(), devices }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// The name of a GPU: its UUID, or the index where specifications go by that.
    pub(crate) fn name_of(&self, device: &GpuDevice) -> Option<String> {
        let by_index = device.index.map(|index| index.to_string());
        [Some(device.uuid.clone()), by_index].into_iter().flatten().find(|name| self.devices.contains_key(name))
    }

    /// The first file that a device needs and that is not there.
    pub(crate) fn missing_file(&self, name: &str) -> Option<&Path> {
        self.devices.get(name)?.iter().find(|file| !file.exists()).map(PathBuf::as_path)
    }

    /// The devices' names, for a person.
    pub(crate) fn names(&self) -> String {
        self.devices.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Where they were looked for, for a person.
    pub(crate) fn folders(&self) -> String {
        self.folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// The folder's specifications in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_specification =
        |path: &PathBuf| path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known));
    let mut files: Vec<_> = entries.filter(is_specification).collect();
    files.sort();
    files
}

fn parse(file: &Path) -> Option<Specification> {
    if fs::metadata(file).ok()?.len() > MOST_BYTES {
        return None;
    }
    // JSON is YAML.
    serde_yaml_ng::from_str(&fs::read_to_string(file).ok()?).ok()
}
