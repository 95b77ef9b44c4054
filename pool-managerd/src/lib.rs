//! The GPUs of this host.
//!
//! A library so far: it finds out which devices there are, and watches them. It never decides where a model goes.

pub mod devices;
