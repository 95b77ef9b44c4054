//! What every store promises, asked of each.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use api_types::{ModelFacts, ModelLifecycle, ModelSignature, Sbom, TrustMode, TrustPolicy, VerificationOutcome};
use catalog_core::{CatalogEntry, CatalogError, Digest, ListFilter, ModelRef, Verdict};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;

use crate::support::{ALL, Kind, Place, entry, file, id, ids, write};

fn each(check: impl Fn(&Place)) {
    for kind in Kind::ALL {
        eprintln!("{kind:?}");
        check(&Place::new(kind));
    }
}

fn full_entry() -> CatalogEntry {
    CatalogEntry {
        local_path: Some("/srv/models/a.gguf".into()),
        lifecycle: ModelLifecycle::Retired,
        retire_at_ms: Some(1),
        digest: Some(Digest::of(b"a")),
        last_verified_ms: Some(2),
        verification: Some(Verdict { outcome: VerificationOutcome::Warn, findings: vec!["é\n\"".to_owned()] }.at(2)),
        source_url: Some("https://models.example/a.gguf".to_owned()),
        tags: vec!["chat".to_owned(), "chat".to_owned(), String::new()],
        files: vec![file("a.gguf")],
        signatures: vec![ModelSignature {
            signer: "acme".to_owned(),
            algo: "ed25519".to_owned(),
            verified: true,
            timestamp_ms: 3,
            signature: Some("c2ln".to_owned()),
            certificate: None,
        }],
        sbom: Some(Sbom { uri: "https://models.example/sbom".to_owned(), digest: Digest::of(b"s").to_string() }),
        trust_policy: Some(TrustPolicy {
            mode: TrustMode::Strict,
            allowed_registries: vec!["acme".to_owned()],
            require_signature: true,
            require_sbom: true,
            ca_roots: Vec::new(),
        }),
        facts: Some(ModelFacts { format: "gguf".to_owned(), layers: Some(26), ..ModelFacts::default() }),
        ..entry("hf:acme/model/a.gguf")
    }
}

/// LO-CAT-01, LO-CAT-04, ORCH-3262: everything about an entry comes back, also from another handle and after a restart.
#[test]
fn entries_come_back_whole() {
    each(|place| {
        let (store, other) = (place.open(), place.open());
        let full = full_entry();
        store.put(full.clone()).expect("it is written");
        store.put(entry("hf:acme/model")).expect("it is written");
        for store in [&store, &other, &place.open()] {
            assert_eq!(store.get(&full.id).expect("it is read"), Some(full.clone()));
            assert_eq!(ids(store.as_ref(), &ALL), ["hf:acme/model", "hf:acme/model/a.gguf"]);
        }
        assert_eq!(other.get(&id("hf:acme/other")).expect("it is read"), None);
        let replaced = CatalogEntry { tags: Vec::new(), ..full.clone() };
        other.put(replaced.clone()).expect("it is written");
        assert_eq!(store.get(&full.id).expect("it is read"), Some(replaced));
        let mode = |path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(place.index()), mode(place.dir().join("catalog"))), (0o600, 0o700));
    });
}

/// ORCH-3031.1, LO-CAT-16: two states, with a deadline for the second.
#[test]
fn a_model_is_retired_and_made_active_again() {
    each(|place| {
        let store = place.open();
        let model = id("hf:acme/model");
        assert!(!store.set_state(&model, ModelLifecycle::Retired, None).expect("it is read"));
        store.put(entry("hf:acme/model")).expect("it is written");
        assert!(store.set_state(&model, ModelLifecycle::Retired, Some(99)).expect("it is written"));
        let found = store.get(&model).expect("it is read").expect("it is there");
        assert_eq!((found.lifecycle, found.retire_at_ms), (ModelLifecycle::Retired, Some(99)));
        assert!(store.set_state(&model, ModelLifecycle::Active, None).expect("it is written"));
        assert_eq!(store.get(&model).expect("it is read"), Some(entry("hf:acme/model")));
    });
}

