//! The index of engines.

use api_types::Engine;
use catalog_core::{Digest, EngineCatalogStore as _, EngineEntry, FsEngineCatalog};

fn engine(id: &str, version: &str, created_ms: i64) -> EngineEntry {
    EngineEntry {
        id: id.to_owned(),
        engine: Engine::Llamacpp,
        version: version.to_owned(),
        build_ref: Some("b6000".to_owned()),
        digest: Some(Digest::of(id.as_bytes())),
        build_flags: vec!["-DGGML_CUDA=ON".to_owned()],
        artifacts: vec!["/opt/llama-server".to_owned()],
        created_ms,
    }
}

/// ORCH-3440, LO-CAT-12: engines are found by id, and by engine and version, the newest first.
#[test]
fn engines_are_found_by_id_and_by_version() {
    let dir = tempfile::tempdir().expect("a folder");
    let engines = FsEngineCatalog::open(dir.path().join("catalog")).expect("it opens");
    let (old, new) = (engine("a", "b6000", 1), engine("b", "b6000", 2));
    let other = EngineEntry { engine: Engine::Vllm, ..engine("c", "b6000", 3) };
    for entry in [&other, &old, &new, &engine("d", "b7000", 4)] {
        engines.put(entry.clone()).expect("it is written");
    }
    let engines = FsEngineCatalog::open(dir.path().join("catalog")).expect("it opens");
    assert_eq!(engines.get("a").expect("it is read"), Some(old.clone()));
    assert_eq!(engines.get("z").expect("it is read"), None);
    assert_eq!(engines.find(Engine::Llamacpp, "b6000").expect("it is read"), [new, old]);
    assert_eq!(engines.find(Engine::Vllm, "b6000").expect("it is read"), [other]);
    assert!(engines.find(Engine::Vllm, "b7000").expect("it is read").is_empty());
    let ids: Vec<String> = engines.list().expect("it is read").into_iter().map(|entry| entry.id).collect();
    assert_eq!(ids, ["a", "b", "c", "d"]);
    assert!(engines.delete("a").expect("it is written"));
    assert!(!engines.delete("a").expect("it is read"));
    assert_eq!(engines.list().expect("it is read").len(), 3);
}
