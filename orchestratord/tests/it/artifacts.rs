use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{Daemon, Event, batch, config, eventually_async, id, start_engine, task, with};

const SLOW: &[&str] = &["--token-interval-ms", "20"];

fn raw(events: &[Event]) -> String {
    events.iter().map(|event| event.raw.as_str()).collect()
}

/// The one record that a task has left: the artifact with its content.
async fn record(daemon: &Daemon, task: &Value) -> Value {
    let list = daemon.json(&format!("/v1/artifacts?kind=trace&tag=task:{}", id(task))).await;
    let artifacts = list["artifacts"].as_array().expect("a list");
    assert_eq!(artifacts.len(), 1, "{list}");
    daemon.json(&format!("/v1/artifacts/{}", artifacts[0]["id"].as_str().expect("an id"))).await
}

async fn created(daemon: &Daemon, body: &Value) -> Value {
    let answer = daemon.post("/v1/artifacts", body).await;
    let location = answer.headers().get("location").cloned();
    let (status, body): (_, Value) = (answer.status(), answer.json().await.expect("JSON"));
    assert_eq!(status, 201, "{body}");
    assert_eq!(location.expect("a location"), format!("/v1/artifacts/{}", body["id"].as_str().expect("an id")));
    body
}

fn documents(daemon: &Daemon) -> Vec<PathBuf> {
    let shards = fs::read_dir(daemon.data_dir().join("artifacts/sha256")).expect("a directory");
    let files = shards.flat_map(|shard| fs::read_dir(shard.expect("an entry").path()).expect("a directory"));
    files.map(|file| file.expect("an entry").path()).collect()
}

/// LO-ART-03, LO-SSE-07, ORCH-3350, ORCH-3352, ORCH-3101: however a task ends, it leaves its request, its decision, its times, its
/// error, and byte for byte what its client has read.
#[tokio::test]
async fn every_task_leaves_a_record() {
    let engine = start_engine(SLOW);
    let daemon =
        Daemon::before(&engine, "sampler_profile_version = \"v1\"\n[stream]\nmetrics_interval_ms = 600000").await;
    let completed = with(task("Completed, secretly.", 1), "output_mode", json!("json"));
    let canceled = task("Canceled while it streams.", 500);
    let expired = with(batch("Expired in the queue.", 1), "deadline_ms", json!(300));
    let dropped = task("Canceled in the queue.", 1);
    let mut read = Vec::new();
    read.push((&completed, "completed", raw(&daemon.run(&completed).await.rest().await)));
    let mut running = daemon.run(&canceled).await;
    let mut seen = Vec::new();
    while seen.iter().filter(|event: &&Event| event.name == "token").count() < 2 {
        seen.push(running.next().await.expect("it streams"));
    }
    daemon.accepted(&expired).await;
    daemon.accepted(&dropped).await;
    let (mut waiting, mut given_up) =
        (daemon.follow(id(&expired), None).await, daemon.follow(id(&dropped), None).await);
    read.push((&expired, "expired", raw(&waiting.rest().await)));
    assert_eq!(daemon.cancel(id(&dropped)).await, 204);
    read.push((&dropped, "canceled", raw(&given_up.rest().await)));
    assert_eq!(daemon.cancel(id(&canceled)).await, 204);
    seen.extend(running.rest().await);
    read.push((&canceled, "canceled", raw(&seen)));
    for (task, state, stream) in &read {
        let record = record(&daemon, task).await;
        let (content, tags) = (&record["content"], record["tags"].as_array().expect("tags"));
        for tag in ["sse", "stream", &format!("task:{}", id(task)), "model:mock-model"] {
            assert!(tags.contains(&json!(tag)), "{tag}: {tags:?}");
        }
        assert!(tags.contains(&json!(format!("session:{}", task["session_id"].as_str().expect("text")))));
        assert_eq!(content["transcript"], **stream, "{state}");
        assert_eq!(content["truncated"], false);
        assert_eq!((&content["job_id"], &content["session_id"]), (&task["task_id"], &task["session_id"]));
        for (member, value) in task.as_object().expect("an object") {
            assert_eq!(content["request"][member], *value, "{member}");
        }
        let summary = daemon.look(task).await;
        assert_eq!(summary["state"], *state);
        assert_eq!(content["summary"], summary);
        assert_eq!(content["summary"]["placement"]["selected_pool_id"], "gpu0");
        assert_eq!(content["model"]["model_ref"], "mock-model");
        let engine = &content["engine"];
        assert_eq!((&engine["provisioning"], &engine["compute"]), (&json!("external"), &json!("unverified")));
        assert_eq!((&engine["sampler_profile_version"], &engine["determinism"]), (&json!("v1"), &json!("strict")));
        assert!(engine["ctx"].as_i64() > Some(0), "{engine}");
        let metadata = &record["metadata"];
        assert_eq!((&metadata["engine"], &metadata["pool_id"]), (&json!("llamacpp"), &json!("gpu0")));
        assert_eq!(metadata["state"], *state);
    }
    let first = record(&daemon, &completed).await;
    assert!(first["tags"].as_array().expect("tags").contains(&json!("output:json")));
    assert!(first["content"].get("error").is_none(), "{first}");
    assert_eq!(first["metadata"]["replica_id"], "r0");
    assert!(first["metadata"]["engine_version"].is_string());
    assert_eq!(first["content"]["summary"]["tokens_out"], 1);
    let error = &record(&daemon, &expired).await["content"]["error"];
    assert_eq!((&error["code"], &error["retriable"]), (&json!("DEADLINE_UNMET"), &json!(false)), "{error}");
    assert!(error["message"].is_string());
    assert_eq!(daemon.json("/v1/artifacts").await["artifacts"].as_array().map(Vec::len), Some(4));
    daemon.refusal(&task("Refused.", 0)).await;
    assert_eq!(daemon.json("/v1/artifacts").await["artifacts"].as_array().map(Vec::len), Some(4), "refused: no record");
    assert_eq!(daemon.metric("artifacts ").await, 4.0);
    assert!(daemon.metric("artifacts_bytes ").await > 4.0 * 1000.0);
    assert_eq!(daemon.metric("artifacts_dropped_total ").await, 0.0);
    for text in ["secretly", "while it streams", "in the queue"] {
        assert!(!daemon.log().contains(text), "{text} is in the log");
    }
}

