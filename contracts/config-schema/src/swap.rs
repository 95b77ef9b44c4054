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
    /// Space in the data directory, in MiB and for all pools together, for what engines hold of sessions (their KV) while their
    /// models are unloaded; 0 keeps nothing. Of llama.cpp alone, and not of strict pools, which have no prompt cache. With the
    /// latest sessions first; a session whose KV was not kept costs its prompt again.
    #[schemars(range(max = 1_048_576))]
    pub kv_cache_mb: u64,
}

impl Default for Swap {
    fn default() -> Self {
        Self { age_limit_ms: 120_000, vram_reserve_mb: 256, kv_cache_mb: 2048 }
    }
}

impl Swap {
    /// Most that `kv_cache_mb` may be.
    pub const KV_CACHE_MB_MAX: u64 = 1 << 20;

    /// Space for what engines hold of sessions while they are unloaded, in bytes.
    #[must_use]
    pub const fn kv_cache_bytes(&self) -> u64 {
        self.kv_cache_mb.saturating_mul(1 << 20)
    }

    /// Memory of each GPU that is left to other programs, in bytes.
    #[must_use]
    pub const fn vram_reserve_bytes(&self) -> u64 {
        self.vram_reserve_mb.saturating_mul(1 << 20)
    }
}
