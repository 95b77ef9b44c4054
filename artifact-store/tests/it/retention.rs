use std::path::Path;
use std::time::Duration;

use artifact_store::{ArtifactStore, Entry, Limits};

use crate::support::{child, files, keys, other, page, place};

const HOUR_MS: i64 = 3_600_000;

fn open(dir: &Path, limits: Limits, now_unix_ms: i64) -> ArtifactStore {
    ArtifactStore::open(dir, limits, now_unix_ms).expect("it opens")
}

fn hours(hours: u64) -> Limits {
    Limits { max_age: Some(Duration::from_secs(hours * 3600)), max_bytes: None }
}

fn put(store: &ArtifactStore, text: &str) -> Entry {
    store.put(other(text)).expect("it is kept")
}

/// What is too much goes, the oldest first and its file with it, but never the newest, however large.
#[test]
fn bytes_are_limited() {
    let dir = tempfile::tempdir().expect("a directory");
    let limits = Limits { max_age: None, max_bytes: Some(1000) };
    let store = open(dir.path(), limits, 0);
    let mut kept = Vec::new();
    for number in 0..20 {
        kept.insert(0, put(&store, &format!("{number:0100}")));
        assert!(store.usage().bytes <= 1000);
    }
    let fit = usize::try_from(1000 / kept[0].bytes).expect("few");
    let newest: Vec<_> = kept[..fit].iter().map(|entry| entry.key).collect();
    assert_eq!(keys(&store, &page(1000)), newest);
    assert_eq!(files(&dir.path().join("sha256")).len(), fit);
    let huge = put(&store, &"x".repeat(5000));
    assert_eq!(keys(&store, &page(1000)), [huge.key]);
    for number in 0..2000 {
        store.put_later(1, move || other(&format!("{number:0100}")));
    }
    store.close();
    drop(store);
    let store = open(dir.path(), limits, 0);
    store.close();
    assert_eq!(store.usage().documents, fit as u64, "the next start removes what is too much");
    assert_eq!(files(&dir.path().join("sha256")).len(), fit);
}

/// What is too old goes, unless something younger was made from it.
#[test]
fn age_is_limited() {
    let dir = tempfile::tempdir().expect("a directory");
    let (old, parent, grandparent) = {
        let store = open(dir.path(), hours(10), 0);
        let grandparent = put(&store, "grandparent");
        let parent = store.put(child("parent", &grandparent)).expect("it is kept");
        (put(&store, "old"), parent, grandparent)
    };
    let young = {
        let store = open(dir.path(), hours(10), 9 * HOUR_MS);
        store.put(child("young", &parent)).expect("it is kept").key
    };
    let store = open(dir.path(), hours(10), 12 * HOUR_MS);
    let newest = put(&store, "newest").key;
    assert_eq!(keys(&store, &page(10)), [newest, young, parent.key, grandparent.key]);
    assert!(!place(dir.path(), old.key).exists());
    drop(store);
    let store = open(dir.path(), hours(10), 20 * HOUR_MS);
    let last = put(&store, "last").key;
    put(&store, "and one more");
    assert_eq!(keys(&store, &page(10)).last(), Some(&newest), "a line goes from its young end");
    assert!(keys(&store, &page(10)).contains(&last));
}
