//! Documents as they are kept and found.

use api_types::{Artifact, ArtifactKind};
use bytes::Bytes;

use crate::canonical::canonical_json;
use crate::key::Key;

/// What the index knows of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is kept under.
    pub key: Key,
    /// What it holds.
    pub kind: ArtifactKind,
    /// When it was first kept, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// Length of its canonical JSON.
    pub bytes: u64,
    /// Free labels.
    pub tags: Vec<String>,
    /// What it was made from.
    pub parent: Option<Key>,
}

/// A document that was read and is what its key says.
#[derive(Clone, Debug)]
pub struct Document {
    /// What the index knows of it.
    pub entry: Entry,
    /// Its canonical JSON.
    pub json: Bytes,
}

/// Which documents to list. Filters add up.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Only of this kind.
    pub kind: Option<ArtifactKind>,
    /// Only with this tag.
    pub tag: Option<String>,
    /// Only made from this one.
    pub parent: Option<Key>,
    /// Only those that come after this one of an earlier page.
    pub before: Option<i64>,
    /// Most entries.
    pub limit: usize,
}

/// One page, newest first.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// [`Query::before`] of the next page; `None` on the last.
    pub next: Option<i64>,
}

/// Where a document comes from, and what came from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// Those it comes from, its parent first; it ends where one is not kept any more.
    pub ancestors: Vec<Key>,
    /// Those made from it, oldest first, up to the limit asked for.
    pub children: Vec<Key>,
}

/// A document on its way into the store.
pub(crate) struct Draft {
    pub(crate) key: Key,
    pub(crate) json: Bytes,
    pub(crate) kind: ArtifactKind,
    pub(crate) tags: Vec<String>,
    pub(crate) parent: Option<Key>,
}

impl Draft {
    /// A parent that is no key is left out: it can name nothing.
    pub(crate) fn of(artifact: Artifact) -> serde_json::Result<Self> {
        let json = canonical_json(&artifact)?;
        let parent = artifact.parent.and_then(|parent| parent.parse().ok());
        Ok(Self { key: Key::of(&json), json: json.into(), kind: artifact.kind, tags: artifact.tags, parent })
    }

    /// What was read from a file, if it is an artifact.
    pub(crate) fn read(key: Key, json: Vec<u8>) -> serde_json::Result<Self> {
        let artifact: Artifact = serde_json::from_slice(&json)?;
        let parent = artifact.parent.and_then(|parent| parent.parse().ok());
        Ok(Self { key, json: json.into(), kind: artifact.kind, tags: artifact.tags, parent })
    }

    pub(crate) fn entry(self, created_ms: i64) -> Entry {
        Entry {
            key: self.key,
            kind: self.kind,
            created_ms,
            bytes: self.json.len() as u64,
            tags: self.tags,
            parent: self.parent,
        }
    }
}

impl Document {
    /// The artifact.
    ///
    /// # Errors
    /// When a newer version of this program wrote something that this one does not know.
    pub fn artifact(&self) -> serde_json::Result<Artifact> {
        serde_json::from_slice(&self.json)
    }
}
