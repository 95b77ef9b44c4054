//! Engines that are removed.

use std::fs;

use engine_provisioner::RemoveError;

use crate::support::{Place, file_url, gpus, source_pool};

/// An engine that is removed leaves nothing below our folders, and takes nothing else with it: neither another build of the same
/// source, nor what an entry claims to be ours and is not.
#[tokio::test]
async fn only_what_is_ours_is_removed() {
    let place = Place::new();
    let repo = place.project("");
    place.commit(&repo, "one");
    let pool = source_pool(&file_url(&repo), "main", "");
    let (one, _) = place.ensure(&pool).await;
    let (two, _) = place.ensure_for(&pool, &gpus(&[(8, 9)])).await;
    let (one, two) = (one.expect("it builds"), two.expect("it builds"));
    let id = |engine: &engine_provisioner::PreparedEngine| engine.engine_catalog_id.clone().expect("an entry");
    let removed = place.setup.remove(&id(&one)).expect("it is there");
    assert!(removed.freed_bytes > 0 && removed.folders.len() == 1, "{removed:?}");
    assert!(!one.binary_path().expect("a program").exists() && two.binary_path().expect("a program").exists());
    assert!(matches!(place.setup.remove(&id(&one)), Err(RemoveError::Unknown(_))));

    // An entry that points elsewhere loses its entry only.
    let outside = place.at("outside");
    fs::create_dir_all(&outside).expect("created");
    fs::copy(two.workdir.join("engine.json"), outside.join("engine.json")).expect("copied");
    let mut entry = place.entries().pop().expect("an entry");
    let real = entry.artifacts.clone();
    entry.artifacts =
        vec![outside.display().to_string(), place.at("cache").display().to_string(), "relative".to_owned()];
    place.setup.catalog.put(entry.clone()).expect("written");
    assert_eq!(place.setup.remove(&entry.id).expect("it is there").folders.len(), 0);
    assert!(outside.exists() && place.at("cache").exists());

    place.setup.catalog.put(catalog_core::EngineEntry { artifacts: real, ..entry.clone() }).expect("written");
    place.setup.remove(&entry.id).expect("it is there");
    assert!(place.cached("llamacpp").is_empty(), "the last build takes its source with it");
    assert!(repo.exists());
    let (again, _) = place.ensure(&pool).await;
    assert_eq!(again.expect("it builds again").engine_catalog_id, one.engine_catalog_id);
}
