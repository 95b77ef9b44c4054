//! The GPUs of a host, read through NVML's own interface from GPUs that are not there.

mod claims;
mod discovery;
mod monitor;
