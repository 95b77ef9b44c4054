//! Encryption towards engines behind `https://`.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::TlsConnector;

use crate::endpoint::{Endpoint, Target};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// The given certificates are not PEM.
    #[error("the certificates to trust are not in pem form")]
    Pem,
    /// The host is neither a DNS name nor an IP address.
    #[error("the engine's host cannot be checked against a certificate")]
    ServerName,
    /// TLS itself refuses.
    #[error("tls cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// What a handshake needs.
pub(super) struct Tls {
    pub(super) connector: TlsConnector,
    pub(super) name: ServerName<'static>,
}

impl Tls {
    pub(super) fn new(endpoint: &Endpoint, ca_pem: Option<&[u8]>) -> Result<Self, TlsSetupError> {
        let Target::Tcp { host, .. } = endpoint.target() else { return Err(TlsSetupError::ServerName) };
        let name = ServerName::try_from(host.clone()).map_err(|_| TlsSetupError::ServerName)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = match ca_pem {
            None => builder.with_platform_verifier()?.with_no_client_auth(),
            Some(pem) => builder.with_root_certificates(roots(pem)?).with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, TlsSetupError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|_| TlsSetupError::Pem)?)?;
    }
    if roots.is_empty() { Err(TlsSetupError::Pem) } else { Ok(roots) }
}
