//! The client against a scripted server: what goes over the wire, and what comes of each kind of answer.

mod calls;
mod contract;
mod server;
mod streams;
