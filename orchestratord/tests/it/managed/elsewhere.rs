//! Pools that another host runs: a `pool-managerd` of its own, here or in another network namespace.

mod house;
mod joining;
mod network;
mod operating;
mod restarts;
mod serving;
