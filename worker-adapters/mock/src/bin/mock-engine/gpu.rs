//! GPU memory, as a build of llama.cpp for CUDA takes it. Without fake GPUs there is none to take.

use std::path::{Path, PathBuf};

use fake_nvml::claims::{Claim, ClaimError, claim_in, free_in};
use fake_nvml::{Driver, STATE_VAR, State};

use crate::args::{Args, SplitMode};
use crate::memory::{Takes, takes};

/// Memory that a token of context takes, when nothing better is known: that of a model of eight billion parameters.
const BYTES_PER_TOKEN: u64 = 128 << 10;

/// The GPUs that this process sees, and what it wants of each.
#[derive(Debug)]
pub(crate) struct Gpus {
    state_path: PathBuf,
    pub(crate) visible: Vec<Visible>,
    /// Of each, for the model.
    pub(crate) weights: Vec<u64>,
    /// Of each, for the context.
    pub(crate) context: Vec<u64>,
    /// Of each, to compute in.
    pub(crate) compute: Vec<u64>,
    /// Of each, for CUDA itself.
    overhead: Vec<u64>,
    claims: Vec<Claim>,
}

/// A GPU or MIG instance that CUDA shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visible {
    pub(crate) uuid: String,
    pub(crate) name: String,
    pub(crate) compute_capability: (i32, i32),
    pub(crate) free: u64,
}

/// Which part of a model is put into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// What CUDA takes before anything else.
    Overhead,
    /// This step of so many.
    Weights {
        /// From 0 on.
        step: u64,
        /// Steps.
        of: u64,
    },
    /// All of it.
    Context,
    /// All of it.
    Compute,
}

