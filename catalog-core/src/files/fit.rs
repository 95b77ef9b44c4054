//! The memory a model takes on a device.
//!
//! The figures follow llama.cpp with what it does unless told otherwise: batches of 512 tokens, keys and values of 16 bits, one
//! cache for each slot, flash attention. Weights, keys and values come out exact; buffers are an estimate, and what CUDA takes
//! for itself is what others have measured.

use super::ModelShape;
use super::info::KV_BYTES;

/// Tokens that are computed at once (`--ubatch-size`).
const BATCH: u64 = 512;
/// Caches hold whole multiples of so many tokens (`GGML_PAD` in `llama_context` and `llama_kv_cache_iswa`).
const CELLS: u64 = 256;
/// Largest context that is looked at for models that do not name theirs.
const LONGEST: u64 = 1 << 20;
/// Bytes of a number that is computed with.
const FLOAT: u64 = 4;

/// Memory that CUDA takes on each device for each process, in bytes: its context with the kernels' code, cuBLAS, and memory that
/// kernels compute in and that is not planned for. A middle value: it depends on card, driver and build. Source: the column
/// "unaccounted" of llama.cpp's memory breakdown, 451 and 456 MiB on an RTX 4090 (`ggml-org/llama.cpp` pull request 15860), which is
/// what the device has less what is free and what llama.cpp has taken itself. llama.cpp's own `--fit` leaves 1024 MiB free for it
/// and for all else (`--fit-target`).
pub const CUDA_OVERHEAD: u64 = 450 << 20;

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Weights.
    pub weights_bytes: u64,
    /// Keys, values and states of all slots.
    pub kv_bytes: u64,
    /// Buffers the engine computes in, estimated. Each device that has a part of the model has its own.
    pub compute_bytes: u64,
    /// What CUDA takes beside the engine's own buffers, typically; on each device.
    pub overhead_bytes: u64,
}

impl Need {
    /// All of it, on one device.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.total_on(1)
    }

    /// All of it, when the layers are spread over so many devices: each has its part of weights, keys and values, and buffers
    /// and overhead of its own.
    #[must_use]
    pub const fn total_on(self, devices: u64) -> u64 {
        let each = self.compute_bytes.saturating_add(self.overhead_bytes);
        self.weights_bytes.saturating_add(self.kv_bytes).saturating_add(each.saturating_mul(devices))
    }
}

/// For how many tokens of a batch the engine has room for an output, which is as long as the vocabulary. Source: `ggml-org/llama.cpp`
/// pull request 23861, "limit max outputs of `llama_context`".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outputs {
    /// For one of each slot.
    #[default]
    EachSlot,
    /// For every one, as builds of llama.cpp did before that change.
    EachToken,
}

/// The oldest build that is known to have [`Outputs::EachSlot`]; 9294 is known not to have it.
const EACH_SLOT_SINCE: u32 = 9538;

impl Outputs {
    /// Those of the build that a tag of llama.cpp names, such as `b6891`. Whatever names no build counts as new.
    #[must_use]
    pub fn of_tag(tag: &str) -> Self {
        let number = tag.strip_prefix('b').map(|rest| rest.split_once('-').map_or(rest, |(number, _)| number));
        match number.and_then(|number| number.parse::<u32>().ok()) {
            Some(build) if build < EACH_SLOT_SINCE => Self::EachToken,
            _ => Self::EachSlot,
        }
    }
}

/// What a model takes with `slots` slots of `ctx` tokens each, in an engine of today.
#[must_use]
pub fn need(shape: &ModelShape, ctx: u32, slots: u32) -> Need {
    need_with(shape, ctx, slots, Outputs::default())
}

/// The same in an engine with such outputs.
#[must_use]
pub fn need_with(shape: &ModelShape, ctx: u32, slots: u32, outputs: Outputs) -> Need {
    let cells = u64::from(ctx.max(1)).next_multiple_of(CELLS);
    let window_cells = cells.min((shape.window + BATCH).next_multiple_of(CELLS));
    let slots = u64::from(slots.max(1));
    let kept = |layer: &super::LayerShape| {
        let cells = if layer.windowed { window_cells } else { cells };
        layer.kv.saturating_mul(KV_BYTES).saturating_mul(cells).saturating_add(layer.state_bytes)
    };
    let slot = shape.layers.iter().map(kept).fold(0, u64::saturating_add);
    Need {
        weights_bytes: shape.weights_bytes,
        kv_bytes: slot.saturating_mul(slots),
        compute_bytes: compute(shape, cells, window_cells, slots, outputs),
        overhead_bytes: CUDA_OVERHEAD,
    }
}

/// The widest moment of a batch: within the feed-forward layer, within attention, or at the output; beside it the masks of
/// attention at 16 bits.
fn compute(shape: &ModelShape, cells: u64, window_cells: u64, slots: u64, outputs: Outputs) -> u64 {
    // Residual, norm, input and its copy, and a dozen numbers of bookkeeping for each token.
    let stream = 5 * shape.embedding + 15;
    let kv = shape.layers.iter().map(|layer| layer.kv).max().unwrap_or(0);
    let feed_forward = 3 * shape.feed_forward;
    // What each used expert gives for a token, before and after its weight, and their sum (`build_moe_ffn` of llama.cpp).
    let experts = if shape.experts_used > 0 { (2 * shape.experts_used + 1) * shape.embedding } else { 0 };
    let attention = 2 * shape.queries + kv;
    let inside = BATCH * FLOAT * (stream + feed_forward.max(experts).max(attention));
    let output = match outputs {
        Outputs::EachSlot => (BATCH * FLOAT * stream).saturating_add(slots.saturating_mul(shape.vocabulary * FLOAT)),
        Outputs::EachToken => BATCH * FLOAT * (2 * shape.embedding + shape.vocabulary),
    };
    let windowed = shape.layers.iter().any(|layer| layer.windowed);
    let masks = (cells + if windowed { window_cells } else { 0 }) * BATCH * 2;
    inside.max(output).saturating_add(masks)
}

/// The largest context of one slot, in tokens, with which `slots` slots fit into `vram_bytes`; at most what the model was trained
/// for. `None` when not even the shortest fits.
#[must_use]
pub fn ctx_max(shape: &ModelShape, slots: u32, vram_bytes: u64) -> Option<u32> {
    let most = shape.ctx_train.unwrap_or(LONGEST).clamp(1, u64::from(u32::MAX) - CELLS) as u32;
    let fits = |ctx: u32| need(shape, ctx, slots).total() <= vram_bytes;
    if fits(most) {
        return Some(most);
    }
    // Between a count of cells that fits and one that does not.
    let (mut good, mut bad) = (0, most.div_ceil(CELLS as u32));
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if fits(middle * CELLS as u32) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    (good > 0).then_some(good * CELLS as u32)
}

/// Least video memory that runs the model at all: one slot with the shortest context.
#[must_use]
pub fn least_vram_bytes(shape: &ModelShape) -> u64 {
    need(shape, 1, 1).total()
}
