//! Which files are here whole: one small record each, in `.fetched` of the models' folder, so that a file that was verified
//! when it came need not be read again to be known. All calls block.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use catalog_core::{Digest, StoredFile};
use serde::{Deserialize, Serialize};

/// The folder of the records.
const FOLDER: &str = ".fetched";

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    path: PathBuf,
    size_bytes: u64,
    modified_ns: u128,
    digest: Digest,
    version: Option<String>,
}

/// What a file should be, as far as anybody said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) size: Option<u64>,
    pub(crate) digest: Option<&'a Digest>,
    pub(crate) version: Option<&'a str>,
}

/// The records of one models' folder.
#[derive(Clone, Debug)]
pub(crate) struct Records(PathBuf);

impl Records {
    pub(crate) fn new(models_dir: &Path) -> Self {
        Self(models_dir.join(FOLDER))
    }

    fn place(&self, dest: &Path) -> PathBuf {
        let name = Digest::of(dest.as_os_str().as_encoded_bytes());
        self.0.join(format!("{}.json", &name.hex()[..32]))
    }

    /// Remembers a file that has been verified. Without its record it would be verified once more, so no failure matters.
    pub(crate) fn put(&self, dest: &Path, digest: &Digest, version: Option<&str>) {
        let Some((size_bytes, modified_ns)) = stamp(dest) else { return };
        let record = Record {
            path: dest.to_owned(),
            size_bytes,
            modified_ns,
            digest: digest.clone(),
            version: version.map(ToOwned::to_owned),
        };
        let place = self.place(dest);
        let fresh = place.with_extension("new");
        let written = fs::create_dir_all(&self.0)
            .and_then(|()| fs::write(&fresh, serde_json::to_vec(&record).unwrap_or_default()))
            .and_then(|()| fs::rename(&fresh, &place));
        if let Err(error) = written {
            tracing::warn!(%error, path = %place.display(), "record of a fetched file not written");
        }
    }

    /// The file, when it is here as wanted according to its record.
    pub(crate) fn find(&self, dest: &Path, wanted: Wanted<'_>) -> Option<StoredFile> {
        let record: Record = serde_json::from_slice(&fs::read(self.place(dest)).ok()?).ok()?;
        let is_unchanged = record.path == dest && stamp(dest)? == (record.size_bytes, record.modified_ns);
        let is_wanted = match (wanted.digest, wanted.version) {
            (Some(digest), _) => *digest == record.digest,
            (None, Some(version)) => record.version.as_deref() == Some(version),
            (None, None) => false,
        };
        let same_size = wanted.size.is_none_or(|size| size == record.size_bytes);
        (is_unchanged && is_wanted && same_size).then_some(StoredFile {
            name: wanted.name.to_owned(),
            size_bytes: record.size_bytes,
            digest: record.digest,
        })
    }
}

fn stamp(path: &Path) -> Option<(u64, u128)> {
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let modified = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some((found.len(), modified.as_nanos()))
}
