use std::fs;

use artifact_store::{Key, canonical_json};

use crate::support::{files, keys, open, other, page, place};

/// What a crash leaves in `tmp` is taken up when it is whole, entered or not, and deleted when it is not.
#[test]
fn leftovers_are_taken_up_or_deleted() {
    let dir = tempfile::tempdir().expect("a directory");
    let entered = open(dir.path()).put(other("entered, and not in its place yet")).expect("it is kept").key;
    let tmp = dir.path().join("tmp");
    fs::rename(place(dir.path(), entered), tmp.join(format!("{entered}.0"))).expect("it is moved");
    let json = canonical_json(&other("written, and not entered yet")).expect("JSON");
    let written = Key::of(&json);
    fs::write(tmp.join(format!("{written}.7")), &json).expect("it is written");
    fs::write(tmp.join(format!("{written}.8")), &json).expect("it is written");
    let half = Key::of(b"the whole");
    fs::write(tmp.join(format!("{half}.1")), "the wh").expect("it is written");
    fs::write(tmp.join("something else"), "?").expect("it is written");
    let no_artifact = Key::of(b"{}");
    fs::write(tmp.join(format!("{no_artifact}.1")), "{}").expect("it is written");
    let store = open(dir.path());
    assert_eq!(keys(&store, &page(10)), [written, entered]);
    for key in [entered, written] {
        assert!(store.get(key).expect("it is read").is_some());
    }
    assert_eq!(store.usage().documents, 2);
    assert_eq!(files(&tmp).len(), 0);
}
