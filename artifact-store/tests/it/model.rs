//! Random operations against a list, over restarts and losses of the index.

use std::fs;

use artifact_store::{ArtifactStore, Key};
use proptest::prelude::{Just, ProptestConfig, Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::Index;

use crate::support::{child, files, keys, open, page, tagged};

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    PutChild(u8, Index),
    PutLater(u8),
    Remove(Index),
    Damage(Index),
    Reopen { without_index: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let index = proptest::prelude::any::<Index>;
    prop_oneof![
        4 => (0..20_u8).prop_map(Step::Put),
        3 => (0..20_u8, index()).prop_map(|(text, parent)| Step::PutChild(text, parent)),
        4 => (0..20_u8).prop_map(Step::PutLater),
        2 => index().prop_map(Step::Remove),
        1 => index().prop_map(Step::Damage),
        1 => Just(Step::Reopen { without_index: false }),
        1 => Just(Step::Reopen { without_index: true }),
    ]
}

fn pick(kept: &[Key], index: Index) -> Option<Key> {
    (!kept.is_empty()).then(|| kept[index.index(kept.len())])
}

fn keep(kept: &mut Vec<Key>, key: Key) {
    if !kept.contains(&key) {
        kept.push(key);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// LO-ART-02: what was kept and not removed can be listed and read, over restarts too, and there is no other file.
    #[test]
    fn what_is_kept_is_there(steps in prop::collection::vec(step(), 0..40)) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store: ArtifactStore = open(dir.path());
        let mut kept: Vec<Key> = Vec::new();
        for step in steps {
            match step {
                Step::Put(text) => keep(&mut kept, store.put(tagged(&text.to_string(), &["all"])).expect("kept").key),
                Step::PutChild(text, parent) => {
                    let Some(parent) = pick(&kept, parent) else { continue };
                    let parent = store.get(parent).expect("read").expect("kept").entry;
                    keep(&mut kept, store.put(child(&text.to_string(), &parent)).expect("kept").key);
                }
                Step::PutLater(text) => {
                    store.put_later(1, move || tagged(&format!("later {text}"), &["all"]));
                    store.flush();
                    let newest = keys(&store, &page(1))[0];
                    keep(&mut kept, newest);
                }
                Step::Remove(index) => {
                    let Some(key) = pick(&kept, index) else { continue };
                    prop_assert!(store.remove(key).expect("removed"));
                    kept.retain(|other| *other != key);
                }
                Step::Damage(index) => {
                    let Some(key) = pick(&kept, index) else { continue };
                    fs::write(crate::support::place(dir.path(), key), "damaged").expect("written");
                    prop_assert!(store.get(key).is_err());
                    kept.retain(|other| *other != key);
                }
                Step::Reopen { without_index } => {
                    drop(store);
                    if without_index {
                        fs::remove_file(dir.path().join("index.db")).expect("it is there");
                    }
                    store = open(dir.path());
                }
            }
            let mut listed = keys(&store, &page(1000));
            let mut expected = kept.clone();
            listed.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(&listed, &expected);
        }
        for key in &kept {
            prop_assert!(store.get(*key).expect("read").is_some());
        }
        let documents = files(&dir.path().join("sha256"));
        let sound = documents.iter().filter(|path| path.extension().is_some_and(|ending| ending == "json"));
        prop_assert_eq!(sound.count(), kept.len());
    }
}
