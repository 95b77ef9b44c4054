//! The engines of a host: the GPUs they run on, and how they are brought up, kept up and let go.
//!
//! A library that `orchestratord` embeds. It never decides where a task goes.
//!
//! A [`pool`] is a [`machine`] that decides and a driver that carries out; what is known of all pools is in the [`registry`].
//! Engines: [`process`] spawns them through a [`guard`], so that none is ever left behind; [`orphans`] ends what an earlier
//! life has left all the same; [`logs`] keeps what they say; [`diagnose`] tells from that, and from how they ended, what went
//! wrong. The [`doctor`] looks at all of it before anything is started.

pub mod adapter;
pub mod devices;
pub mod diagnose;
pub mod doctor;
pub mod failure;
pub mod guard;
pub mod logs;
pub mod machine;
pub mod manager;
pub mod orphans;
pub mod pool;
mod proc;
pub mod process;
pub mod protocol;
pub mod registry;
pub mod selftest;
pub mod staging;
pub mod startup;
pub mod worker;
pub mod workshop;
