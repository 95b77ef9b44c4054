//! The file that says which GPUs there are and what they do.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Environment variable that names the file.
pub const STATE_VAR: &str = "FAKE_NVML";

/// The file's name beside the library, where the variable is not set.
pub const STATE_FILE: &str = "fake-nvml.json";

/// Everything about the GPUs. Written whole and renamed into place, so that a reader never sees half of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// How the driver is.
    #[serde(default)]
    pub driver: Driver,
    /// Its version.
    #[serde(default = "driver_version")]
    pub driver_version: String,
    /// CUDA version as NVML writes it: 12090 is 12.9.
    #[serde(default = "cuda_version")]
    pub cuda_version: i32,
    /// Time from the end of a process until its claimed memory is free again, in milliseconds.
    #[serde(default)]
    pub release_ms: u64,
    /// Up to so much more, in milliseconds, different for each claim and the same for whoever looks: what a process held comes
    /// back in pieces.
    #[serde(default)]
    pub release_jitter_ms: u64,
    /// The GPUs, in the order of the bus.
    pub devices: Vec<Gpu>,
    /// Errors that the driver reports; each goes once to every event set that was made before it was added.
    #[serde(default)]
    pub xids: Vec<XidEvent>,
}

fn driver_version() -> String {
    "575.64.05".to_owned()
}

const fn cuda_version() -> i32 {
    12_090
}

/// How the driver is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// It works.
    #[default]
    Ok,
    /// Its GPUs are gone. Who was using it must shut the library down and initialise it anew, also when it works again.
    Lost,
    /// The kernel's module is not loaded.
    NotLoaded,
    /// The library and the kernel's module are of different versions.
    Mismatch,
}

/// A GPU. What is absent it does not support.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Its id, `GPU-…`.
    pub uuid: String,
    /// CUDA compute capability.
    pub compute_capability: (i32, i32),
    /// Memory in all, in bytes.
    pub total_bytes: u64,
    /// Memory that the desktop and the driver use, in bytes.
    #[serde(default)]
    pub used_bytes: u64,
    /// Processes other than claimants that compute on it.
    #[serde(default)]
    pub processes: Vec<Process>,
    /// Share of time in which it computes.
    #[serde(default)]
    pub utilization_percent: Option<u32>,
    /// Temperature in degrees Celsius.
    #[serde(default)]
    pub temperature_c: Option<u32>,
    /// Power draw in milliwatts.
    #[serde(default)]
    pub power_mw: Option<u32>,
    /// Memory errors that could not be corrected since the driver was loaded; absent without ECC.
    #[serde(default)]
    pub ecc_uncorrected: Option<u64>,
    /// Its MIG instances; absent when it is not split.
    #[serde(default)]
    pub mig: Option<Vec<Mig>>,
    /// It has fallen off the bus.
    #[serde(default)]
    pub failed: bool,
}

/// A MIG instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mig {
    /// Its id, `MIG-…`.
    pub uuid: String,
    /// Memory in all, in bytes.
    pub total_bytes: u64,
    /// Memory that others use, in bytes.
    #[serde(default)]
    pub used_bytes: u64,
}

/// A process that computes on a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// Memory it holds, in bytes; absent where the driver does not tell, and then not counted.
    #[serde(default)]
    pub bytes: Option<u64>,
}

/// An error that the driver reports of a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XidEvent {
    /// Grows from one to the next.
    pub sequence: u64,
    /// The GPU.
    pub uuid: String,
    /// The error's number.
    pub code: u64,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read or written.
    #[error("cannot use the fake GPUs' file {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It says something else.
    #[error("{} does not describe GPUs", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

impl State {
    /// The reference box: 24 GB and 12 GB, a desktop on the first.
    #[must_use]
    pub fn reference_box() -> Self {
        Self::of(vec![
            Gpu {
                used_bytes: 612 << 20,
                utilization_percent: Some(3),
                temperature_c: Some(41),
                power_mw: Some(28_500),
                ..Gpu::new("NVIDIA GeForce RTX 3090", "GPU-3090aaaa-0000-4000-8000-000000000000", (8, 6), 24 << 30)
            },
            Gpu {
                utilization_percent: Some(0),
                temperature_c: Some(36),
                power_mw: Some(14_200),
                ..Gpu::new("NVIDIA GeForce RTX 3060", "GPU-3060bbbb-0000-4000-8000-000000000001", (8, 6), 12 << 30)
            },
        ])
    }

    /// These GPUs, with a driver that works.
    #[must_use]
    pub fn of(devices: Vec<Gpu>) -> Self {
        Self {
            driver: Driver::Ok,
            driver_version: driver_version(),
            cuda_version: cuda_version(),
            release_ms: 0,
            release_jitter_ms: 0,
            devices,
            xids: Vec::new(),
        }
    }

    /// Reports an error of the GPU with this index.
    pub fn report_xid(&mut self, index: usize, code: u64) {
        let sequence = self.last_xid() + 1;
        self.xids.push(XidEvent { sequence, uuid: self.devices[index].uuid.clone(), code });
    }

    pub(crate) fn last_xid(&self) -> u64 {
        self.xids.iter().map(|xid| xid.sequence).max().unwrap_or(0)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn read(path: &Path) -> Result<Self, StateError> {
        let text = std::fs::read(path).map_err(|source| StateError::Io { path: path.to_owned(), source })?;
        serde_json::from_slice(&text).map_err(|source| StateError::Malformed { path: path.to_owned(), source })
    }

    /// Replaces a file.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), StateError> {
        let text = serde_json::to_vec_pretty(self).expect("a state has no keys that are not text");
        replace(path, &text).map_err(|source| StateError::Io { path: path.to_owned(), source })
    }
}

/// Writes a file whole.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(content)?;
    std::fs::rename(&temporary, path)
}

impl Gpu {
    /// A GPU that nobody uses and that tells nothing else.
    #[must_use]
    pub fn new(name: &str, uuid: &str, compute_capability: (i32, i32), total_bytes: u64) -> Self {
        Self {
            name: name.to_owned(),
            uuid: uuid.to_owned(),
            compute_capability,
            total_bytes,
            used_bytes: 0,
            processes: Vec::new(),
            utilization_percent: None,
            temperature_c: None,
            power_mw: None,
            ecc_uncorrected: None,
            mig: None,
            failed: false,
        }
    }
}
