//! The file `state.db`: the journal of accepted batch tasks and the history of ended tasks (ORCH-3002-G, LO-PLAT-02).
//!
//! The journal makes a promise survive: a batch task whose [`StateDb::accept`] is confirmed is there after a SIGKILL
//! and after a power loss, and comes back in [`Opened::pending`] until [`StateDb::finish`] has put it into the history.
//! All writes go through one thread, which commits whatever has queued up in one transaction, so that the price of a
//! safe write is shared by all who wait for it. Reads have connections and threads of their own and never hold up a
//! write.
//!
//! A file that is not understood completely is refused before anything is written to it ([`OpenError`]).
//!
//! Not for: deciding anything about tasks, and reading the wall clock; what a journal entry means is the daemon's
//! business. Entries hold prompts: they appear in no log line, no error and no `Debug` output of this crate (LO-ERR-01).

mod db;
mod error;
mod file;
mod query;
mod queue;
mod reader;
mod snapshot;
mod store;
mod task;
mod writer;

#[cfg(test)]
mod tests;

pub use db::{Opened, Retention, StateDb};
pub use error::{OpenError, ReadError, WriteError};
pub use snapshot::{SnapshotError, snapshot};
pub use task::{AcceptedTask, EndedTask, StoredTask, TaskQuery};
pub use writer::Receipt;
