//! `models`.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api_types::CatalogModel;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::command::{Ended, cli, command, ended};
use crate::server::{Reply, Request, TestServer};

const REF: &str = "hf:org/repo/tiny.gguf";
const ROUTE: &str = "/v1/catalog/models/hf%3Aorg%2Frepo%2Ftiny.gguf";
const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// What every record has, and these members besides.
fn record(members: Value) -> Value {
    let mut record =
        json!({"id": REF, "digest": format!("sha256:{HEX}"), "state": "Active", "created_ms": 1_760_000_000_000_i64});
    let (Some(known), Value::Object(members)) = (record.as_object_mut(), members) else { panic!("objects") };
    known.extend(members);
    record
}

fn fetched(outcome: &str) -> Value {
    record(json!({"local_path": "/models/tiny.gguf", "size_bytes": 4_294_967_296_i64, "verification": {
        "outcome": outcome, "findings": ["it has no signature"], "verified_at_ms": 1_760_000_000_000_i64}}))
}

fn job(state: &str, gibibytes: i64) -> Value {
    json!({"model_id": REF, "kind": "pull", "state": state, "bytes_done": gibibytes << 30, "bytes_total": 4_i64 << 30,
        "files_done": 0, "files_total": 1, "bytes_per_s": 1 << 30, "started_ms": 1_760_000_000_000_i64})
}

fn refusal(status: u16, code: &str, message: &str) -> Reply {
    Reply::json(status, json!({"code": code, "message": message, "retriable": false}))
}

/// A server whose jobs stand as in `looks`, one after the other, the last for ever.
async fn working(looks: Vec<Value>, outcome: &'static str) -> TestServer {
    let look = AtomicUsize::new(0);
    TestServer::start(move |request| match (request.method.as_str(), request.path.strip_prefix(ROUTE)) {
        ("POST", Some("/pull" | "/verify")) => Reply::json(202, json!({"status": "started"})),
        ("GET", Some("/job")) => {
            let next = look.fetch_add(1, Ordering::Relaxed).min(looks.len() - 1);
            Reply::json(200, looks[next].clone())
        }
        ("DELETE", Some("/job")) => Reply::json(204, ""),
        ("GET", Some("")) => Reply::json(200, fetched(outcome)),
        _ => refusal(404, "NOT_FOUND", "no such route"),
    })
    .await
}

/// LO-CLI-01: a table of what there is; pages are followed.
#[tokio::test]
async fn the_catalog_as_a_table() {
    let server = TestServer::start(|request| match request.path.contains("cursor") {
        false => Reply::json(200, json!({"models": [fetched("warn")], "next_cursor": "2"})),
        true => {
            let under_way = json!({"id": "file:/a", "state": "Retired", "tags": ["a", "b"], "facts": {"format": "gguf", "quant": "Q4_K_M"},
                "job": job("running", 1)});
            Reply::json(200, json!({"models": [record(under_way)]}))
        }
    })
    .await;
    let listed = cli(&server.url, &["models", "list"]).await;
    let expected = "\
MODEL                  STATE    HERE       SIZE     QUANT   VERIFIED  DIGEST               TAGS
hf:org/repo/tiny.gguf  active   yes        4.0 GiB  -       warn      sha256:9f86d081884c  -
file:/a                retired  pull 25 %  -        Q4_K_M  -         sha256:9f86d081884c  a,b
";
    assert_eq!((listed.code, listed.out.as_str(), listed.err.as_str()), (0, expected, ""));
    assert_eq!(server.routes()[1], "GET /v1/catalog/models?limit=99&cursor=2");

    let json =
        cli(&server.url, &["models", "list", "--json", "--limit", "1", "--state", "retired", "--tag", "a"]).await;
    let list: Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(list, json!({"models": [fetched("warn")], "next_cursor": "2"}));
    assert_eq!(server.routes()[2], "GET /v1/catalog/models?state=Retired&tag=a&limit=1");

    let empty = TestServer::start(|_| Reply::json(200, json!({"models": []}))).await;
    assert!(cli(&empty.url, &["models", "list"]).await.out.contains("models pull REF"));
    assert_eq!(cli(&empty.url, &["models", "list", "--tag", "x"]).await.out, "no model passes these filters\n");
}

