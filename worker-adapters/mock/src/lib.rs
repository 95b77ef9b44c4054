//! A simulated engine with two faces: [`Mock`], an adapter in the same process, and `mock-engine`, a process that speaks
//! llama-server's HTTP ([`server`]).
//!
//! Both faces drive one [`Simulation`]: slots, load time, prefill and decode speed, text that depends on prompt and seed
//! alone, honest token counts, and [`Faults`] on demand. It is for tests and benchmarks; nothing it says is inference, and
//! the daemon reaches it only where the operator names the engine `mock` or attaches the process by its address.
//!
//! It does not copy what an engine computes, only what it shows: wire shapes, timing, cancellation, ways to fail.

mod adapter;
mod ask;
mod config;
mod embedding;
mod faults;
mod generation;
mod simulation;
mod slot_file;
mod slots;
mod stop;
mod text;

pub mod process;
pub mod server;

pub use adapter::Mock;
pub use ask::{Ask, Delivery, render_chat};
pub use config::{Config, OutputLength, SeedBehaviour};
pub use faults::{Death, Ending, Fault, FaultKind, Faults, MidStream, OddEnd, Route};
pub use generation::{Finished, Generation, Prefill, Step, StopType, Text, Token};
pub use simulation::{Condition, Refusal, Simulation, Stats};
pub use slots::SlotView;
pub use text::{Piece, tokenize};
