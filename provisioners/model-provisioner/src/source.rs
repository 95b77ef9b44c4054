//! The seam between the schemes and the downloader.

use std::collections::HashSet;

use async_trait::async_trait;
use catalog_core::{Digest, FetchError, ModelRef};

use crate::outbound::Home;
use crate::web::{Gate, Request};

/// One scheme of model references.
#[async_trait]
pub trait Source: Send + Sync {
    /// Which hosts belong to a reference; the outbound policy asks.
    ///
    /// # Errors
    /// [`FetchError::Unsupported`] when it is a reference of another scheme, or settings are missing.
    fn home(&self, model: &ModelRef) -> Result<Home, FetchError>;

    /// Finds out which files a reference means. Asks for small documents only: lists and manifests.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn list(&self, model: &ModelRef, gate: &Gate) -> Result<Listing, FetchError>;

    /// How to ask for one of the listed files now; called before each attempt, since signatures and tokens expire.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn request(&self, _model: &ModelRef, file: &RemoteFile, _gate: &Gate) -> Result<Request, FetchError> {
        Ok(file.request.clone())
    }

    /// What to do about a 401 or 403, such as which environment variable to set.
    fn advice(&self) -> &'static str;
}

/// The files a reference means.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The files, by name.
    pub files: Vec<RemoteFile>,
    /// Whether the model is one file, or the first of the parts of a split one, that lie beside each other; else it is a folder.
    pub single: bool,
    /// Where it comes from, without credentials.
    pub source_url: String,
}

/// One file to be fetched.
#[derive(Clone, Debug)]
pub struct RemoteFile {
    /// Its path below the model's folder, with `/`. Made by [`plain_name`] when somebody else chose it.
    pub name: String,
    /// How to ask for it.
    pub request: Request,
    /// Its size in bytes, when the source tells before.
    pub size: Option<u64>,
    /// What it must be, when the source tells before.
    pub digest: Option<Digest>,
    /// What differs when the content does, such as an ETag or a Git object; for files without a digest.
    pub version: Option<String>,
}

/// Longest part of a name; what is appended to it while it is fetched must fit the 255 bytes of file systems.
const LONGEST_PART: usize = 240;

/// A path that a source chose, when it leads nowhere but below the model's folder.
///
/// # Errors
/// [`FetchError::Unsupported`] for absolute paths, empty parts, `.`, `..`, backslashes, control characters, parts that are too
/// long, and names that unfinished files have.
pub fn plain_name(name: &str) -> Result<String, FetchError> {
    let good = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.len() <= LONGEST_PART
            && !part.contains(|c: char| c == '\\' || c.is_control())
            && !part.ends_with(".part")
            && !part.ends_with(".part.json")
    };
    if name.split('/').all(good) {
        return Ok(name.to_owned());
    }
    Err(FetchError::Unsupported(format!(
        "the source names a file {name:?}, which is not a plain path; nothing was fetched"
    )))
}

/// Checks that no two names are the same, and none is a folder of another.
///
/// # Errors
/// [`FetchError::Unsupported`] naming the one.
pub(crate) fn distinct_names(files: &[RemoteFile]) -> Result<(), FetchError> {
    let mut names = HashSet::new();
    let twice = |name: &str| {
        FetchError::Unsupported(format!(
            "the source has {name:?} twice, or as a file and a folder; nothing was fetched"
        ))
    };
    for file in files {
        if !names.insert(file.name.as_str()) {
            return Err(twice(&file.name));
        }
    }
    for file in files {
        let mut folders = file.name.match_indices('/').map(|(at, _)| &file.name[..at]);
        if let Some(folder) = folders.find(|folder| names.contains(folder)) {
            return Err(twice(folder));
        }
    }
    Ok(())
}
