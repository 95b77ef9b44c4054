//! Holds the bound adapters and routes calls to them: submission, cancellation, and facts about engines from a short-lived
//! cache.
//!
//! [`AdapterHost`] is the only way from the daemon to an engine. It knows which adapter serves which replica and which task
//! runs where; it does not know queues, placement or readers. It never picks another replica: it repeats a submission that
//! failed for a passing reason, and refuses what an engine's breaker does not let through.
//!
//! What it promises about cancellation:
//! - a [`HostedStream`] hands on no event once [`AdapterHost::cancel`] has returned, nor in a call that begins after the
//!   task's token fired;
//! - the adapter's stream is dropped at once, which is what makes an engine notice, and [`adapter_api::WorkerAdapter::cancel`]
//!   is called for engines that do not;
//! - the caller sees [`HostError::Canceled`], which no engine failure looks like;
//! - [`AdapterHost::settled`] tells when the engine has noticed.

mod binding;
mod breaker;
mod cache;
mod error;
mod host;
mod narrate;
mod registry;
mod settle;
mod stream;
mod task;

pub use binding::{CallPolicy, CallReport};
pub use breaker::{BreakerPolicy, BreakerState};
pub use cache::Observed;
pub use error::HostError;
pub use host::{AdapterHost, CancelOutcome, HostConfig};
pub use stream::HostedStream;
