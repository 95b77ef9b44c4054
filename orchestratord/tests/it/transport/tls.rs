use std::path::Path;

use rcgen::{CertificateParams, CertifiedKey, KeyPair};
use serde_json::Value;
use tempfile::TempDir;

use super::{Raw, config_with};
use crate::harness::{Daemon, eventually_async, refused, start_engine, task};

/// A certificate for loopback and its key, as files.
struct Files {
    dir: TempDir,
    pem: String,
}

impl Files {
    fn new() -> Self {
        let files = Self { dir: tempfile::tempdir().expect("a directory"), pem: String::new() };
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        files.write(&cert.pem(), &signing_key.serialize_pem());
        Self { pem: cert.pem(), ..files }
    }

    fn write(&self, certificate: &str, key: &str) {
        std::fs::write(self.path("cert.pem"), certificate).expect("written");
        std::fs::write(self.path("key.pem"), key).expect("written");
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// The lines for `[server]`.
    fn settings(&self) -> String {
        settings(&self.path("cert.pem"), &self.path("key.pem"))
    }

    fn client(&self) -> reqwest::ClientBuilder {
        let root = reqwest::Certificate::from_pem(self.pem.as_bytes()).expect("a certificate");
        reqwest::Client::builder().no_proxy().tls_certs_only([root])
    }
}

fn settings(certificate: &Path, key: &Path) -> String {
    format!("tls_cert = {certificate:?}\ntls_key = {key:?}\n")
}

/// The stream of a task that has ended, as bytes; with the protocol that it came by.
async fn replay(client: &reqwest::Client, base: &str, task: &Value) -> (reqwest::Version, Vec<u8>) {
    let id = task["task_id"].as_str().expect("an id");
    let answer = client.get(format!("{base}/v1/tasks/{id}/stream")).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    (answer.version(), answer.bytes().await.expect("the whole stream").into())
}

/// SSE-1005, OC-CTRL-2025, ORCH-3450: HTTP/1.1 and HTTP/2, by TLS and in clear, give the same bytes.
#[tokio::test]
async fn every_way_gives_the_same_bytes() {
    let engine = start_engine(&[]);
    let files = Files::new();
    let task = task("Tell me about transports.", 30);
    for (settings, scheme) in [(String::new(), "http"), (files.settings(), "https")] {
        let daemon = Daemon::start(&config_with(engine.url(), &settings)).await;
        let base = format!("{scheme}://{}", daemon.addr());
        let two = match scheme {
            "http" => files.client().http2_prior_knowledge(),
            _ => files.client(),
        };
        let (one, two) = (files.client().http1_only().build().expect("built"), two.build().expect("built"));
        eventually_async("a pool is ready", async || {
            let ready = one.get(format!("{base}/readyz")).send().await.expect("an answer");
            ready.status().is_success().then_some(())
        })
        .await;
        let submit = two.post(format!("{base}/v1/tasks")).header("accept", "text/event-stream").json(&task);
        let live = submit.send().await.expect("an answer");
        assert_eq!((live.status().as_u16(), live.version()), (200, reqwest::Version::HTTP_2), "{scheme}");
        assert!(!live.headers().contains_key("connection") && live.headers().contains_key("x-correlation-id"));
        let live: Vec<u8> = live.bytes().await.expect("the whole stream").into();
        assert!(live.starts_with(b"id: 0\nevent: started\n"));
        assert_eq!(replay(&one, &base, &task).await, (reqwest::Version::HTTP_11, live.clone()), "{scheme}");
        assert_eq!(replay(&two, &base, &task).await, (reqwest::Version::HTTP_2, live), "{scheme}");
    }
}

/// A certificate that cannot serve is refused at start and by `--check-config`, each for its own reason.
#[tokio::test]
async fn unusable_certificates_are_refused() {
    let (files, other) = (Files::new(), Files::new());
    let (certificate, key) = (files.path("cert.pem"), files.path("key.pem"));
    let (missing, expired, early) = (files.path("missing.pem"), files.path("expired.pem"), files.path("early.pem"));
    let own = KeyPair::from_pem(&std::fs::read_to_string(&key).expect("readable")).expect("a key");
    for (file, from, to) in [(&expired, 2001, 2002), (&early, 2901, 2902)] {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1));
        std::fs::write(file, params.self_signed(&own).expect("signed").pem()).expect("written");
    }
    for (settings, says) in [
        (settings(&missing, &key), "server.tls_cert"),
        (settings(&certificate, &missing), "server.tls_key"),
        (settings(&key, &key), "holds no certificate"),
        (settings(&certificate, &certificate), "private key"),
        (settings(&certificate, &other.path("key.pem")), "do not belong together"),
        (settings(&expired, &key), "has expired"),
        (settings(&early, &key), "not valid yet"),
        (format!("tls_cert = {certificate:?}"), "server.tls_key"),
        (format!("tls_key = {key:?}"), "server.tls_cert"),
    ] {
        let config = config_with("http://127.0.0.1:9", &settings);
        let (code, said) = refused(&config, &[]).await;
        assert!(code == Some(2) && said.contains(says), "{code:?}: {said:?} should contain {says:?}");
        let (code, said) = checked(&files, &config);
        assert!(code == Some(2) && said.contains(says), "{code:?}: {said:?} should contain {says:?}");
    }
    assert_eq!(checked(&files, &config_with("http://127.0.0.1:9", &files.settings())).0, Some(0));
}