/// OC-CLI-2101: one model, with what its header says and what is left of its time.
#[tokio::test]
async fn one_model_in_full() {
    let whole = json!({"local_path": "/models/tiny.gguf", "size_bytes": 512, "state": "Retired", "retire_at_ms": 1,
        "sbom": {"uri": "file:/sbom", "digest": format!("sha256:{HEX}")}, "trust_policy": {"mode": "strict"},
        "signatures": [{"signer": "me", "algo": "ed25519", "verified": true, "timestamp_ms": 0}],
        "facts": {"format": "gguf", "architecture": "gemma3", "parameters": 7_240_000_000_i64, "ctx_max": 32768,
            "chat_template": true, "kv_bytes_per_token": 26_624}});
    let known = record(whole);
    let answer = known.clone();
    let server = TestServer::start(move |_| Reply::json(200, answer.clone())).await;
    let shown = cli(&server.url, &["models", "show", REF]).await;
    for part in [
        "state:              retired; pools that serve it stop in 0 ms",
        "path:               /models/tiny.gguf",
        "trust:              strict",
        "signature:          by me, ed25519, valid",
        "bill of materials:  file:/sbom (sha256:9f86d081884c)",
        "parameters:         7.2 B",
        "trained context:    32768 tokens",
        "KV per token:       26.0 KiB",
    ] {
        assert!(shown.out.contains(part), "{part}\n{}", shown.out);
    }
    assert_eq!(server.routes(), [format!("GET {ROUTE}")], "the reference is sent as it is");
    let json = cli(&server.url, &["models", "show", REF, "--json"]).await;
    let shown: Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!((&shown["facts"]["ctx_max"], &shown["signatures"]), (&json!(32768), &known["signatures"]));
}

/// OC-CLI-2101: what vouches for a model reaches the server as the contract has it.
#[tokio::test]
async fn a_model_is_registered_with_its_signature() {
    let server = TestServer::start(|_| Reply::json(201, record(json!({})))).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let certificate = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
    let (signature, pem) = (file("model.sig", &[0x30, 0x45, 0x02, 0xff]), file("acme.pem", certificate.as_bytes()));
    let options = [
        "models",
        "add",
        REF,
        "--digest",
        &HEX.to_uppercase(),
        "--tag",
        "a",
        "--tag",
        "b",
        "--source-url",
        "https://x/y",
        "--strict",
        "--signature",
        &signature,
        "--certificate",
        &pem,
        "--algo",
        "ed25519",
        "--sbom",
        "file:/sbom",
        "--sbom-digest",
        &format!("sha256:{HEX}"),
    ];
    let added = cli(&server.url, &options).await;
    assert_eq!(added.code, 0, "{added:?}");
    assert!(added.out.contains("path:        not on the server"), "{}", added.out);
    let sent = &server.seen()[0];
    assert_eq!(sent.route(), "POST /v1/catalog/models");
    let model: CatalogModel = api_types::strict::from_json(sent.body.as_bytes()).expect("what the server would take");
    assert_eq!((model.id.as_str(), model.digest), (REF, format!("sha256:{HEX}")));
    assert_eq!((model.tags, model.source_url.as_deref()), (vec!["a".to_owned(), "b".to_owned()], Some("https://x/y")));
    assert_eq!(model.trust_policy.expect("strict").mode, api_types::TrustMode::Strict);
    assert_eq!(model.sbom.expect("given").uri, "file:/sbom");
    let signed = &model.signatures[0];
    assert_eq!((signed.signer.as_str(), signed.algo.as_str()), ("acme", "ed25519"));
    assert_eq!((signed.signature.as_deref(), signed.certificate.as_deref()), (Some("MEUC/w=="), Some(certificate)));
    assert!(signed.timestamp_ms > 1_700_000_000_000 && !signed.verified);

    let no_pem = [&options[..14], &["--certificate", &signature]].concat();
    for (wrong, part) in [
        (&["models", "add", REF, "--digest", "sha256:12"][..], "64 hex digits"),
        (&["models", "add", REF], "--digest"),
        (&["models", "add", "", "--digest", HEX], "hf:org/repo/file.gguf"),
        (&["models", "add", REF, "--digest", HEX, "--signature", &pem], "--certificate"),
        (
            &["models", "add", REF, "--digest", HEX, "--signature", "/no/such", "--certificate", &pem],
            "cannot read /no/such",
        ),
        (&no_pem, "holds no certificate"),
    ] {
        let refused = cli(&server.url, wrong).await;
        assert_eq!(refused.code, 2, "{wrong:?}");
        assert!(refused.err.contains(part), "{part}: {}", refused.err);
    }
    assert_eq!(server.seen().len(), 1, "nothing wrong was sent");
}