/// ORCH-3470: pages are in the order of ids, cover everything once, and say whether there are more.
#[test]
fn pages_cover_everything_once() {
    each(|place| {
        let store = place.open();
        for number in 0..25 {
            let lifecycle = if number % 2 == 0 { ModelLifecycle::Active } else { ModelLifecycle::Retired };
            let tags = if number % 3 == 0 { vec!["third".to_owned()] } else { Vec::new() };
            let name = format!("hf:acme/model-{number:02}");
            store.put(CatalogEntry { lifecycle, tags, ..entry(&name) }).expect("it is written");
        }
        let walk = |state, tag: Option<&str>| {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let filter = ListFilter { state, tag: tag.map(ToOwned::to_owned), after, limit: 4 };
                let page = store.list(&filter).expect("it is read");
                assert!(page.entries.len() == 4 || !page.more);
                found.extend(page.entries.iter().map(|entry| entry.id.to_string()));
                if !page.more {
                    return found;
                }
                after = page.entries.last().map(|entry| entry.id.clone());
            }
        };
        let wanted = |passes: fn(usize) -> bool| -> Vec<String> {
            (0..25).filter(|number| passes(*number)).map(|number| format!("hf:acme/model-{number:02}")).collect()
        };
        assert_eq!(walk(None, None), wanted(|_| true));
        assert_eq!(walk(Some(ModelLifecycle::Active), None), wanted(|number| number % 2 == 0));
        assert_eq!(walk(None, Some("third")), wanted(|number| number % 3 == 0));
        assert_eq!(walk(Some(ModelLifecycle::Retired), Some("third")), wanted(|number| number % 6 == 3));
        assert!(walk(None, Some("none")).is_empty());
        let none = store.list(&ListFilter { limit: 0, ..ALL }).expect("it is read");
        assert!(none.entries.is_empty() && none.more);
        let exact = store.list(&ListFilter { limit: 25, ..ALL }).expect("it is read");
        assert!(exact.entries.len() == 25 && !exact.more);
    });
}

/// ORCH-3470: the version is another one after every change, and the same after everything else.
#[test]
fn the_version_follows_changes() {
    each(|place| {
        let store = place.open();
        let mut versions = vec![store.version().expect("it is read")];
        let mut changed = |what: &str, is_change: bool| {
            let version = store.version().expect("it is read");
            assert_eq!(versions.contains(&version), !is_change, "{what}");
            assert_eq!(place.open().version().expect("it is read"), version, "{what}");
            versions.push(version);
        };
        let model = id("hf:acme/model");
        store.put(entry("hf:acme/model")).expect("it is written");
        changed("put", true);
        store.put(entry("hf:acme/model")).expect("it is read");
        changed("the same again", false);
        store.set_state(&model, ModelLifecycle::Retired, None).expect("it is written");
        changed("state", true);
        store.set_state(&model, ModelLifecycle::Retired, None).expect("it is read");
        store.update(&id("hf:acme/none"), &mut |none| none).expect("it is read");
        assert!(!store.delete(&id("hf:acme/none")).expect("it is read"));
        let _ = (store.list(&ALL), store.get(&model), store.locate(&"hf:acme/model".parse().expect("a reference")));
        changed("nothing", false);
        assert!(store.delete(&model).expect("it is written"));
        changed("delete", true);
    });
}

/// LO-CAT-01: an update sees what is there, may add and remove, and cannot give an entry another id.
#[test]
fn an_update_adds_changes_and_removes() {
    each(|place| {
        let store = place.open();
        let model = id("hf:acme/model");
        let added = store.update(&model, &mut |before| {
            assert_eq!(before, None);
            Some(entry("hf:acme/other"))
        });
        assert_eq!(added.expect("it is written"), Some(entry("hf:acme/model")));
        let tag = |before: Option<CatalogEntry>| before.map(|it| CatalogEntry { tags: vec!["t".to_owned()], ..it });
        let changed = store.update(&model, &mut { tag }).expect("it is written");
        assert_eq!(changed, tag(Some(entry("hf:acme/model"))));
        assert_eq!(ids(store.as_ref(), &ListFilter { tag: Some("t".to_owned()), ..ALL }), ["hf:acme/model"]);
        assert_eq!(store.update(&model, &mut |_| None).expect("it is written"), None);
        assert!(ids(store.as_ref(), &ALL).is_empty());
        assert!(ids(store.as_ref(), &ListFilter { tag: Some("t".to_owned()), ..ALL }).is_empty());
    });
}

