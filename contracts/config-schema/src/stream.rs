//! `[stream]`: what clients get while a task runs, and how long it waits for them.

use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[stream]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Stream {
    /// Frames a reader may lag behind before `metrics` and `narration` are dropped. Environment: ORCHD_SSE_CHANNEL_CAP.
    pub channel_cap: NonZeroUsize,
    /// Time in which tokens are gathered into one write, in milliseconds; 0 is off. Environment: ORCHD_SSE_MICROBATCH.
    #[schemars(range(max = 50))]
    pub microbatch_ms: u64,
    /// Gap between keep-alive comments, in milliseconds; 0 is off. Environment: ORCHD_SSE_HEARTBEAT_MS.
    pub heartbeat_ms: u64,
    /// Whether a vanished reader cancels its task. Environment: CANCEL_ON_DISCONNECT.
    pub cancel_on_disconnect: bool,
    /// Time a reader has to come back before that cancel, in milliseconds.
    pub disconnect_grace_ms: u64,
    /// Time within which somebody must open an interactive task's stream, in milliseconds; else it is canceled.
    pub attach_timeout_ms: u64,
    /// Time a finished task can be replayed from memory, in milliseconds.
    pub retain_ms: u64,
    /// Bytes of one stream kept in memory at most, about 64 for a token. Beyond it the engine is read only as fast as the
    /// foremost reader reads, and the stream can be resumed only from what is still kept.
    #[schemars(range(min = 65536))]
    pub max_bytes: usize,
    /// Smallest gap between `metrics` frames of one stream, in milliseconds.
    pub metrics_interval_ms: u64,
    /// Whether start, cancel and end send a `narration` frame. Environment: ORCHD_SSE_LOGS_ENABLED.
    pub narration: bool,
    /// Gap between periodic `narration` frames, in milliseconds; 0 is off. Environment: ORCHD_SSE_LOGS_PERIOD_MS.
    pub narration_period_ms: u64,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            channel_cap: NonZeroUsize::new(32).expect("32 is not zero"),
            microbatch_ms: 0,
            heartbeat_ms: 0,
            cancel_on_disconnect: true,
            disconnect_grace_ms: 0,
            attach_timeout_ms: 30_000,
            retain_ms: 600_000,
            max_bytes: 8 << 20,
            metrics_interval_ms: 1_000,
            narration: true,
            narration_period_ms: 0,
        }
    }
}

impl Stream {
    /// Longest `microbatch_ms`.
    pub const MICROBATCH_MAX_MS: u64 = 50;
    /// Smallest `max_bytes`.
    pub const MAX_BYTES_MIN: usize = 64 << 10;

    /// Time in which tokens are gathered into one write; `None` when off.
    #[must_use]
    pub fn microbatch(&self) -> Option<Duration> {
        on(self.microbatch_ms)
    }

    /// Gap between keep-alive comments; `None` when off.
    #[must_use]
    pub fn heartbeat(&self) -> Option<Duration> {
        on(self.heartbeat_ms)
    }

    /// Time a reader has to come back before its task is canceled.
    #[must_use]
    pub fn disconnect_grace(&self) -> Duration {
        Duration::from_millis(self.disconnect_grace_ms)
    }

    /// Time within which somebody must open an interactive task's stream.
    #[must_use]
    pub fn attach_timeout(&self) -> Duration {
        Duration::from_millis(self.attach_timeout_ms)
    }

    /// Time a finished task can be replayed from memory.
    #[must_use]
    pub fn retain(&self) -> Duration {
        Duration::from_millis(self.retain_ms)
    }

    /// Smallest gap between `metrics` frames of one stream.
    #[must_use]
    pub fn metrics_interval(&self) -> Duration {
        Duration::from_millis(self.metrics_interval_ms)
    }

    /// Gap between periodic `narration` frames; `None` when off.
    #[must_use]
    pub fn narration_period(&self) -> Option<Duration> {
        on(self.narration_period_ms)
    }
}

fn on(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}
