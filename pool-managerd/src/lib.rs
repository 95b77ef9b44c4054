//! The GPUs of this host, and the engines that run on them.
//!
//! A library so far: it finds out which devices there are, and runs engines as processes. It never decides where a model goes.
//!
//! Engines: [`process`] spawns them through a [`guard`], so that none is ever left behind; [`orphans`] ends what an earlier
//! life has left all the same; [`logs`] keeps what they say; [`diagnose`] tells from that, and from how they ended, what went
//! wrong.

pub mod devices;
pub mod diagnose;
pub mod guard;
pub mod logs;
pub mod orphans;
mod proc;
pub mod process;
