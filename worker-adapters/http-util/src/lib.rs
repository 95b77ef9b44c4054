//! HTTP towards engines, shared by the adapters.
//!
//! [`stream`] is a small client for token streams, [`control`] a tuned library client for everything else; [`sse`] and
//! [`json_text`] decode without allocating; [`retry`], [`Secret`] and [`status`] hold the habits that all adapters share:
//! when to try again, what never to print, and how an engine's answer becomes a
//! [`WorkerError`](adapter_api::WorkerError). No engine's wire format is known here.

pub mod control;
pub mod endpoint;
pub mod json_text;
mod secret;
pub mod sse;
pub mod status;
pub mod stream;
#[cfg(test)]
mod test_tls;

pub use adapter_api::retry;
pub use control::{Control, ControlConfig, ControlError, install_crypto};
pub use endpoint::{Endpoint, EndpointError};
pub use secret::Secret;
pub use stream::{StreamClient, StreamConfig, StreamError, StreamRequest};
