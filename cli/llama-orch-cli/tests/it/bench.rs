//! `bench`, with the programs it starts when they have been built beside the command, and without them.

use std::path::Path;

use serde_json::Value;

use crate::command::cli;

/// The figures of a measurement, checked for being there; none where a program has not been built, which must be named.
async fn figures(options: &[&str]) -> Option<Value> {
    let folder = Path::new(env!("CARGO_BIN_EXE_llama-orch")).parent().expect("a folder");
    let missing = ["mock-engine", "orchestratord"].into_iter().find(|name| !folder.join(name).is_file());
    let ended = cli("", &[&["bench", "--json"], options].concat()).await;
    if let Some(missing) = missing {
        assert_eq!(ended.code, 2);
        assert!(ended.err.contains(missing), "{}", ended.err);
        return None;
    }
    assert_eq!(ended.code, 0, "{}", ended.err);
    Some(serde_json::from_str(&ended.out).expect("JSON"))
}

fn check_positive(figures: &Value, pointers: &[&str]) {
    for pointer in pointers {
        let value = figures.pointer(pointer).and_then(Value::as_f64);
        assert!(value.is_some_and(|value| value > 0.0), "{pointer}: {figures}");
    }
}

/// DESIGN section 6: the figures come from real processes, and a missing one is named.
#[tokio::test]
async fn streams_are_measured_both_ways() {
    let options = ["stream", "--streams", "2", "--tokens", "3", "--requests", "4", "--rounds", "1", "--engine", "both"];
    let Some(figures) = figures(&options).await else { return };
    let vias = [&figures["ways"][0]["via"], &figures["ways"][3]["via"], &figures["ways"][3]["engine"]];
    assert_eq!(vias, ["direct", "orchestratord", "unix"]);
    check_positive(
        &figures,
        &[
            "/ways/0/idle_p50_us/median",
            "/ways/1/paced_p99_us/median",
            "/ways/2/flat_out_tokens_per_s/max",
            "/ways/3/tasks_per_s/min",
        ],
    );
    assert!(figures["resident_idle_kib"].as_u64().is_some_and(|kib| kib > 0));
}

/// DESIGN section 6: memory per waiting stream and the time of a start, of HTTP/2 too; no stream is lost.
#[tokio::test]
async fn waiting_streams_are_counted_and_released() {
    for version in [&[][..], &["--http2"]] {
        let options = [&["idle", "--streams", "4", "--rounds", "1"], version].concat();
        let Some(figures) = figures(&options).await else { return };
        let pointers = ["first_answer_ms", "first_task_ms", "idle_rss_kib", "idle_uss_kib"];
        check_positive(
            &figures,
            &pointers.map(|name| format!("/orchestratord/{name}/median")).each_ref().map(String::as_str),
        );
        assert_eq!(figures["lost"], 0);
    }
}

/// LO-ADM-01: a queue with room for all refuses nobody.
#[tokio::test]
async fn admissions_are_timed_class_by_class() {
    let options = ["admit", "--rate", "20", "--seconds", "1", "--connections", "2"];
    let Some(figures) = figures(&options).await else { return };
    for (index, class) in ["interactive", "batch"].into_iter().enumerate() {
        assert_eq!(
            (&figures["classes"][index]["priority"], &figures["classes"][index]["admitted"]),
            (&class.into(), &10.into())
        );
        let latency = |what: &str| format!("/classes/{index}/{what}");
        check_positive(&figures, &[&latency("scheduled/p50_us"), &latency("service/max_us")]);
    }
    assert_eq!(figures["refused"], serde_json::json!({}));
}

/// LO-ADM-06, LO-CLI-01: what the server told beforehand is held against what it tells afterwards.
#[tokio::test]
async fn predictions_are_held_against_what_came() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("a UTF-8 path");
    let options = ["predict", "--tasks", "12", "--warm-up", "4", "--interval-ms", "1", "--records", path];
    let Some(figures) = figures(&options).await else { return };
    let count = |list: &Value| list.as_object().expect("counts").values().filter_map(Value::as_u64).sum::<u64>();
    assert_eq!(count(&figures["ended"]) + count(&figures["refused"]), 12, "{figures}");
    check_positive(&figures, &["/utilisation", "/waits/0/tasks", "/calibration/tenths/0/tasks"]);
    let records = std::fs::read_to_string(path).expect("the records");
    let records: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(records.len(), 12);
    assert!(records.iter().all(|record| record["deadline_ms"].as_u64() > Some(0)));
}
