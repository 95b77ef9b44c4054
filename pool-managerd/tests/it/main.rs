//! GPUs that are not there, read through NVML's own interface; engines as real processes, and what is left of them.

mod claims;
mod discovery;
mod logs;
mod monitor;
mod nothing_left;
mod orphans;
mod processes;
mod support;
