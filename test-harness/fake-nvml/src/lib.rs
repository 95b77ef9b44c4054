//! GPUs that are not there.
//!
//! The cdylib speaks NVML's C ABI, as far as pool-managerd uses it, over a [`State`] that lies in a file: tests rewrite it while
//! the library is in use. Simulated engines [`claim`](claims::claim) memory of these GPUs, and are refused what does not fit.
//!
//! Tests begin with a [`FakeNvml`], which makes the file, and a copy of the library beside it. The library finds its state through
//! the environment variable [`STATE_VAR`], or as `fake-nvml.json` in its own folder, so that tests in one process may have
//! different GPUs.
//!
//! It does not compute, and it proves nothing about a real driver but that its answers are understood.

mod abi;
mod bench;
pub mod claims;
mod memory;
mod state;

pub use bench::FakeNvml;
pub use claims::Refused;
pub use state::{Driver, Gpu, Mig, Process, STATE_FILE, STATE_VAR, State, StateError, XidEvent};
