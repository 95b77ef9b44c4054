//! `mock-engine` as its clients see it: real processes over raw sockets, and the same simulation behind the adapter trait.

mod adapter;
mod cancel;
mod client;
mod faults;
mod foretold;
mod gpus;
mod loading;
mod program;
mod serving;
mod shapes;
