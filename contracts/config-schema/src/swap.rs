//! `[swap]`: how models that are loaded on demand share the memory of GPUs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[swap]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Swap {
    /// Longest that a task waits because other models are loaded, in milliseconds, as far as that can be helped: tasks of a loaded
    /// model run before another is loaded, but not for longer than this.
    #[schemars(range(min = 1))]
    pub age_limit_ms: u64,
    /// Memory of each GPU that is left to other programs, such as a desktop, in MiB. What they use counts towards it.
    pub vram_reserve_mb: u64,
}

impl Default for Swap {
    fn default() -> Self {
        Self { age_limit_ms: 120_000, vram_reserve_mb: 256 }
    }
}

impl Swap {
    /// Memory of each GPU that is left to other programs, in bytes.
    #[must_use]
    pub const fn vram_reserve_bytes(&self) -> u64 {
        self.vram_reserve_mb.saturating_mul(1 << 20)
    }
}
