//! The scheduler alone, driven through virtual time: thousands of tasks on unlike pools, with failures and cancels.
//!
//! It is for judging a change of policy or of an estimate: a [`Scenario`] and a seed give the same tasks whatever the
//! scheduler decides, every promise of the scheduler is checked after every step, and the [`Report`] says what came of it.
//! It is not for: engines, HTTP, or how fast the scheduler itself is. Engines are reduced to true speeds that the scheduler
//! has to find out; nothing here reads a clock.

pub mod scenario;

mod draw;
mod engine;
mod faults;
mod foresight;
mod load;
mod memory;

mod check;
mod fifo;
mod world;

pub mod report;

pub use check::Broken;
pub use report::Report;
pub use scenario::{SCENARIOS, Scenario};
pub use world::{Violation, run};
