//! Models fetched from servers.

mod downloads;
mod fetching;
mod hub;
mod oci;
mod origin;
mod policy;
mod provisioning;
mod s3;
mod servers;
mod support;
