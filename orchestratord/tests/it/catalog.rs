//! The catalog over HTTP, and what it does to admission, pools and streams.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Daemon, config, eventually_async, start_engine, task, with};

const ID: &str = "file:mock-model";
const ESCAPED: &str = "file:mock-model";
const NO_DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn digest_of(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let hex: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A daemon whose pool serves `mock-model`, with a file of that name in the models' folder.
async fn with_model(engine: &mock::process::MockEngineProcess, settings: &str) -> Daemon {
    let daemon = Daemon::start(&(config(engine.url(), "") + "\n[catalog]\nmodels_dir = \"models\"\n" + settings)).await;
    fs::create_dir_all(models(&daemon)).expect("a folder");
    fs::write(models(&daemon).join("mock-model"), b"weights").expect("a file");
    daemon.ready().await;
    daemon
}

fn models(daemon: &Daemon) -> std::path::PathBuf {
    daemon.data_dir().parent().expect("it lies in the test's folder").join("models")
}

async fn register(daemon: &Daemon, digest: &str) -> (u16, Value) {
    let answer = daemon.post("/v1/catalog/models", &json!({"id": "mock-model", "digest": digest})).await;
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

async fn model(daemon: &Daemon) -> Value {
    daemon.json(&format!("/v1/catalog/models/{ESCAPED}")).await
}

async fn verified(daemon: &Daemon) -> Value {
    eventually_async("the model is verified", async || {
        let model = model(daemon).await;
        model["verification"].is_object().then_some(model)
    })
    .await
}

async fn retire(daemon: &Daemon, body: Value) -> u16 {
    daemon.post(&format!("/v1/catalog/models/{ESCAPED}/state"), &body).await.status().as_u16()
}

/// ORCH-3060, ORCH-3062, ORCH-3470: a model is registered, read conditionally, listed by pages, and forgotten with its file.
#[tokio::test]
async fn a_model_is_registered_read_and_forgotten() {
    let daemon = Daemon::start(&config("http://127.0.0.1:9", "")).await;
    for name in ["b", "a", "c"] {
        let body = json!({"id": format!("hf:org/repo/{name}.gguf"), "digest": NO_DIGEST, "tags": [name]});
        let answer = daemon.post("/v1/catalog/models", &body).await;
        assert_eq!(answer.status(), 201, "{name}");
    }
    let page = daemon.json("/v1/catalog/models?limit=2").await;
    assert_eq!(page["models"][0]["id"], "hf:org/repo/a.gguf");
    let cursor = page["next_cursor"].as_str().expect("there is more");
    let rest = daemon.json(&format!("/v1/catalog/models?limit=2&cursor={}", cursor.replace('/', "%2F"))).await;
    assert_eq!((rest["models"].as_array().map(Vec::len), &rest["next_cursor"]), (Some(1), &Value::Null));
    assert_eq!(daemon.json("/v1/catalog/models?tag=b").await["models"][0]["id"], "hf:org/repo/b.gguf");

    let path = "/v1/catalog/models/hf:org%2Frepo%2Fa.gguf";
    let first = daemon.get(path).await;
    let (etag, modified) = (first.headers()["etag"].clone(), first.headers()["last-modified"].clone());
    for (name, value) in [("if-none-match", &etag), ("if-modified-since", &modified)] {
        // What changed within this second may change again, so a date counts from the next one on.
        eventually_async("it is not sent again", async || {
            let again = daemon.http().get(daemon.url(path)).header(name, value).send().await.expect("an answer");
            assert_eq!(again.headers().get("etag"), Some(&etag), "{name}");
            (again.status() == 304).then_some(())
        })
        .await;
    }
    let delete = || daemon.http().delete(daemon.url(path)).send();
    assert_eq!(delete().await.expect("an answer").status(), 204);
    assert_eq!(delete().await.expect("an answer").status(), 404);
    assert_eq!(daemon.get(path).await.status(), 404);
}

/// ORCH-3060: what is wrong with a registration is said, and nothing is stored.
#[tokio::test]
async fn a_wrong_registration_is_refused() {
    let daemon = Daemon::start(&config("http://127.0.0.1:9", "")).await;
    for (body, code, word) in [
        (json!({"id": "hf:org/repo", "digest": "sha256:12"}), "INVALID_PARAMS", "digest"),
        (json!({"id": "hf:../repo", "digest": NO_DIGEST}), "INVALID_PARAMS", "id"),
        (json!({"id": "ftp:org/repo", "digest": NO_DIGEST}), "INVALID_PARAMS", "hf:"),
        (json!({"id": "hf:org/repo", "digest": NO_DIGEST, "tag": []}), "INVALID_PARAMS", "tags"),
    ] {
        let answer = daemon.post("/v1/catalog/models", &body).await;
        assert_eq!(answer.status(), 400, "{body}");
        let refusal: Value = answer.json().await.expect("JSON");
        assert_eq!(refusal["code"], code, "{refusal}");
        assert!(refusal["message"].as_str().is_some_and(|text| text.contains(word)), "{refusal}");
    }
    let strict = daemon.http().post(daemon.url("/v1/catalog/models")).header("x-trust-policy", "strict");
    let strict = strict.json(&json!({"id": "hf:org/repo", "digest": NO_DIGEST})).send().await.expect("an answer");
    assert_eq!(strict.status(), 400);
    assert_eq!(strict.json::<Value>().await.expect("JSON")["code"], "UNTRUSTED_ARTIFACT");
    assert_eq!(daemon.json("/v1/catalog/models").await["models"], json!([]));
    let other = format!("sha256:{}", "1".repeat(64));
    let body = |digest: &str| json!({"id": "hf:org/repo", "digest": digest});
    assert_eq!(daemon.post("/v1/catalog/models", &body(NO_DIGEST)).await.status(), 201);
    assert_eq!(daemon.post("/v1/catalog/models", &body(NO_DIGEST)).await.status(), 201, "a safe retry");
    assert_eq!(daemon.post("/v1/catalog/models", &body(&other)).await.status(), 409);
}

/// ORCH-3061, ORCH-3037.3, LO-CAT-15: files are compared with the digest; a mismatch bars the model before admission.
#[tokio::test]
async fn a_model_that_is_not_what_it_must_be_is_barred() {
    let engine = start_engine(&[]);
    let daemon = with_model(&engine, "").await;
    assert_eq!(register(&daemon, &digest_of(b"weights")).await.0, 201);
    let good = verified(&daemon).await;
    assert_eq!((&good["verification"]["outcome"], &good["size_bytes"]), (&json!("pass"), &json!(7)), "{good}");
    daemon.accepted(&task("x", 1)).await;

    fs::write(models(&daemon).join("mock-model"), b"weighty").expect("a file");
    let answer = daemon.post(&format!("/v1/catalog/models/{ESCAPED}/verify"), &json!({})).await;
    assert_eq!(answer.status(), 202);
    assert_eq!(answer.json::<Value>().await.expect("JSON"), json!({"status": "started"}));
    eventually_async("the mismatch is found and the pool not ready", async || {
        (daemon.json("/v1/pools/gpu0/health").await["ready"] == false).then_some(())
    })
    .await;
    assert_eq!(model(&daemon).await["verification"]["outcome"], "fail");
    let (status, refusal) = daemon.refusal(&task("x", 1)).await;
    assert_eq!((status, &refusal["code"]), (400, &json!("UNTRUSTED_ARTIFACT")), "{refusal}");
    assert!(daemon.metric("catalog_verifications_total{result=\"fail\"").await >= 1.0);
}

/// LO-CAT-16, ORCH-3031.1, ORCH-3072: a retired model takes no tasks, what was admitted runs on, and its state is seen everywhere.
#[tokio::test]
async fn a_retired_model_drains_and_refuses() {
    let engine = start_engine(&["--tokens-per-second", "50"]);
    let daemon = with_model(&engine, "").await;
    assert_eq!(register(&daemon, &digest_of(b"weights")).await.0, 201);
    verified(&daemon).await;
    let mut running = daemon.occupy(&task("x", 30)).await;
    let waiting = task("y", 2);
    let mut queued = daemon.run(&waiting).await;
    assert_eq!(retire(&daemon, json!({"state": "Retired"})).await, 202);

    let (status, refusal) = daemon.refusal(&task("z", 1)).await;
    assert_eq!((status, &refusal["code"]), (400, &json!("MODEL_DEPRECATED")), "{refusal}");
    let health = daemon.json("/v1/pools/gpu0/health").await;
    assert_eq!((&health["ready"], &health["draining"]), (&json!(false), &json!(true)), "{health}");
    assert_eq!(daemon.get("/readyz").await.status(), 503);
    assert!((daemon.metric(&format!("model_state{{model_id=\"{ID}\",state=\"Retired\"}}")).await - 1.0).abs() < 0.1);
    assert!(daemon.metric(&format!("model_state{{model_id=\"{ID}\",state=\"Active\"}}")).await < 0.1);
    running.until("end").await;
    queued.until("end").await;

    assert_eq!(retire(&daemon, json!({"state": "Active"})).await, 202);
    daemon.ready().await;
    daemon.run(&task("z", 1)).await.until("end").await;
}

/// LO-CAT-16: at the deadline of a retirement what is left ends with a typed error, also when the daemon was restarted meanwhile.
#[tokio::test]
async fn the_deadline_of_a_retirement_ends_what_is_left() {
    let engine = start_engine(&["--tokens-per-second", "20"]);
    let mut daemon = with_model(&engine, "").await;
    assert_eq!(register(&daemon, &digest_of(b"weights")).await.0, 201);
    verified(&daemon).await;
    let mut running = daemon.occupy(&task("x", 4000)).await;
    let mut queued = daemon.run(&task("y", 2)).await;
    assert_eq!(retire(&daemon, json!({"state": "Retired", "deadline_ms": 300})).await, 202);
    for stream in [&mut running, &mut queued] {
        assert_eq!(stream.until("error").await.data["code"], "MODEL_DEPRECATED");
    }
    daemon.kill();
    daemon.start_again().await;
    let (_, refusal) = daemon.refusal(&task("z", 1)).await;
    assert_eq!(refusal["code"], "MODEL_DEPRECATED", "{refusal}");
    assert!((daemon.metric(&format!("model_state{{model_id=\"{ID}\",state=\"Retired\"}}")).await - 1.0).abs() < 0.1);
    assert_eq!(retire(&daemon, json!({"state": "Retired", "deadline_ms": -1})).await, 400);
    assert_eq!(retire(&daemon, json!({"state": "Draft"})).await, 400);
}

/// ORCH-3031.1: a model that a pool serves is not deleted under it.
#[tokio::test]
async fn a_served_model_is_retired_before_it_is_deleted() {
    let engine = start_engine(&[]);
    let daemon = with_model(&engine, "").await;
    assert_eq!(register(&daemon, &digest_of(b"weights")).await.0, 201);
    verified(&daemon).await;
    let delete = || daemon.http().delete(daemon.url(&format!("/v1/catalog/models/{ESCAPED}"))).send();
    assert_eq!(delete().await.expect("an answer").status(), 409);
    retire(&daemon, json!({"state": "Retired"})).await;
    eventually_async("it is deleted", async || (delete().await.ok()?.status() == 204).then_some(())).await;
    assert!(!models(&daemon).join("mock-model").exists(), "its file went with it");
    daemon.ready().await;
}

/// LO-CAT-13: under strict trust an unknown model and one without a signature are refused.
#[tokio::test]
async fn strict_trust_refuses_what_is_not_proven() {
    let engine = start_engine(&[]);
    let config = config(engine.url(), "") + "\n[catalog]\nmodels_dir = \"models\"\ntrust = \"strict\"\n";
    let daemon = Daemon::start(&config).await;
    let refused = eventually_async("the engine is up and the model refused", async || {
        let (_, refusal) = daemon.refusal(&task("x", 1)).await;
        (refusal["code"] == "UNTRUSTED_ARTIFACT").then_some(refusal)
    });
    assert!(refused.await["message"].as_str().is_some_and(|text| text.contains("strict")));
    let (status, refusal) = register(&daemon, NO_DIGEST).await;
    assert_eq!((status, &refusal["code"]), (400, &json!("UNTRUSTED_ARTIFACT")), "{refusal}");
}

/// LO-MOD-02: a task's stream and the bundle name the digest that the catalog knows.
#[tokio::test]
async fn the_digest_of_the_catalog_is_told() {
    let engine = start_engine(&[]);
    let daemon = with_model(&engine, "").await;
    let digest = digest_of(b"weights");
    assert_eq!(register(&daemon, &digest).await.0, 201);
    verified(&daemon).await;
    let mut stream = daemon.run(&with(task("x", 1), "seed", json!(1))).await;
    assert_eq!(stream.until("started").await.data["model_digest"], digest);
}

/// LO-CAT-10: a client learns nothing of files that neither lie in the models' folder nor are named by the configuration.
#[tokio::test]
async fn a_client_has_no_other_files_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (secret, named) = (folder.path().join("secret"), folder.path().join("named"));
    for path in [&secret, &named] {
        fs::write(path, b"weights").expect("a file");
    }
    let settings = format!("\n[[catalog.models]]\nref = \"file:{}\"\n", named.display());
    let daemon = Daemon::start(&(config("http://127.0.0.1:9", "") + &settings)).await;
    let escaped = |path: &std::path::Path| format!("file:{}", path.display()).replace('/', "%2F");
    let pull = async |path| daemon.post(&format!("/v1/catalog/models/{}/pull", escaped(path)), &json!({})).await;
    for answer in [pull(&secret).await, daemon.get(&format!("/v1/catalog/fit?model_ref={}", escaped(&secret))).await] {
        assert_eq!(answer.status(), 400);
        let refusal: Value = answer.json().await.expect("JSON");
        assert_eq!(refusal["code"], "UNTRUSTED_ARTIFACT", "{refusal}");
        assert!(refusal["message"].as_str().is_some_and(|text| text.contains("[[catalog.models]]")), "{refusal}");
    }
    let id = format!("file:{}", secret.display());
    let created = daemon.post("/v1/catalog/models", &json!({"id": id, "digest": digest_of(b"weights")})).await;
    assert_eq!(created.status(), 201);
    let created: Value = created.json().await.expect("JSON");
    assert!(created["local_path"].is_null() && created["job"].is_null(), "{created}");
    assert_eq!(pull(&named).await.status(), 202);
    let record = format!("/v1/catalog/models/{}", escaped(&named));
    eventually_async("the named one is here", async || (daemon.json(&record).await["size_bytes"] == 7).then_some(()))
        .await;
}
