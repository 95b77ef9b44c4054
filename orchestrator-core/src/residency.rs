//! Which models are in memory: what is loaded, what has to go for it, and who waits how long.
//!
//! A [`Ledger`] keeps the memory of each device: what was measured, less what was promised and is not taken yet. [`plan`] looks at
//! the pools (*tenants* of that memory) and says what to do next. Both are pure: readings and time come in as values, and the
//! same story gives the same plan. The daemon carries the steps out and tells what came of them.
//!
//! The rules, in the order in which they count:
//! 1. No more is promised than there is, whatever other programs do within their reserve.
//! 2. A pool with running tasks is never evicted. It may be *fenced*: it starts no more tasks, so that its running ones end.
//! 3. Nobody waits longer than the age limit while that can be helped.
//! 4. Interactive tasks come before batch tasks.
//! 5. Tasks of a model that is loaded run before another is loaded in its place.
//! 6. Who has to go is who was not used for long, for what it costs to load it again.

mod ledger;
mod outlook;
mod plan;
mod tenant;
mod turns;
mod victims;

#[cfg(test)]
mod tests;

pub use ledger::{Ledger, MEMORY_BACK_MS, Part};
pub use plan::{Limits, Plan, Step, plan};
pub use tenant::{Stage, Tenant, Waiters};
