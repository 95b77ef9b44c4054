//! Engines as real processes, and what is left of them.

mod logs;
mod nothing_left;
mod orphans;
mod processes;
mod support;
