//! Makes a model present and verified on this machine.
//!
//! A [`Source`] finds out which files a reference means and how each is asked for; one downloader brings them, and one gate
//! ([`Web`]) lets requests out: every hop of every request passes the outbound policy there. Nothing is installed, no process
//! is started, and credentials come from the environment and go nowhere else.

pub mod configured;

mod disk;
mod download;
mod environment;
mod fetcher;
mod flight;
mod hf;
mod https;
mod oci;
mod outbound;
mod part;
mod peek;
mod provisioner;
mod record;
mod s3;
mod source;
mod web;

pub use disk::{Disk, LocalDisk};
pub use environment::Environment;
pub use fetcher::{FetchSettings, Fetcher, Sources};
pub use hf::HfSource;
pub use https::HttpsSource;
pub use oci::Oci;
pub use outbound::{Errand, Home, OutboundPolicy, Reach, is_public};
pub use peek::{Peek, Peeked};
pub use provisioner::{ModelProvisioner, ProvisionError, Provisioned, UNVERIFIED};
pub use s3::S3;
pub use source::{Listing, RemoteFile, Source, plain_name};
pub use web::{Document, Gate, Range, Request, Web, WebSettings, shown};