/// A pull without a terminal: a line now and then, and in the end what came.
#[tokio::test]
async fn a_pull_is_followed_to_its_end() {
    let looks = vec![job("waiting", 0), job("running", 1), job("running", 1), job("running", 3), job("done", 4)];
    let server = working(looks, "warn").await;
    let digest = format!("sha256:{HEX}");
    let pulled = cli(&server.url, &["models", "pull", REF, "--digest", HEX]).await;
    assert_eq!(pulled.code, 0, "{pulled:?}");
    let expected = format!(
        "model:         {REF}\ndigest:        {digest}\npath:          /models/tiny.gguf\nsize:          4.0 GiB\n\
         verification:  warn: it has no signature\n"
    );
    assert_eq!(pulled.out, expected);
    let lines = "\
llama-orch: waiting for other work on the model: 0 B of 4.0 GiB (0 %)
llama-orch: fetching: 1.0 GiB of 4.0 GiB (25 %), 1.0 GiB/s, 3.0 s left
llama-orch: fetching: 3.0 GiB of 4.0 GiB (75 %), 1.0 GiB/s, 1.0 s left
llama-orch: fetched: 4.0 GiB of 4.0 GiB (100 %)
";
    assert_eq!(pulled.err, lines);
    assert_eq!(server.seen()[0].route(), format!("POST {ROUTE}/pull"));
    assert_eq!(server.seen()[0].body, json!({"digest": digest}).to_string());
}

/// With --json each change is one line, as in the server's feed, and the model is the last.
#[tokio::test]
async fn a_pull_in_json() {
    let server = working(vec![job("running", 1), job("running", 1), job("done", 4)], "pass").await;
    let pulled = cli(&server.url, &["models", "pull", REF, "--json"]).await;
    let lines: Vec<Value> = pulled.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let change = |job: Value| json!({"event": "model_job", "data": job});
    assert_eq!(lines[..2], [change(job("running", 1)), change(job("done", 4))]);
    assert_eq!((&lines[2]["event"], &lines[2]["data"]["model"]), (&json!("model"), &fetched("pass")));
    assert_eq!((pulled.code, pulled.err.as_str(), lines.len()), (0, "", 3));
}

/// Nothing to do, or nobody who waits: no job is looked at.
#[tokio::test]
async fn a_pull_that_is_not_followed() {
    let status = |status: &'static str| {
        TestServer::start(move |request| match request.method.as_str() {
            "POST" => Reply::json(202, json!({"status": status})),
            _ => Reply::json(200, fetched("pass")),
        })
    };
    let present = status("present").await;
    let pulled = cli(&present.url, &["models", "pull", REF]).await;
    assert_eq!((pulled.code, pulled.err.as_str()), (0, ""));
    assert!(pulled.out.contains("/models/tiny.gguf"));
    assert_eq!(present.routes(), [format!("POST {ROUTE}/pull"), format!("GET {ROUTE}")]);

    let started = status("started").await;
    let detached = cli(&started.url, &["models", "pull", REF, "--detach"]).await;
    assert!(detached.code == 0 && detached.out.contains(&format!("models show {REF}")), "{detached:?}");
    let detached = cli(&started.url, &["models", "verify", REF, "--detach", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&detached.out).expect("JSON"), json!({"status": "started"}));
    assert_eq!(started.routes(), [format!("POST {ROUTE}/pull"), format!("POST {ROUTE}/verify")]);
}

