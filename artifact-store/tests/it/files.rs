use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use artifact_store::{ArtifactStore, Key, Limits, OpenError, ReadError};

use crate::support::{files, keys, open, other, page, place, tagged};

/// LO-ART-02: a document's file has its canonical JSON and nothing else, and only its owner may read it.
#[test]
fn a_file_is_named_by_its_digest() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().join("new/artifacts");
    let store = open(&dir);
    let entry = store.put(other("secret")).expect("it is kept");
    store.put_later(1, || other("another secret"));
    store.flush();
    let documents: Vec<_> = files(&dir.join("sha256"));
    assert_eq!(documents.len(), 2);
    assert!(documents.contains(&place(&dir, entry.key)));
    for path in &documents {
        let name = path.file_stem().expect("a name").to_str().expect("text");
        assert_eq!(Key::of(&fs::read(path).expect("it is read")).to_string(), name);
    }
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    files(&dir).iter().for_each(|file| assert_eq!(mode(file), 0o600, "{}", file.display()));
    for folder in [&dir, &dir.join("sha256"), &dir.join("tmp"), documents[0].parent().expect("a folder")] {
        assert_eq!(mode(folder), 0o700, "{}", folder.display());
    }
    assert_eq!(files(&dir.join("tmp")), [] as [&Path; 0]);
}

/// A file that is not what was written is not served: it is set aside, and the document can be kept anew.
#[test]
fn damage_is_noticed() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let [flipped, cut, gone] = ["flipped", "cut", "gone"].map(|text| store.put(other(text)).expect("it is kept").key);
    let path = place(dir.path(), flipped);
    let mut bytes = fs::read(&path).expect("it is read");
    bytes[20] ^= 1;
    fs::write(&path, &bytes).expect("it is written");
    fs::write(place(dir.path(), cut), "").expect("it is written");
    fs::remove_file(place(dir.path(), gone)).expect("it is removed");
    for key in [flipped, cut] {
        assert!(matches!(store.get(key), Err(ReadError::Damaged { .. })), "{key}");
    }
    assert!(matches!(store.get(gone), Err(ReadError::Lost { .. })));
    assert_eq!(fs::read(path.with_extension("json.damaged")).expect("it is kept aside"), bytes);
    for (key, text) in [(flipped, "flipped"), (cut, "cut"), (gone, "gone")] {
        assert!(store.get(key).expect("it is not kept any more").is_none());
        assert_eq!(store.put(other(text)).expect("it is kept").key, key);
        assert!(store.get(key).expect("it is read").is_some());
    }
    assert_eq!(store.usage().documents, 3);
}

/// An index that is lost is made again: the same documents in the same order, but for those that are damaged.
#[test]
fn a_lost_index_is_made_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let texts: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    let (before, damaged) = {
        let store = open(dir.path());
        let mut written = Vec::new();
        for text in &texts {
            written.push(store.put(tagged(text, &["mine"])).expect("it is kept"));
        }
        // Files that were written in the same moment have no order among them.
        for (age, entry) in written.iter().rev().enumerate() {
            let file = fs::File::options().write(true).open(place(dir.path(), entry.key)).expect("it is there");
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_000_000 - age as u64);
            file.set_modified(at).expect("its time is set");
        }
        (keys(&store, &page(100)), written[3].key)
    };
    fs::write(place(dir.path(), damaged), "{}").expect("it is written");
    fs::write(dir.path().join("sha256/README"), "not ours").expect("written");
    fs::write(dir.path().join("sha256").join(&damaged.to_string()[..2]).join("README"), "not ours").expect("written");
    for index in ["index.db", "index.db-wal"] {
        let _ = fs::remove_file(dir.path().join(index));
    }
    let store = open(dir.path());
    let expected: Vec<_> = before.into_iter().filter(|key| *key != damaged).collect();
    assert_eq!(keys(&store, &page(100)), expected);
    let mine = artifact_store::Query { tag: Some("mine".to_owned()), ..page(100) };
    assert_eq!(keys(&store, &mine), expected);
    let newest = store.list(&page(1)).expect("it is listed").entries.remove(0);
    assert_eq!(newest.created_ms, 1_000_000, "the time of its file");
    assert!(store.get(damaged).expect("it is not kept").is_none());
    assert!(place(dir.path(), damaged).with_extension("json.damaged").exists());
}

/// An index of another version or another program is left alone.
#[test]
fn an_unknown_index_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()));
    let path = dir.path().join("index.db");
    let sound = fs::read(&path).expect("it is read");
    for (offset, value) in [(60, 2_u32), (68, 0x6c6c_6f72)] {
        let mut bytes = sound.clone();
        bytes[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
        fs::write(&path, &bytes).expect("it is written");
        let refused = ArtifactStore::open(dir.path(), Limits::default(), 0);
        assert!(matches!(refused, Err(OpenError::Unknown { .. })), "{refused:?}");
        assert_eq!(fs::read(&path).expect("it is read"), bytes);
    }
    fs::write(&path, "no database").expect("it is written");
    let refused = ArtifactStore::open(dir.path(), Limits::default(), 0);
    assert!(matches!(refused, Err(OpenError::Index { .. })), "{refused:?}");
    fs::write(&path, sound).expect("it is written");
    let store = open(dir.path());
    let refused = ArtifactStore::open(dir.path(), Limits::default(), 0);
    assert!(matches!(refused, Err(OpenError::InUse { .. })), "{refused:?}");
    drop(store);
    open(dir.path());
}
