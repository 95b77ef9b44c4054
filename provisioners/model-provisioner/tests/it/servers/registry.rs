//! Docker's registry.

use std::process::Command;

use catalog_core::Digest;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::tokens::TokenService;
use super::{Killed, program, start};
use crate::support::Setup;

/// The registry's program.
const PROGRAM: &str = "LLAMA_ORCH_OCI_REGISTRY";
pub(crate) const USER: &str = "reader";
pub(crate) const PASSWORD: &str = "registry-password";
/// `reader:registry-password`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "reader:$2b$04$yj8kd5e7LXGqMkx4G3Y3uufOTDvfqDuVpolNdaVy9yJ4X/q8DEa7m\n";
/// What must never be seen: the password, `reader:` with any password in base64, and the head of a token.
pub(crate) const SECRETS: [&str; 3] = [PASSWORD, "cmVhZGVyO", "eyJ"];
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How a registry finds out who asks.
pub(crate) enum Auth {
    Nobody,
    Password,
    Token(TokenService),
}

/// A running registry.
pub(crate) struct Registry {
    pub(crate) port: u16,
    auth: Auth,
    http: Client,
    _process: Killed,
    dir: TempDir,
}

impl Registry {
    /// Starts one; `None` where none is installed.
    pub(crate) async fn start(auth: Auth) -> Option<Self> {
        let program = program(PROGRAM)?;
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name);
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": path("storage")}, "delete": {"enabled": true}},
            "http": {"addr": "127.0.0.1:0"},
        });
        match &auth {
            Auth::Nobody => {}
            Auth::Password => {
                std::fs::write(path("htpasswd"), HTPASSWD).expect("a file");
                config["auth"] = json!({"htpasswd": {"realm": "models", "path": path("htpasswd")}});
            }
            Auth::Token(service) => {
                std::fs::write(path("roots.pem"), service.certificate()).expect("a file");
                config["auth"] = json!({"token": {
                    "realm": service.url(), "service": TokenService::SERVICE, "issuer": TokenService::ISSUER,
                    "rootcertbundle": path("roots.pem"),
                }});
            }
        }
        // JSON is YAML, too.
        std::fs::write(path("config.yml"), config.to_string()).expect("a file");
        let mut command = Command::new(program);
        command.arg("serve").arg(path("config.yml")).env_clear();
        let (process, port) = start(&mut command, &path("log"), listening).await;
        http_util::install_crypto();
        Some(Self { port, auth, http: Client::new(), _process: process, dir })
    }

    /// A fetcher's setup with credentials for the registry at `port`.
    pub(crate) fn setup(port: u16, user: &str, password: &str) -> Setup {
        let registry = format!("127.0.0.1:{port}");
        Setup::new().env("OCI_REGISTRY", registry).env("OCI_USERNAME", user).env("OCI_PASSWORD", password)
    }

    /// Its token service.
    pub(crate) fn tokens(&self) -> &TokenService {
        match &self.auth {
            Auth::Token(service) => service,
            Auth::Nobody | Auth::Password => panic!("it has none"),
        }
    }

    /// Uploads a blob; returns its descriptor.
    pub(crate) async fn push(&self, repository: &str, media_type: &str, bytes: &[u8]) -> Value {
        let uploads = format!("http://127.0.0.1:{}/v2/{repository}/blobs/uploads/", self.port);
        let begun = self.send(repository, self.http.post(uploads)).await;
        let digest = Digest::of(bytes);
        let location = begun.headers()[LOCATION].to_str().expect("a text");
        let mut url: url::Url = location.parse().expect("a URL");
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let put = self.http.put(url).header(CONTENT_TYPE, "application/octet-stream").body(bytes.to_vec());
        self.send(repository, put).await;
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Uploads a file of a model; returns its descriptor with its title.
    pub(crate) async fn push_file(&self, repository: &str, title: &str, bytes: &[u8]) -> Value {
        let mut layer = self.push(repository, "application/vnd.example.model", bytes).await;
        layer["annotations"] = json!({"org.opencontainers.image.title": title});
        layer
    }

    /// Uploads the manifest of an artifact and tags it; returns its descriptor.
    pub(crate) async fn tag(&self, repository: &str, tag: &str, layers: &[Value]) -> Value {
        let config = self.push(repository, "application/vnd.oci.empty.v1+json", b"{}").await;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example.model",
            "config": config, "layers": layers,
        });
        self.put_manifest(repository, tag, MANIFEST, &manifest).await
    }

    /// Uploads a manifest or an index under a tag; returns its descriptor.
    pub(crate) async fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, manifest: &Value) -> Value {
        let body = manifest.to_string();
        let digest = Digest::of(body.as_bytes());
        let size = body.len();
        let url = format!("http://127.0.0.1:{}/v2/{repository}/manifests/{tag}", self.port);
        self.send(repository, self.http.put(url).header(CONTENT_TYPE, media_type).body(body)).await;
        json!({"mediaType": media_type, "digest": digest, "size": size})
    }

    /// Changes what the registry has for a blob, behind its back.
    pub(crate) fn corrupt(&self, digest: &Digest, bytes: &[u8]) {
        let hex = digest.hex();
        let blob = format!("storage/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        std::fs::write(self.dir.path().join(blob), bytes).expect("the blob is there");
    }

    async fn send(&self, repository: &str, request: RequestBuilder) -> reqwest::Response {
        let request = match &self.auth {
            Auth::Nobody => request,
            Auth::Password => request.basic_auth(USER, Some(PASSWORD)),
            Auth::Token(service) => request.bearer_auth(service.token(repository, &["pull", "push"], 300)),
        };
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        if status.is_success() {
            return answer;
        }
        panic!("{status}: {}", answer.text().await.expect("a text"))
    }
}

fn listening(line: &str) -> Option<u16> {
    let (_, address) = line.split_once("listening on 127.0.0.1:")?;
    let end = address.find(|c: char| !c.is_ascii_digit())?;
    address[..end].parse().ok()
}