/// LO-CLI-03, LO-CLI-08: a job that fails says why, and exits as if the request had been refused.
#[tokio::test]
async fn a_failed_job_fails_the_command() {
    for (code, retriable, exit, next) in [
        ("UNTRUSTED_ARTIFACT", false, 4, "the same command goes on"),
        ("NOT_FOUND", false, 4, "next:"),
        ("INTERNAL", false, 1, "correlation id in the server's log"),
        ("POOL_UNREADY", true, 6, "try again in 1.5 s"),
    ] {
        let mut failed = job("failed", 1);
        failed["error"] =
            json!({"code": code, "message": "the reason", "retriable": retriable, "retry_after_ms": 1500});
        let pulled = cli(&working(vec![failed], "pass").await.url, &["models", "pull", REF]).await;
        assert_eq!((pulled.code, pulled.out.as_str()), (exit, ""), "{code}");
        assert!(pulled.err.contains(&format!("{code}: the reason")) && pulled.err.contains(next), "{}", pulled.err);
    }
    let canceled = cli(&working(vec![job("canceled", 1)], "pass").await.url, &["models", "pull", REF]).await;
    assert_eq!(canceled.code, 130);
    assert!(canceled.err.contains("somebody else") && canceled.err.contains("goes on from there"), "{}", canceled.err);

    let refusing = TestServer::start(|_| refusal(400, "UNTRUSTED_ARTIFACT", "name it under [[catalog.models]]")).await;
    let refused = cli(&refusing.url, &["models", "pull", REF]).await;
    assert!(refused.code == 4 && refused.err.contains("[[catalog.models]]"), "{refused:?}");
}

/// A verification that found something wrong fails the command, however the job ended.
#[tokio::test]
async fn a_model_that_cannot_be_trusted() {
    let verified = cli(&working(vec![job("done", 4)], "fail").await.url, &["models", "verify", REF]).await;
    assert_eq!(verified.code, 4);
    assert!(verified.out.contains("verification:  fail: it has no signature"), "{}", verified.out);
    assert!(verified.err.contains("cannot be trusted") && verified.err.contains("next:"), "{}", verified.err);
    let server = working(vec![job("done", 4)], "pass").await;
    assert_eq!(cli(&server.url, &["models", "verify", REF]).await.code, 0);
    assert_eq!(server.routes()[0], format!("POST {ROUTE}/verify"));
}

/// A server that is started again, or a connection that is lost, ends nothing by itself; forgotten work does.
#[tokio::test]
async fn a_lost_look_is_made_again() {
    let look = AtomicUsize::new(0);
    let server = TestServer::start(move |request: &Request| match request.route() {
        route if route.ends_with("/job") => match look.fetch_add(1, Ordering::Relaxed) {
            0..4 => Reply::json(200, "{").header("Content-Length", "400"),
            4 => Reply::json(200, job("running", 2)),
            _ => refusal(404, "NOT_FOUND", "no job"),
        },
        _ => Reply::json(202, json!({"status": "started"})),
    })
    .await;
    let pulled = cli(&server.url, &["models", "pull", REF]).await;
    assert_eq!(pulled.code, 1, "{pulled:?}");
    assert!(pulled.err.contains("(50 %)") && pulled.err.contains("started again"), "{}", pulled.err);
}

