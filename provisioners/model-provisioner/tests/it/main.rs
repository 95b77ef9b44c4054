//! The sources and the downloader against servers on loopback.

mod downloads;
mod hub;
mod origin;
mod policy;
mod provisioning;
mod support;