/// It did not work out; each message is llama.cpp's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GpuError {
    /// There is none.
    #[error("ggml_cuda_init: failed to initialize CUDA: {0}")]
    Init(&'static str),
    /// It does not fit.
    #[error(
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating {:.2} MiB on device {device}: cudaMalloc failed: out of memory",
        mib(*bytes)
    )]
    Full {
        /// As this process counts.
        device: usize,
        /// What was wanted.
        bytes: u64,
    },
    /// Not even CUDA itself fits.
    #[error("CUDA error: out of memory\n  current device: {device}, in function ggml_backend_cuda_device_get_memory")]
    NoRoom {
        /// As this process counts.
        device: usize,
    },
    /// The fake itself fails.
    #[error("mock-engine: cannot use the fake GPUs")]
    Fake(#[source] ClaimError),
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

impl Gpus {
    /// The GPUs that `CUDA_VISIBLE_DEVICES` leaves, if there are fake ones at all.
    pub(crate) fn find(args: &Args) -> Result<Option<Self>, GpuError> {
        let Some(state_path) = std::env::var_os(STATE_VAR).map(PathBuf::from) else { return Ok(None) };
        let state = State::read(&state_path).map_err(|error| GpuError::Fake(error.into()))?;
        match state.driver {
            Driver::Ok => {}
            Driver::Lost => return Err(GpuError::Init("unknown error")),
            Driver::NotLoaded => return Err(GpuError::Init("no CUDA-capable device is detected")),
            Driver::Mismatch => {
                return Err(GpuError::Init("system has unsupported display driver / cuda driver combination"));
            }
        }
        let mask = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        let visible = visible(&state, mask.as_deref(), &state_path)?;
        if visible.is_empty() {
            return Err(GpuError::Init("no CUDA-capable device is detected"));
        }
        let Takes { weights, context, compute } = wanted(args);
        let shares = shares(args, &visible);
        let (weights, context) = (spread(weights, &shares), spread(context, &shares));
        let compute = shares.iter().map(|share| if *share > 0.0 { compute } else { 0 }).collect();
        // CUDA sets itself up on every GPU that is seen, be it only to ask how much is free.
        let overhead = vec![if args.vram_mb.is_some() { 0 } else { args.cuda_mb << 20 }; visible.len()];
        Ok(Some(Self { weights, context, compute, overhead, state_path, visible, claims: Vec::new() }))
    }

    /// Takes memory for a part of the model.
    pub(crate) fn allocate(&mut self, part: Part) -> Result<(), GpuError> {
        for (device, gpu) in self.visible.iter().enumerate() {
            let (whole, bytes) = match part {
                Part::Weights { step, of } => {
                    let whole = self.weights[device];
                    (whole, whole * (step + 1) / of - whole * step / of)
                }
                Part::Overhead => (self.overhead[device], self.overhead[device]),
                Part::Context => (self.context[device], self.context[device]),
                Part::Compute => (self.compute[device], self.compute[device]),
            };
            if bytes == 0 {
                continue;
            }
            match claim_in(&self.state_path, &[(gpu.uuid.clone(), bytes)]) {
                Ok(claim) => self.claims.push(claim),
                Err(ClaimError::DoesNotFit { .. }) if part == Part::Overhead => {
                    return Err(GpuError::NoRoom { device });
                }
                // llama.cpp takes a buffer whole, and says how large it is.
                Err(ClaimError::DoesNotFit { .. }) => return Err(GpuError::Full { device, bytes: whole }),
                Err(ClaimError::NoDevice { .. } | ClaimError::Driver(_)) => {
                    return Err(GpuError::Init("unknown error"));
                }
                Err(error) => return Err(GpuError::Fake(error)),
            }
        }
        Ok(())
    }
}

/// What the model wants, in bytes.
fn wanted(args: &Args) -> Takes {
    if let Some(vram) = args.vram_mb {
        return Takes { weights: vram << 20, ..Takes::default() };
    }
    let file = args.model_file();
    let known = file.as_deref().and_then(|path| takes(path, args.ctx().into(), args.slots().get().into()));
    known.unwrap_or_else(|| {
        let weights = file.and_then(|path| std::fs::metadata(path).ok()).map_or(0, |meta| meta.len());
        Takes { weights, context: args.total_ctx() * BYTES_PER_TOKEN, compute: 0 }
    })
}

/// As CUDA reads its variable: the first entry that names no device ends the list.
fn visible(state: &State, mask: Option<&str>, state_path: &Path) -> Result<Vec<Visible>, GpuError> {
    let all = every(state);
    let whole: Vec<&Visible> = all.iter().filter(|(_, is_whole)| *is_whole).map(|(gpu, _)| gpu).collect();
    let named = |name: &str| match name.parse::<usize>() {
        Ok(index) => whole.get(index).map(|gpu| (*gpu).clone()),
        Err(_) => all.iter().find(|(gpu, _)| gpu.uuid == name).map(|(gpu, _)| gpu.clone()),
    };
    let mut visible: Vec<Visible> = match mask {
        None => whole.iter().map(|gpu| (*gpu).clone()).collect(),
        Some(mask) => mask.split(',').map(str::trim).map_while(named).collect(),
    };
    for gpu in &mut visible {
        gpu.free = free_in(state_path, &gpu.uuid).map_err(GpuError::Fake)?;
    }
    Ok(visible)
}

/// Every device that answers, and whether it is a whole GPU.
fn every(state: &State) -> Vec<(Visible, bool)> {
    let mut all = Vec::new();
    for gpu in state.devices.iter().filter(|gpu| !gpu.failed) {
        let device = |uuid: &str| Visible {
            uuid: uuid.to_owned(),
            name: gpu.name.clone(),
            compute_capability: gpu.compute_capability,
            free: 0,
        };
        all.push((device(&gpu.uuid), true));
        all.extend(gpu.mig.iter().flatten().map(|mig| (device(&mig.uuid), false)));
    }
    all
}

/// The share of each GPU: as asked for, else as much as each has free, as llama.cpp does it.
fn shares(args: &Args, visible: &[Visible]) -> Vec<f64> {
    if args.split_mode == SplitMode::None {
        return (0..visible.len()).map(|device| f64::from(u8::from(device == args.main_gpu))).collect();
    }
    let asked: Vec<f64> =
        (0..visible.len()).map(|device| args.tensor_split.get(device).copied().unwrap_or(0.0)).collect();
    if asked.iter().sum::<f64>() > 0.0 { asked } else { visible.iter().map(|gpu| mib(gpu.free)).collect() }
}

/// Every byte is on some GPU: the last one with a share has what rounding leaves.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shares are rough"
)]
fn spread(bytes: u64, shares: &[f64]) -> Vec<u64> {
    let sum: f64 = shares.iter().sum();
    let last = shares.iter().rposition(|share| *share > 0.0).unwrap_or(0);
    let mut left = bytes;
    let mut parts: Vec<u64> = Vec::with_capacity(shares.len());
    for (device, share) in shares.iter().enumerate() {
        let part = if device == last { left } else { ((bytes as f64 * share / sum) as u64).min(left) };
        left -= part;
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn every_byte_is_somewhere() {
        assert_eq!(spread(100, &[2.0, 1.0]), [66, 34]);
        assert_eq!(spread(100, &[0.0, 1.0, 0.0]), [0, 100, 0]);
        assert_eq!(spread(7, &[1.0, 0.0, 1.0]), [3, 0, 4]);
        assert_eq!(spread(7, &[0.0]), [7]);
    }
}
