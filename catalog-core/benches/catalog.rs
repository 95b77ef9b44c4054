//! What a page and a change cost at 100 000 models, in a file and in SQLite.
//!
//! Figures of changes depend on the disk: `TMPDIR` chooses it.

use std::path::Path;
use std::sync::OnceLock;

use api_types::ModelLifecycle;
use catalog_core::{CatalogEntry, CatalogStore, Digest, FsCatalog, ListFilter, SqliteCatalog, StoredFile};
use divan::{Bencher, black_box};
use tempfile::TempDir;

/// Models in the index.
const MODELS: usize = 100_000;
/// Models on a page.
const PAGE: usize = 100;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Fs,
    Sqlite,
}

const KINDS: [Kind; 2] = [Kind::Fs, Kind::Sqlite];

type Store = Box<dyn CatalogStore>;

fn main() {
    divan::main();
}

fn open_in(root: &Path, kind: Kind) -> Store {
    let models_dir = root.join("models");
    match kind {
        Kind::Fs => Box::new(FsCatalog::open(root, models_dir).expect("it opens")),
        Kind::Sqlite => Box::new(SqliteCatalog::open(root, models_dir).expect("it opens")),
    }
}

fn entry(number: usize) -> CatalogEntry {
    let id = format!("hf:organisation/repository-{number:06}/model.Q4_K_M.gguf");
    let digest = Digest::of(id.as_bytes());
    let file = StoredFile { name: "model.Q4_K_M.gguf".to_owned(), size_bytes: 4 << 30, digest: digest.clone() };
    CatalogEntry {
        local_path: Some(format!("/models/hf/organisation/repository-{number:06}/model.Q4_K_M.gguf").into()),
        lifecycle: if number.is_multiple_of(1000) { ModelLifecycle::Retired } else { ModelLifecycle::Active },
        digest: Some(digest),
        source_url: Some(format!("https://huggingface.co/organisation/repository-{number:06}")),
        tags: vec!["chat".to_owned(), format!("group-{}", number % 1000)],
        files: vec![file],
        ..CatalogEntry::new(id.as_str().into(), 1_700_000_000_000)
    }
}

/// A full index; filled past the API, which writes all of a file for each entry.
fn full(kind: Kind) -> &'static (TempDir, Store) {
    static STORES: [OnceLock<(TempDir, Store)>; 2] = [const { OnceLock::new() }; 2];
    STORES[kind as usize].get_or_init(|| {
        let dir = tempfile::tempdir().expect("a folder");
        match kind {
            Kind::Fs => fill_file(dir.path()),
            Kind::Sqlite => fill_database(dir.path()),
        }
        let store = open_in(dir.path(), kind);
        (dir, store)
    })
}

fn fill_file(root: &Path) {
    let entries: Vec<CatalogEntry> = (0..MODELS).map(entry).collect();
    let index = serde_json::json!({"schema_version": 1, "revision": 1, "entries": entries});
    std::fs::write(root.join("models.json"), index.to_string()).expect("it is written");
}

fn fill_database(root: &Path) {
    drop(open_in(root, Kind::Sqlite));
    let mut database = rusqlite::Connection::open(root.join("models.db")).expect("it opens");
    let transaction = database.transaction().expect("it begins");
    for entry in (0..MODELS).map(entry) {
        let text = serde_json::to_string(&entry).expect("it is text");
        let path = entry.local_path.as_deref().and_then(Path::to_str);
        let (id, state) = (entry.id.as_str(), entry.lifecycle.as_str());
        transaction.execute("INSERT INTO models VALUES (?, ?, ?, ?)", (id, state, path, text)).expect("it is written");
        for tag in &entry.tags {
            transaction.execute("INSERT INTO tags VALUES (?, ?)", (tag, id)).expect("it is written");
        }
    }
    transaction.commit().expect("it is written");
}

fn list(bencher: Bencher<'_, '_>, kind: Kind, filter: &ListFilter) {
    let (_, store) = full(kind);
    bencher.bench(|| {
        let page = store.list(black_box(filter)).expect("it is read");
        assert_eq!(page.entries.len(), PAGE.min(filter.limit));
        page
    });
}

fn middle() -> ListFilter {
    ListFilter { state: None, tag: None, after: Some(entry(MODELS / 2).id), limit: PAGE }
}

#[divan::bench(args = KINDS)]
fn page(bencher: Bencher<'_, '_>, kind: Kind) {
    list(bencher, kind, &middle());
}

/// One model in 1000 passes.
#[divan::bench(args = KINDS)]
fn page_of_a_rare_tag(bencher: Bencher<'_, '_>, kind: Kind) {
    list(bencher, kind, &ListFilter { tag: Some("group-7".to_owned()), after: None, ..middle() });
}

#[divan::bench(args = KINDS)]
fn page_of_a_rare_state(bencher: Bencher<'_, '_>, kind: Kind) {
    list(bencher, kind, &ListFilter { state: Some(ModelLifecycle::Retired), after: None, ..middle() });
}

#[divan::bench(args = KINDS, sample_count = 20, sample_size = 1)]
fn put(bencher: Bencher<'_, '_>, kind: Kind) {
    let (_, store) = full(kind);
    let mut created_ms = 0;
    bencher.bench_local(|| {
        created_ms += 1;
        store.put(CatalogEntry { created_ms, ..entry(MODELS / 2) }).expect("it is written");
    });
}

/// What a start costs.
#[divan::bench(args = KINDS, sample_count = 5, sample_size = 1)]
fn open(bencher: Bencher<'_, '_>, kind: Kind) {
    let (dir, _) = full(kind);
    bencher.bench_local(|| open_in(dir.path(), kind));
}