/// LO-CAT-10: an entry cannot name a path that leads elsewhere, and a relative one is below the models' folder.
#[test]
fn paths_are_normalised_and_escapes_refused() {
    each(|place| {
        let store = place.open();
        for path in ["../a.gguf", "/srv/../etc/passwd", "a/.."] {
            let escape = CatalogEntry { local_path: Some(path.into()), ..entry("hf:acme/model") };
            let refused = store.put(escape.clone());
            assert!(matches!(refused, Err(CatalogError::UnsafePath { .. })), "{path}");
            let refused = store.update(&escape.id.clone(), &mut |_| Some(escape.clone()));
            assert!(matches!(refused, Err(CatalogError::UnsafePath { .. })), "{path}");
        }
        for name in ["../a.gguf", "/a.gguf", "a//b", "", "a\\b"] {
            let escape = CatalogEntry { files: vec![file(name)], ..entry("hf:acme/model") };
            assert!(matches!(store.put(escape), Err(CatalogError::UnsafePath { .. })), "{name}");
        }
        assert!(ids(store.as_ref(), &ALL).is_empty());
        for (path, wanted) in [("./a//b.gguf", place.model("a/b.gguf")), ("/srv/./a.gguf", "/srv/a.gguf".into())] {
            store.put(CatalogEntry { local_path: Some(path.into()), ..entry("hf:acme/model") }).expect("it is written");
            let found = store.get(&id("hf:acme/model")).expect("it is read").expect("it is there");
            assert_eq!(found.local_path, Some(wanted));
        }
    });
}

