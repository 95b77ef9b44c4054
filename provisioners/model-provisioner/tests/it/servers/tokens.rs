//! A token service, such as registries send their clients to.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Gives tokens to whoever asks, or to one account only.
pub(crate) struct TokenService {
    port: u16,
    signer: Arc<Signer>,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

struct Signer {
    certificate: rcgen::Certificate,
    key: EcdsaKeyPair,
}

impl TokenService {
    pub(crate) const SERVICE: &str = "models \"and\" more";
    pub(crate) const ISSUER: &str = "the token service";

    /// Starts one whose tokens say they last `lasts` seconds, for `account` if there is one.
    pub(crate) async fn start(account: Option<(&'static str, &'static str)>, lasts: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let signer = Arc::new(Signer::new());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (shared, noted) = (Arc::clone(&signer), Arc::clone(&asked));
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                answer(client, &shared, &noted, account, lasts).await;
            }
        });
        Self { port, signer, asked, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.port)
    }

    pub(crate) fn certificate(&self) -> String {
        self.signer.certificate.pem()
    }

    /// A token without being asked.
    pub(crate) fn token(&self, repository: &str, actions: &[&str], lasts: u64) -> String {
        self.signer.token(repository, actions, lasts)
    }

    /// The heads of all requests so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no holder panics").clone()
    }
}

impl Drop for TokenService {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Signer {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec!["tokens".to_owned()]).expect("names").self_signed(&key);
        let random = SystemRandom::new();
        let pkcs8 = key.serialize_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random).expect("a key");
        Self { certificate: certificate.expect("a certificate"), key }
    }

    fn token(&self, repository: &str, actions: &[&str], lasts: u64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970").as_secs();
        let head = json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(self.certificate.der())]});
        let claims = json!({
            "iss": TokenService::ISSUER, "sub": "", "aud": TokenService::SERVICE, "jti": "1",
            "iat": now, "nbf": now - 60, "exp": now + lasts,
            "access": [{"type": "repository", "name": repository, "actions": actions}],
        });
        let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encoded(&head), encoded(&claims));
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).expect("a signature");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

async fn answer(
    mut client: TcpStream,
    signer: &Signer,
    asked: &Mutex<Vec<String>>,
    account: Option<(&str, &str)>,
    lasts: u64,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).expect("a text");
    let target = head.split(' ').nth(1).expect("a request line");
    let url: url::Url = format!("http://tokens{target}").parse().expect("a URL");
    let scope = url.query_pairs().find(|(name, _)| name == "scope").expect("a scope").1.into_owned();
    let service = url.query_pairs().find(|(name, _)| name == "service").expect("a service").1.into_owned();
    assert_eq!(service, TokenService::SERVICE);
    asked.lock().expect("no holder panics").push(head.clone());
    let wanted = account.map(|(user, password)| {
        format!("\r\nauthorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")))
    });
    let (status, body) = if wanted.is_none_or(|wanted| head.contains(&wanted)) {
        let repository = scope.split(':').nth(1).expect("a repository");
        ("200 OK", json!({"token": signer.token(repository, &["pull"], lasts.max(60)), "expires_in": lasts}))
    } else {
        ("401 Unauthorized", json!({"details": "incorrect username or password"}))
    };
    let body = body.to_string();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = client.write_all(answer.as_bytes()).await;
}
