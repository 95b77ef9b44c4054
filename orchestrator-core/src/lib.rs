//! The orchestrator's decisions on plain data: what is refused, what waits where, what runs next, and why.
//!
//! It is for: request checks, bounded queues, placement, sessions, estimates, the life of a task, and the scheduler that
//! ties them together. It is not for: talking to engines, HTTP, storage, or telling the time. There is no I/O, no clock,
//! no thread and no randomness here; time comes in as `now_ms`, a monotonic count of milliseconds, and equal inputs give
//! equal outputs (ORCH-3252, LO-PLC-01).

pub mod classes;
pub mod refusal;
pub mod task;

pub mod guard;
pub mod session;
pub mod throttle;

pub mod estimate;
pub mod policy;
pub mod queue;
pub mod residency;

pub mod scheduler;

pub use refusal::Refusal;
pub use scheduler::Scheduler;
