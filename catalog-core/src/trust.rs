//! Whether a model may be used: registries, signatures, bills of materials (LO-CAT-13, LO-CAT-14, ORCH-3037.1).
//!
//! A signature is one over the text of the model's digest, `sha256:<64 hex>` without a newline, and its certificate leads to one
//! of the operator's roots. With OpenSSL:
//!
//! ```sh
//! # Once: a CA. ca.pem goes into catalog.trust_policy.ca_roots, ca.key into a safe.
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=models -keyout ca.key -out ca.pem
//! # Once for each signer: a certificate. signer.pem goes into `certificate`.
//! openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=signer -keyout signer.key -out signer.csr
//! printf basicConstraints=CA:FALSE > signer.ext
//! openssl x509 -req -in signer.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 -extfile signer.ext -out signer.pem
//! # For each model: what comes out goes into `signature`, and `ecdsa-p256-sha256` into `algo`.
//! printf %s sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 |
//!     openssl dgst -sha256 -sign signer.key | openssl base64 -A
//! ```

use api_types::{ModelSignature, TrustMode, TrustPolicy, VerificationOutcome};

use crate::{CatalogEntry, Verdict};

mod registry;
mod signature;

#[cfg(test)]
mod tests;

use signature::CaRoots;
pub use signature::RootsError;

/// What the operator and a request ask for. What an entry asks for is added when it is [judged](judge): the strictest wins.
#[derive(Clone, Debug)]
pub struct Trust {
    mode: TrustMode,
    allowed_registries: Vec<String>,
    require_signature: bool,
    require_sbom: bool,
    roots: CaRoots,
}

impl Trust {
    /// What the operator's configuration asks for. `ca_roots` hold certificates, PEM, and not the names of files.
    ///
    /// # Errors
    /// [`RootsError`] when one of `ca_roots` is none.
    pub fn configured(policy: &TrustPolicy) -> Result<Self, RootsError> {
        Ok(Self {
            mode: policy.mode,
            allowed_registries: policy.allowed_registries.clone(),
            require_signature: policy.require_signature,
            require_sbom: policy.require_sbom,
            roots: CaRoots::parse(&policy.ca_roots)?,
        })
    }

    /// The same, for a request that asks for strict trust.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { mode: TrustMode::Strict, ..self }
    }
}

/// Judges what is known about a model at a time, in milliseconds since the Unix epoch. Its files are not read; see
/// [`verify_files`](crate::verify_files) for them.
///
/// Strict trust fails a model without a valid signature, whether or not `require_signature` says so, without a bill of materials
/// where that is required, and one that comes from elsewhere than the allowed registries. Permissive trust warns of what is
/// required and missing. A digest that contradicts the registered files always fails; an absent one is warned of. A signature or
/// bill of materials that nobody requires and that is not there is among the findings, whatever the outcome.
///
/// A registry is `host` or `host/prefix` for URLs and OCI artifacts; `org`, `org/repo` or `huggingface.co/org` for the Hub; or a
/// reference or the beginning of one in whole parts, such as `hf:org`, `s3://bucket/folder` or `file:/srv/models`. Where a model
/// comes from is what its id says, and not its `source_url`.
#[must_use]
pub fn judge(entry: &CatalogEntry, trust: &Trust, now_ms: i64) -> Verdict {
    let own = entry.trust_policy.as_ref();
    let is_strict = [Some(trust.mode), own.map(|own| own.mode)].contains(&Some(TrustMode::Strict));
    let missing = if is_strict { VerificationOutcome::Fail } else { VerificationOutcome::Warn };
    // What nobody asks for is told, and changes nothing.
    let asked = |asked: bool| if asked { missing } else { VerificationOutcome::Pass };
    let mut verdict = digest(entry);
    for allowed in [Some(&trust.allowed_registries), own.map(|own| &own.allowed_registries)].into_iter().flatten() {
        if !allowed.is_empty() && !allowed.iter().any(|registry| registry::is_from(&entry.id, registry)) {
            let allowed = allowed.join(", ");
            verdict.add(missing, format!("it comes from none of the allowed registries, which are {allowed}"));
        }
    }
    if let Err(findings) = signatures(entry, trust, is_strict, now_ms) {
        // One that does not hold is worth a warning, whoever asked.
        let is_asked = is_strict
            || !entry.signatures.is_empty()
            || trust.require_signature
            || own.is_some_and(|own| own.require_signature);
        findings.into_iter().for_each(|finding| verdict.add(asked(is_asked), finding));
    }
    if entry.sbom.is_none() {
        let is_required = trust.require_sbom || own.is_some_and(|own| own.require_sbom);
        verdict.add(asked(is_required), "it has no SBOM".to_owned());
    }
    verdict
}

/// An entry's signatures, `verified` as found now and whatever was claimed before.
#[must_use]
pub fn checked_signatures(entry: &CatalogEntry, trust: &Trust, now_ms: i64) -> Vec<ModelSignature> {
    let check = |signature| signature::check(signature, entry, &trust.roots, now_ms).is_ok();
    entry.signatures.iter().map(|it| ModelSignature { verified: check(it), ..it.clone() }).collect()
}

fn digest(entry: &CatalogEntry) -> Verdict {
    let mut verdict = Verdict::pass();
    match (&entry.digest, CatalogEntry::manifest_digest(&entry.files)) {
        (None, _) => verdict.add(VerificationOutcome::Warn, "no digest is registered".to_owned()),
        (Some(digest), Some(found)) if *digest != found => verdict
            .add(VerificationOutcome::Fail, format!("its files have the digest {found} and {digest} is registered")),
        _ => {}
    }
    verdict
}

/// Whether one of the signatures holds; if not, why.
fn signatures(entry: &CatalogEntry, trust: &Trust, is_strict: bool, now_ms: i64) -> Result<(), Vec<String>> {
    let mut findings = Vec::new();
    if entry.signatures.is_empty() {
        findings.push("it is not signed".to_owned());
    }
    if trust.roots.is_empty() && (is_strict || !entry.signatures.is_empty()) {
        findings.push("no signature can be checked; name the roots in catalog.trust_policy.ca_roots".to_owned());
        return Err(findings);
    }
    for signature in &entry.signatures {
        match signature::check(signature, entry, &trust.roots, now_ms) {
            Ok(()) => return Ok(()),
            Err(error) => findings.push(format!("the signature of {} does not hold: {error}", signature.signer)),
        }
    }
    Err(findings)
}
