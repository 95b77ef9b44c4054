//! What goes with an entry, and what stays (LO-CAT-05).

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use catalog_core::{CatalogEntry, CatalogError};

use crate::support::{ALL, Kind, Place, entry, file, id, ids, write};

fn each(check: impl Fn(&Place)) {
    for kind in Kind::ALL {
        eprintln!("{kind:?}");
        check(&Place::new(kind));
    }
}

/// LO-CAT-05, ORCH-3263: entry, files and emptied folders go, the models' folder stays, and a missing id is no error.
#[test]
fn files_and_empty_folders_go_with_the_entry() {
    each(|place| {
        let store = place.open();
        store.put(place.stored("hf:a/b/c.gguf", "hf/a/b/c.gguf", &["c.gguf"])).expect("it is written");
        store.put(place.stored("hf:a/d", "hf/a/d", &["e.safetensors", "sub/f.safetensors"])).expect("it is written");
        assert!(store.delete(&id("hf:a/b/c.gguf")).expect("it is removed"));
        assert!(!place.model("hf/a/b").exists());
        assert!(place.model("hf/a/d/sub/f.safetensors").exists());
        assert!(store.delete(&id("hf:a/d")).expect("it is removed"));
        assert!(!place.model("hf").exists() && place.model("").exists());
        assert!(ids(store.as_ref(), &ALL).is_empty());
        assert!(!store.delete(&id("hf:a/d")).expect("it is read"));
    });
}

/// LO-CAT-05: files that another entry has too stay, whichever of the two goes first.
#[test]
fn shared_files_stay() {
    each(|place| {
        let store = place.open();
        let folder = place.stored("hf:a/b", "hf/a/b", &["c.gguf", "d.gguf"]);
        let one = place.stored("hf:a/b/c.gguf", "hf/a/b/c.gguf", &["c.gguf"]);
        let put = |entry: &CatalogEntry| store.put(entry.clone()).expect("it is written");
        let left = |name: &str| place.model(name).exists();
        put(&folder);
        put(&one);
        assert!(store.delete(&folder.id).expect("it is removed"));
        assert!(left("hf/a/b/c.gguf") && !left("hf/a/b/d.gguf"));
        assert!(store.delete(&one.id).expect("it is removed"));
        assert!(!left("hf"));

        put(&place.stored("hf:a/b", "hf/a/b", &["c.gguf", "d.gguf"]));
        put(&one);
        assert!(store.delete(&one.id).expect("it is removed"));
        assert!(left("hf/a/b/c.gguf"), "the folder's entry has it");
        put(&CatalogEntry { files: Vec::new(), ..folder.clone() });
        put(&one);
        assert!(store.delete(&one.id).expect("it is removed"));
        assert!(left("hf/a/b/c.gguf"), "the folder's entry may have it");
        let twin = CatalogEntry { local_path: one.local_path.clone(), ..entry("https://h/c.gguf") };
        put(&twin);
        put(&one);
        assert!(store.delete(&folder.id).expect("it is removed"));
        assert!(store.delete(&one.id).expect("it is removed"));
        assert!(left("hf/a/b/c.gguf"), "its twin has it");
        assert!(store.delete(&twin.id).expect("it is removed"));
        assert!(!left("hf"));
    });
}

/// LO-CAT-05: a model in parts is named by the first of them, and all go.
#[test]
fn all_parts_of_a_split_model_go() {
    each(|place| {
        let store = place.open();
        let parts = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
        let split = place.stored("hf:a/b/m-00001-of-00002.gguf", "hf/a/b/m-00001-of-00002.gguf", &parts);
        write(split.local_path.as_ref().expect("it has one"), parts[0].as_bytes());
        let split = CatalogEntry { files: parts.map(file).to_vec(), ..split };
        write(&place.model("hf/a/b").join(parts[1]), parts[1].as_bytes());
        let other = place.stored("hf:a/b/other.gguf", "hf/a/b/other.gguf", &["other.gguf"]);
        store.put(split.clone()).expect("it is written");
        store.put(other).expect("it is written");
        assert!(split.is_here());
        assert!(store.delete(&split.id).expect("it is removed"));
        let left: Vec<_> = std::fs::read_dir(place.model("hf/a/b")).expect("it is there").collect();
        assert_eq!(left.len(), 1, "{left:?}");
    });
}

/// LO-CAT-05, LO-CAT-10: what lies elsewhere is the operator's, also when a link leads there.
#[test]
fn files_elsewhere_stay() {
    each(|place| {
        let store = place.open();
        let elsewhere = place.dir().join("elsewhere");
        write(&elsewhere.join("a/model.gguf"), b"a");
        std::fs::create_dir_all(place.model("hf/linked")).expect("a folder");
        symlink(&elsewhere, place.model("out")).expect("a link");
        symlink(elsewhere.join("a"), place.model("hf/linked/a")).expect("a link");
        symlink(elsewhere.join("a/model.gguf"), place.model("model.gguf")).expect("a link");
        let removed = |path: &Path| {
            store.put(CatalogEntry { local_path: Some(path.to_owned()), ..entry("hf:a/b") }).expect("it is written");
            assert!(store.delete(&id("hf:a/b")).expect("it is removed"));
            assert!(elsewhere.join("a/model.gguf").exists(), "{}", path.display());
        };
        removed(&elsewhere.join("a/model.gguf"));
        removed(&elsewhere);
        removed(&place.model("out/a/model.gguf"));
        removed(&place.model("out/a"));
        assert!(place.model("out").exists());
        removed(&place.model(""));
        assert!(place.model("").exists(), "the models' folder itself is no model");
        removed(&place.model("hf/linked"));
        assert!(!place.model("hf").exists(), "links go");
        removed(&place.model("model.gguf"));
        assert!(!place.model("model.gguf").exists(), "links go");
        removed(&place.model("none/at/all.gguf"));
    });
}

/// LO-CAT-05: a file that cannot be removed is reported, and the index is sound without the entry.
#[test]
fn a_file_that_stays_is_reported() {
    each(|place| {
        let store = place.open();
        store.put(place.stored("hf:a/b/c.gguf", "hf/a/b/c.gguf", &["c.gguf"])).expect("it is written");
        let locked = place.model("hf/a/b");
        let set = |mode| std::fs::set_permissions(&locked, PermissionsExt::from_mode(mode)).expect("it is ours");
        set(0o500);
        // For root nothing is locked.
        let is_root = std::fs::write(locked.join("probe"), b"").is_ok();
        let deleted = store.delete(&id("hf:a/b/c.gguf"));
        set(0o700);
        assert!(is_root || matches!(deleted, Err(CatalogError::Files { .. })), "{deleted:?}");
        assert!(ids(place.open().as_ref(), &ALL).is_empty());
    });
}
