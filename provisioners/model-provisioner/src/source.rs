//! The seam between the schemes and the downloader.

use async_trait::async_trait;
use catalog_core::{Digest, FetchError, ModelRef};

use crate::{Request, Web};

/// One scheme of model references.
#[async_trait]
pub trait Source: Send + Sync {
    /// Finds out which files a reference means. Asks for small documents only: lists and manifests.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn list(&self, model: &ModelRef, web: &Web) -> Result<Listing, FetchError>;
}

/// The files a reference means.
#[derive(Debug)]
pub struct Listing {
    /// The files, by name.
    pub files: Vec<RemoteFile>,
    /// Whether the model is the one file, and not a folder of files.
    pub single: bool,
    /// Where it comes from, without credentials.
    pub source_url: String,
}

/// One file to be fetched.
#[derive(Debug)]
pub struct RemoteFile {
    /// Its path below the model's folder, checked to be a plain one.
    pub name: String,
    /// How to ask for it.
    pub request: Request,
    /// Its size in bytes, when the source tells before.
    pub size: Option<u64>,
    /// What it must be, when the source tells before.
    pub digest: Option<Digest>,
}
