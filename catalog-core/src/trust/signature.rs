//! Checking one signature.

use std::time::Duration;

use api_types::ModelSignature;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, ring};

use crate::{CatalogEntry, Digest};

/// `id-kp-codeSigning`, which a certificate has to allow if it says what it is for. RFC 5280, section 4.2.1.12.
const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];

/// Certificates that signatures must lead to.
#[derive(Clone, Debug)]
pub(super) struct CaRoots(Vec<TrustAnchor<'static>>);

/// A text is no root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("root {} holds no certificate in PEM, `-----BEGIN CERTIFICATE-----` and so on", index + 1)]
pub struct RootsError {
    /// Which of the texts, counted from 0.
    pub index: usize,
}

/// Why a signature does not hold.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignatureError {
    #[error("no digest is registered that it could be over")]
    NoDigest,
    #[error("it has no bytes; give `signature`, in base64")]
    NoBytes,
    #[error("it has no certificate; give `certificate`, in PEM")]
    NoCertificate,
    #[error("`signature` is not base64")]
    Base64,
    #[error("`certificate` is not PEM")]
    Pem,
    #[error("its algorithm {0} is not known; use ecdsa-p256-sha256, ecdsa-p384-sha384, ed25519 or rsa-pkcs1-sha256")]
    UnknownAlgorithm(String),
    #[error("its certificate has expired")]
    Expired,
    #[error("its certificate is not valid yet")]
    NotValidYet,
    #[error("its certificate leads to none of the roots in catalog.trust_policy.ca_roots")]
    UnknownIssuer,
    #[error("its certificate leads to none of the roots that the model's own trust policy names")]
    UnknownToOwner,
    #[error("its certificate is one of a CA; sign with one that the CA issued")]
    CaCertificate,
    #[error("its key is of another kind than {0}")]
    OtherKey(String),
    #[error("it is over something else than the registered digest, or by another key than the certificate's")]
    Wrong,
    #[error("its certificate cannot be used: {0}")]
    Certificate(webpki::Error),
}

impl CaRoots {
    /// Reads roots, one or more certificates in each text, PEM.
    pub(super) fn parse(texts: &[String]) -> Result<Self, RootsError> {
        let mut anchors = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let found = certificates(text).map_err(|_| RootsError { index })?;
            for certificate in &found {
                let anchor = webpki::anchor_from_trusted_cert(certificate).map_err(|_| RootsError { index })?;
                anchors.push(anchor.to_owned());
            }
        }
        Ok(Self(anchors))
    }

    /// Whether there is none, so that no signature can hold.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Checks that a signature is over the entry's digest, by a key that the operator's roots vouch for now. The roots that the
/// entry's own policy names have to vouch for it as well: they narrow, and never widen, what the operator trusts.
pub(super) fn check(
    signature: &ModelSignature,
    entry: &CatalogEntry,
    roots: &CaRoots,
    now_ms: i64,
) -> Result<(), SignatureError> {
    let digest = entry.digest.as_ref().ok_or(SignatureError::NoDigest)?;
    let chain = certificates(signature.certificate.as_deref().ok_or(SignatureError::NoCertificate)?)?;
    let (signer, intermediates) = chain.split_first().ok_or(SignatureError::Pem)?;
    let signer = EndEntityCert::try_from(signer).map_err(SignatureError::Certificate)?;
    let leads_to = |roots: &CaRoots| {
        let now = UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(now_ms).unwrap_or(0)));
        let usage = KeyUsage::required_if_present(CODE_SIGNING);
        signer.verify_for_usage(ALL_VERIFICATION_ALGS, &roots.0, intermediates, now, usage, None, None).map(|_| ())
    };
    leads_to(roots).map_err(untrusted)?;
    let own = entry.trust_policy.as_ref().map(|own| own.ca_roots.as_slice()).unwrap_or_default();
    if !own.is_empty() {
        let own = CaRoots::parse(own).map_err(|_| SignatureError::UnknownToOwner)?;
        leads_to(&own).map_err(|_| SignatureError::UnknownToOwner)?;
    }
    is_over(&signer, signature, digest)
}

fn is_over(signer: &EndEntityCert<'_>, signature: &ModelSignature, digest: &Digest) -> Result<(), SignatureError> {
    let algorithm = algorithm(&signature.algo)?;
    let text = signature.signature.as_deref().ok_or(SignatureError::NoBytes)?;
    let text: String = text.split_ascii_whitespace().collect();
    let bytes = STANDARD.decode(text).map_err(|_| SignatureError::Base64)?;
    signer.verify_signature(algorithm, digest.as_str().as_bytes(), &bytes).map_err(|error| match error {
        webpki::Error::InvalidSignatureForPublicKey => SignatureError::Wrong,
        _ => SignatureError::OtherKey(signature.algo.clone()),
    })
}

fn algorithm(name: &str) -> Result<&'static dyn SignatureVerificationAlgorithm, SignatureError> {
    match name {
        "ecdsa-p256-sha256" => Ok(ring::ECDSA_P256_SHA256),
        "ecdsa-p384-sha384" => Ok(ring::ECDSA_P384_SHA384),
        "ed25519" => Ok(ring::ED25519),
        "rsa-pkcs1-sha256" => Ok(ring::RSA_PKCS1_2048_8192_SHA256),
        _ => Err(SignatureError::UnknownAlgorithm(name.to_owned())),
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, SignatureError> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|_| SignatureError::Pem)?;
    if found.is_empty() { Err(SignatureError::Pem) } else { Ok(found) }
}

fn untrusted(error: webpki::Error) -> SignatureError {
    match error {
        webpki::Error::CertExpired { .. } => SignatureError::Expired,
        webpki::Error::CertNotValidYet { .. } => SignatureError::NotValidYet,
        // The second: a root of the same name has another key.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => SignatureError::UnknownIssuer,
        webpki::Error::CaUsedAsEndEntity => SignatureError::CaCertificate,
        error => SignatureError::Certificate(error),
    }
}
