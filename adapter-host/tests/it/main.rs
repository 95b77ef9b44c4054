//! The host over simulated engines.

mod breaker;
mod facts;
mod narration;
mod retries;
mod settling;
mod streams;
mod support;