/// ORCH-3352: a task that runs out of time, or loses its worker in the middle, leaves what was said until then.
#[tokio::test]
async fn a_failed_task_leaves_what_there_was() {
    let mut engine = start_engine(SLOW);
    let daemon = Daemon::before(&engine, "").await;
    let late = with(task("Run late.", 500), "deadline_ms", json!(300));
    let events = daemon.run(&late).await.rest().await;
    let expired = record(&daemon, &late).await;
    assert_eq!(expired["content"]["transcript"], raw(&events));
    assert_eq!(
        (&expired["metadata"]["state"], &expired["content"]["error"]["code"]),
        (&json!("expired"), &json!("DEADLINE_UNMET"))
    );
    let task = task("Fail.", 500);
    let mut stream = daemon.run(&task).await;
    let mut events = Vec::new();
    while events.last().is_none_or(|event: &Event| event.name != "token") {
        events.push(stream.next().await.expect("it streams"));
    }
    engine.kill().expect("the engine can be killed");
    events.extend(stream.rest().await);
    assert_eq!(events.last().expect("frames").name, "error");
    let record = record(&daemon, &task).await;
    assert_eq!(record["content"]["transcript"], raw(&events));
    assert_eq!(record["content"]["error"]["code"], "WORKER_RESET");
    assert_eq!(record["content"]["error"]["retriable"], false);
}

/// `artifacts.tasks` says which tasks leave a record.
#[tokio::test]
async fn records_can_be_switched_off() {
    let engine = start_engine(SLOW);
    for (tasks, expected) in [("off", 0), ("failed", 1)] {
        let daemon = Daemon::before(&engine, &format!("[artifacts]\ntasks = \"{tasks}\"")).await;
        daemon.run(&task("Complete.", 1)).await.rest().await;
        let canceled = task("Talk on and on.", 500);
        let mut stream = daemon.occupy(&canceled).await;
        assert_eq!(daemon.cancel(id(&canceled)).await, 204);
        stream.rest().await;
        let list = daemon.json("/v1/artifacts").await;
        assert_eq!(list["artifacts"].as_array().expect("a list").len(), expected, "{tasks}: {list}");
    }
}

