//! The daemon as a black box: the real binary, over HTTP, in front of the simulated engine's real process.

mod admission;
mod auth;
mod cancel;
mod contract;
mod faults;
mod harness;
mod real_engine;
mod sessions;
mod shutdown;
mod start;
mod stream;
