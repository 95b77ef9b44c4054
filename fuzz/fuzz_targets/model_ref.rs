//! Any text: no panic; what is written out parses to the same; no reference leads out of the models' folder.
#![no_main]

use std::path::Component;

use catalog_core::ModelRef;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(model) = text.parse::<ModelRef>() else { return };
    let written = model.to_string();
    let again: ModelRef = written.parse().unwrap_or_else(|error| panic!("{text:?} as {written:?}: {error}"));
    assert_eq!(again.id(), model.id(), "{text:?} as {written:?}");
    if let Some(path) = model.cache_path() {
        assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{text:?} at {path:?}");
        assert_eq!(again.cache_path(), Some(path), "{text:?} as {written:?}");
    }
});