/// DESIGN section 8: a task that is not in memory any more is replayed from its record, byte for byte, from any event on;
/// before and after a restart.
#[tokio::test]
async fn a_stream_outlives_memory() {
    let engine = start_engine(&[]);
    let mut daemon = Daemon::before(&engine, "[stream]\nretain_ms = 1\nnarration = false").await;
    let (first, second) = (task("Replay me.", 20), batch("Replay me too.", 5));
    let read = daemon.run(&first).await.rest().await;
    let read_too = daemon.run(&second).await.rest().await;
    for restarts in 0..3 {
        // The end of a task lets go of those before it.
        if restarts == 0 {
            daemon.run(&task("Push it out.", 1)).await.rest().await;
        }
        for after in [None, Some(0), Some(7), Some(read[read.len() - 2].id)] {
            let mut stream = daemon.follow(id(&first), after).await;
            assert_eq!(stream.status(), 200);
            for (name, value) in [("content-type", "text/event-stream"), ("cache-control", "no-cache")] {
                assert_eq!(stream.header(name), Some(value));
            }
            let from = after.map_or(0, |after| read.iter().position(|event| event.id > after).expect("there are more"));
            assert_eq!(raw(&stream.rest().await), raw(&read[from..]), "after {after:?}");
        }
        let last = read[read.len() - 1].id;
        assert_eq!(daemon.follow(id(&first), Some(last)).await.rest().await, []);
        assert_eq!(daemon.follow(id(&first), Some(last + 99)).await.rest().await, []);
        assert_eq!(daemon.follow(id(&second), None).await.rest().await, read_too);
        assert_eq!(daemon.run(&second).await.rest().await, read_too, "a safe retry, with its stream");
        if restarts == 1 {
            daemon.kill();
        } else {
            daemon.signal("-TERM");
            assert_eq!(daemon.ended().await.code(), Some(0));
        }
        daemon.start_again().await;
    }
    let artifact = record(&daemon, &first).await["id"].as_str().expect("an id").to_owned();
    let removed = daemon.http().delete(daemon.url(&format!("/v1/artifacts/{artifact}"))).send().await;
    assert_eq!(removed.expect("the daemon answers").status(), 204);
    assert_eq!(daemon.follow(id(&first), None).await.status(), 404);
}

