//! The catalog as its callers see it.

mod conformance;
mod delete;
mod engines;
mod fetch;
mod memory;
mod processes;
mod refusal;
mod support;
mod verify;
