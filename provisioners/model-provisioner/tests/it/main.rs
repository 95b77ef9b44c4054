//! Models fetched from servers.

mod fetching;
mod oci;
mod s3;
mod servers;