/// LO-ART-01, HME-022, OC-CTRL-2065, OC-CTRL-2066: a document is kept once, has a link, and can be read whole or in part.
#[tokio::test]
async fn a_document_is_kept_and_downloaded() {
    let engine = start_engine(&[]);
    let daemon = Daemon::start(&config(engine.url(), "")).await;
    let plan = json!({"kind": "plan", "content": {"b": 1.0, "a": ["\u{20ac}", null]}, "tags": ["agent:x"]});
    let kept = created(&daemon, &plan).await;
    let again =
        json!({"tags": ["agent:x"], "content": {"a": ["\u{20ac}", null], "b": 1}, "kind": "plan", "metadata": {}});
    assert_eq!(created(&daemon, &again).await, kept);
    let expected = "{\"content\":{\"a\":[\"\u{20ac}\",null],\"b\":1},\"kind\":\"plan\",\"tags\":[\"agent:x\"]}";
    let digest: String = Sha256::digest(expected).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((kept["id"].as_str(), kept["digest"].as_str()), (Some(&*digest), Some(&*format!("sha256:{digest}"))));
    let url = kept["download_url"].as_str().expect("a link");
    assert_eq!(url, daemon.url(&format!("/v1/artifacts/{digest}/download")));
    let get = async |header: &str, value: &str| {
        let answer = daemon.http().get(url).header(header, value).send().await.expect("the daemon answers");
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
        let (status, range, etag) = (answer.status().as_u16(), header("content-range"), header("etag"));
        (status, range, etag, answer.text().await.expect("text"))
    };
    let etag = format!("\"sha256:{digest}\"");
    let length = expected.len();
    let whole = (200, None, Some(etag.clone()), expected.to_owned());
    let part = |status, range: String, text: &str| (status, Some(range), Some(etag.clone()), text.to_owned());
    assert_eq!(get("accept", "*/*").await, whole);
    assert_eq!(get("range", "bytes=0-9").await, part(206, format!("bytes 0-9/{length}"), "{\"content\""));
    assert_eq!(get("range", "bytes=-1").await, part(206, format!("bytes {}-{}/{length}", length - 1, length - 1), "}"));
    assert_eq!(get("range", "bytes=0-1,3-4").await, whole);
    assert_eq!(get("range", "bytes=9999-").await.0, 416);
    assert_eq!(get("range", "bytes=9999-").await.1, Some(format!("bytes */{length}")));
    assert_eq!(get("if-none-match", &etag).await, (304, None, Some(etag.clone()), String::new()));
    assert_eq!(get("if-none-match", "\"other\"").await, whole);
    let path = format!("/v1/artifacts/{digest}");
    let request = daemon.http().get(daemon.url(&path)).header("x-forwarded-proto", "https");
    let seen: Value = request.send().await.expect("the daemon answers").json().await.expect("JSON");
    assert_eq!(seen["download_url"], url, "no proxy is trusted here");
    let diff = json!({"kind": "diff", "content": {}, "parent": digest, "metadata": {"tool": "patch"}});
    let diff = created(&daemon, &diff).await;
    let record = daemon.json(&format!("/v1/artifacts/{}", diff["id"].as_str().expect("an id"))).await;
    assert_eq!((&record["parent"], &record["ancestors"]), (&kept["id"], &json!([kept["id"]])));
    assert_eq!((&record["metadata"], &record["children"]), (&json!({"tool": "patch"}), &json!([])));
    let record = daemon.json(&format!("/v1/artifacts/{digest}")).await;
    assert_eq!((&record["children"], &record["content"]["b"]), (&json!([diff["id"]]), &json!(1)));
    for (query, expected) in [
        ("", vec![&diff, &kept]),
        ("?kind=plan", vec![&kept]),
        ("?tag=agent:x&kind=plan&limit=1", vec![&kept]),
        (&format!("?parent={digest}"), vec![&diff]),
        ("?tag=agent", vec![]),
    ] {
        assert_eq!(daemon.json(&format!("/v1/artifacts{query}")).await["artifacts"], json!(expected), "{query}");
    }
    let first = daemon.json("/v1/artifacts?limit=1").await;
    let next = format!("/v1/artifacts?limit=1&cursor={}", first["next_cursor"].as_str().expect("there is more"));
    assert_eq!(daemon.json(&next).await, json!({"artifacts": [kept]}));
}

/// LO-API-02: what cannot be meant is refused with what to do about it.
#[tokio::test]
async fn wrong_requests_are_refused() {
    let engine = start_engine(&[]);
    let daemon = Daemon::start(&config(engine.url(), "")).await;
    let bodies = [
        json!({"kind": "note", "content": {}}),
        json!({"kind": "plan", "content": []}),
        json!({"kind": "plan"}),
        json!({"kind": "plan", "content": {}, "tag": ["x"]}),
        json!({"kind": "plan", "content": {}, "tags": [""]}),
        json!({"kind": "plan", "content": {}, "parent": "00"}),
        json!({"kind": "plan", "content": {}, "parent": "0".repeat(64)}),
    ];
    for body in bodies {
        let answer = daemon.post("/v1/artifacts", &body).await;
        assert_eq!(answer.status(), 400, "{body}");
        assert_eq!(answer.json::<Value>().await.expect("JSON")["code"], "INVALID_PARAMS");
    }
    for query in ["limit=0", "limit=1001", "kind=note", "parent=00", "cursor=zz", "colour=red"] {
        assert_eq!(daemon.get(&format!("/v1/artifacts?{query}")).await.status(), 400, "{query}");
    }
    for path in ["no-id", &"0".repeat(64), &format!("{}/download", "0".repeat(64))] {
        let answer = daemon.get(&format!("/v1/artifacts/{path}")).await;
        assert_eq!(answer.status(), 404, "{path}");
        assert_eq!(answer.json::<Value>().await.expect("JSON")["code"], "NOT_FOUND");
    }
}

