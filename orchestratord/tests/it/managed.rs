//! Pools whose engines the daemon runs itself: real processes, on GPUs that are simulated.

mod bench;
mod containers;
mod elsewhere;
mod history;
mod matrix;
mod model;
mod readiness;
mod reload;
mod routes;
mod swap;
