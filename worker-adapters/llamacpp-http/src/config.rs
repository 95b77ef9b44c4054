//! How one llama.cpp server is reached.

use std::sync::Arc;
use std::time::Duration;

use http_util::stream::TlsSetupError;
use http_util::{ControlConfig, ControlError, Endpoint, Secret, StreamConfig};

/// Where the engine is and how long to wait for it.
#[derive(Clone, Debug)]
pub struct LlamaCppConfig {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Its `--api-key`, if it has one.
    pub api_key: Option<Secret>,
    /// Certificates to trust, in PEM form, instead of the system's.
    pub ca_pem: Option<Arc<[u8]>>,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Idle connections kept for streams, and as many for control calls. The server parks a thread for each.
    pub max_idle: usize,
}

/// Time limits of calls. Those of a running stream belong to whoever drives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A connection.
    pub connect: Duration,
    /// From submit to the response's head. The server holds it back until a slot is free.
    pub establish: Duration,
    /// A health probe.
    pub health: Duration,
    /// `/slots`, which waits behind a running prompt; without an answer the free slots are unknown.
    pub slots: Duration,
    /// Writing a slot to a file or reading it back: gigabytes with a long context. It waits until the slot is idle.
    pub slot_file: Duration,
    /// Any other control call.
    pub control: Duration,
    /// An embedding or rerank task: the server computes all of it before it answers.
    pub compute: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            establish: Duration::from_secs(30),
            health: Duration::from_secs(2),
            slots: Duration::from_millis(500),
            slot_file: Duration::from_secs(60),
            control: Duration::from_secs(5),
            compute: Duration::from_secs(600),
        }
    }
}

/// Why an adapter cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The client for control calls.
    #[error("the control client cannot be set up")]
    Control(#[from] ControlError),
    /// The client for streams.
    #[error("the stream client cannot be set up")]
    Stream(#[from] TlsSetupError),
}

impl LlamaCppConfig {
    /// The defaults towards `endpoint`.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, api_key: None, ca_pem: None, timeouts: Timeouts::default(), max_idle: 1 }
    }

    pub(crate) fn control(&self) -> ControlConfig {
        ControlConfig {
            connect_timeout: self.timeouts.connect,
            request_timeout: self.timeouts.control,
            max_idle: self.max_idle,
            api_key: self.api_key.clone(),
            ca_pem: self.ca_pem.clone(),
            ..ControlConfig::new(self.endpoint.clone())
        }
    }

    pub(crate) fn stream(&self) -> StreamConfig {
        StreamConfig {
            connect_timeout: self.timeouts.connect,
            establish_timeout: self.timeouts.establish,
            max_idle: self.max_idle,
            // The server sets TCP_NODELAY: measured, no token waits for an ACK.
            late_acks: true,
            api_key: self.api_key.clone(),
            ca_pem: self.ca_pem.clone(),
            ..StreamConfig::default()
        }
    }
}
