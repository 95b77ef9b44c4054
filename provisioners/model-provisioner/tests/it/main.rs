//! Models fetched from servers.

mod downloads;
mod hub;
mod oci;
mod origin;
mod policy;
mod provisioning;
mod s3;
mod secrets;
mod servers;
mod support;
