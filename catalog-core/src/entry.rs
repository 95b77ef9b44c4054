//! What the catalog remembers of a model (LO-CAT-04).

use std::path::{Path, PathBuf};

use api_types::{ModelFacts, ModelId, ModelLifecycle, ModelSignature, Sbom, TrustPolicy, Verification};
use serde::{Deserialize, Serialize};

use crate::Digest;

/// A model that is known; its files need not be here. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CatalogEntry {
    /// The normalised reference, see [`ModelRef::id`](crate::ModelRef::id).
    pub id: ModelId,
    /// Its file or folder; `None` while it is not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_path: Option<PathBuf>,
    /// Whether tasks may use it.
    pub lifecycle: ModelLifecycle,
    /// When pools that serve it stop, after it was retired with a deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retire_at_ms: Option<i64>,
    /// What it must be. Of several files it is the digest of their [manifest](CatalogEntry::manifest_digest).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// When its files were last compared with the digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified_ms: Option<i64>,
    /// What was found then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// When it was registered.
    pub created_ms: i64,
    /// Where it came from, without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_url: Option<String>,
    /// Free labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Its files, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<StoredFile>,
    /// Signatures over its digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<ModelSignature>,
    /// Its bill of materials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbom: Option<Sbom>,
    /// The trust its owner asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_policy: Option<TrustPolicy>,
    /// What its files say about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<ModelFacts>,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Its path below the model's folder, with `/`. Where the model is one file, or one file stands for all its parts, the
    /// folder is the one that file is in.
    pub name: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its digest.
    pub digest: Digest,
}

/// A model that is here (ORCH-3700).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedModel {
    /// Its id.
    pub id: ModelId,
    /// Its file or folder.
    pub local_path: PathBuf,
}

impl CatalogEntry {
    /// An active entry of which nothing but its id is known.
    #[must_use]
    pub fn new(id: ModelId, created_ms: i64) -> Self {
        Self {
            id,
            local_path: None,
            lifecycle: ModelLifecycle::Active,
            retire_at_ms: None,
            digest: None,
            last_verified_ms: None,
            verification: None,
            created_ms,
            source_url: None,
            tags: Vec::new(),
            files: Vec::new(),
            signatures: Vec::new(),
            sbom: None,
            trust_policy: None,
            facts: None,
        }
    }

    /// Bytes of its files; `None` while none are known.
    #[must_use]
    pub fn size_bytes(&self) -> Option<u64> {
        (!self.files.is_empty()).then(|| self.files.iter().map(|file| file.size_bytes).sum())
    }

    /// Its files with their full paths; none while it is not here.
    pub fn file_paths(&self) -> impl Iterator<Item = (PathBuf, &StoredFile)> {
        let folder = self.local_path.as_deref().map(|path| self.folder(path));
        folder.into_iter().flat_map(|folder| self.files.iter().map(move |file| (folder.join(&file.name), file)))
    }

    /// The folder that the names of its files are below.
    fn folder<'a>(&self, local_path: &'a Path) -> &'a Path {
        let own = self.files.iter().find(|file| local_path.ends_with(&file.name) && !local_path.is_dir());
        let depth = own.map_or(0, |file| Path::new(&file.name).components().count());
        local_path.ancestors().nth(depth).unwrap_or(local_path)
    }

    /// Whether all of it is on this machine. Sizes and digests are not looked at.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.local_path.as_ref().is_some_and(|path| path.exists()) && self.file_paths().all(|(path, _)| path.exists())
    }

    /// Whether a path is one of its files. All files of a folder are, when it does not say which.
    pub(crate) fn has_file(&self, path: &Path) -> bool {
        let below = || self.files.is_empty() && self.local_path.as_ref().is_some_and(|folder| path.starts_with(folder));
        below() || self.local_path.as_deref() == Some(path) || self.file_paths().any(|(own, _)| own == path)
    }

    /// The digest of some files together: the file's own for one, else that of the lines `<64 hex>  <name>` in the order of
    /// names, as `sha256sum` prints them. `None` without files.
    #[must_use]
    pub fn manifest_digest(files: &[StoredFile]) -> Option<Digest> {
        match files {
            [] => None,
            [file] => Some(file.digest.clone()),
            files => {
                let mut lines: Vec<_> =
                    files.iter().map(|file| (&file.name, format!("{}  {}\n", file.digest.hex(), file.name))).collect();
                lines.sort();
                Some(Digest::of(lines.into_iter().map(|(_, line)| line).collect::<String>().as_bytes()))
            }
        }
    }
}
