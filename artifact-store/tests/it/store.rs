use std::path::Path;

use api_types::ArtifactKind;
use artifact_store::{ArtifactStore, Key, Limits, PutError, Query, canonical_json};
use serde_json::json;

use crate::support::{artifact, child, keys, open, other, page, tagged};

/// LO-ART-02: whatever holds for one way to keep documents holds for the other.
fn each(check: impl Fn(&ArtifactStore)) {
    let dir = tempfile::tempdir().expect("a directory");
    check(&open(dir.path()));
    check(&ArtifactStore::in_memory(Limits::default(), 1_000_000).expect("it opens"));
}

/// LO-ART-01: the id is the digest of the canonical JSON, equal documents share it, and the first time counts.
#[test]
fn equal_documents_are_one() {
    each(|store| {
        let first = store.put(tagged("one", &["b", "a"])).expect("it is kept");
        let again: api_types::Artifact = serde_json::from_value(
            json!({"tags": ["b", "a"], "content": {"text": "one"}, "kind": "other", "metadata": {}, "parent": null}),
        )
        .expect("the same document");
        let json = canonical_json(&again).expect("JSON");
        assert_eq!(store.put(again).expect("it is kept"), first);
        assert_eq!(first.key, Key::of(&json));
        assert_eq!(first.key.digest(), format!("sha256:{}", first.key));
        assert_eq!((store.usage().documents, store.usage().bytes), (1, json.len() as u64));
        let read = store.get(first.key).expect("it is read").expect("it is there");
        assert_eq!(read.json, json);
        assert_eq!(read.artifact().expect("an artifact"), tagged("one", &["b", "a"]));
        assert_eq!(read.entry, first);
        assert!(first.created_ms >= 1_000_000);
    });
}

/// Filters add up, pages fit together, and the newest comes first.
#[test]
fn documents_are_listed_by_kind_tag_and_parent() {
    each(|store| {
        let mut all = Vec::new();
        for number in 0..12 {
            let kind = if number % 3 == 0 { ArtifactKind::Plan } else { ArtifactKind::Trace };
            let mut next = artifact(kind, &number.to_string());
            next.tags = vec!["all".to_owned(), format!("odd:{}", number % 2), "all".to_owned()];
            next.parent = all.first().filter(|_| number > 8).map(Key::to_string);
            all.push(store.put(next).expect("it is kept").key);
        }
        let expect = |of: &dyn Fn(usize) -> bool| (0..12).rev().filter(|n| of(*n)).map(|n| all[n]).collect::<Vec<_>>();
        let tag = |tag: &str| Query { tag: Some(tag.to_owned()), ..page(100) };
        let plan = Query { kind: Some(ArtifactKind::Plan), ..page(100) };
        assert_eq!(keys(store, &page(100)), expect(&|_| true));
        assert_eq!(keys(store, &tag("all")), expect(&|_| true), "a tag twice is a tag once");
        assert_eq!(keys(store, &tag("odd:1")), expect(&|n| n % 2 == 1));
        assert_eq!(keys(store, &plan), expect(&|n| n % 3 == 0));
        assert_eq!(keys(store, &Query { parent: Some(all[0]), ..page(100) }), expect(&|n| n > 8));
        let both = Query { tag: Some("odd:0".to_owned()), kind: Some(ArtifactKind::Plan), parent: None, ..page(100) };
        assert_eq!(keys(store, &both), expect(&|n| n % 6 == 0));
        assert_eq!(keys(store, &tag("od")), []);
        for limit in 1..=12 {
            let (mut walked, mut query) = (Vec::new(), Query { tag: Some("all".to_owned()), ..page(limit) });
            loop {
                let got = store.list(&query).expect("it is listed");
                walked.extend(got.entries.into_iter().map(|entry| entry.key));
                query.before = got.next;
                if got.next.is_none() {
                    break;
                }
            }
            assert_eq!(walked, expect(&|_| true), "pages of {limit}");
        }
    });
}

/// ORCH-3098: where a document comes from and what came from it; a parent must be there, and may be removed later.
#[test]
fn lineage_goes_both_ways() {
    each(|store| {
        let plan = store.put(artifact(ArtifactKind::Plan, "plan")).expect("it is kept");
        let diff = store.put(child("diff", &plan)).expect("it is kept");
        let tests = [store.put(child("test 1", &diff)), store.put(child("test 2", &diff))];
        let [first, second] = tests.map(|test| test.expect("it is kept"));
        let lineage = store.lineage(&first, 100).expect("it is read");
        assert_eq!((lineage.ancestors, lineage.children), (vec![diff.key, plan.key], vec![]));
        let lineage = store.lineage(&diff, 100).expect("it is read");
        assert_eq!((lineage.ancestors, lineage.children), (vec![plan.key], vec![first.key, second.key]));
        assert_eq!(store.lineage(&diff, 1).expect("it is read").children, [first.key]);
        assert!(store.remove(plan.key).expect("it is removed"));
        assert!(!store.remove(plan.key).expect("it is gone"));
        assert_eq!(store.lineage(&first, 100).expect("it is read").ancestors, [diff.key]);
        assert!(matches!(store.put(child("late", &plan)), Err(PutError::NoParent { .. })));
        let mut wrong = other("wrong");
        wrong.parent = Some("../../etc".to_owned());
        assert!(matches!(store.put(wrong), Err(PutError::NoParent { .. })));
        assert_eq!(store.usage().documents, 3);
    });
}

#[test]
fn tags_are_limited() {
    each(|store| {
        for tags in [vec![""; 1], vec!["x"; 65]] {
            assert!(matches!(store.put(tagged("x", &tags)), Err(PutError::Tags { .. })));
        }
        assert!(store.put(tagged("x", &["x"; 64])).is_ok());
    });
}

/// What is handed over can be read after a flush, in order, and nothing of it is lost when the store is closed.
#[test]
fn documents_that_nobody_waits_for() {
    each(|store| {
        for number in 0..1500 {
            store.put_later(100, move || tagged(&number.to_string(), &["later"]));
        }
        store.put_later(100, || panic!("it cannot be made"));
        store.put_later(100, || tagged("7", &["later"]));
        store.flush();
        store.flush();
        assert_eq!((store.usage().documents, store.usage().dropped), (1500, 1));
        let newest = store.list(&page(1)).expect("it is listed").entries.remove(0);
        let read = store.get(newest.key).expect("it is read").expect("it is there");
        assert_eq!(read.artifact().expect("an artifact").content["text"], "1499");
        (0..700).for_each(|number| store.put_later(100, move || tagged(&number.to_string(), &["last"])));
        store.close();
        assert_eq!(store.usage().documents, 2200);
        store.put_later(100, || other("too late"));
        assert_eq!(store.usage().dropped, 2);
    });
}

/// A document may hold the last handle; the writer does not wait for itself then.
#[test]
fn the_last_handle_may_go_on_the_writing_thread() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = std::sync::Arc::new(open(dir.path()));
    let held = std::sync::Arc::clone(&store);
    let (went, gone) = std::sync::mpsc::channel();
    store.put_later(1, move || {
        drop(held);
        went.send(()).expect("somebody waits");
        other("made")
    });
    drop(store);
    gone.recv().expect("it was made");
    reopened(dir.path());
}

fn reopened(dir: &Path) {
    let begun = std::time::Instant::now();
    while let Err(error) = ArtifactStore::open(dir, Limits::default(), 0) {
        assert!(begun.elapsed().as_secs() < 20, "{error}");
        std::thread::yield_now();
    }
}
