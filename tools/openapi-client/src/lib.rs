//! Typed client of the orchestrator's HTTP interface, for the command line, tests and programs of ours.
//!
//! One method per documented operation. Those with a plain answer are generated from the contract (`generated.rs`); the
//! streams, the downloads and the readiness probe are written by hand. Nothing here decides for its caller: a refusal that says "try
//! later" is returned with its wait, and a stream that was cut is reopened by asking with the last id seen. Only the
//! transport is retried, and only for calls that may be sent twice.

mod call;
mod config;
mod download;
mod error;
mod events;
mod feed;
#[rustfmt::skip]
mod generated;
mod probe;
mod stream;

pub use auth_min::{BearerToken, Fingerprint, TokenError};
pub use call::Client;
pub use config::{ClientConfig, Server, ServerError};
pub use download::Download;
pub use error::{ApiRefusal, AuthRefusal, ClientError};
pub use feed::{Feed, FeedFrame};
pub use stream::{Budgets, Event, Frame, KeptStreamError, TaskStream, kept_events};

/// Names of the operations this client has a method for, as the contract spells them.
pub fn operations() -> impl Iterator<Item = &'static str> {
    let written = [stream::OPERATIONS, feed::OPERATIONS, download::OPERATIONS, probe::OPERATIONS];
    generated::OPERATIONS.iter().chain(written.into_iter().flatten()).copied()
}
