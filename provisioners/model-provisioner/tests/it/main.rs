//! The sources and the downloader against servers on loopback.

mod downloads;
mod hub;
mod oci;
mod origin;
mod policy;
mod s3;
mod secrets;
mod servers;
mod support;
