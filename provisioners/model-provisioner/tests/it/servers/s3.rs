//! moto's S3, with signatures checked by botocore.

use std::process::Command;
use std::time::Duration;

use reqwest::{Client, Response};
use rusty_s3::actions::{CreateBucket, PutObject};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Killed, program, start};
use crate::support::Setup;

/// The Python that has moto.
const PYTHON: &str = "LLAMA_ORCH_S3_PYTHON";
/// The accounts and the region that `s3.py` knows.
pub(crate) const KEY: &str = "AKIATESTACCOUNT";
pub(crate) const SECRET: &str = "secret/of+the=account";
pub(crate) const TEMPORARY: [&str; 3] = ["ASIATEMPORARY", "temporary/secret", "session+token/of=it"];
/// What must never be seen.
pub(crate) const SECRETS: [&str; 6] =
    [KEY, SECRET, "temporary/secret", "session+token/of=it", "X-Amz-Signature", "session%2Btoken"];
const REGION: &str = "eu-west-1";

/// A running S3 service.
pub(crate) struct S3Server {
    pub(crate) port: u16,
    http: Client,
    _process: Killed,
    _dir: TempDir,
}

impl S3Server {
    /// Starts one; `None` where none is installed.
    pub(crate) async fn start() -> Option<Self> {
        let python = program(PYTHON)?;
        let dir = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(python);
        command.args(["-c", include_str!("s3.py")]).env_clear().env("MOTO_S3_DEFAULT_MAX_KEYS", "10");
        let (process, port) = start(&mut command, &dir.path().join("log"), |line| line.trim().parse().ok()).await;
        http_util::install_crypto();
        Some(Self { port, http: Client::new(), _process: process, _dir: dir })
    }

    /// A fetcher's setup with the service at `port`, for whoever has these credentials.
    pub(crate) fn setup(port: u16, credentials: &[&str]) -> Setup {
        let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
        let setup =
            Setup::new().env("AWS_ENDPOINT_URL_S3", format!("http://127.0.0.1:{port}")).env("AWS_REGION", REGION);
        names.into_iter().zip(credentials).fold(setup, |setup, (name, value)| setup.env(name, *value))
    }

    /// Makes a bucket.
    pub(crate) async fn make_bucket(&self, name: &str) {
        let action_url = CreateBucket::new(&self.bucket(name), &account()).sign(Duration::from_secs(60));
        let body = format!(
            "<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
        );
        good(self.http.put(action_url).body(body).send().await).await;
    }

    /// Puts an object, with headers such as its access rights.
    pub(crate) async fn put(&self, bucket: &str, key: &str, bytes: &[u8], headers: &[(&'static str, &str)]) {
        let (bucket, account) = (self.bucket(bucket), account());
        let mut action = PutObject::new(&bucket, Some(&account), key);
        for (name, value) in headers {
            action.headers_mut().insert(*name, *value);
        }
        let mut request = self.http.put(action.sign(Duration::from_secs(60))).body(bytes.to_vec());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        good(request.send().await).await;
    }

    /// Puts an object whose name no URL could have.
    pub(crate) async fn put_raw(&self, bucket: &str, key: &str, bytes: &[u8]) {
        let escaped: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let head = format!(
            "PUT /{bucket}/{escaped} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            self.port,
            bytes.len()
        );
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).await.expect("it listens");
        connection.write_all(&[head.as_bytes(), bytes].concat()).await.expect("it reads");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    fn bucket(&self, name: &str) -> Bucket {
        let endpoint = format!("http://127.0.0.1:{}", self.port).parse().expect("a URL");
        Bucket::new(endpoint, UrlStyle::Path, name.to_owned(), REGION).expect("a bucket")
    }
}

fn account() -> Credentials {
    Credentials::new(KEY, SECRET)
}

async fn good(answer: reqwest::Result<Response>) {
    let answer = answer.expect("an answer");
    let status = answer.status();
    assert!(status.is_success(), "{status}: {}", answer.text().await.expect("a text"));
}
