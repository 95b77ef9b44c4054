//! Making documents and looking for files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api_types::{Artifact, ArtifactKind};
use artifact_store::{ArtifactStore, Entry, Key, Limits, Query};
use serde_json::{Value, json};

pub(crate) fn artifact(kind: ArtifactKind, text: &str) -> Artifact {
    let Value::Object(content) = json!({"text": text}) else { unreachable!("it is an object") };
    Artifact { kind, content, tags: Vec::new(), parent: None, metadata: BTreeMap::new() }
}

pub(crate) fn other(text: &str) -> Artifact {
    artifact(ArtifactKind::Other, text)
}

pub(crate) fn tagged(text: &str, tags: &[&str]) -> Artifact {
    Artifact { tags: tags.iter().map(ToString::to_string).collect(), ..other(text) }
}

pub(crate) fn child(text: &str, parent: &Entry) -> Artifact {
    Artifact { parent: Some(parent.key.to_string()), ..other(text) }
}

pub(crate) fn open(dir: &Path) -> ArtifactStore {
    ArtifactStore::open(dir, Limits::default(), 1_000_000).expect("it opens")
}

pub(crate) fn page(limit: usize) -> Query {
    Query { limit, ..Query::default() }
}

pub(crate) fn keys(store: &ArtifactStore, query: &Query) -> Vec<Key> {
    store.list(query).expect("it is listed").entries.into_iter().map(|entry| entry.key).collect()
}

/// Where a document lies.
pub(crate) fn place(dir: &Path, key: Key) -> PathBuf {
    let name = key.to_string();
    dir.join("sha256").join(&name[..2]).join(name + ".json")
}

/// Every file below a directory.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