/// Starts a pull that does not end by itself and waits until it is looked at.
async fn pulling(answer_to_cancel: impl Fn() -> Reply + Send + Sync + 'static) -> (TestServer, Child, Arc<Notify>) {
    let (looked, canceling) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell_look, tell_cancel) = (Arc::clone(&looked), Arc::clone(&canceling));
    let server = TestServer::start(move |request| match request.method.as_str() {
        "POST" => Reply::json(202, json!({"status": "started"})),
        "DELETE" => {
            tell_cancel.notify_one();
            answer_to_cancel()
        }
        _ => {
            tell_look.notify_one();
            Reply::json(200, job("running", 1))
        }
    })
    .await;
    let mut pull = command(&server.url, &["models", "pull", REF]);
    let child = pull.stdin(Stdio::null()).spawn().expect("the command starts");
    looked.notified().await;
    (server, child, canceling)
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).expect("it runs");
}

/// Ctrl-C stops the transfer on the server and says how to go on.
#[tokio::test]
async fn ctrl_c_cancels_the_pull() {
    let (server, child, _) = pulling(|| Reply::json(204, "")).await;
    interrupt(&child);
    let ended: Ended = ended(child).await;
    assert_eq!((ended.code, ended.out.as_str()), (130, ""), "{ended:?}");
    assert!(ended.err.contains("canceled; what was fetched is kept, and the same command goes on"), "{}", ended.err);
    assert_eq!(server.routes().last(), Some(&format!("DELETE {ROUTE}/job")));
}

/// A second one leaves at once, whatever the server does.
#[tokio::test]
async fn a_second_ctrl_c_leaves_at_once() {
    let never = Arc::new(Notify::new());
    let hold = Arc::clone(&never);
    // A body that never comes: a 204 would be whole with its head.
    let held = move || Reply::json(200, "").header("Content-Length", "1").held_until(&hold, "");
    let (_server, child, canceling) = pulling(held).await;
    interrupt(&child);
    canceling.notified().await;
    interrupt(&child);
    let ended = ended(child).await;
    assert_eq!(ended.code, 130, "{ended:?}");
    assert!(ended.err.contains("it may go on"), "{}", ended.err);
}

