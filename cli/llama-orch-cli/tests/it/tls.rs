//! Servers with a certificate of one's own authority.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::command::{cli, command, finish};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 12\r\n\r\n{\"pools\":[]}";

/// An authority's certificate in PEM form, and a server's side of TLS with a certificate of that authority.
fn authority() -> (String, TlsAcceptor) {
    let (key, mut params) = (KeyPair::generate().expect("a key"), CertificateParams::default());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).expect("signed").pem();
    let own = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    let certificate = certificate.signed_by(&own, &Issuer::new(params, key)).expect("signed");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(own.serialize_der()).into())
        .expect("they fit");
    (root, TlsAcceptor::from(Arc::new(config)))
}

/// LO-CLI-02, LO-CLI-03: SSL_CERT_FILE makes a private authority trusted; without it the remedy is told.
#[tokio::test]
async fn a_private_authority_is_trusted_when_named() {
    let (root, acceptor) = authority();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("bound"));
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(ANSWER).await;
            let _ = stream.shutdown().await;
        }
    });
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), root).expect("written");
    let mut trusting = command(&url, &["pools", "--json"]);
    trusting.env("SSL_CERT_FILE", file.path());
    let ended = finish(trusting, "").await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let ended = cli(&url, &["pools"]).await;
    assert_eq!(ended.code, 3);
    assert!(ended.err.contains("SSL_CERT_FILE"), "{}", ended.err);
    serving.abort();
}
