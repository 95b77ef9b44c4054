//! The store as its callers see it, on the disk and in memory.

mod crash;
mod files;
mod model;
mod retention;
mod store;
mod support;