/// States, removal and garbage collection.
#[tokio::test]
async fn what_changes_the_catalog() {
    let server = TestServer::start(|request| match (request.method.as_str(), request.body.contains("Active")) {
        ("DELETE", _) => Reply::json(204, ""),
        ("POST", true) => Reply::json(202, json!({"status": "present"})),
        ("POST", false) if request.path.ends_with("/state") => Reply::json(202, json!({"status": "accepted"})),
        _ => {
            let removed = json!([{"path": "a/b.gguf.part", "bytes": 1024}]);
            Reply::json(200, json!({"removed": removed, "bytes": 1024, "dry_run": request.body.contains("true")}))
        }
    })
    .await;
    for (arguments, out, body) in [
        (
            &["retire", REF, "--deadline", "60s"][..],
            format!("{REF} is retired\n"),
            json!({"state": "Retired", "deadline_ms": 60_000}),
        ),
        (&["activate", REF], format!("{REF} was active before\n"), json!({"state": "Active"})),
        (&["gc"], "SIZE     PATH\n1.0 KiB  a/b.gguf.part\n1.0 KiB removed\n".to_owned(), json!({"dry_run": false})),
        (
            &["gc", "--dry-run"],
            "SIZE     PATH\n1.0 KiB  a/b.gguf.part\n1.0 KiB would go\n".to_owned(),
            json!({"dry_run": true}),
        ),
    ] {
        let ended = cli(&server.url, &[&["models"], arguments].concat()).await;
        assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, out.as_str(), ""), "{arguments:?}");
        let sent: Value = serde_json::from_str(&server.seen().last().expect("sent").body).expect("JSON");
        assert_eq!(sent, body);
    }
    let json = cli(&server.url, &["models", "retire", REF, "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&json.out).expect("JSON"), json!({"status": "accepted"}));

    let asked = server.routes().len();
    let removed = cli(&server.url, &["models", "rm", REF, "--yes"]).await;
    assert_eq!((removed.code, removed.out.as_str(), removed.err.as_str()), (0, "", ""));
    assert_eq!(server.routes()[asked..], [format!("DELETE {ROUTE}")]);
}

/// Nothing is removed where nobody can be asked.
#[tokio::test]
async fn removal_wants_a_word() {
    let server = TestServer::start(|_| Reply::json(200, fetched("pass"))).await;
    let refused = cli(&server.url, &["models", "rm", REF]).await;
    assert!(refused.code == 2 && refused.err.contains("--yes"), "{refused:?}");
    assert!(server.routes().iter().all(|route| route.starts_with("GET")));
}

/// What a model needs and who has it; sizes on the command line are judged too.
#[tokio::test]
async fn what_fits_where() {
    let report = |devices: Value, no_devices: Value| {
        json!({"model_id": REF, "facts": {"format": "gguf", "architecture": "gemma3", "quant": "BF16", "chat_template": true,
            "parameters": 999_890_000}, "ctx": 8192, "slots": 2, "weights_bytes": 2_i64 << 30, "kv_bytes": 1_i64 << 30,
            "compute_bytes": 1_i64 << 28, "overhead_bytes": 1_i64 << 28, "total_bytes": 7_i64 << 29, "devices": devices, "no_devices": no_devices})
    };
    let device = json!([{"index": 0, "name": "NVIDIA X", "vram_total_bytes": 24_i64 << 30, "vram_free_bytes": 1_i64 << 30,
        "fits": true, "fits_now": false, "ctx_max": 131_072}]);
    let known = report(device, Value::Null);
    let server = TestServer::start(move |_| Reply::json(200, known.clone())).await;
    let fit = cli(&server.url, &["models", "fit", REF, "--ctx", "8192", "--slots", "2"]).await;
    let expected = "\
model:            hf:org/repo/tiny.gguf
kind:             gemma3, BF16, 1000 M
context:          8192 tokens, 2 slots
weights:          2.0 GiB
keys and values:  1.0 GiB
compute buffers:  256.0 MiB, estimated
CUDA itself:      256.0 MiB, typically
total:            3.5 GiB

DEVICE      MEMORY    FREE     FITS  FITS NOW  LARGEST CONTEXT
0 NVIDIA X  24.0 GiB  1.0 GiB  yes   no        131072
";
    assert_eq!((fit.code, fit.out.as_str(), fit.err.as_str()), (0, expected, ""));
    assert_eq!(server.routes(), ["GET /v1/catalog/fit?model_ref=hf%3Aorg%2Frepo%2Ftiny.gguf&ctx=8192&slots=2"]);

    let without = report(json!([]), json!("no NVIDIA driver answers"));
    let bare = TestServer::start(move |_| Reply::json(200, without.clone())).await;
    let fit = cli(&bare.url, &["models", "fit", REF]).await;
    assert!(
        fit.out.ends_with("total:            3.5 GiB\n\nno GPU of the server to judge: no NVIDIA driver answers\n"),
        "{}",
        fit.out
    );
    let fit = cli(&bare.url, &["models", "fit", REF, "--vram", "4GiB,3GiB"]).await;
    let judged = "\
DEVICE  MEMORY   FREE  FITS  FITS NOW  LARGEST CONTEXT
--vram  4.0 GiB  -     yes   -         -
--vram  3.0 GiB  -     no    -         -
";
    assert!(fit.out.contains(judged), "{}", fit.out);
    let fit = cli(&bare.url, &["models", "fit", REF, "--vram", "4GiB", "--json"]).await;
    let answer: Value = serde_json::from_str(&fit.out).expect("JSON");
    assert_eq!(
        (&answer["total_bytes"], &answer["given"]),
        (&json!(7_i64 << 29), &json!([{"vram_total_bytes": 4_i64 << 30, "fits": true}]))
    );

    for wrong in [&["--vram", "24"][..], &["--ctx", "0"], &["--slots", "x"]] {
        assert_eq!(cli(&bare.url, &[&["models", "fit", REF], wrong].concat()).await.code, 2, "{wrong:?}");
    }
}
