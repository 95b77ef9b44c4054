//! Structured log events with a sentence for people.
//!
//! [`narrate`] writes one `tracing` event with the fields every component shares and a short sentence in `human`; ordinary
//! `tracing` macros go the same way and look the same. [`init`] sets up the one output: JSON lines, or the same for eyes.
//! Secrets are masked on the way out ([`redact`]), so no caller has to think of it. [`capture`] lets tests read what was
//! said.
//!
//! A daemon that spends about 50 µs on a task cannot spend half of that on its log lines. So an event is formatted into
//! reused thread-local buffers and copied into a bounded shared one, which a single thread empties in batches; a caller never
//! waits for the terminal or the disk. When the buffer is full, lines are dropped and counted, and the count is logged.
//!
//! Not for: metrics, tracing export, log files that rotate (the service manager does that), or anything per token
//! (LO-OBS-03).

mod capture;
mod clock;
mod init;
mod layer;
mod narration;
mod record;
mod redact;
mod render;
mod sink;

#[cfg(test)]
mod tests;

pub use capture::{Capture, Captured, capture, capture_layer};
pub use clock::time_stamp;
pub use init::{Format, Guard, InitError, LogConfig, Output, init};
pub use layer::LineLayer;
pub use narration::{Actor, Narration, narrate};
pub use redact::{REDACTED, redact};
pub use sink::{Limits, Sink};