/// A record that was damaged on the disk is not served, and the log says so; its file is kept aside, readable by nobody else.
#[tokio::test]
async fn damage_is_noticed() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "").await;
    let task = task("Damage me.", 2);
    daemon.run(&task).await.rest().await;
    let record = record(&daemon, &task).await;
    let files = documents(&daemon);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((files.len(), mode(&files[0])), (1, 0o600));
    assert_eq!(mode(&daemon.data_dir().join("artifacts")), 0o700);
    assert_eq!(files[0].file_stem().expect("a name").to_str(), record["id"].as_str());
    let mut bytes = fs::read(&files[0]).expect("it is read");
    bytes[100] ^= 1;
    fs::write(&files[0], &bytes).expect("it is written");
    let path = format!("/v1/artifacts/{}", record["id"].as_str().expect("an id"));
    let answer = daemon.get(&format!("{path}/download")).await;
    assert_eq!(answer.status(), 500);
    assert_eq!(answer.json::<Value>().await.expect("JSON")["code"], "INTERNAL");
    assert_eq!(daemon.get(&path).await.status(), 404);
    assert!(daemon.log().contains("was damaged on the disk"));
    assert!(!daemon.log().contains("Damage me."));
    assert!(documents(&daemon)[0].extension().is_some_and(|ending| ending == "damaged"));
}

/// What is too much goes, the oldest first.
#[tokio::test]
async fn bytes_are_limited() {
    let engine = start_engine(&[]);
    let daemon = Daemon::before(&engine, "[artifacts]\nmax_bytes = 20000").await;
    let tasks: Vec<_> = (0..20).map(|_| task("One of many.", 1)).collect();
    for task in &tasks {
        daemon.run(task).await.rest().await;
    }
    let listed = eventually_async("the oldest are gone", async || {
        daemon.json("/v1/artifacts").await;
        (daemon.metric("artifacts_bytes ").await <= 20_000.0).then_some(())?;
        Some(daemon.json("/v1/artifacts").await)
    })
    .await;
    let kept = listed["artifacts"].as_array().expect("a list").len();
    assert!((2..20).contains(&kept), "{kept}");
    for (at, task) in tasks.iter().rev().enumerate() {
        let list = daemon.json(&format!("/v1/artifacts?tag=task:{}", id(task))).await;
        assert_eq!(list["artifacts"].as_array().map(Vec::len), Some(usize::from(at < kept)), "{at}");
    }
}

/// LO-ART-02: in memory everything works the same, and nothing is left.
#[tokio::test]
async fn memory_keeps_until_the_end() {
    let engine = start_engine(&[]);
    let mut daemon = Daemon::before(&engine, "[stream]\nretain_ms = 1\n[artifacts]\nbackend = \"memory\"").await;
    let first = task("In memory.", 4);
    let read = daemon.run(&first).await.rest().await;
    daemon.run(&task("Push it out.", 1)).await.rest().await;
    assert_eq!(daemon.follow(id(&first), None).await.rest().await, read);
    assert_eq!(record(&daemon, &first).await["content"]["transcript"], raw(&read));
    assert!(!daemon.data_dir().join("artifacts").exists());
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await.code(), Some(0));
    daemon.start_again().await;
    assert_eq!(daemon.follow(id(&first), None).await.status(), 404);
}

/// A stop writes what is queued; a crash loses at most that, and an index that is lost is made again from the files.
#[tokio::test]
async fn a_stop_loses_nothing_and_a_crash_little() {
    let engine = start_engine(&[]);
    let mut daemon = Daemon::before(&engine, "").await;
    let run = async |daemon: &Daemon, count: usize| {
        for _ in 0..count {
            daemon.run(&task("Keep me.", 1)).await.rest().await;
        }
    };
    let count =
        async |daemon: &Daemon| daemon.json("/v1/artifacts?limit=1000").await["artifacts"].as_array().map(Vec::len);
    run(&daemon, 30).await;
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await.code(), Some(0));
    daemon.start_again().await;
    daemon.ready().await;
    assert_eq!(count(&daemon).await, Some(30));
    run(&daemon, 10).await;
    assert_eq!(count(&daemon).await, Some(40), "what was listed is written");
    run(&daemon, 10).await;
    daemon.kill();
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = fs::remove_file(daemon.data_dir().join("artifacts").join(name));
    }
    daemon.start_again().await;
    assert!((40..=50).contains(&count(&daemon).await.expect("a list")));
    assert_eq!(documents(&daemon).len(), count(&daemon).await.expect("a list"));
}
