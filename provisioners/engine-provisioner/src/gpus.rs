//! The GPUs that an engine is prepared for, as plain facts.

use std::fmt;

/// A GPU, or a MIG instance of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Index in the order of the PCI bus.
    pub index: u32,
    /// `GPU-…` or `MIG-…`.
    pub uuid: String,
    /// CUDA compute capability, major and minor.
    pub compute_capability: (u32, u32),
}

/// The GPUs of one pool: at least one, which makes an engine without a GPU a thing that cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpus {
    gpus: Vec<Gpu>,
    driver_cuda: Option<(u32, u32)>,
}

/// A pool without a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an engine is prepared for GPUs, and there is none")]
pub struct NoGpu;

impl Gpus {
    /// The GPUs of a pool in the order of its mask, and the newest CUDA version that the driver serves.
    ///
    /// # Errors
    /// [`NoGpu`] without any.
    pub fn new(gpus: Vec<Gpu>, driver_cuda: Option<(u32, u32)>) -> Result<Self, NoGpu> {
        if gpus.is_empty() { Err(NoGpu) } else { Ok(Self { gpus, driver_cuda }) }
    }

    /// The GPUs, in the order of the mask.
    #[must_use]
    pub fn as_slice(&self) -> &[Gpu] {
        &self.gpus
    }

    /// The newest CUDA version that the driver serves, if it says.
    #[must_use]
    pub const fn driver_cuda(&self) -> Option<(u32, u32)> {
        self.driver_cuda
    }

    /// What the engine's process sees of the host's GPUs: their UUIDs, which no change of the order confuses.
    #[must_use]
    pub fn visible(&self) -> String {
        self.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Their compute capabilities, each once, in order.
    pub(crate) fn capabilities(&self) -> Vec<(u32, u32)> {
        let mut all: Vec<_> = self.gpus.iter().map(|gpu| gpu.compute_capability).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl fmt::Display for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, gpu) in self.gpus.iter().enumerate() {
            let (major, minor) = gpu.compute_capability;
            write!(f, "{}GPU {} (sm_{major}{minor})", if place > 0 { ", " } else { "" }, gpu.index)?;
        }
        Ok(())
    }
}
