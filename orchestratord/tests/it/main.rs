//! The daemon as a black box: the real binary, over HTTP, in front of the simulated engine's real process.

mod admission;
mod allocations;
mod artifacts;
mod auth;
mod breaker;
mod budgets;
mod cancel;
mod contract;
mod deadline;
mod faults;
mod harness;
mod history;
mod journal;
mod liveness;
mod placement;
mod queue;
mod real_engine;
mod relay;
mod replicas;
mod sessions;
mod shutdown;
mod start;
mod stream;
mod transport;
