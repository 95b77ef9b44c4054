//! `bench`, with the programs it starts when they have been built beside the command, and without them.

use std::path::Path;

use serde_json::Value;

use crate::command::cli;

/// DESIGN section 6: the figures come from real processes, and a missing one is named.
#[tokio::test]
async fn bench_measures_or_says_what_is_missing() {
    let folder = Path::new(env!("CARGO_BIN_EXE_llama-orch")).parent().expect("a folder");
    let missing = ["mock-engine", "orchestratord"].into_iter().find(|name| !folder.join(name).is_file());
    let options = ["bench", "--json", "--streams", "2", "--tokens", "3", "--requests", "4", "--rounds", "1"];
    let ended = cli("", &options).await;
    if let Some(missing) = missing {
        assert_eq!(ended.code, 2);
        assert!(ended.err.contains(missing), "{}", ended.err);
        return;
    }
    assert_eq!(ended.code, 0, "{}", ended.err);
    let figures: Value = serde_json::from_str(&ended.out).expect("JSON");
    for pointer in ["/idle/through_p50_us", "/paced/direct_p99_us", "/flat_out/through_per_s", "/tasks/direct_per_s"] {
        assert!(
            figures.pointer(pointer).and_then(Value::as_f64).is_some_and(|value| value > 0.0),
            "{pointer}: {figures}"
        );
    }
    assert!(figures["resident_idle_kib"].as_u64().is_some_and(|kib| kib > 0));
}
