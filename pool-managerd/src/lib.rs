//! The engines of a host: the GPUs they run on, and how they are brought up, kept up and let go.
//!
//! A library that `orchestratord` embeds. It never decides where a task goes.

pub mod devices;
pub mod failure;
pub mod machine;
pub mod pool;
pub mod registry;