/// LO-CAT-08: what is located is there, whatever the index says, and looking for it writes nothing.
#[test]
fn only_what_is_here_is_located() {
    each(|place| {
        let store = place.open();
        let located = |text: &str| {
            let model: ModelRef = text.parse().expect("a reference");
            let found = store.locate(&model).expect("it is read");
            assert_eq!(store.exists(&model).expect("it is read"), found.is_some());
            found.map(|found| {
                assert_eq!(found.id, model.id());
                found.local_path
            })
        };
        assert_eq!(located("hf:acme/model"), None);
        let stored = place.stored("hf:acme/model", "hf/acme/model", &["a.safetensors", "sub/b.safetensors"]);
        assert_eq!(located("hf:acme/model"), None, "it is not registered");
        store.put(stored.clone()).expect("it is written");
        let version = store.version().expect("it is read");
        assert_eq!(located("hf:acme/model@main"), stored.local_path);
        assert_eq!(located("hf:acme/model@v2"), None);
        std::fs::remove_file(place.model("hf/acme/model/sub/b.safetensors")).expect("it is there");
        assert_eq!(located("hf:acme/model"), None, "a file is missing");

        write(&place.model("own/a.gguf"), b"a");
        write(&place.dir().join("elsewhere/b.gguf"), b"b");
        std::os::unix::fs::symlink(place.dir().join("elsewhere"), place.model("out")).expect("a link");
        assert_eq!(located("file:own/a.gguf"), Some(place.model("own/a.gguf")));
        assert_eq!(located("file:own"), Some(place.model("own")));
        assert_eq!(located("file:own/none.gguf"), None);
        assert_eq!(located("file:out/b.gguf"), None, "it leads out of the models' folder");
        let absolute = place.dir().join("elsewhere/b.gguf");
        assert_eq!(located(absolute.to_str().expect("it is text")), Some(absolute.clone()));
        assert_eq!(store.version().expect("it is read"), version);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Put(CatalogEntry),
    Update(usize, Option<CatalogEntry>),
    Delete(usize),
    SetState(usize, ModelLifecycle, Option<i64>),
    List(ListFilter),
    Reopen,
}

const NAMES: [&str; 6] = ["hf:a/b", "hf:a/b/c.gguf", "hf:a/é", "file:a", "https://h/a", "s3://bucket/a"];
const TAGS: [&str; 3] = ["x", "y", "'; DROP TABLE models"];

fn entries() -> impl Strategy<Value = CatalogEntry> {
    let tags = proptest::collection::vec(select(TAGS.map(ToOwned::to_owned).to_vec()), 0..3);
    (select(NAMES.to_vec()), tags, select(ModelLifecycle::ALL), 0..3_i64)
        .prop_map(|(name, tags, lifecycle, created_ms)| CatalogEntry { tags, lifecycle, created_ms, ..entry(name) })
}

fn steps() -> impl Strategy<Value = Step> {
    let filter = (any::<bool>(), any::<bool>(), proptest::option::of(select(NAMES.to_vec())), 0..5_usize);
    let filter = filter.prop_map(|(state, tag, after, limit)| ListFilter {
        state: state.then_some(ModelLifecycle::Active),
        tag: tag.then(|| TAGS[0].to_owned()),
        after: after.map(id),
        limit,
    });
    prop_oneof![
        6 => entries().prop_map(Step::Put),
        2 => (0..NAMES.len(), proptest::option::of(entries())).prop_map(|(name, entry)| Step::Update(name, entry)),
        2 => (0..NAMES.len()).prop_map(Step::Delete),
        1 => (0..NAMES.len(), select(ModelLifecycle::ALL), proptest::option::of(0..9_i64))
            .prop_map(|(name, state, at)| Step::SetState(name, state, at)),
        4 => filter.prop_map(Step::List),
        1 => Just(Step::Reopen),
    ]
}

type Model = BTreeMap<String, CatalogEntry>;

fn expected_page(model: &Model, filter: &ListFilter) -> (Vec<CatalogEntry>, bool) {
    let passes = |entry: &&CatalogEntry| {
        filter.state.is_none_or(|state| state == entry.lifecycle)
            && filter.tag.as_ref().is_none_or(|tag| entry.tags.contains(tag))
            && filter.after.as_ref().is_none_or(|after| entry.id > *after)
    };
    let found: Vec<CatalogEntry> = model.values().filter(passes).cloned().collect();
    let more = found.len() > filter.limit;
    (found.into_iter().take(filter.limit).collect(), more)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// ORCH-3037.2: whatever is done, both stores hold what a plain map holds.
    #[test]
    fn both_stores_behave_like_a_map(steps in proptest::collection::vec(steps(), 1..30)) {
        for kind in Kind::ALL {
            let place = Place::new(kind);
            let (mut store, mut model) = (place.open(), Model::new());
            for step in &steps {
                match step {
                    Step::Put(entry) => {
                        store.put(entry.clone()).expect("it is written");
                        model.insert(entry.id.to_string(), entry.clone());
                    }
                    Step::Update(name, after) => {
                        let name = NAMES[*name];
                        let after = after.clone().map(|after| CatalogEntry { id: id(name), ..after });
                        let found = store.update(&id(name), &mut |_| after.clone()).expect("it is written");
                        prop_assert_eq!(&found, &after);
                        model.remove(name);
                        model.extend(after.map(|after| (name.to_owned(), after)));
                    }
                    Step::Delete(name) => {
                        let found = store.delete(&id(NAMES[*name])).expect("it is written");
                        prop_assert_eq!(found, model.remove(NAMES[*name]).is_some());
                    }
                    Step::SetState(name, lifecycle, retire_at_ms) => {
                        let found = store.set_state(&id(NAMES[*name]), *lifecycle, *retire_at_ms).expect("it is written");
                        let entry = model.get_mut(NAMES[*name]);
                        prop_assert_eq!(found, entry.is_some());
                        if let Some(entry) = entry {
                            (entry.lifecycle, entry.retire_at_ms) = (*lifecycle, *retire_at_ms);
                        }
                    }
                    Step::List(filter) => {
                        let page = store.list(filter).expect("it is read");
                        prop_assert_eq!((page.entries, page.more), expected_page(&model, filter));
                    }
                    Step::Reopen => store = place.open(),
                }
            }
            let all = store.list(&ALL).expect("it is read").entries;
            prop_assert_eq!(all, model.into_values().collect::<Vec<_>>());
        }
    }
}
