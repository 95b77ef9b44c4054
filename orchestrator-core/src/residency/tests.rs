//! Stories of memory.

mod ledger;
mod stories;
