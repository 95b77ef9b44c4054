//! Signatures by certificates made here.

use api_types::{ModelSignature, Sbom, TrustMode, TrustPolicy, VerificationOutcome};
use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SigningKey as _,
    date_time_ymd,
};

use super::{Trust, checked_signatures, judge};
use crate::{CatalogEntry, Digest, StoredFile};

/// 2030-01-01.
const NOW: i64 = 1_893_456_000_000;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    named_ca("models")
}

fn named_ca(name: &str) -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// A certificate's key and PEM.
fn signer(ca: &Ca, params: &CertificateParams, key: KeyPair) -> (KeyPair, String) {
    let certificate = params.signed_by(&key, ca).expect("a certificate");
    (key, certificate.pem())
}

fn plain_signer(ca: &Ca) -> (KeyPair, String) {
    signer(ca, &CertificateParams::default(), KeyPair::generate().expect("a key"))
}

fn sign((key, certificate): &(KeyPair, String), algo: &str, text: &str) -> ModelSignature {
    let bytes = key.sign(text.as_bytes()).expect("it signs");
    ModelSignature {
        signer: "acme".to_owned(),
        algo: algo.to_owned(),
        verified: false,
        timestamp_ms: 0,
        signature: Some(base64::engine::general_purpose::STANDARD.encode(bytes)),
        certificate: Some(certificate.clone()),
    }
}

fn entry(signatures: Vec<ModelSignature>) -> CatalogEntry {
    let sbom = Sbom { uri: "https://models.example/sbom".to_owned(), digest: Digest::of(b"sbom").to_string() };
    CatalogEntry {
        digest: Some(Digest::of(b"model")),
        sbom: Some(sbom),
        signatures,
        ..CatalogEntry::new("hf:acme/model/model.gguf".into(), 0)
    }
}

fn policy(mode: TrustMode, roots: &[&Ca]) -> TrustPolicy {
    TrustPolicy {
        mode,
        allowed_registries: Vec::new(),
        require_signature: false,
        require_sbom: false,
        ca_roots: roots.iter().map(|root| root.pem()).collect(),
    }
}

fn trust(mode: TrustMode, roots: &[&Ca]) -> Trust {
    Trust::configured(&policy(mode, roots)).expect("they are roots")
}

/// The outcome and all findings as one text.
fn judged(entry: &CatalogEntry, trust: &Trust) -> (VerificationOutcome, String) {
    let verdict = judge(entry, trust, NOW);
    (verdict.outcome, verdict.findings.join("; "))
}

fn good(ca: &Ca) -> ModelSignature {
    sign(&plain_signer(ca), "ecdsa-p256-sha256", Digest::of(b"model").as_str())
}

/// Fails when strict, and warns when permissive where there is a signature, each time for this reason.
fn refused(entry: &CatalogEntry, roots: &[&Ca], why: &str) {
    let (outcome, findings) = judged(entry, &trust(TrustMode::Strict, roots));
    assert_eq!(outcome, VerificationOutcome::Fail, "{findings}");
    assert!(findings.contains(why), "{findings}");
    let (outcome, findings) = judged(entry, &trust(TrustMode::Permissive, roots));
    let told = if entry.signatures.is_empty() { VerificationOutcome::Pass } else { VerificationOutcome::Warn };
    assert_eq!(outcome, told, "{findings}");
    assert!(findings.contains(why), "{findings}");
    assert!(checked_signatures(entry, &trust(TrustMode::Strict, roots), NOW).iter().all(|it| !it.verified));
}

/// LO-CAT-13, LO-CAT-14: a signature that leads to a configured root holds, with each algorithm and through an intermediate.
#[test]
fn a_good_signature_holds() {
    let root = ca();
    let text = Digest::of(b"model").to_string();
    let algorithms = [
        ("ecdsa-p256-sha256", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("ecdsa-p384-sha384", &rcgen::PKCS_ECDSA_P384_SHA384),
        ("ed25519", &rcgen::PKCS_ED25519),
    ];
    for (algo, algorithm) in algorithms {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let signature = sign(&signer(&root, &CertificateParams::default(), key), algo, &text);
        let entry = entry(vec![signature]);
        let verdict = judged(&entry, &trust(TrustMode::Strict, &[&ca(), &root]));
        assert_eq!(verdict, (VerificationOutcome::Pass, String::new()), "{algo}");
        assert!(checked_signatures(&entry, &trust(TrustMode::Strict, &[&root]), NOW)[0].verified);
    }

    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "department");
    let key = KeyPair::generate().expect("a key");
    let between = CertifiedIssuer::signed_by(params, key, &root).expect("a certificate");
    let mut signature = good(&between);
    let chain = format!("{}{}", signature.certificate.expect("it has one"), between.pem());
    signature.certificate = Some(chain);
    assert_eq!(judged(&entry(vec![signature]), &trust(TrustMode::Strict, &[&root])).0, VerificationOutcome::Pass);
}