fn checked(files: &Files, config: &str) -> (Option<i32>, String) {
    let path = files.path("llama-orch.toml");
    std::fs::write(&path, config).expect("written");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_orchestratord"));
    command.env_clear().env("HOME", files.dir.path()).arg("--check-config").arg("--config").arg(path);
    let output = command.output().expect("it runs");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

/// A handshake that does not come is cut; so is a connection that shakes hands for HTTP/2 and then says nothing.
#[tokio::test]
async fn slow_handshakes_are_cut() {
    let files = Files::new();
    let settings = format!("{}tls_handshake_timeout_ms = 300\nhead_timeout_ms = 300", files.settings());
    let daemon = Daemon::start(&config_with("http://127.0.0.1:9", &settings)).await;
    let mut silent = Raw::open(daemon.addr()).await;
    let mut halfway = Raw::open(daemon.addr()).await;
    halfway.send(b"\x16\x03\x01\x02\x00\x01\x00").await;
    silent.until_closed().await;
    halfway.until_closed().await;
    let client = files.client().build().expect("built");
    let answer = client.get(format!("https://{}/healthz", daemon.addr())).send().await.expect("an answer");
    assert_eq!(answer.status(), 200, "others are served");
}

/// SIGHUP takes up a renewed certificate, and keeps the old one when the new one cannot be used.
#[tokio::test]
async fn a_certificate_is_renewed_without_a_restart() {
    let (old, new) = (Files::new(), Files::new());
    let daemon = Daemon::start(&config_with("http://127.0.0.1:9", &old.settings())).await;
    let asks = async |files: &Files| {
        let client = files.client().build().expect("built");
        client.get(format!("https://{}/healthz", daemon.addr())).send().await.is_ok()
    };
    assert!(asks(&old).await && !asks(&new).await);
    let read = |name: &str| std::fs::read_to_string(new.path(name)).expect("readable");
    old.write(&read("cert.pem"), "no key");
    daemon.signal("-HUP");
    eventually_async("the log tells", async || daemon.log().contains("keeps its old certificate").then_some(())).await;
    assert!(asks(&old).await && !asks(&new).await);
    old.write(&read("cert.pem"), &read("key.pem"));
    daemon.signal("-HUP");
    eventually_async("the new certificate is served", async || asks(&new).await.then_some(())).await;
    assert!(!asks(&old).await);
}
