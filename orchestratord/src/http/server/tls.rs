//! The server's certificate and its handshakes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, bail};
use config_schema::Server as Settings;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::protocol::Protocol;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The certificate of `server.tls_cert` and `server.tls_key`.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    handshake_timeout: Duration,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads and checks the files; `None` when the configuration names none.
    ///
    /// # Errors
    /// A file that cannot be read or holds the wrong thing, a key of another certificate, a certificate that has expired or
    /// is not valid yet.
    pub fn load(settings: &Settings) -> anyhow::Result<Option<Self>> {
        let (certificate, key) = match (&settings.tls_cert, &settings.tls_key) {
            (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
            (None, None) => return Ok(None),
            _ => bail!("server.tls_cert and server.tls_key go together; set both or neither"),
        };
        let current = RwLock::new(Arc::new(read(&certificate, &key)?));
        Ok(Some(Self { certificate, key, handshake_timeout: settings.tls_handshake_timeout(), current }))
    }

    /// Reads the files again; connections from now on get what they hold. After an error the old certificate stays.
    ///
    /// # Errors
    /// As [`Tls::load`].
    pub fn reload(&self) -> anyhow::Result<()> {
        let config = Arc::new(read(&self.certificate, &self.key)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Does the handshake. A client that offers HTTP/2 gets it.
    ///
    /// # Errors
    /// Whatever the client did wrong, and `TimedOut` when it was too slow.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Protocol)> {
        let config = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        let stream = tokio::time::timeout(self.handshake_timeout, TlsAcceptor::from(config).accept(stream)).await??;
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(HTTP2) => Protocol::Http2,
            _ => Protocol::Http1,
        };
        Ok((stream, protocol))
    }
}

fn read(certificate: &Path, key: &Path) -> anyhow::Result<ServerConfig> {
    let chain =
        certificates(certificate).with_context(|| format!("cannot use {} (server.tls_cert)", certificate.display()))?;
    let private = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("cannot read a private key in PEM form from {} (server.tls_key)", key.display()))?;
    let provider = Arc::new(ring::default_provider());
    check_dates(&chain[0], &provider)
        .with_context(|| format!("cannot use {} (server.tls_cert)", certificate.display()))?;
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, private).map_err(|error| {
        let files = format!("{} and {}", certificate.display(), key.display());
        match error {
            Error::InconsistentKeys(_) => anyhow::anyhow!(
                "{files} do not belong together; server.tls_key must name the private key of the first certificate in server.tls_cert"
            ),
            other => anyhow::Error::from(other).context(format!("cannot use {files}; make them anew")),
        }
    })?;
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Ok(config)
}

/// The chain, which has at least one certificate.
fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
    if chain.is_empty() {
        bail!("it holds no certificate in PEM form; it must hold the server's own, then those that vouch for it");
    }
    Ok(chain)
}

/// Refuses a certificate that no client would take today. Whom it names, and who vouches for it, is the clients' affair.
fn check_dates(certificate: &CertificateDer<'_>, provider: &CryptoProvider) -> anyhow::Result<()> {
    let parsed = ParsedCertificate::try_from(certificate).context("its first certificate cannot be parsed")?;
    let (nobody, algorithms) = (RootCertStore::empty(), provider.signature_verification_algorithms.all);
    // Without a trust anchor it always fails; the dates are looked at first.
    match verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, &[], UnixTime::now(), algorithms) {
        Err(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            bail!("the certificate has expired; renew it, or correct the clock")
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. })) => {
            bail!("the certificate is not valid yet; correct the clock")
        }
        _ => Ok(()),
    }
}