/// LO-CAT-14: what does not hold is refused for its reason.
#[test]
fn a_bad_signature_does_not_hold() {
    let root = ca();
    let certified = plain_signer(&root);
    let text = Digest::of(b"model").to_string();
    refused(&entry(vec![good(&ca())]), &[&root], "leads to none of the roots in catalog.trust_policy.ca_roots");
    refused(
        &entry(vec![good(&named_ca("other"))]),
        &[&root],
        "leads to none of the roots in catalog.trust_policy.ca_roots",
    );
    refused(&entry(vec![good(&root)]), &[], "name the roots in catalog.trust_policy.ca_roots");
    let other = sign(&certified, "ecdsa-p256-sha256", Digest::of(b"other").as_str());
    refused(&entry(vec![other]), &[&root], "over something else");
    refused(&entry(vec![sign(&certified, "ed25519", &text)]), &[&root], "another kind than ed25519");
    refused(&entry(vec![sign(&certified, "md5", &text)]), &[&root], "algorithm md5 is not known");
    let without = ModelSignature { signature: None, ..good(&root) };
    refused(&entry(vec![without]), &[&root], "it has no bytes");
    let without = ModelSignature { certificate: None, ..good(&root) };
    refused(&entry(vec![without]), &[&root], "it has no certificate");
    let garbled = ModelSignature { signature: Some("?".to_owned()), ..good(&root) };
    refused(&entry(vec![garbled]), &[&root], "not base64");
    let claimed = ModelSignature { verified: true, signature: None, ..good(&root) };
    refused(&entry(vec![claimed]), &[&root], "it has no bytes");
    refused(&entry(Vec::new()), &[&root], "it is not signed");
    let no_digest = CatalogEntry { digest: None, ..entry(vec![good(&root)]) };
    refused(&no_digest, &[&root], "no digest is registered");
}

/// LO-CAT-14: a certificate counts in its time only, and only for what it is for.
#[test]
fn a_certificate_has_a_time_and_a_purpose() {
    let root = ca();
    let text = Digest::of(b"model").to_string();
    let with = |change: fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        change(&mut params);
        let signer = signer(&root, &params, KeyPair::generate().expect("a key"));
        entry(vec![sign(&signer, "ecdsa-p256-sha256", &text)])
    };
    refused(&with(|params| params.not_after = date_time_ymd(2029, 1, 1)), &[&root], "has expired");
    refused(&with(|params| params.not_before = date_time_ymd(2031, 1, 1)), &[&root], "not valid yet");
    let server = with(|params| params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth));
    refused(&server, &[&root], "cannot be used");
    let code = with(|params| params.insert_extended_key_usage(ExtendedKeyUsagePurpose::CodeSigning));
    assert_eq!(judged(&code, &trust(TrustMode::Strict, &[&root])).0, VerificationOutcome::Pass);
    let by_ca = sign(&(KeyPair::generate().expect("a key"), root.pem()), "ecdsa-p256-sha256", &text);
    refused(&entry(vec![by_ca]), &[&root], "one of a CA");
}

/// LO-CAT-13: the strictest of configuration, entry and request wins, and one good signature is enough.
#[test]
fn the_strictest_wins() {
    let root = ca();
    let unsigned = entry(Vec::new());
    let permissive = trust(TrustMode::Permissive, &[&root]);
    assert_eq!(judged(&unsigned, &permissive), (VerificationOutcome::Pass, "it is not signed".to_owned()));
    let asking = TrustPolicy { require_signature: true, ..policy(TrustMode::Permissive, &[&root]) };
    let asking = Trust::configured(&asking).expect("they are roots");
    assert_eq!(judged(&unsigned, &asking).0, VerificationOutcome::Warn);
    assert_eq!(judged(&unsigned, &permissive.clone().strict()).0, VerificationOutcome::Fail);
    let own = CatalogEntry { trust_policy: Some(policy(TrustMode::Strict, &[])), ..unsigned.clone() };
    assert_eq!(judged(&own, &permissive).0, VerificationOutcome::Fail);
    let own = CatalogEntry { trust_policy: Some(policy(TrustMode::Permissive, &[])), ..unsigned };
    assert_eq!(judged(&own, &trust(TrustMode::Strict, &[&root])).0, VerificationOutcome::Fail);
    let signed = entry(vec![good(&ca()), good(&root)]);
    assert_eq!(judged(&signed, &permissive.strict()), (VerificationOutcome::Pass, String::new()));
}

/// LO-CAT-14: the roots of an entry narrow those of the operator and cannot replace them.
#[test]
fn an_entry_cannot_bring_its_own_roots() {
    let (root, own_root) = (ca(), ca());
    let own = |signer: &Ca| CatalogEntry {
        trust_policy: Some(policy(TrustMode::Strict, &[&own_root])),
        ..entry(vec![good(signer)])
    };
    let (outcome, findings) = judged(&own(&own_root), &trust(TrustMode::Strict, &[&root]));
    assert!(outcome == VerificationOutcome::Fail && findings.contains("catalog.trust_policy.ca_roots"), "{findings}");
    let (outcome, findings) = judged(&own(&root), &trust(TrustMode::Strict, &[&root]));
    assert!(outcome == VerificationOutcome::Fail && findings.contains("own trust policy"), "{findings}");
    assert_eq!(judged(&own(&own_root), &trust(TrustMode::Strict, &[&root, &own_root])).0, VerificationOutcome::Pass);
}

