//! The daemon as a black box: the real binary, over HTTP, in front of the simulated engine's real process.

mod admission;
mod allocations;
mod auth;
mod backup;
mod breaker;
mod budgets;
mod cancel;
mod catalog;
mod contract;
mod deadline;
mod events;
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
