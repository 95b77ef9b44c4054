//! What operators ask for, and what they are told.

use fake_nvml::State;
use serde_json::{Value, json};

use super::bench::{Bench, ManagedPool, ask, health, until_ready, until_state};
use super::history::History;
use crate::harness::{Daemon, eventually_async, pool, start_engine};

async fn asked(daemon: &Daemon, path: &str, body: &str) -> (u16, Value) {
    let request = daemon.http().post(daemon.url(path)).header("content-type", "application/json");
    let answer = request.body(body.to_owned()).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

async fn got(daemon: &Daemon, path: &str) -> (u16, Value) {
    let answer = daemon.get(path).await;
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

/// OC-CTRL-2002, OC-CTRL-2003: what cannot be done is refused with its reason, and changes nothing.
#[tokio::test]
async fn wrong_questions() {
    let engine = start_engine(&[]);
    let mut bench = Bench::new(vec![ManagedPool::new("own").env("MOCK_ENGINE_VRAM_MB", 16)]);
    bench.more = pool("theirs", &[engine.url()], "");
    let daemon = bench.start().await;
    let ready = until_ready(&daemon, "own").await;
    let drain = r#"{"deadline_ms": 1}"#;
    let reload = r#"{"new_model_ref": "file:/nowhere.gguf"}"#;
    for (what, body) in [("drain", drain), ("reload", reload), ("start", ""), ("stop", "")] {
        let (status, error) = asked(&daemon, &format!("/v1/pools/nobody/{what}"), body).await;
        assert_eq!((status, &error["code"]), (404, &json!("NOT_FOUND")), "{what}: {error}");
    }
    for what in ["health", "plan", "logs"] {
        let (status, error) = got(&daemon, &format!("/v1/pools/nobody/{what}")).await;
        assert_eq!((status, &error["code"]), (404, &json!("NOT_FOUND")), "{what}: {error}");
    }
    for (what, body) in [
        ("drain", ""),
        ("drain", "{}"),
        ("drain", r#"{"deadline_ms": -1}"#),
        ("drain", r#"{"deadline_ms": "soon"}"#),
        ("drain", r#"{"deadline_ms": 1, "force": true}"#),
        ("reload", "{}"),
        ("reload", r#"{"new_model_ref": ""}"#),
        ("reload", r#"{"new_model_ref": "ftp://example.org/x"}"#),
        ("reload", r#"{"model": "file:/nowhere.gguf"}"#),
        ("stop", r#"{"deadline_ms": -5}"#),
        ("stop", "not json"),
    ] {
        let (status, error) = asked(&daemon, &format!("/v1/pools/own/{what}"), body).await;
        assert_eq!((status, &error["code"]), (400, &json!("INVALID_PARAMS")), "{what} {body}: {error}");
    }
    for (what, body) in [("reload", reload), ("stop", "")] {
        let (status, error) = asked(&daemon, &format!("/v1/pools/theirs/{what}"), body).await;
        assert_eq!(
            (status, &error["code"], &error["pool_id"]),
            (400, &json!("INVALID_PARAMS"), &json!("theirs")),
            "{error}"
        );
        assert!(error["message"].as_str().is_some_and(|it| it.contains("run by somebody else")), "{error}");
    }
    let (status, error) = got(&daemon, "/v1/pools/theirs/logs").await;
    assert_eq!((status, &error["code"]), (400, &json!("INVALID_PARAMS")), "{error}");
    let (status, plan) = got(&daemon, "/v1/pools/theirs/plan").await;
    assert_eq!((status, &plan["steps"][0]["kind"]), (200, &json!("attach")), "{plan}");
    for query in ["lines=many", "lines=-1", "last=3", "follow=perhaps"] {
        let (status, error) = got(&daemon, &format!("/v1/pools/own/logs?{query}")).await;
        assert_eq!((status, &error["code"]), (400, &json!("INVALID_PARAMS")), "{query}: {error}");
    }
    assert_eq!(health(&daemon, "own").await["pid"], ready["pid"], "nothing of it has done anything");

    ask(&daemon, "own", "start", json!({})).await;
    assert_eq!(health(&daemon, "own").await["pid"], ready["pid"], "it was started already");
    ask(&daemon, "own", "stop", json!({})).await;
    until_state(&daemon, "own", "stopped").await;
    let (status, error) = asked(&daemon, "/v1/pools/own/drain", drain).await;
    assert_eq!((status, &error["code"], &error["pool_id"]), (409, &json!("CONFLICT"), &json!("own")), "{error}");
    let (status, refusal) = daemon.refusal(&bench.task("own", 1)).await;
    assert_eq!((status, &refusal["code"]), (503, &json!("POOL_UNREADY")), "{refusal}");
}

/// ORCH-3440, LO-CAT-12: what was prepared is listed and planned, and cannot be removed while a pool uses it.
#[tokio::test]
async fn engines_are_listed_and_removed() {
    let bench = Bench::new(vec![ManagedPool::new("own").env("MOCK_ENGINE_VRAM_MB", 16)]);
    let daemon = bench.start().await;
    until_ready(&daemon, "own").await;
    let (status, plan) = got(&daemon, "/v1/pools/own/plan").await;
    assert_eq!((status, &plan["pool_id"]), (200, &json!("own")), "{plan}");
    assert!(plan["steps"].as_array().is_some_and(|steps| !steps.is_empty()), "{plan}");
    let (_, list) = got(&daemon, "/v1/engines").await;
    let [entry] = list["engines"].as_array().expect("a list").as_slice() else { panic!("one engine: {list}") };
    assert_eq!((&entry["engine"], &entry["used_by"]), (&json!("llamacpp"), &json!(["own"])), "{entry}");
    let path = format!("/v1/engines/{}", entry["id"].as_str().expect("an id"));
    let delete = async |path: &str| daemon.http().delete(daemon.url(path)).send().await.expect("an answer").status();
    assert_eq!(delete("/v1/engines/nothing").await, 404);
    assert_eq!(delete(&path).await, 409, "a pool uses it");
    ask(&daemon, "own", "stop", json!({})).await;
    until_state(&daemon, "own", "stopped").await;
    let removed = delete(&path).await;
    assert_eq!(removed, 204, "no process uses it any more");
    ask(&daemon, "own", "start", json!({})).await;
    until_ready(&daemon, "own").await;
}

/// LO-POOL-05: what an engine says can be read, from the end and as it comes, and what is secret in it cannot.
#[tokio::test]
async fn an_engines_words() {
    let bench = Bench::new(vec![ManagedPool::new("own").env("MOCK_ENGINE_VRAM_MB", 16)]);
    let mut daemon = bench.start().await;
    until_ready(&daemon, "own").await;
    let mut follow = daemon.get("/v1/pools/own/logs?lines=1&follow=true").await;
    assert!(follow.headers()["content-type"].to_str().expect("text").starts_with("text/plain"));
    let line = "loading with Authorization: Bearer hunter2-hunter2-hunter2";
    bench.set_faults("own", &json!([{"fault": {"in_life": {"stderr": line, "end": "nothing"}}}]));
    let mut seen = String::new();
    while !seen.contains("loading with") {
        let chunk = follow.chunk().await.expect("it goes on").expect("it goes on");
        seen.push_str(std::str::from_utf8(&chunk).expect("text"));
    }
    let logs =
        async |lines: u32| daemon.get(&format!("/v1/pools/own/logs?lines={lines}")).await.text().await.expect("text");
    let all = logs(100_000).await;
    for said in [&seen, &all, &std::fs::read_to_string(daemon.data_dir().join("logs/own.log")).expect("its log")] {
        assert!(said.contains("loading with") && !said.contains("hunter2"), "{said}");
    }
    assert!(all.contains(" starts /") && all.contains("main: model loaded"), "{all}");
    let last = logs(2).await;
    assert_eq!(last.lines().count(), 2);
    assert!(all.ends_with(&last), "{last}");
    assert_eq!(logs(0).await, "");

    // Whoever follows is told of the end.
    daemon.signal("-TERM");
    while follow.chunk().await.expect("whole lines").is_some() {}
    assert_eq!(daemon.ended().await.code(), Some(0));
}

/// LO-POOL-10, ORCH-3506, ORCH-3507, LO-POOL-07: GPUs are shown with what can be read of them, and what pools go through is counted.
#[tokio::test]
async fn what_is_measured() {
    let mut gpus = State::reference_box();
    gpus.devices[1].utilization_percent = None;
    let pool = |id: &str, devices: &str| {
        let pool = ManagedPool::new(id).env("MOCK_ENGINE_VRAM_MB", 512);
        ManagedPool { devices: devices.to_owned(), ..pool }
    };
    let bench = Bench::with_gpus(&gpus, vec![pool("first", "[0]"), pool("second", "[1]")]);
    let daemon = bench.start().await;
    let (first, _) = (until_ready(&daemon, "first").await, until_ready(&daemon, "second").await);
    let one = eventually_async("the engine's memory is seen", async || {
        let devices = daemon.json("/v1/devices").await;
        let of_first = |process: &&Value| process["pid"] == first["pid"];
        let seen = devices["devices"][0]["processes"].as_array()?.iter().find(of_first)?["vram_bytes"] == 512 << 20;
        seen.then_some(devices)
    })
    .await;
    let device = &one["devices"][0];
    assert_eq!(
        (&device["name"], &device["compute_capability"]),
        (&json!("NVIDIA GeForce RTX 3090"), &json!("8.6")),
        "{one:#}"
    );
    assert_eq!((&device["pools"], &device["processes"][0]["pool_id"]), (&json!(["first"]), &json!("first")), "{one:#}");
    assert_eq!((&device["utilization_percent"], &device["temperature_c"]), (&json!(3.0), &json!(41.0)), "{one:#}");
    assert!(one["devices"][1]["utilization_percent"].is_null(), "{one:#}");

    let text = async || daemon.get("/metrics").await.text().await.expect("text");
    let sample = |text: &str, name: &str, pool: &str| -> Option<f64> {
        let of_pool = format!("pool_id=\"{pool}\"");
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(&of_pool))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    let metrics = text().await;
    assert_eq!(sample(&metrics, "gpu_utilization", "first"), Some(3.0), "{metrics}");
    assert_eq!(sample(&metrics, "gpu_utilization", "second"), None, "what cannot be read is left out");
    assert!(
        sample(&metrics, "vram_used_bytes", "first").is_some_and(|bytes| bytes >= f64::from(512 << 20)),
        "{metrics}"
    );
    assert_eq!(daemon.metric("pool_preloads_total{pool_id=\"first\",outcome=\"ready\"}").await, 1.0);

    let history = History::open(&daemon).await;
    let mark = history.now();
    super::bench::signal(first["pid"].as_i64().expect("a pid"), "-KILL");
    history.until_state(mark, "first", "backing_off", "killed").await;
    until_ready(&daemon, "first").await;
    assert_eq!(daemon.metric("pool_restarts_total{pool_id=\"first\"}").await, 1.0);
    assert_eq!(daemon.metric("pool_restarts_total{pool_id=\"second\"}").await, 0.0);
    assert_eq!(daemon.metric("pool_preloads_total{pool_id=\"first\",outcome=\"failed\"}").await, 1.0);
    assert_eq!(daemon.metric("pool_preloads_total{pool_id=\"first\",outcome=\"ready\"}").await, 2.0);
    ask(&daemon, "second", "drain", json!({"deadline_ms": 1000})).await;
    assert_eq!(daemon.metric("drain_events_total{pool_id=\"second\",reason=\"drain\"}").await, 1.0);

    bench.gpus.update(|state| state.driver = fake_nvml::Driver::Lost);
    eventually_async("nothing is measured any more", async || {
        let metrics = text().await;
        (sample(&metrics, "gpu_utilization", "first").is_none()
            && sample(&metrics, "vram_used_bytes", "first").is_none())
        .then_some(())
    })
    .await;
}

/// LO-POOL-05: a stop of the daemon ends engines that load as well as those that serve.
#[tokio::test]
async fn a_stop_ends_engines() {
    let loading = json!([{"fault": {"in_load": {"at_percent": 50, "end": "hang"}}}]);
    let bench = Bench::new(vec![
        ManagedPool::new("serves").env("MOCK_ENGINE_VRAM_MB", 16).env("MOCK_ENGINE_TOKEN_INTERVAL_MS", 20),
        ManagedPool { faults: loading, ..ManagedPool::new("loads").env("MOCK_ENGINE_VRAM_MB", 16) },
    ]);
    let mut daemon = bench.start().await;
    until_ready(&daemon, "serves").await;
    super::bench::until(&daemon, "loads", "loading", |health| health["pid"].is_i64()).await;
    let mut stream = daemon.run(&bench.task("serves", 20)).await;
    stream.until("token").await;
    daemon.signal("-TERM");
    assert_eq!(stream.rest().await.last().expect("a last frame").name, "end", "what runs has its grace");
    assert_eq!(daemon.ended().await.code(), Some(0));
    bench.nothing_left().await;
    assert!(
        std::fs::read_dir(daemon.data_dir().join("run")).is_ok_and(|left| left.count() == 0),
        "no run file is left"
    );
}
