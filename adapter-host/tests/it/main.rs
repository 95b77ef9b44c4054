//! The host over simulated engines.

mod facts;
mod narration;
mod streams;
mod support;