/// LO-CAT-14, ORCH-3037.1: a missing SBOM and a foreign registry fail when strict and are warned of otherwise.
#[test]
fn registries_and_sboms_are_enforced() {
    let root = ca();
    let judged_with = |mode, change: &dyn Fn(&mut TrustPolicy), entry: &CatalogEntry| {
        let mut policy = policy(mode, &[&root]);
        change(&mut policy);
        judged(entry, &Trust::configured(&policy).expect("they are roots"))
    };
    let signed = entry(vec![good(&root)]);
    let bare = CatalogEntry { sbom: None, ..signed.clone() };
    let need_sbom = |policy: &mut TrustPolicy| policy.require_sbom = true;
    let elsewhere = |policy: &mut TrustPolicy| policy.allowed_registries = vec!["ghcr.io".to_owned()];
    let here = |policy: &mut TrustPolicy| policy.allowed_registries = vec!["ghcr.io".to_owned(), "acme".to_owned()];
    use TrustMode::{Permissive, Strict};
    use VerificationOutcome::{Fail, Pass, Warn};
    assert_eq!(judged_with(Strict, &|_| {}, &bare), (Pass, "it has no SBOM".to_owned()));
    assert_eq!(judged_with(Strict, &need_sbom, &bare).0, Fail);
    assert_eq!(judged_with(Permissive, &need_sbom, &bare).0, Warn);
    assert_eq!(judged_with(Strict, &need_sbom, &signed).0, Pass);
    assert_eq!(judged_with(Strict, &elsewhere, &signed).0, Fail);
    assert_eq!(judged_with(Permissive, &elsewhere, &signed).0, Warn);
    assert_eq!(judged_with(Strict, &here, &signed).0, Pass);
    let mut own = policy(Permissive, &[]);
    own.allowed_registries = vec!["other".to_owned()];
    let narrowed = CatalogEntry { trust_policy: Some(own), ..signed };
    assert_eq!(judged_with(Strict, &here, &narrowed).0, Fail);
}

/// ORCH-3037.3: a digest that contradicts the files fails however permissive trust is; an absent one is warned of.
#[test]
fn a_contradicting_digest_always_fails() {
    let root = ca();
    let file = |bytes: &[u8]| StoredFile { name: "model.gguf".to_owned(), size_bytes: 5, digest: Digest::of(bytes) };
    let permissive = trust(TrustMode::Permissive, &[&root]);
    let wrong = CatalogEntry { files: vec![file(b"other")], ..entry(vec![good(&root)]) };
    assert_eq!(judged(&wrong, &permissive).0, VerificationOutcome::Fail);
    let right = CatalogEntry { files: vec![file(b"model")], ..wrong };
    assert_eq!(judged(&right, &permissive).0, VerificationOutcome::Pass);
    let absent = CatalogEntry { digest: None, ..right };
    assert_eq!(judged(&absent, &permissive).0, VerificationOutcome::Warn);
}

/// LO-CAT-14: what is no root is refused where roots are read.
#[test]
fn roots_have_to_be_certificates() {
    let mut policy = policy(TrustMode::Strict, &[&ca()]);
    policy.ca_roots.push("/etc/ssl/ca.pem".to_owned());
    assert_eq!(Trust::configured(&policy).map(|_| ()).map_err(|error| error.index), Err(1));
}

/// LO-CAT-14: what the module's documentation tells an operator to do gives signatures that hold.
#[test]
fn openssl_signs_as_documented() {
    if std::process::Command::new("openssl").arg("version").output().is_err() {
        eprintln!("skipped: there is no openssl");
        return;
    }
    let documented = include_str!("../trust.rs").split("```").nth(1).expect("a script").replace("//!", "");
    let script = documented.strip_prefix("sh").expect("a script");
    let dir = tempfile::tempdir().expect("a folder");
    let output =
        std::process::Command::new("sh").args(["-ec", script]).current_dir(dir.path()).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |name| std::fs::read_to_string(dir.path().join(name)).expect("it is written");
    let signature = ModelSignature {
        signature: Some(String::from_utf8(output.stdout).expect("it is base64")),
        certificate: Some(read("signer.pem")),
        ..good(&ca())
    };
    let digest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".parse().expect("a digest");
    let entry = CatalogEntry { digest: Some(digest), ..entry(vec![signature]) };
    let policy = TrustPolicy { ca_roots: vec![read("ca.pem")], ..policy(TrustMode::Strict, &[]) };
    let trust = Trust::configured(&policy).expect("they are roots");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is later");
    let verdict = judge(&entry, &trust, i64::try_from(now.as_millis()).expect("it fits"));
    assert_eq!((verdict.outcome, verdict.findings), (VerificationOutcome::Pass, Vec::new()));
}
