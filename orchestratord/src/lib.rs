//! The orchestrator daemon: admits tasks over HTTP, hands them to engines, streams what comes back.
//!
//! It wires the other crates together and carries out what `orchestrator-core` decides; it takes no decision of its own and
//! knows no engine's wire format. The way of a task: [`http`] parses and authenticates, [`admission`] refuses or takes it,
//! [`app`] dispatches it, [`runner`] follows the engine, [`transcript`] holds the stream, [`task`] is where it ends.

pub mod admission;
pub mod alarms;
pub mod app;
pub mod artifacts;
pub mod backup;
pub mod clock;
pub mod daemon;
pub mod feed;
pub mod history;
pub mod http;
pub mod journal;
pub mod metrics;
pub mod models;
pub mod narrate;
pub mod page;
pub mod parking;
pub mod pools;
pub mod residency;
pub mod runner;
pub mod store;
pub mod task;
pub mod unsupported;
mod wire;
pub mod workers;
