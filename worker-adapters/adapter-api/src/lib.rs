//! The seam between the orchestrator and an engine: one trait, its events, its errors.
//!
//! An adapter knows one engine's wire format and nothing else: no queues, no placement, no model files. Whoever drives it
//! owns the time limits; dropping a [`TokenStream`] is a cancel, and the adapter must make the engine notice.

mod error;
mod event;
mod job;
pub mod retry;
mod worker;

pub use error::WorkerError;
pub use event::{Finish, Progress, StreamState, TokenEvent, TokenStream, Usage, next_events};
pub use job::Job;
pub use worker::{SlotFile, SlotView, WorkerAdapter, WorkerHealth, WorkerProps};
